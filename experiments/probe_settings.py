"""The settings that `qredit probe` is judged on: written before its thresholds were chosen, and kept from them.

Colder and colder models of one task, warm prompts, and wrong gold answers, each with the same rollouts, steps and
learning rate for every objective. The seeds are none that a rule could have been chosen by: two settings had been tried
with seed 10, so the seeds from 20 on took the place of 10 to 14.
"""

from dataclasses import dataclass

SEEDS = (20, 21, 22, 23, 24)
STEPS, LEARNING_RATE, ROLLOUTS, PROMPTS = 30, 3e-4, 16, 8
PROBED = 64  # training questions that the probe looks at, with ROLLOUTS rollouts each
QUESTIONS = 64  # held-out questions, 16 samples each
CONSTANT = (
    *("grpo()", "garl(q=0.0)", "garl(q=0.25)", "garl(q=0.5)", "garl(q=0.75)", "garl(q=1.0)"),
    "paft(q=0.75)",
)
"""What one could choose without looking: the same objective everywhere."""


@dataclass(frozen=True)
class Setting:
    """A task, a model and how its questions are put.

    Attributes:
        coldness: which pocket-dial model; None for a task with one model.
        flipped: share of the training golds replaced by another place of the same context.
    """

    name: str
    task: str
    style: str = "cold"
    coldness: int | None = None
    flipped: float = 0.0


SETTINGS = (
    Setting("dial-2", "pocket-dial", coldness=2),
    Setting("dial-4", "pocket-dial", coldness=4),
    Setting("dial-6", "pocket-dial", coldness=6),
    Setting("dial-8", "pocket-dial", coldness=8),
    Setting("dial-12", "pocket-dial", coldness=12),
    Setting("hotpot warm", "pocket-hotpot", style="warm"),
    Setting("musique warm", "pocket-musique", style="warm"),
    Setting("finqa warm", "pocket-finqa", style="warm"),
    Setting("hotpot warm, wrong golds", "pocket-hotpot", style="warm", flipped=0.3),
    Setting("hotpot cold, wrong golds", "pocket-hotpot", flipped=0.3),
    Setting("dial-3, wrong golds", "pocket-dial", coldness=3, flipped=0.3),
    Setting("dial-6, wrong golds", "pocket-dial", coldness=6, flipped=0.3),
)
