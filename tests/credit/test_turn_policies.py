"""What every rule over turns does alike: with pools of one, with rollouts of unequal lengths, with nothing scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qredit.objectives import REGISTRY
from qredit.objectives.parsing import example
from tests.credit.test_turn_credit import NAN, turned

ALONE = ("istar", "poad", "turn_ppo")
"""Their baseline is the mean of the others, which is nothing without others, or a critic's estimate."""
COMPARED = (
    *("a2tgpo", "aem", "agentic_aepo", "arpo", "bi_level_gae", "empg", "f_grpo", "gigpo", "gtpo", "igpo", "matchtir"),
    *("mica", "mt_grpo", "r3_rag", "siop", "slate", "tree_grpo", "vpr"),
)
RULES = (*COMPARED, *ALONE)
LENGTHS = (3, 1, 2, 2, 4)


def play(lengths=LENGTHS, rewards=(1.0, 0.0, 1.0, 0.5, 0.0), behind=0.25, turn_reward=None):
    """Episodes of one group with turns of one token, and every field that a rule reads.

    Args:
        lengths: turns of each.
        rewards: of each.
        behind: what fields hold behind a rollout's last turn, where nobody may look.
        turn_reward: in the place of the rewards of turns.
    """
    rng = np.random.default_rng(0)
    batch = turned(list(rewards), list(lengths))
    shape = batch.mask.shape

    def tokens(low=0.1, high=1.0):
        return torch.where(batch.mask, torch.from_numpy(rng.uniform(low, high, shape)), behind)

    paid = tokens() if turn_reward is None else torch.full(shape, turn_reward).double()
    log = {name: -tokens() for name in ("answer_logp_at", "support@before", "support@after", "logp@prm")}
    extra = {
        **{name: tokens() for name in ("value", "sampler_entropy")},
        **log,
        "turn_reward": paid,
        "state": torch.where(batch.mask, torch.from_numpy(rng.integers(0, 2, shape)), int(behind)),
        "cluster": torch.tensor([0, 1] * len(lengths))[: len(lengths)],
        "tree": torch.tensor([0, 0, 1, 1, 1])[: len(lengths)],
    }
    ids = torch.where(batch.mask, torch.from_numpy(rng.integers(0, 3, shape)), int(behind))
    return replace(batch, ids=ids, logp=-tokens(), entropy=tokens(), extra=extra)


def test_all_rules_over_turns_are_here():
    """A rule is told by the batch field `turn`; two that read tokens alone are named over turns, too."""
    over_turns = {name for name in REGISTRY if "turn" in example(name).needs} - {"llds"}  # a penalty per turn
    assert over_turns | {"agentic_aepo", "arpo"} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_nobody_looks_behind_the_last_turn(name):
    """A rollout that is shorter than another is in no pool of the places that it lacks."""
    objective = example(name)
    credit = objective.credit(play())
    assert credit.any()
    assert not credit[~play().mask].any()
    assert torch.equal(objective.credit(play(behind=1e9)), credit)


@pytest.mark.parametrize("name", RULES)
def test_a_turn_that_is_alone_gets_nothing(name):
    credit = example(name).credit(play((1,), (1.0,)))
    assert credit.isfinite().all()
    assert bool(credit.any()) is (name in ALONE)


@pytest.mark.parametrize("name", RULES)
def test_where_nothing_was_scored_nobody_gets_anything(name):
    credit = example(name).credit(play(rewards=[NAN] * 5, turn_reward=NAN))
    assert credit.shape == play().mask.shape
    assert not credit.any()
