"""Checks of steps: the tool, the judge, what a user's own may give; the fields that are made of verdicts."""

import pytest

from qredit.checks import StepCheck, arithmetic, judge
from qredit.checks.parsing import parse_check
from qredit.checks.protocol import StepCase, check_cases
from qredit.fields import check_step_scores, check_wrong_steps
from qredit.fields.parsing import parse_field
from qredit.rewards.judge.endpoint import EndpointJudge
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools
from tests.support.endpoint import said

THOUGHT = ("1 + 1 = 3", "\n\n", "so", "\n\n", "2 + 2 = 4")  # steps of 2, 2 and 1 tokens


class Fixed(StepCheck):
    """Gives what it was told to give."""

    def __init__(self, *given):
        self.given = given

    def check(self, cases):
        return list(self.given)


def test_arithmetic_says_nothing_of_words():
    cases = [StepCase("What?", (), step) for step in ("1 + 1 = 3", "so it is", "2 + 2 = 4")]
    assert arithmetic().check(cases) == [False, None, True]


def test_a_judge_reads_a_step_behind_those_before_it(serve, monkeypatch):
    monkeypatch.setattr(EndpointJudge, "tries", 1)
    replies = {"one": "fine: []", "two": "[1]", "three": "[2, 3]", "four": "none that I know", "five": "[9]"}
    endpoint = serve(lambda number, body: said(replies[body["messages"][-1]["content"].split("\n")[-2]]))
    before = ((), ("one",), ("one", "two"), (), ())
    cases = [StepCase("What?", own, step, "42") for own, step in zip(before, replies, strict=True)]
    assert judge(endpoint.url, "judge").check(cases) == [True, True, False, None, None]
    shown = [body["messages"][-1]["content"] for body, _ in endpoint.seen]
    assert all("What?" in text and "42" not in text for text in shown)
    assert any(
        text.index(">\none") < text.index(">\ntwo") < text.index(">\nthree") for text in shown if "three" in text
    )
    assert judge(endpoint.url, "judge", show_answer=True).check(cases[:1]) == [True]
    assert "The right answer:\n42" in endpoint.seen[-1][0]["messages"][-1]["content"]


@pytest.mark.parametrize("given", [(True,), (True, None, False), (True, 0.5), (1, "yes"), (1, 0)])
def test_verdicts_of_another_kind_are_refused(given, monkeypatch):
    cases = [StepCase("What?", (), "a"), StepCase("What?", (), "b")]
    with pytest.raises(QreditError, match="must give 2 verdicts, each True, False or None"):
        check_cases(Fixed(*given), cases)
    assert check_cases(Fixed(True, None), cases) == [True, None]
    monkeypatch.setattr(Fixed, "check", lambda self, cases: None)
    with pytest.raises(QreditError, match="each True, False or None, and gave 1 of them"):
        check_cases(Fixed(), cases)
    monkeypatch.undo()
    assert check_cases(Fixed(True), []) == []


def test_fields_hold_the_verdicts_of_steps():
    speech = Spoken()
    rollouts = [rollout(speech, THOUGHT), rollout(speech, ())]
    given, told = tools(speech)
    assert check_step_scores(arithmetic()).make(rollouts, given) == {"step_score": [[0, -1.0, 0, 0.0, 1.0], []]}
    assert told == {"check/told": pytest.approx(2 / 3), "check/wrong": 0.5}
    assert check_wrong_steps(arithmetic()).make(rollouts, given) == {"wrong_step": [[True, True, *[False] * 3], []]}


def test_a_field_shows_a_check_the_steps_before():
    seen = []

    class Recorder(StepCheck):
        def check(self, cases):
            seen.extend(cases)
            return [None] * len(cases)

    speech = Spoken()
    check_step_scores(Recorder()).make([rollout(speech, THOUGHT, answer="7")], tools(speech)[0])
    assert seen[2] == StepCase("What?", ("1 + 1 = 3", "so"), "2 + 2 = 4", "7")
    check_step_scores(Recorder()).make([rollout(speech, THOUGHT, answer=None)], tools(speech)[0])
    assert seen[-1].answer is None


def test_text_forms_are_read_and_nothing_else():
    assert parse_check("arithmetic()") == arithmetic()
    assert parse_field("step_score=check_step_scores(arithmetic())") == ("step_score", check_step_scores(arithmetic()))
    for text, told in (
        ("step_score=check_step_scores()", "missing 1 required positional argument: 'check'"),
        ("step_score=check_step_scores(3)", "check_step_scores needs a check of steps, such as arithmetic(), got 3"),
        ("wrong_step=check_step_scores(arithmetic())", "check_step_scores makes step_score"),
    ):
        with pytest.raises(QreditError, match=told.replace("(", r"\(").replace(")", r"\)")):
            parse_field(text)
    with pytest.raises(QreditError, match="temperature must be at least 0, got -1"):
        parse_check("judge('http://localhost', 'judge', temperature=-1)")
    with pytest.raises(QreditError, match="is no rule; rules: arithmetic, judge"):
        parse_check(f"{__name__}.Spoken()")
