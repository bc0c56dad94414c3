"""What was hoped for, beside what a run reached."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qredit.trl.bench.size import Size

SHARE, TOKENS = 0.8, 13_000
"""Of the token bound; useful tokens a second of an update of all weights, on an H100."""


@dataclass(frozen=True)
class Goal:
    """What was hoped for.

    Attributes:
        what: in words.
        wanted: at least this.
        reached: by this run.
    """

    what: str
    wanted: float
    reached: float

    @property
    def met(self) -> bool:
        return self.reached >= self.wanted


def token_bound(size: Size) -> float:
    """(P + C)·M / (P + M·C): tokens with the prompt repeated over tokens with the prompt shared."""
    return (size.prompt + size.completion) * size.m / (size.prompt + size.m * size.completion)


def list_goals(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[Goal]:
    """Of every row that a run has: updates by the token bound, useful tokens, and no step slower than TRL's.

    Args:
        sections: findings of a run, by section.
    """
    for name, found in sections.items():
        for row in found.get("rows", ()):
            size = Size(row["prompt"], row["completion"], row["m"])
            text = f"{name}, {row['objective']}"
            if row["phase"] == "update":
                yield Goal(f"{text}: update, times TRL", SHARE * token_bound(size), row["ratio"])
                if name.endswith("full"):
                    yield Goal(f"{text}: update, useful tokens/s", TOKENS, row["tokens_per_second"])
            if row["phase"] == "step":
                yield Goal(f"{text}: sampling and update, times TRL", 1.0, row["ratio"])
    yield from _of_train(sections.get("train", {}))


def _of_train(found: Mapping[str, Any]) -> Iterator[Goal]:
    seconds = found.get("seconds", {})
    if {"trl", "qredit"} <= seconds.keys():
        ratio = sum(seconds["trl"]) / sum(seconds["qredit"])
        yield Goal(f"{found['size']} full, garl: step of train(), times TRL", 1.0, ratio)
