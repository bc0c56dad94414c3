"""What a token did to the outlook, read off the tree that the rollouts of a prompt form."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, Credit, Scope
from qredit.stats.groups import Groups


def prefix_nodes(
    ids: Int[Tensor, "B T"], walked: Bool[Tensor, "B T"], root: Int[Tensor, " B"]
) -> Iterator[Int[Tensor, " B"]]:
    """The node of each row after token 0, 1, …, while any two rows stand at one: rows of one prefix have one number.

    From its first token that is not walked a row stands alone.

    Args:
        ids: (B, T) token ids.
        walked: (B, T) tokens that are walked from the root, one after another.
        root: (B,) number of the tree that each row belongs to.
    """
    alone = -1 - torch.arange(len(root), device=root.device)
    node = root
    for t in range(ids.shape[1]):
        _, numbers = torch.unique(torch.stack([node, ids[:, t]], 1), dim=0, return_inverse=True)
        node = torch.where(walked[:, t], numbers, alone)
        yield node
        if len(node.unique()) == len(node):
            return


def tree_difference(
    value: Float[Tensor, " B"],
    keep: Bool[Tensor, " B"],
    ids: Int[Tensor, "B T"],
    walked: Bool[Tensor, "B T"],
    root: Int[Tensor, " B"],
) -> Float[Tensor, "B T"]:
    """V(s_{t+1}) - V(s_t) at each walked token, V the mean value of the kept rows of one prefix; 0 elsewhere.

    Args:
        value: (B,) of each rollout.
        keep: (B,) rows that count in a mean.
        ids: (B, T) token ids.
        walked: (B, T) tokens that are walked from the root, one after another.
        root: (B,) number of the tree that each row belongs to.
    """
    difference = torch.zeros(walked.shape, dtype=value.dtype, device=value.device)
    before = _mean_at(value, keep, root)
    for t, node in enumerate(prefix_nodes(ids, walked, root)):
        after = _mean_at(value, keep, node)
        difference[:, t] = torch.where(walked[:, t], after - before, 0.0)
        before = after
    return difference


def _mean_at(value: Float[Tensor, " B"], keep: Bool[Tensor, " B"], node: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    rows = Groups.of(node)
    return torch.where(rows.is_constant(value, keep), value, rows.mean(value, keep))


@dataclass(frozen=True)
class add_tree_difference(Credit):
    """c_t ← c + V(s_{t+1}) - V(s_t), V(s) = mean of c over the rollouts of the group that begin with s.

    The temporal difference that the rollouts of one prompt give for free where they fork: a token after which the
    others did worse is raised. Placed after the group's statistics it is TEMPO's advantage (arXiv 2509.18314), for V is
    linear in c. Exactly 0 where the sharing rollouts all have one c, and from the token on which nobody shares.

    The walk along a row stops at its first token that was not sampled, a forced closing or the answer of a tool: what
    follows was not the policy's fork, and keeps c. Turns after the first are therefore not walked, as in the official
    code. A rollout that ends shares the prefix it ends with. Equal tokens are equal ids.
    """

    needs = frozenset({"ids"})
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        ids = batch.require("ids", str(self))
        difference = tree_difference(value, keep, ids, batch.sampled, batch.groups.index)
        return replace(coefficient, value=coefficient.value + difference)


@dataclass(frozen=True)
class average_over_branches(Credit):
    """c_t ← mean of c over the rollouts of the group that begin with the text up to and with token t.

    Where rollouts branched off one another, or went the same way by chance, a token that several share has one number
    in all of them. What a tool wrote is walked as well: rollouts part where its answers differ. Exactly c from the
    token on that nobody shares, and where the sharing rollouts all have one c.
    """

    needs = frozenset({"ids"})
    scope = Scope.GROUP

    def __call__(self, coefficient: Coefficient, batch: RolloutBatch) -> Coefficient:
        value, keep = coefficient.per_rollout(self)
        ids, walked = batch.require("ids", str(self)), batch.mask & ~batch.answer
        shared = value[:, None].repeat(1, ids.shape[1])
        for t, node in enumerate(prefix_nodes(ids, walked, batch.groups.index)):
            shared[:, t] = torch.where(walked[:, t] & keep, _mean_at(value, keep, node), value)
        return replace(coefficient, value=shared)
