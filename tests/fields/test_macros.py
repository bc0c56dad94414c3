"""Macro actions by length, punctuation and perplexity: numbers by hand."""

import math
from dataclasses import replace

import pytest

from qredit.fields import macros_by_length, macros_by_perplexity, macros_by_punctuation
from qredit.rollouts.trajectory import Role, Segment
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools, two_turns


def numbers(maker, trajectory, speech):
    return list(maker.make([trajectory], tools(speech)[0])["macro"][0])


def in_order(found):
    """The numbers as they would be counted from 0, those of no macro left."""
    seen = list(dict.fromkeys(number for number in found if number >= 0))
    return [seen.index(number) if number >= 0 else -1 for number in found]


def test_every_second_sampled_token_begins_a_macro():
    speech = Spoken()
    one = rollout(speech, "abcde", "answer")  # five sampled, the closing forced, the answer sampled
    assert in_order(numbers(macros_by_length(2), one, speech)) == [0, 0, 1, 1, 2, -1, 3]


def test_observations_are_in_no_macro_and_not_counted():
    speech = Spoken()
    assert in_order(numbers(macros_by_length(4), two_turns(speech), speech)) == [0, 0, 0, -1, -1, 0, 1]


def test_what_a_tool_says_begins_and_ends_no_macro():
    speech = Spoken()
    spans = [((" a", " b"), True, (0.5, 0.9)), ((" x", "."), False, (1.0, 1.0)), ((" c", " d"), True, (0.9, 0.8))]
    segments = tuple(
        Segment(speech.ids(*texts), Role.ANSWER if drawn else Role.OBSERVATION, drawn, tuple(map(math.log, p)))
        for texts, drawn, p in (*spans, ((" e",), True, (0.8,)))
    )
    one = replace(rollout(speech, ()), segments=segments)
    assert in_order(numbers(macros_by_punctuation(), one, speech)) == [0, 0, -1, -1, 0, 0, 1]
    assert in_order(numbers(macros_by_perplexity(), one, speech)) == [0, 0, -1, -1, 0, 1, 2]


def test_a_clause_ends_with_its_marks():
    speech = Spoken()
    one = rollout(speech, ("so", " a", ",", "\n", " then", " b.", " c"), "answer")
    assert numbers(macros_by_punctuation(), one, speech) == [0, 0, 0, 0, 1, 1, 2, -1, 3]
    assert numbers(macros_by_punctuation(marks="."), one, speech) == [0, 0, 0, 0, 0, 0, 1, -1, 2]


def test_a_macro_begins_where_perplexity_rises():
    speech = Spoken()
    logp = tuple(-math.log(each) for each in (4.0, 3.0, 3.0, 5.0, 2.0, 1.0, 6.0))  # perplexities; a closing at 5
    one = rollout(speech, "abcde", "answer", logp=logp)
    assert numbers(macros_by_perplexity(), one, speech) == [0, 0, 0, 1, 1, -1, 2]


def test_a_lone_token_is_a_macro():
    speech = Spoken()
    one = rollout(speech, (), "answer")
    for maker in (macros_by_length(3), macros_by_punctuation(), macros_by_perplexity()):
        assert in_order(numbers(maker, one, speech)) == [-1, 0]


def test_bad_arguments_are_named():
    with pytest.raises(QreditError, match="length must be a whole number, at least 1, got 2.5"):
        macros_by_length(2.5)
    with pytest.raises(QreditError, match="marks must be a text"):
        macros_by_punctuation("")
