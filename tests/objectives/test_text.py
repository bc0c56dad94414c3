"""The text form: what it reads, that it round-trips, and that it evaluates nothing."""

from dataclasses import dataclass

import pytest

from qredit import QreditError, add, on_span, per_span
from qredit.core.chain import Coefficient, Credit
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.schedule import linear
from qredit.core.surrogate import clipped_ratio
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.likelihood import amplified_likelihood
from qredit.credit.reward import reward
from qredit.credit.running import subtract_running_mean
from qredit.objectives import REGISTRY, garl, grpo, paft, sft_then_rlvr
from qredit.objectives.parsing import NAMES, example, parse


@dataclass(frozen=True)
class my_credit(Credit):
    """A user's own stage."""

    def __call__(self, coefficient: Coefficient, batch) -> Coefficient:
        return coefficient


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("garl(q=0.75)", garl(0.75)),
        ("garl(0.75)", garl(0.75)),
        (" paft(q=1, resamples=4) ", paft(1, resamples=4)),
        ("garl(q=linear(1, 0))", garl(linear(1, 0))),
        ("garl(q=steps((1.0, 0.0), (0.5,)))", sft_then_rlvr()),
        ("reward() | center_by_group()", Objective(reward() | center_by_group())),
        ("chain(reward(), center_by_group())", Objective(reward() | center_by_group())),
        ("reward() + 0.5 * reward()", Objective(add(reward(), 0.5 * reward()))),
        ("reward() * -0.5", Objective(-0.5 * reward())),
        ("on_span('sampled', reward())", Objective(on_span("sampled", reward()))),
        ("per_span(answer=amplified_likelihood(q=0))", Objective(per_span(answer=amplified_likelihood(0)))),
        (
            "Objective(reward() | scale_by_group_std(epsilon=1e-6), clipped_ratio(high=0.28), mean_per_token())",
            Objective(reward() | scale_by_group_std(1e-6), clipped_ratio(high=0.28), mean_per_token()),
        ),
    ],
)
def test_what_a_text_means(text, objective):
    assert parse(text) == objective


@pytest.mark.parametrize(
    "text", ["garl(q=0.75)", "grpo()", "paft(q=0.5, resamples=2)", "garl(q=linear(start=1, end=0))"]
)
def test_the_short_form_is_kept_and_reads_back(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_objective_and_its_source_read_back(name):
    objective = example(name)
    assert parse(str(objective)) == objective
    assert parse(repr(objective.source)).source == objective.source


def test_a_credit_can_be_added_to_a_finished_objective():
    text = f"grpo() | on_span('sampled', {__name__}.my_credit())"
    extended = parse(text)
    assert extended.surrogate == grpo().surrogate
    assert extended == grpo() | on_span("sampled", my_credit())
    assert str(extended) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gral(q=0.75)", "unknown objective or stage 'gral'; did you mean 'garl'"),
        ("garl(q=0.75", "cannot be read"),
        ("garl", r"'garl' is not a call; write garl\(\)"),
        ("garl(q=2)", "q must be a number between 0 and 1, got 2"),
        ("garl(0.5, p=0.5)", "unexpected keyword argument 'p'"),
        ("garl()", "missing a required argument: 'q'"),
        ("0.5", "is not an objective or a source"),
        ("center_by_group()", "is not an objective or a source"),
        ("garl(0.5) + garl(0.25)", r"'\+' cannot join"),
        ("reward() | reward()", "a chain holds credits"),
        ("reward() - reward()", "is not allowed"),
        ("nowhere.at_all.stage()", "cannot import 'nowhere.at_all.stage'"),
        ("math.nothing()", "cannot import 'math.nothing'"),
        ("garl(*[0.5])", r"\* and \*\* are not allowed"),
    ],
)
def test_what_cannot_be_read_says_why(text, words):
    with pytest.raises(QreditError, match=words):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "garl(0.5).source",
        "(lambda: 1)()",
        "[reward() for _ in (1,)]",
        "garl(q=0.5 if True else 1)",
        "garl(q=f'{1}')",
        "garl(q={}.get(1))",
        "open('x')",
        "garl(q=1 ** 9)",
    ],
)
def test_nothing_is_evaluated(text):
    with pytest.raises(QreditError):
        parse(text)


def test_every_name_is_documented():
    assert all(thing.__doc__ for thing in NAMES.values())


def test_a_running_stage_reads_back():
    assert parse("reward() | subtract_running_mean(decay=0.5)") == Objective(reward() | subtract_running_mean(0.5))
