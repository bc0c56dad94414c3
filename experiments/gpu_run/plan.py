"""What a run measures, and how many seconds each part of it may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qredit.trl.bench.setup import Setup
from qredit.trl.bench.size import QWEN3_0_6B, ModelShape, Size


@dataclass(frozen=True)
class Pair:
    """A trainer of ours against TRL's: sizes, trained weights, and what it may take.

    Attributes:
        size: tokens of prompt and completion, and rollouts.
        lora_r: rank of adapters; None trains all weights.
        seconds: what it may take.
        updates: the most rounds of updates, after one that warms up.
        samples: the most rounds of sampling.
        warm: sample once before that is counted. Large sizes come after small ones, which warmed the kernels up.
    """

    size: Size
    lora_r: int | None
    seconds: float
    updates: int = 7
    samples: int = 3
    warm: bool = False

    @property
    def name(self) -> str:
        return f"{self.size} {'full' if self.lora_r is None else 'LoRA'}"


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        toy: its numbers mean nothing.
        cpu: use the CPU also where there is a GPU.
        shape: of the model, whose weights are random.
        matmul: rows of the product whose rate counts as the peak.
        check: of the rows whose gradients are compared.
        pocket: options of the ten steps on a pocket task.
        pairs: small ones first.
        train: the size at which `train()` is timed, too.
        profiled: the size at which an update is profiled.
        seconds: what the checks and the other parts may take.
    """

    toy: bool
    cpu: bool
    shape: ModelShape
    matmul: int
    check: Size
    pocket: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    train: Size
    profiled: Size
    seconds: Mapping[str, float] = field(
        default_factory=lambda: {"matmul": 10, "gradients": 40, "pocket": 40, "train": 40, "profile": 25}
    )

    def setup(self, lora_r: int | None = None) -> Setup:
        """How both trainers compute: in bf16, layers once more in the backward pass, else TRL's rows do not fit."""
        return Setup(cpu=self.cpu, half=True, checkpointing=True, lora_r=lora_r)


SMALL, LARGE = Size(512, 128, 16), Size(1536, 512, 32)

REAL = Plan(
    toy=False,
    cpu=False,
    shape=QWEN3_0_6B,
    matmul=8192,
    check=Size(1536, 128, 4),
    pocket={"prompts_per_step": 8, "m": 16, "subset": "512"},
    pairs=(
        Pair(SMALL, None, 50, warm=True),
        Pair(LARGE, None, 110),
        Pair(SMALL, 16, 60, warm=True),
        Pair(LARGE, 16, 120),
    ),
    train=SMALL,
    profiled=LARGE,
)

TINY = Size(12, 11, 2)

TOY = Plan(
    toy=True,
    cpu=True,
    shape=ModelShape(vocabulary=64, hidden=16, inner=16, layers=2, heads=2, key_heads=1, head=8, tied=True),
    matmul=256,
    check=Size(12, 14, 3),
    pocket={"prompts_per_step": 1, "m": 4, "subset": "64"},
    pairs=(Pair(TINY, None, 30, updates=1, samples=1, warm=True), Pair(Size(16, 12, 2), 2, 30, updates=1, samples=1)),
    train=TINY,
    profiled=TINY,
)
