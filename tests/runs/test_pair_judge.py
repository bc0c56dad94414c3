"""qredit dpo --by judge(…): what a judge is shown, what its numbers become, and what is left out."""

import math

import pytest

from qredit.data.completions import Completion, CompletionGroup
from qredit.data.preferences import describe_left_out, make_pairs
from qredit.rewards.judge.endpoint import EndpointJudge
from qredit.runs import pair_judge
from qredit.runs.dpo_options import PairOptions
from qredit.runs.pair_judge import JudgedCounts, judge, parse_by, score_once
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken
from tests.support.endpoint import said


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A judge that is tried once."""
    made = EndpointJudge.__init__
    monkeypatch.setattr(EndpointJudge, "__init__", lambda self, *given: made(self, *given, tries=1, seconds=5.0))


def kept(speech, number, *completions):
    """The group of a question: texts and rewards."""
    return CompletionGroup(
        speech.ids(f"What is {number}?"),
        tuple(
            Completion(speech.ids(*text.split()), (True,) * len(text.split()), reward) for text, reward in completions
        ),
    )


def answer(number, body):
    """By the last word that was written."""
    word = body["messages"][-1]["content"].rsplit("\n", 1)[1]
    return (503, "busy") if word == "lost" else said({"sober": "[9]", "odd": "[11]"}.get(word, "so [3] or [2]"))


def test_scores_of_a_judge_take_the_place_of_rewards(serve):
    """A completion of several rewards is asked about once; without a readable number of the scale it has no score."""
    speech, endpoint = Spoken(), serve(answer)
    groups = [
        kept(speech, 0, ("sober", 0.0), ("sober", 1.0), ("wild", 1.0)),
        kept(speech, 1, ("lost", 1.0), ("odd", 1.0), ("sober", math.nan)),
    ]
    scored, counts = judge(endpoint.url, "judge").score(groups, speech)
    assert [one.reward for one in scored[0].completions] == [0.9, 0.2]
    assert [math.isnan(one.reward) for one in scored[1].completions] == [True, True, False]
    assert counts == JudgedCounts(asked=5, unanswered=1, unreadable=1)
    shown = {body["messages"][-1]["content"] for body, _ in endpoint.seen}
    assert "Question:\nWhat is 0?\n\nWritten:\nsober" in shown
    pairs, found = make_pairs(scored, 9, 0.5, 0)
    assert [(pair.chosen.ids, pair.rejected.ids) for pair in pairs] == [(speech.ids("sober"), speech.ids("wild"))]
    assert "2 rollouts have no score and stand in no pair" in describe_left_out(found, 0.5, "score")


def test_a_judge_that_answers_nothing_ends_every_process(serve, monkeypatch):
    speech, endpoint = Spoken(), serve(lambda number, body: (401, ""))
    sent = []
    monkeypatch.setattr(pair_judge, "broadcast_object_list", lambda told: sent.append(told) or told)
    with pytest.raises(QreditError, match="refused: status 401"):
        score_once(judge(endpoint.url, "judge"), [kept(speech, 0, ("wild", 1.0))], speech)
    assert "status 401" in sent[0][0], "the others are told so, too"


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("judg('http://x', 'm')", "unknown judge of pairs 'judg'; did you mean 'judge'"),
        ("judge('http://x')", "missing 1 required positional argument: 'model'"),
        ("judge('ftp://x', 'm')", "must be http:// or https://"),
        ("judge('', 'm')", "url of judge must be a text"),
        ("3", r"by must be judge\(url, model\), got '3'"),
    ],
)
def test_who_cannot_be_asked_is_refused_before_a_run(by, words):
    with pytest.raises(QreditError, match=words):
        PairOptions(by=by)
    assert parse_by("judge('http://x', 'm')") == judge("http://x", "m")
