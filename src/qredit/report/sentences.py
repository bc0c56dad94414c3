"""What happened in a run, in plain sentences made from its numbers."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from qredit.report.collect import PREFERRED, RunData, parse_finite
from qredit.report.curves import choose_window, compute_first_and_last
from qredit.report.entropy_law import tell_entropy_law
from qredit.stats.interval import Interval
from qredit.utils.formatting import format_probability

TIME_LABELS = {"time/sample": "sampling", "time/score": "scoring", "time/update": "update"}
_OFTEN = 0.5  # share of groups or rollouts from which something is worth a warning


def describe_run(run: RunData) -> list[str]:
    """What is to be said of one run, most important first."""
    if not run.metrics:
        return ["No step was logged, so there is nothing to tell yet."]
    told = (
        _what,
        _success,
        _shown,
        _preferred,
        _held_out,
        _stalled,
        _advice,
        _likelihood,
        _decided,
        _shape,
        tell_entropy_law,
        _faint,
        _time,
        _unreadable,
    )
    return [sentence for tell in told for sentence in tell(run)]


def describe_end(run: RunData) -> list[str]:
    """What is to be said when a run ends: how its reward moved, whether it stalled, and what to try then."""
    return [sentence for tell in (_success, _shown, _preferred, _held_out, _stalled, _advice) for sentence in tell(run)]


def compare_runs(runs: Sequence[RunData]) -> list[str]:
    """What is to be said of several runs together: which ended highest, and whether the intervals part them."""
    found = [(run, found) for run in runs if (found := compute_first_and_last(run, "reward")) is not None]
    if len(found) < 2:
        return []
    ranked = sorted(found, key=lambda pair: -pair[1][1].value)
    (best, (_, top)), (second, (_, next_to)) = ranked[:2]
    if all(end.value == 0 for _, (_, end) in found):
        return ["No run ended with a success."]
    apart = top.is_above(next_to)
    verdict = "their intervals do not overlap" if apart else "their intervals overlap, so the order may be chance"
    follows = f"next is {second.name}, at {_mean(second, next_to)}"
    return [f"{best.name} ended highest, at {_mean(best, top)}; {follows}: {verdict}."]


def compute_mean_seconds(run: RunData) -> dict[str, float]:
    """Mean seconds of a micro-batch, by what it was spent on; empty where it was not logged."""
    found = {}
    for key, label in TIME_LABELS.items():
        known = [value for value in run.series(key)[1] if value is not None]
        if known:
            found[label] = statistics.fmean(known)
    return found


def format_reward(run: RunData, value: float) -> str:
    """A reward in per cent where every reward is a share, else as it is."""
    known = [reward for reward in run.series("reward")[1] if reward is not None]
    return f"{100 * value:.1f} %" if all(0 <= reward <= 1 for reward in known) else f"{value:.4g}"


def _what(run: RunData) -> Iterator[str]:
    prompts, m = parse_finite(run.config.get("prompts_per_step")), parse_finite(run.config.get("m"))
    rollouts = f" × {m:.0f} rollouts" if m else ""
    what = "pairs" if run.is_preference else "prompts"
    size = f" of {prompts:.0f} {what}{rollouts}" if prompts and (m or not run.series("reward")[0]) else ""
    style = f" ({run.config['style']} prompts)" if "style" in run.config else ""
    task = f" on {run.config['task']}{style}" if "task" in run.config else ""
    wanted = parse_finite(run.config.get("steps"))
    short = f", stopped before its {wanted:.0f} steps were done" if wanted and run.steps < wanted else ""
    yield f"{run.objective}{task}: {run.steps} steps{size}{short}."


def _success(run: RunData) -> Iterator[str]:
    found = compute_first_and_last(run, "reward")
    if found is None:
        return
    first, last = found
    known = [value for value in run.series("reward")[1] if value is not None]
    over = min(choose_window(len(run.series("reward")[1])), len(run.metrics))
    if over == len(run.metrics) and min(known) < max(known):  # first and last are the same steps
        yield (
            f"Mean reward of the training rollouts was {_mean(run, last)} over {over} logged steps, too few to compare."
        )
        return
    if first.value == last.value:
        yield f"Mean reward of the training rollouts stayed at {_mean(run, last)} (first and last {over} logged steps)."
        return
    moved = "rose" if last.value > first.value else "fell"
    yield (
        f"Mean reward of the training rollouts {moved} from {format_reward(run, first.value)} (first {over} logged "
        f"steps) to {_mean(run, last)} (last {over})."
    )


def _shown(run: RunData) -> Iterator[str]:
    """How the loss of demonstrations moved, in a run without rollouts."""
    found = compute_first_and_last(run, "loss")
    if found is None or run.series("reward")[0] or run.is_preference:
        return
    known = [value for value in run.series("loss")[1] if value is not None]
    first, last = found
    over = choose_window(len(known))
    if len(known) < 2 * over:
        yield f"Loss of the demonstrations, in nats a token: {known[0]:.3g} at first, {known[-1]:.3g} at last."
        return
    yield (
        f"Loss of the demonstrations, in nats a token, went from {first.value:.3g} (first {over} logged steps) to "
        f"{last.format('{:.3g}'.format)} (last {over})."
    )


def _preferred(run: RunData) -> Iterator[str]:
    """How often the chosen completion of a pair gained more likelihood than the rejected one."""
    found = compute_first_and_last(run, PREFERRED)
    if found is None:
        return
    known = [value for value in run.series(PREFERRED)[1] if value is not None]
    over, last = choose_window(len(known)), found[1].format(lambda value: f"{100 * value:.0f} %")
    told = "Pairs whose chosen rollout gained more likelihood than the rejected one"
    if len(known) < 2 * over:
        yield f"{told}: {100 * known[0]:.0f} % at first, {100 * known[-1]:.0f} % at last."
        return
    yield f"{told}: {100 * found[0].value:.0f} % (first {over} logged steps), then {last} (last {over})."


def _mean(run: RunData, of: Interval) -> str:
    return of.format(partial(format_reward, run))


def _held_out(run: RunData) -> Iterator[str]:
    if "p@1" in run.held:
        value, low, high = (100 * run.held["p@1"][part] for part in ("value", "low", "high"))
        yield f"On held-out questions the final model has p@1 = {value:.1f} % [{low:.1f} %, {high:.1f} %]."
    if run.validation:
        last = run.validation[-1]
        found = {name: value for name in last if "@" in name and (value := parse_finite(last[name])) is not None}
        if found:
            shown = ", ".join(f"{name} = {100 * value:.1f} %" for name, value in found.items())
            yield f"Last validation, at step {last['step']:.0f}: {shown}."


def _stalled(run: RunData) -> Iterator[str]:
    rewards = [value for value in run.series("reward")[1] if value is not None]
    equal = [value for value in run.series("frac_reward_zero_std")[1] if value is not None]
    rescued = any(run.series("hint/rescued")[1])
    if rewards and not any(rewards):
        also = ", but for those that were drawn again with a hint" if rescued else ""
        yield f"No logged step had a single rollout with a reward{also}."
    if equal and all(value == 1 for value in equal) and not rescued:
        yield (
            "In every logged group all rewards were equal: an objective of rewards alone had nothing to learn from "
            "there."
        )


def _advice(run: RunData) -> Iterator[str]:
    """The next step where no rollout had a reward: measure, and learn from the gold answer's likelihood."""
    rewards = [value for value in run.series("reward")[1] if value is not None]
    if not rewards or any(rewards):
        return
    yield "Measure how likely the gold answers are, and whether the reward can read them, with `qredit probe`."
    if not run.series("p_hat/log10_q50")[0]:
        yield "An objective that reads the gold answer's likelihood, such as garl, learns without a rewarded rollout."


