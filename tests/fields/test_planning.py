"""Planning tokens: mined n-grams and listed phrases, by hand."""

import math
from dataclasses import replace

import pytest

from qredit.fields import planning_grams, planning_phrases
from qredit.rollouts.trajectory import Role, Segment
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools


def marks(found):
    return ["".join("x" if mark else "." for mark in row) for row in found["planning"]]


def test_what_right_rollouts_to_questions_share_is_a_plan():
    speech = Spoken()
    asked = [
        rollout(speech, "abcd", group=0),
        rollout(speech, "zabz", group=1),
        rollout(speech, "yyzz", group=1),  # the second right one of its question: not mined
        rollout(speech, "zzab", group=2, reward=0.0),  # wrong: not mined, but marked
    ]
    given, told = tools(speech)
    found = planning_grams(shortest=2, longest=3, least_rollouts=2).make(asked, given)
    assert marks(found) == ["xx..", ".xx.", "....", "..xx"]
    assert told == {"planning/grams": 1, "planning/share": 0.375, "planning/entropy": 0.0}


def test_entropy_is_that_of_the_plans_that_are_used():
    speech = Spoken()
    asked = [
        rollout(speech, "abcd", group=0),
        rollout(speech, "cdab", group=1),
        rollout(speech, "zzab", group=2, reward=0),
    ]
    given, told = tools(speech)
    planning_grams(shortest=2, longest=2, least_rollouts=2).make(asked, given)
    assert told["planning/grams"] == 2  # ab three times, cd twice
    assert told["planning/entropy"] == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4))


def test_without_enough_right_rollouts_nothing_is_a_plan():
    speech = Spoken()
    given, told = tools(speech)
    found = planning_grams(least_rollouts=2).make([rollout(speech, "abcd"), rollout(speech, "abcd")], given)
    assert marks(found) == ["....", "...."]
    assert told == {"planning/grams": 0, "planning/share": 0.0, "planning/entropy": 0.0}


def test_phrases_are_whole_words_in_any_case_across_tokens():
    speech = Spoken()
    one = rollout(speech, ("Fir", "st", " we", "\n", "need", " to", " firstly", " go"))
    given, told = tools(speech)
    found = planning_phrases(("first", "we need to")).make([one], given)
    assert marks(found) == ["xxxxxx.."]
    assert told == {"planning/share": 0.75}


def test_no_phrase_goes_over_what_a_tool_said():
    speech = Spoken()
    said = ((("we", " need"), True), ((" to", " wait"), False), ((" to", " wait"), True), (("x",), True))
    segments = tuple(
        Segment(speech.ids(*texts), Role.THINK if drawn else Role.OBSERVATION, drawn) for texts, drawn in said[:-1]
    )
    one = replace(rollout(speech, ()), segments=(*segments, Segment(speech.ids("x"), Role.ANSWER, True)))
    given, told = tools(speech)
    assert marks(planning_phrases(("we need to", "wait")).make([one], given)) == [".....x"]
    assert told == {"planning/share": 0.25}


def test_phrases_are_texts_and_no_patterns():
    speech = Spoken()
    found = planning_phrases(("a.c",)).make([rollout(speech, ("abc", " ", "a.c"))], tools(speech)[0])
    assert marks(found) == ["..x"]


@pytest.mark.parametrize("phrases", [(), ("",), (" ",), "wait", (1,)])
def test_phrases_that_are_none_are_refused(phrases):
    with pytest.raises(QreditError, match="phrases must be a list of texts"):
        planning_phrases(phrases)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shortest": 0}, "shortest must be a whole number, at least 1"),
        ({"longest": 2}, "longest must be a whole number, at least 3, got 2"),
        ({"least_rollouts": 1}, "least_rollouts must be a whole number, at least 2"),
    ],
)
def test_lengths_that_are_none_are_refused(arguments, words):
    with pytest.raises(QreditError, match=words):
        planning_grams(**arguments)
