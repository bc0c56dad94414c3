"""Answers behind rationales that are cut: numbers by hand."""

import math
from dataclasses import replace

import pytest

from qredit.fields import truncated_answers
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools


def answering(rewards):
    """What draws answers: each has the next of these rewards; and the cuts that it is asked for."""
    asked = []

    def answer(trajectories, cuts):
        asked.extend(zip([one.response for one in trajectories], cuts, strict=True))
        return [replace(one, reward=next(rewards)) for one in trajectories]

    return answer, asked


def test_each_cut_is_answered_and_its_mean_reward_kept():
    speech = Spoken()
    answer, asked = answering(iter([0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]))
    given, told = tools(speech, answer)
    one, other = rollout(speech, "abcde", "one"), rollout(speech, "abcd", "two")
    found = truncated_answers((2, 4), answers=2).make([one, other], given)
    assert asked == [("one", 2), ("one", 2), ("one", 4), ("one", 4), ("two", 2), ("two", 2), ("two", 4), ("two", 4)]
    assert found == {
        "budget": [[0, 0, 1, 1, -1], [0, 0, 1, 1]],
        "budget_reward@0": [0.5, 0.0],
        "budget_reward@1": [1.0, 0.5],
    }
    assert told == {"budget/reward@2": 0.25, "budget/reward@4": 0.75}


def test_cuts_behind_the_end_share_their_answers():
    speech = Spoken()
    answer, asked = answering(iter([0.0, 1.0, 0.0, 1.0, 1.0]))
    found = truncated_answers((1, 3, 5, 7, 9), answers=1).make([rollout(speech, "abcd", "x")], tools(speech, answer)[0])
    assert [cut for _, cut in asked] == [1, 3, 4, 4, 4]
    assert found["budget"] == [[0, 1, 1, 2]]
    assert [found[f"budget_reward@{number}"][0] for number in range(5)] == [0.0, 1.0, *[pytest.approx(2 / 3)] * 3]


def test_unscored_answers_do_not_count():
    speech = Spoken()
    answer, _ = answering(iter([math.nan, 1.0, math.nan, math.nan]))
    given, told = tools(speech, answer)
    found = truncated_answers((1, 2), answers=2).make([rollout(speech, "ab", "x")], given)
    assert found["budget_reward@0"] == [1.0]
    assert math.isnan(found["budget_reward@1"][0])
    assert told == {"budget/reward@1": 1.0}


def test_without_a_sampler_it_is_refused():
    with pytest.raises(QreditError, match="cannot be gone on with"):
        truncated_answers((1,)).make([rollout(Spoken(), "ab")], tools(None)[0])
