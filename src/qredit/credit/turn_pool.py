"""Pools of turns: what a turn is compared with, by name.

    prompt    all turns of the group's rollouts
    turn      those at one place: the first turns, the second turns, … of the group's rollouts. A rollout that begins
              behind another's turns, which are context there, has no first turn: its own are counted behind them
    state     those of the group's rollouts that were taken in one state (`state`); one without a state is alone
    state@n   the same, where the n turns before were taken in equal states, too; one with fewer before it is alone
    sibling   those of the group's rollouts that continue one text: all tokens before them are equal ids. All first
              turns are siblings; later ones where a sampler branched, or where rollouts went the same way
    tree      all turns of the group's rollouts of one tree (`tree`, one number for each rollout); -1 is a tree alone
    batch     all turns of the optimiser step

A rollout may stand in a pool several times. Only turns that are kept count: a pool may be empty, and one of a single
turn has nothing to compare.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.credit.prefix_tree import prefix_nodes
from qredit.stats.segment import Segments
from qredit.utils.errors import QreditError

POOLS = ("prompt", "turn", "state", "sibling", "tree", "batch")
_READ = {"state": "state", "sibling": "ids", "tree": "tree"}


def check_pool(pool: str) -> None:
    """Raises QreditError where there is no such pool."""
    kind, at, number = pool.partition("@")
    if kind not in POOLS or (at and (kind != "state" or not number.isdecimal())):
        raise QreditError(f"no pool '{pool}'; there are {', '.join(map(repr, POOLS))}, and 'state@n' for n ≥ 0")


def get_pool_needs(pool: str) -> frozenset[str]:
    """The batch field that tells a pool's turns apart, beside `turn`."""
    kind = pool.partition("@")[0]
    return frozenset({_READ[kind]} if kind in _READ else ())


def number_pools(pool: str, turns: Segments, batch: RolloutBatch, wanted_by: str) -> Int[Tensor, "B S"]:
    """The number of each turn's pool: turns of one pool have equal ones.

    Args:
        pool: one of those that this file names.
        turns: the turns of each row.
        batch: whole groups, with the field that the pool asks for.
        wanted_by: the stage, for errors.
    """
    if pool == "batch":
        return torch.zeros_like(turns.size)
    prompt = batch.groups.index[:, None].expand_as(turns.size)
    if pool == "prompt":
        return prompt
    if pool == "sibling":
        return _number_siblings(turns, batch, batch.require("ids", wanted_by))
    if pool == "tree":
        tree = batch.require("tree", wanted_by).long()
        alone = -1 - torch.arange(len(tree), device=tree.device)
        return _number_keys(prompt, torch.where(tree < 0, alone, tree)[:, None].expand_as(prompt))
    whole = _add_context(turns, batch, batch.require("turn", wanted_by))
    place = turns.at_last(whole.index)
    if pool == "turn":
        return _number_keys(prompt, place)
    state, depth = whole.at_last(batch.require("state", wanted_by).long()), int(pool.partition("@")[2] or 0)
    history = [_take_before(state, place, n) for n in range(depth + 1)]
    unknown = torch.stack(history).lt(0).any(0)
    alone = torch.where(unknown, torch.arange(1, unknown.numel() + 1, device=state.device).view_as(state), 0)
    return _number_keys(prompt, alone, *history)


def _number_keys(*keys: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """One number for each combination of keys."""
    number: Tensor = torch.unique(torch.stack(keys, -1).flatten(0, 1), dim=0, return_inverse=True)[1]
    return number.view_as(keys[0])


def _add_context(turns: Segments, batch: RolloutBatch, turn: Int[Tensor, "B T"]) -> Segments:
    """The turns of each row with those that are context, of which no token was sampled."""
    every = Segments.of(turn, batch.mask & ~batch.answer)
    own = every.total(turns.inside.double()) > 0
    return Segments.of(turn, turns.inside | (every.inside & ~every.spread(own)))


def _take_before(state: Int[Tensor, "B A"], place: Int[Tensor, "B S"], turns: int) -> Int[Tensor, "B S"]:
    """The state of the turn so many before each of some turns; -1 where there was none.

    Args:
        state: of all turns of a row.
        place: of the turns that are asked about, among all.
        turns: how many before.
    """
    before = place - turns
    return torch.where(before < 0, -1, state.gather(1, before.clamp(min=0)))


def _number_siblings(turns: Segments, batch: RolloutBatch, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B S"]:
    """Turns that begin at one column behind one prefix have one number. What a tool wrote is part of the prefix."""
    rows, start = torch.arange(len(ids), device=ids.device), turns.start
    place, node = start, (-1 - rows)[:, None].expand_as(start)  # alone, unless the walk below says otherwise
    before = batch.groups.index
    for column, after in enumerate(prefix_nodes(ids, batch.mask & ~batch.answer, before)):
        node = torch.where(start == column, before[:, None], node)
        before = after
    return _number_keys(place, node)
