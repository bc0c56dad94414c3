"""Ten GARL steps on a pocket task, as `qredit train` takes them: the gold answers must become likelier."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_run.plan import Plan
from qredit.runs.folder import RunFolder
from qredit.runs.options import TrainOptions
from qredit.runs.train import build_trainer

STEPS, LIKELIHOOD = 10, "answer/nll_per_token"


def take_pocket_steps(plan: Plan, end: float) -> Iterator[Mapping[str, Any]]:
    """What the steps logged, and whether ten were taken, all finite, and the answer's nats a token fell."""
    options = TrainOptions(objective="garl(q=0.75)", steps=STEPS, save_every=0, cpu=plan.cpu, **plan.pocket)
    with tempfile.TemporaryDirectory() as folder:
        trainer, facts = build_trainer(options, RunFolder(Path(folder) / "run"))
        trainer.train()
    log = [entry for entry in trainer.state.log_history if LIKELIHOOD in entry]
    numbers = {name: [float(entry[name]) for entry in log] for name in ("loss", "grad_norm", LIKELIHOOD)}
    yield {"computed_in": facts["computed_in"], "device": str(trainer.accelerator.device), **numbers}
    yield {"passed": learned(numbers)}


def learned(numbers: Mapping[str, list[float]]) -> bool:
    """Whether ten steps with finite numbers made the gold answers likelier."""
    likelihoods = numbers[LIKELIHOOD]
    finite = all(math.isfinite(value) for values in numbers.values() for value in values)
    return finite and len(likelihoods) == STEPS and min(likelihoods[1:]) < likelihoods[0]
