"""Our part of a checkpoint: written beside TRL's, whole or not at all, and taken up again on resume."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import TrainerState
from transformers.trainer_utils import rotate_checkpoints
from trl import DPOConfig, SFTConfig

from qredit.engine import checkpoint
from qredit.engine.run_state import collect_state, load_state, restore_parts, save_state
from qredit.trl.config import QreditConfig
from qredit.utils.atomic_files import report_write_errors
from qredit.utils.errors import QreditError
from qredit.utils.stateful import Stateful

_log = get_logger(__name__)


@cache
def read_tensors_on_any_cpu() -> None:
    """Let `torch.load` put tensors on `cpu:0`, as accelerate names a rank's CPU: it knows `cpu` alone, and refuses."""

    def take(storage: Any, location: str) -> Any:
        return storage if location.startswith("cpu:") else None

    torch.serialization.register_package(50, lambda storage: None, take)


class Checkpointer:
    """Writes and restores the parts of a run.

    Args:
        objective: what the run learns, in words; a checkpoint of anything else is refused.
        expansion: the same in full.
        parts: kept in one file, as the main process has them.
        own: what each process keeps, each in a file of its own; none is written while its state is empty.

    Attributes:
        staging_folder: the folder that checkpoints go to while one is written; None at other times.
        missing_parts: names of the parts that the checkpoint held nothing of, which the run was resumed from.
    """

    def __init__(
        self,
        args: QreditConfig | SFTConfig | DPOConfig,
        accelerator: Accelerator,
        objective: str,
        expansion: str,
        parts: Sequence[Stateful],
        own: Sequence[Stateful],
    ) -> None:
        self.args, self.accelerator = args, accelerator
        self.objective, self.expansion = objective, expansion
        self.parts, self.own = parts, own
        self.staging_folder: Path | None = None
        self.missing_parts: list[str] = []

    def restore(self, wanted: str | bool) -> Path:
        """Go on from a checkpoint, as far as it is not TRL's; True is the newest whole one of the output folder.

        Raises:
            QreditError: no whole checkpoint to resume from, the one named is torn, or is none of this objective's.
        """
        found = self._checkpoint_to_resume(wanted)
        self._restore(found)
        return found

    @contextmanager
    def write_atomically(self, folder: Path, state: TrainerState) -> Iterator[None]:
        """While TRL writes its checkpoint, `staging_folder` is set and nothing is pushed; then it is made whole.

        Args:
            folder: where the checkpoint will stand.
            state: transformers' own, as it is now.
        """
        accelerator, args = self.accelerator, self.args
        self.staging_folder = folder.parent / checkpoint.STAGING_FOLDER
        written = self.staging_folder / folder.name
        if accelerator.is_main_process:
            shutil.rmtree(self.staging_folder, ignore_errors=True)
        accelerator.wait_for_everyone()
        pushed, args.push_to_hub = args.push_to_hub, False
        try:
            with report_write_errors(folder):
                yield
        finally:
            self.staging_folder, args.push_to_hub = None, pushed
        with report_write_errors(folder):
            self._save(written, folder.parent, state)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with report_write_errors(folder):
                checkpoint.commit_checkpoint(written, folder)
            rotate_checkpoints(str(folder.parent), args.save_total_limit, state.best_model_checkpoint, use_mtime=True)
        accelerator.wait_for_everyone()

    def _checkpoint_to_resume(self, wanted: str | bool) -> Path:
        if isinstance(wanted, str):
            reason = checkpoint.find_damage(Path(wanted))
            if reason is not None:
                raise QreditError(f"checkpoint {wanted} cannot be resumed: {reason}")
            return Path(wanted)
        output = self.args.output_dir
        found, torn = checkpoint.find_newest_complete(Path(output))
        for name, reason in torn.items():
            _log.warning(f"skipping {name}: {reason}")
        if found is None:
            raise QreditError(f"no whole checkpoint in {output} to resume from")
        return found

    def _restore(self, folder: Path) -> None:
        state = load_state(folder)
        if state is None:
            raise QreditError(f"{folder} was not written by this trainer; give its weights as the model instead")
        if state["objective"] != self.objective:
            raise QreditError(f"{folder} was trained with {state['objective']}, not with {self.objective}")
        self.missing_parts = restore_parts(self.parts, state)
        self.restore_own(folder, self.own)

    def restore_own(self, folder: Path, parts: Sequence[Stateful]) -> None:
        """Let some of `own` go on from a checkpoint's files."""
        for part in parts:
            path = folder / self._own_file(part)
            kept = torch.load(path, map_location=self.accelerator.device, weights_only=True) if path.exists() else {}
            part.load_state_dict(kept)

    def _own_file(self, part: Stateful) -> str:
        return f"{part.name}_{self.accelerator.process_index}.pt"

    def _save(self, written: Path, output: Path, state: TrainerState) -> None:
        """Write our files; and the best checkpoint under the name it will have."""
        for part in self.own:
            if kept := part.state_dict():
                torch.save(kept, written / self._own_file(part))
        if self.accelerator.is_main_process:
            best = state.best_global_step
            if best and ((output / f"checkpoint-{best}").exists() or best == state.global_step):
                state.best_model_checkpoint = str(output / f"checkpoint-{best}")
                state.save_to_json(str(written / "trainer_state.json"))
            objective = {"objective": self.objective, "expansion": self.expansion}
            save_state(written, objective | collect_state(self.parts))
