"""What the last steps of a run say, in lines for a terminal: success, likelihood, q, seconds, and silence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.cells import set_cell_size
from rich.text import Text

from qredit.runs.sparkline import GAP, draw_sparkline
from qredit.utils.formatting import format_probability

SHOWN_STEPS = 40
WASTED_SHARE = 0.01  # of Σ u·w: below it a proposal costs more than it gives
_PARTS = ("sample", "score", "update")
_NARROWEST = 5

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class LiveMetrics:
    """What the last logged steps said; frozen, so that a thread that draws it never sees half a step.

    Attributes:
        reward: mean reward of the rollouts, of the last steps; None where a step has none.
        likelihood: median log10 p̂, likewise; -inf where p̂ is 0.
        loss: of demonstrations, in nats a token, in a run without rollouts.
        seconds: of one optimiser step, by what they were spent on.
        silence: why the last step taught nothing, if it did not, or nothing from the rationales drawn after a hint.
    """

    reward: Values = ()
    likelihood: Values = ()
    loss: Values = ()
    q: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    silence: str = ""

    def after(self, logs: Mapping[str, Any], micro_batches: int) -> "LiveMetrics":
        """The readings one logged step later; logs without a reward or a loss are no step's.

        Args:
            micro_batches: how many make a step; the times that are logged are those of one.
        """
        if "reward" not in logs and "loss" not in logs:
            return self
        times = {part: _number(logs.get(f"time/{part}")) for part in _PARTS}
        seconds = {part: micro_batches * value for part, value in times.items() if value is not None}
        if "reward" not in logs:
            return replace(self, loss=(*self.loss, _number(logs["loss"]))[-SHOWN_STEPS:], seconds=seconds)
        return LiveMetrics(
            (*self.reward, _number(logs["reward"]))[-SHOWN_STEPS:],
            (*self.likelihood, _number(logs.get("p_hat/log10_q50")))[-SHOWN_STEPS:],
            q=_number(logs.get("q")),
            seconds=seconds,
            silence=explain_zero_gradient(logs) or explain_wasted_proposal(logs),
        )

    def curves(self, width: int) -> list[Text]:
        """Success, on a scale of 0 to 1, and log10 p̂, on its own: the value now, the scale, the last steps.

        A reward that is no share is shown as it is, on its own scale. Without a likelihood there is one line.
        """
        lines = []
        if self.reward and _are_shares(self.reward):
            lines.append(_line("success", self.reward, (0.0, 1.0), ".1%", "0% to 100%", "green", width))
        elif self.reward:
            scale = _extent(self.reward)
            lines.append(_line("reward", self.reward, scale, ".4g", _ends(scale, ".4g"), "green", width))
        if any(value is not None for value in self.likelihood):
            scale = _extent(self.likelihood)
            lines.append(_line("log10 p̂", self.likelihood, scale, "z.1f", _ends(scale, "z.1f"), "cyan", width))
        if self.loss:
            scale = _extent(self.loss)
            lines.append(_line("loss", self.loss, scale, ".3g", _ends(scale, ".3g"), "green", width))
        return lines

    def facts(self) -> list[Text]:
        """q, what a step takes, and why it taught nothing; nothing where none is known."""
        told = [] if self.q is None else [f"q {self.q:.3g}"]
        if self.seconds:
            parts = ", ".join(f"{part} {_short(value)}" for part, value in self.seconds.items())
            told.append(f"{_short(sum(self.seconds.values()))} s a step: {parts}")
        lines = [Text("   ".join(told), style="dim")] if told else []
        return [*lines, *([Text(self.silence, style="yellow")] if self.silence else [])]

    def summary(self) -> str:
        """Success and p̂ now, in a few words; the loss in a run without rollouts."""
        if not self.reward:
            return "" if not self.loss or self.loss[-1] is None else f"loss {self.loss[-1]:.3g}"
        reward, likelihood = self.reward[-1], self.likelihood[-1]
        name, form = ("success", ".1%") if _are_shares(self.reward) else ("reward", ".4g")
        told = f"{name} {GAP if reward is None else format(reward, form)}"
        if likelihood is None:
            return told
        return f"{told}  p̂ {format_probability(likelihood)}"


def explain_zero_gradient(logs: Mapping[str, Any]) -> str:
    """Why a step has no gradient, in words; nothing where it has one, or where that is not known.

    A loss of 0 alone does not say so: advantages sum to 0 within a group, and their gradient does not.
    """
    norm, likelihood = _number(logs.get("grad_norm")), _number(logs.get("p_hat/log10_q50"))
    if norm is None or norm != 0:
        return ""
    loss = "loss 0" if _number(logs.get("loss")) == 0 else "gradient 0"
    if likelihood is not None:
        return f"{loss}: the gold answers are so unlikely that every coefficient is 0; see qredit probe"
    if _number(logs.get("frac_reward_zero_std")) == 1:
        rewards = "0" if _number(logs.get("reward")) == 0 else "equal"
        return (
            f"{loss}: all rewards in every group are {rewards}, so that an objective of rewards has nothing to learn "
            "from; see qredit probe"
        )
    return f"{loss}: no rollout of this step carries a coefficient"


def explain_wasted_proposal(logs: Mapping[str, Any]) -> str:
    """That rationales drawn after the hint hardly count, in words; nothing where they do, or where there are none."""
    share, log10_u = _number(logs.get("proposal/weight_share")), _number(logs.get("proposal/log10_u"))
    if share is None or share >= WASTED_SHARE:
        return ""
    told = "" if log10_u is None else f" (half of them weigh {format_probability(log10_u)} or less)"
    return f"the proposal is wasted in this step: rationales drawn after the hint carry {share:.1%} of the weight{told}"


def _line(
    label: str, values: Values, scale: tuple[float, float], form: str, ends: str, colour: str, width: int
) -> Text:
    now = GAP if values[-1] is None else format(values[-1], form)
    head, told = f"{set_cell_size(label, 8)} {now:>7}", f"  {ends:<14}  "
    room = max(width - 16 - len(told), _NARROWEST)
    blocks = draw_sparkline(values[-room:], *scale)
    return Text.assemble(head, (told, "dim"), (blocks, colour), no_wrap=True, overflow="ellipsis")


def _are_shares(values: Sequence[float | None]) -> bool:
    return all(0 <= value <= 1 for value in values if value is not None)


def _extent(values: Sequence[float | None]) -> tuple[float, float]:
    """The smallest and the largest finite value; NaN without any."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)


def _ends(scale: tuple[float, float], form: str) -> str:
    return " to ".join(format(end, form) for end in scale if not math.isnan(end))


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _number(value: Any) -> float | None:
    """A number, or None for what is none; infinities are numbers."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return float(value) if real else None
