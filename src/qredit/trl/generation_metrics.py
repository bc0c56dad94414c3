"""Metrics of a generation under TRL's names, as plain dictionaries."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.rollouts.trajectory import EndReason, Role, Trajectory


def compute_reward_metrics(
    names: Sequence[str], per_function: Float[Tensor, "N F"], total: Float[Tensor, " N"], rollouts: int
) -> Mapping[str, float]:
    """Mean and std of each reward function and of their weighted sum; share of groups whose rewards are all equal.

    Args:
        names: of the reward functions.
        per_function: one column per function, NaN where it did not score a row.
        total: the weighted sum, NaN where no function scored the row.
        rollouts: M; rows of a group are neighbours.
    """
    columns = {f"rewards/{name}": column for name, column in zip(names, per_function.T, strict=True)}
    found = {f"{name}/mean": _mean(column) for name, column in columns.items()}
    found |= {f"{name}/std": _std(column) for name, column in columns.items()}
    groups = total.view(-1, rollouts)
    equal = groups.nan_to_num(-math.inf).amax(1) <= groups.nan_to_num(math.inf).amin(1)
    constant = equal | groups.isnan().all(1)
    return found | {
        "reward": _mean(total),
        "reward_std": _std(total),
        "frac_reward_zero_std": float(constant.double().mean()),
    }


def collect_length_stats(rollouts: Sequence[Trajectory]) -> Float[Tensor, "N 7"]:
    """Per rollout: sampled tokens, ended by itself, tokens of the rationale and of the answer, closed by force,
    end-of-text dropped while thinking, and all its tokens.

    A closing that was forced is not sampled and has no part in the budget, so the first is at most its length.
    """
    return torch.tensor(
        [
            [
                sum(len(segment.ids) for segment in r.segments if segment.sampled),
                r.ended,
                sum(len(segment.ids) for segment in r.segments if segment.role == Role.THINK),
                len(r.answer_ids),
                r.forced,
                r.dropped_end,
                len(r.ids),
            ]
            for r in rollouts
        ],
        dtype=torch.float32,
    )


def compute_length_metrics(facts: Float[Tensor, "N 7"]) -> Mapping[str, float]:
    """Lengths and how rollouts ended, from the facts of all processes."""
    length, ended, rationale, response, forced, dropped, _ = facts.T
    finished = length[ended.bool()]
    return {
        "completions/mean_length": float(length.mean()),
        "completions/min_length": float(length.min()),
        "completions/max_length": float(length.max()),
        "completions/mean_terminated_length": float(finished.mean()) if len(finished) else 0.0,
        "completions/clipped_ratio": float(1 - ended.mean()),
        "rationale/mean_length": float(rationale.mean()),
        "rationale/forced": float(forced.mean()),
        "rationale/dropped_end": float(dropped.mean()),
        "response/mean_length": float(response.mean()),
    }


def collect_episode_counts(rollouts: Sequence[Trajectory]) -> list[dict[str, float]]:
    """Per episode: turns, tokens of observations, how it ended, where it branched, what was counted; none without."""
    return [_count_episode(one) for one in rollouts if one.turns]


def _count_episode(one: Trajectory) -> dict[str, float]:
    counts: dict[str, float] = {"turns": float(len(one.turns)), "reward": one.episode_reward}
    counts["observed"] = float(sum(len(s.ids) for s in one.segments if s.role == Role.OBSERVATION))
    counts |= {f"ended/{end.value}": float(one.end is end) for end in EndReason}
    if one.tree >= 0:
        counts |= {"branched": float(one.branch > 0), "shared_turns": float(one.branch)}
    for turn in one.turns:
        for name, count in turn.counts.items():
            counts[name] = counts.get(name, 0.0) + count
    return counts


def compute_episode_metrics(counts: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The mean of each count over the episodes of all processes; one that an episode lacks is 0 there."""
    names = sorted({name for one in counts for name in one} - {"reward"})
    found = {f"episode/{name}": sum(one.get(name, 0.0) for one in counts) / len(counts) for name in names}
    rewards = [one["reward"] for one in counts if not math.isnan(one["reward"])]
    return found | ({"episode/reward": sum(rewards) / len(rewards)} if rewards else {})


def _mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else math.nan


def _std(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.std()) if len(known) > 1 else math.nan