def _likelihood(run: RunData) -> Iterator[str]:
    """How p̂ moved, where it did: each step has other questions, whose p̂ differ by themselves."""
    name = "p_hat/log10_q50"
    known = [value for value in run.series(name)[1] if value is not None]
    found = compute_first_and_last(run, name)
    if not known or found is None:
        return
    over, (first, last) = choose_window(len(run.series(name)[1])), found
    if len(known) < 2 * over:
        few = "1 logged step" if len(known) == 1 else f"{len(known)} logged steps"
        yield (
            f"The gold answer's median likelihood p̂ was {format_probability(statistics.median(known))} over {few}: "
            f"different questions, too few steps to see whether it moved ({2 * over} are needed)."
        )
        return
    then, now = (format_probability(end.value) for end in (first, last))
    stretch = f"{then} (first {over} logged steps) to {now} (last {over})"
    if first.is_above(last) or last.is_above(first):
        yield f"The gold answer's median likelihood p̂ went from {stretch}."
    else:
        yield (
            f"The gold answer's median likelihood p̂, {stretch}, was not seen to move: steps have different questions, "
            "and the two intervals overlap."
        )


def _decided(run: RunData) -> Iterator[str]:
    if run.decisions:
        first, last = run.decisions[0], run.decisions[-1]
        more = "" if len(run.decisions) == 1 else f"; last, after step {last['step']:.0f}: {last.get('change')}"
        yield f"It was guided: from {first.get('change')} after step {first['step']:.0f}{more}."


def _shape(run: RunData) -> Iterator[str]:
    moved = [
        _moved(run, "entropy", "entropy", lambda value: f"{value:.3g} nats a token"),
        _moved(run, "completions/mean_length", "mean length", lambda value: f"{value:.1f} tokens"),
    ]
    if any(moved):
        yield f"From first to last: {'; '.join(filter(None, moved))}."
    cut = compute_first_and_last(run, "completions/clipped_ratio")
    if cut is not None and cut[1].value >= _OFTEN:
        yield f"At the end {100 * cut[1].value:.0f} % of the completions were cut off by the token limit."


def _moved(run: RunData, name: str, label: str, show: Callable[[float], str]) -> str:
    known = [value for value in run.series(name)[1] if value is not None]
    if len(known) <= choose_window(len(known)):
        return f"{label} {show(known[0])} → {show(known[-1])}" if known else ""
    found = compute_first_and_last(run, name)
    return "" if found is None else f"{label} {show(found[0].value)} → {show(found[1].value)}"


def _faint(run: RunData) -> Iterator[str]:
    steps, values = run.series("groups/below_adam_epsilon")
    faint = [step for step, value in zip(steps, values, strict=True) if value is not None and value >= _OFTEN]
    if faint:
        yield (
            f"In {len(faint)} of {len(steps)} logged steps most groups had coefficients below 1e-8, which hardly move "
            "the weights: a larger q amplifies them."
        )


def _time(run: RunData) -> Iterator[str]:
    found = compute_mean_seconds(run)
    total = sum(found.values())
    if total:
        shares = ", ".join(f"{label} {100 * value / total:.0f} %" for label, value in found.items())
        yield f"A micro-batch took {total:.3g} s: {shares}."


def _unreadable(run: RunData) -> Iterator[str]:
    if run.unreadable_lines:
        yield f"{run.unreadable_lines} unreadable line{'s' if run.unreadable_lines > 1 else ''} of its files left out."
