"""Our part of a checkpoint: written beside TRL's, whole or not at all, and taken up again on resume."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers.trainer_utils import rotate_checkpoints

from qredit.core.objective import Objective
from qredit.trl import checkpoint, resume
from qredit.trl.config import QreditConfig
from qredit.trl.guard import Guard
from qredit.trl.guide import Guide
from qredit.trl.resume import GUARD, GUIDE
from qredit.trl.step.whole_step import Generation, StageState
from qredit.utils.errors import QreditError
from qredit.utils.whole import refusing

_log = get_logger(__name__)


class Saved(Protocol):
    """What of a trainer a checkpoint holds, and what writing it needs.

    Attributes:
        _step: micro-batches done.
        _evaluated: the optimiser step of the last evaluation, and its batches.
    """

    args: QreditConfig
    accelerator: Accelerator
    state: Any
    objective: Objective
    stages: StageState
    guide: Guide | None
    guard: Guard | None
    _step: int
    _evaluated: tuple[int, int]
    _generation: Generation | None
    _metrics: dict[str, dict[str, list[float]]]

    @property
    def inside_generation(self) -> bool: ...


class Saving:
    """Writes and restores a trainer.

    Attributes:
        writing_to: the folder that checkpoints go to while one is written; None at other times.
    """

    def __init__(self, run: Saved) -> None:
        self.run = run
        self.writing_to: Path | None = None

    def restore(self, wanted: str | bool) -> Path:
        """Go on from a checkpoint, as far as it is not TRL's; True is the newest whole one of the output folder.

        Raises:
            QreditError: no whole checkpoint to resume from, the one named is torn, or is none of this objective's.
        """
        found = self._checkpoint_to_resume(wanted)
        self._restore(found)
        return found

    @contextmanager
    def aside(self, folder: Path) -> Iterator[None]:
        """While TRL writes its checkpoint, `writing_to` is set and nothing is pushed; then it is made whole.

        Args:
            folder: where the checkpoint will stand.
        """
        accelerator, args, state = self.run.accelerator, self.run.args, self.run.state
        self.writing_to = folder.parent / checkpoint.WRITING
        written = self.writing_to / folder.name
        if accelerator.is_main_process:
            shutil.rmtree(self.writing_to, ignore_errors=True)
        accelerator.wait_for_everyone()
        pushed, args.push_to_hub = args.push_to_hub, False
        try:
            with refusing(folder):
                yield
        finally:
            self.writing_to, args.push_to_hub = None, pushed
        with refusing(folder):
            self._save(written, folder.parent)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with refusing(folder):
                checkpoint.publish(written, folder)
            rotate_checkpoints(str(folder.parent), args.save_total_limit, state.best_model_checkpoint, use_mtime=True)
        accelerator.wait_for_everyone()

    def _checkpoint_to_resume(self, wanted: str | bool) -> Path:
        if isinstance(wanted, str):
            reason = checkpoint.fault(Path(wanted))
            if reason is not None:
                raise QreditError(f"checkpoint {wanted} cannot be resumed: {reason}")
            return Path(wanted)
        output = self.run.args.output_dir
        found, torn = checkpoint.newest_whole(Path(output))
        for name, reason in torn.items():
            _log.warning(f"skipping {name}: {reason}")
        if found is None:
            raise QreditError(f"no whole checkpoint in {output} to resume from")
        return found

    def _restore(self, folder: Path) -> None:
        run, state = self.run, resume.load_state(folder)
        if state is None:
            raise QreditError(f"{folder} was not written by this trainer; give its weights as the model instead")
        if state["objective"] != str(run.objective):
            raise QreditError(f"{folder} was trained with {state['objective']}, not with {run.objective}")
        run._step = state["step"]
        run._evaluated = tuple(state["evaluated"])
        run.stages.state, run.stages.pending = state["objective_state"], state["pending_statistics"]
        for name, values in state["metrics"].items():
            run._metrics["train"][name] = values
        for key, guidance in self._guidance():
            if key in state:
                guidance.restore(state[key])
        path = folder / resume.rollouts_file(run.accelerator.process_index)
        run._generation = resume.load_generation(path, run.accelerator.device)

    def _guidance(self) -> list[tuple[str, Guide | Guard]]:
        """What steers the run, each under its key in the file."""
        both = ((GUIDE, self.run.guide), (GUARD, self.run.guard))
        return [(key, guidance) for key, guidance in both if guidance is not None]

    def _save(self, written: Path, output: Path) -> None:
        """Write our files; and the best checkpoint under the name it will have."""
        run = self.run
        if run.inside_generation and run._generation is not None:
            resume.save_generation(written / resume.rollouts_file(run.accelerator.process_index), run._generation)
        if run.accelerator.is_main_process:
            best = run.state.best_global_step
            if best and ((output / f"checkpoint-{best}").exists() or best == run.state.global_step):
                run.state.best_model_checkpoint = str(output / f"checkpoint-{best}")
                run.state.save_to_json(str(written / "trainer_state.json"))
            state = {
                "step": run._step,
                "evaluated": run._evaluated,
                "objective": str(run.objective),
                "expansion": run.objective.expansion,
                "objective_state": run.stages.state,
                "pending_statistics": run.stages.pending,
                "metrics": dict(run._metrics["train"]),
                **{key: guidance.state() for key, guidance in self._guidance()},
            }
            resume.save_state(written, state)
