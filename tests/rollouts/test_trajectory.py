"""Trajectories: what is derived from their segments, and the rows that collation makes of them."""

from dataclasses import replace

import pytest
import torch

from qredit.rollouts.collate import collate
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory, make_one_turn
from qredit.utils.errors import QreditError

CPU = torch.device("cpu")


def drawn(role, *ids, turn=0):
    return Segment(ids, Role(role), sampled=True, logp=tuple(-float(token) for token in ids), turn=turn)


def put(role, *ids, turn=0):
    return Segment(ids, Role(role), sampled=False, turn=turn)


def searched() -> Trajectory:
    """Two turns: thinking, a sampled closing, a call; its result; thinking that was closed by force, the answer."""
    return Trajectory(
        prompt=(90, 91),
        segments=(
            drawn("think", 1, 2),
            drawn("close", 3),
            drawn("answer", 4, 5),
            put("observation", 6, 7, 8),
            drawn("think", 9, turn=1),
            put("close", 10, 11, turn=1),
            drawn("answer", 12, turn=1),
        ),
        end=EndReason.ANSWER,
        golds=((20, 21),),
        reward=1.0,
    )


def test_what_is_derived_of_two_turns():
    found = searched()
    assert found.ids == (*range(1, 13),)
    assert found.logp == (-1, -2, -3, -4, -5, 0, 0, 0, -9, 0, 0, -12)
    assert (found.close_start, found.close_end, found.answer_ids) == (9, 11, (12,))
    assert (found.forced, found.ended, found.dropped_end) == (True, True, False)


def test_the_spans_of_two_turns():
    batch = collate([searched()], ("answer", "response"), pad=0, seed=0, device=CPU).batch
    assert batch.ids.tolist() == [[*range(1, 12), 20, 21], [*range(1, 13), 0]]
    assert batch.turn.tolist() == [[0] * 5 + [0] * 3 + [1] * 5, [0] * 8 + [1] * 4 + [0]]
    head = torch.arange(13) < 11
    assert batch.observation.nonzero().tolist() == [[row, place] for row in (0, 1) for place in (5, 6, 7)]
    assert batch.rationale.tolist() == [[place in (0, 1, 2, 3, 4, 8) for place in range(13)]] * 2
    assert batch.close.tolist() == [[place in (2, 9, 10) for place in range(13)]] * 2
    assert batch.sampled[0].tolist() == batch.rationale[0].tolist()
    assert batch.sampled[1].tolist() == [place in (0, 1, 2, 3, 4, 8, 11) for place in range(13)]
    assert batch.answer.tolist() == [(~head).tolist(), [False] * 13]
    assert batch.response.nonzero().tolist() == [[1, 11]]
    assert not batch.trainable[:, [5, 6, 7, 9, 10]].any()
    assert batch.sampler_logp[0].tolist() == [-1, -2, -3, -4, -5, 0, 0, 0, -9, 0, 0, 0, 0]
    assert batch.reward.isnan().tolist() == [True, False]


def test_a_batch_without_observations_has_no_such_span():
    plain = make_one_turn((1,), (2, 3, 4), (-1.0,) * 3, 1, 2, forced=True, ended=True)
    assert collate([plain], ("response",), 0, 0, CPU).batch.observation is None
    mixed = collate([plain, searched()], ("response",), 0, 0, CPU).batch
    assert mixed.observation.any(1).tolist() == [False, True]


def test_all_right_answers_of_a_rationale_stand_in_its_row():
    many = replace(searched(), golds=((20, 21), (30,)))
    single = replace(searched(), group=1)
    batch = collate([many, single], ("answer", "response"), 0, 0, CPU).batch
    assert batch.rollout.tolist() == [0, 0, 1, 1]
    assert [batch.ids[row][batch.answer[row]].tolist() for row in (0, 2)] == [[20, 21, 30], [20, 21]]
    assert batch.alias[batch.answer].tolist() == [0, 0, 1, 0, 0]
    assert batch.rollouts == 2
    assert batch.drawn_once.any(1).tolist() == [False, True] * 2, "a rationale's tokens count once"
    assert collate([single], ("answer",), 0, 0, CPU).batch.alias is None


def test_one_that_ended_without_an_answer_is_all_rationale():
    cut = replace(searched(), segments=searched().segments[:4], end=EndReason.BUDGET, golds=((20,),))
    batch = collate([cut], ("answer", "response"), 0, 0, CPU).batch
    assert batch.ids.tolist() == [[*range(1, 9), 20], [*range(1, 9), 0]]
    assert not batch.response.any()
    assert (cut.answer, cut.answer_ids, cut.ended, cut.forced) == (None, (), False, False)


@pytest.mark.parametrize(
    ("role", "sampled", "logp", "message"),
    [
        (Role.THINK, True, (-1.0,), "a segment of 2 tokens .think. has 1 log-probabilities"),
        (Role.OBSERVATION, True, None, "role 'observation' cannot be sampled"),
        (Role.GOLD, True, None, "role 'gold' cannot be sampled"),
    ],
)
def test_what_cannot_be_a_segment_is_refused(role, sampled, logp, message):
    with pytest.raises(QreditError, match=message):
        Segment((1, 2), role, sampled=sampled, logp=logp)


def test_the_former_name_of_the_rationales_length_leads_on():
    with pytest.warns(DeprecationWarning, match="rationale_length"):
        assert searched().thought == searched().rationale_length == 9
