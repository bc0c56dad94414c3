"""Answers of a group that are one answer, as numbers."""

from collections.abc import Callable, Sequence

from qredit.rollouts.trajectory import Trajectory


def list_groups(trajectories: Sequence[Trajectory]) -> list[list[int]]:
    """The places of the rollouts of each group."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(trajectories):
        groups.setdefault(one.group, []).append(place)
    return list(groups.values())


def number_clusters(
    trajectories: Sequence[Trajectory], cluster: Callable[[Sequence[str]], Sequence[Sequence[int]]]
) -> list[int]:
    """The number of each rollout's cluster among those of its group, from 0; -1 where it is in none.

    Args:
        trajectories: whole groups.
        cluster: answers of a group → the places of those that are one answer.
    """
    found = [-1] * len(trajectories)
    for places in list_groups(trajectories):
        for number, members in enumerate(cluster([trajectories[place].final_answer for place in places])):
            for member in members:
                found[places[member]] = number
    return found
