"""Evaluation: estimators against enumeration and hand-worked values, intervals, and sampling on a tiny model."""

import itertools
import json
from dataclasses import asdict

import pytest
import torch

import qredit.samplers.answers as answering
from qredit.evaluation.metrics import (
    QuestionResult,
    compare_results,
    estimate_success,
    pass_at_k,
    score_majority,
    summarize,
    write_samples,
)
from qredit.rewards import REGISTRY, get, parse_rewards
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.rollouts.trajectory import make_one_turn
from qredit.samplers.answers import answer_all
from qredit.samplers.transformers import make_sampler
from qredit.stats.interval import Interval, mean_interval
from qredit.tasks import Example
from qredit.utils.errors import QreditError
from tests.support.tiny import model, tokenizer

EXACT = get("exact_match")
HOSTILE = 'two\nlines\r "quoted" [bold]loud[/bold] \x1b[31mred\x1b[0m \x00 \x85 \u2028 \u202e é'


def said(*predictions, scores=None, id="q", rationales=None):
    """A question answered so, scored by exact match with "yes" unless scores are given."""
    exact = tuple(float(text == "yes") for text in predictions) if scores is None else tuple(scores)
    return QuestionResult(id, "yes", predictions, rationales or ("",) * len(predictions), {"exact_match": exact})


# --- pass@k


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_share_of_subsets_that_hold_correct_sample(samples):
    for correct in range(samples + 1):
        outcomes = [index < correct for index in range(samples)]
        for k in range(1, samples + 1):
            subsets = list(itertools.combinations(outcomes, k))
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(
    ("samples", "correct", "k", "value"),
    [(4, 1, 2, 1 / 2), (5, 2, 2, 7 / 10), (16, 0, 16, 0.0), (16, 1, 16, 1.0), (16, 3, 1, 3 / 16), (10, 9, 2, 1.0)],
)
def test_pass_at_k_by_hand(samples, correct, k, value):
    assert pass_at_k(samples, correct, k) == pytest.approx(value, abs=1e-12)


def test_pass_at_k_does_not_overflow_for_many_samples():
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_a_k_outside_one_to_the_number_of_samples_is_refused(k):
    with pytest.raises(QreditError, match=rf"p@{k} needs .* got 4"):
        pass_at_k(4, 2, k)


# --- majority


@pytest.mark.parametrize(
    ("predictions", "right", "value"),
    [
        (("yes", "yes", "no"), "yes", 1.0),
        (("no", "yes", "no"), "yes", 0.0),
        (("yes", "no"), "yes", 1 / 2),  # two answers tie, one of them is right
        (("yes", "no", "maybe"), "yes", 1 / 3),
        (("a", "a", "b", "b", "c"), "c", 0.0),
        (("a", "a", "b", "b", "c"), "b", 1 / 2),
        (("", "", "", "yes"), "yes", 1.0),  # blanks do not vote
        ((" \n", "\t", "yes", "no", "no"), "yes", 0.0),
        (("yes", " yes\n", "no", "no", "yes "), "yes", 1.0),  # white space around an answer does not split its vote
        (("", "  ", "\n"), "yes", 0.0),
        (("one",), "one", 1.0),
    ],
)
def test_majority_by_hand(predictions, right, value):
    scores = [float(text.strip() == right) for text in predictions]
    assert score_majority(predictions, scores, EXACT) == pytest.approx(value)


@pytest.mark.parametrize(
    ("reward", "predictions", "gold", "value"),
    [
        ("normalized_exact_match", ("Paris", "paris", "Paris.", "Lyon", "Lyon"), "Paris", 1.0),
        ("exact_match", ("Paris", "paris", "Paris.", "Lyon", "Lyon"), "Paris", 0.0),  # letter for letter, Lyon has most
        ("exact_match", ("caf\u00e9", "cafe\u0301", "tea", "rum"), "caf\u00e9", 1.0),
        ("f1", ("the Nile", "Nile", "Rhine", "rhine.", "nile"), "Nile", 1.0),
        ("numeric", ("14%", "0.14", "14 percent", "13", "13"), "14%", 1.0),
        ("numeric", ("\uff11\uff12", "12", "13", "13", "12.0"), "12", 1.0),
        ("math_equal", ("1/2", "0.5", r"$\frac{2}{4}$", "2", "2"), "1/2", 1.0),
        ("math_equal", ("(x+1)^2", "x^2+2x+1", "x^2+1+2x", "x", "x"), "(1+x)^2", 1.0),
        ("math_equal", ("The answer is 7.", "7", "x = 7", "8", "8"), "7", 1.0),
        ("math_equal", ("Paris", "paris.", "", " ", "Lyon"), "Paris", 1.0),
        ("math_equal", ("2, 1", "1 and 2", "2", "2"), "1, 2", 1 / 2),  # two answers tie
        ("math_equal", ("I do not know", "no idea 1 2", "3"), "3", 1 / 3),  # what cannot be read votes as its words
    ],
)
def test_vote_is_counted_over_what_scorer_takes_for_one_answer(reward, predictions, gold, value):
    scores = [get(reward)(text, [gold]) for text in predictions]
    assert score_majority(predictions, scores, get(reward)) == pytest.approx(value)


@pytest.mark.parametrize("scorer", [scorer for name, scorer in REGISTRY.items() if name != "math_equal"])
def test_answers_of_one_normal_form_score_alike(scorer):
    texts = (
        "Paris",
        "paris.",
        " Paris",
        "14%",
        "0.14",
        "the Paris",
        "\uff11\uff14%",
        "caf\u00e9",
        "cafe\u0301",
        "?",
        "!",
    )
    for group in scorer.grouped(texts):
        for gold in texts:
            assert len({scorer(texts[index], [gold]) for index in group}) == 1, (gold, [texts[i] for i in group])


def test_majority_answer_has_the_score_of_its_first_occurrence():
    assert score_majority(("a", "a ", "b"), (1.0, 0.0, 0.0), EXACT) == 1.0
    assert score_majority((" a", "a", "b"), (0.25, 1.0, 0.0), EXACT) == 0.25


def test_majority_does_not_depend_on_the_order_of_tied_answers():
    predictions, scores = ("x", "y", "x", "y", "z"), (1.0, 0.0, 1.0, 0.0, 1.0)
    orders = itertools.permutations(zip(predictions, scores, strict=True))
    assert {score_majority(*map(list, zip(*order, strict=True)), EXACT) for order in orders} == {0.5}


# --- intervals


def test_the_interval_holds_the_mean_and_lies_within_the_data():
    values = [0.0] * 30 + [1.0] * 10
    found = mean_interval(values)
    assert found.value == pytest.approx(0.25)
    assert 0.0 < found.low < found.value < found.high < 0.5


def test_the_interval_has_the_width_of_the_normal_approximation():
    """p = 1/2 over 400 questions: ± 1.96·0.5/20 = 0.049."""
    found = mean_interval([0.0, 1.0] * 200)
    assert found.high - found.value == pytest.approx(0.049, abs=0.006)
    assert found.value - found.low == pytest.approx(0.049, abs=0.006)


def test_the_interval_is_a_function_of_the_seed():
    values = [0.0, 0.1, 0.5, 0.9, 1.0, 0.3, 0.7]
    torch.manual_seed(1)
    first = mean_interval(values, seed=4)
    torch.manual_seed(2)
    assert mean_interval(values, seed=4) == first
    assert mean_interval(values, seed=5) != first


@pytest.mark.parametrize("count", [1, 2, 64])
def test_all_wrong_or_all_right_leaves_room_for_the_other(count):
    """0 of 2 says little: the exact one-sided bound, 1 - 0.05^(1/n), and its mirror image."""
    wrong, right = mean_interval([0.0] * count), mean_interval([1.0] * count)
    assert (wrong.value, wrong.low) == (0.0, 0.0)
    assert wrong.high == pytest.approx(1 - 0.05 ** (1 / count))
    assert (right.value, right.high) == (1.0, 1.0)
    assert right.low == pytest.approx(0.05 ** (1 / count))


def test_questions_of_one_value_between_have_some_interval():
    """9 questions of 0.3 each lie between the exact intervals of 2 and of 3 successes in 9."""
    found = mean_interval([0.3] * 9)
    assert found.low == pytest.approx(0.028145, abs=1e-5)
    assert found.high == pytest.approx(0.700703, abs=1e-5)
    rounded = mean_interval([1 / 3] * 3)  # that of 1 in 3, though 3·(1/3) is rounded
    assert rounded.low == pytest.approx(0.008404, abs=1e-5)


def test_equal_values_without_known_ends_are_left_alone():
    assert mean_interval([-2.0] * 4) == Interval(-2.0, -2.0, -2.0)


def test_table_of_two_wrong_answers_does_not_claim_to_know_rate():
    assert summarize([said("no"), said("no")], "exact_match", 1)["p@1"].high > 0.5


def test_nothing_to_average_is_refused():
    with pytest.raises(QreditError, match="there are no questions"):
        mean_interval([])
    with pytest.raises(QreditError, match="there are no questions"):
        summarize([], "exact_match", 4)


def test_the_summary_holds_p1_pk_mk_and_every_scorer():
    first = QuestionResult(
        "a", "yes", ("yes", "no", "no", "no"), ("",) * 4, {"exact_match": (1, 0, 0, 0), "f1": (1, 0, 1, 0)}
    )
    second = QuestionResult("b", "yes", ("yes",) * 4, ("",) * 4, {"exact_match": (1, 1, 1, 1), "f1": (1, 1, 1, 0)})
    found = summarize([first, second], "exact_match", 2)
    assert list(found) == ["p@1", "p@2", "m@2", "exact_match", "f1"]
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx({"p@1": 0.625, "p@2": 0.75, "m@2": 0.5, "exact_match": 0.625, "f1": 0.625})


def test_a_partial_score_is_no_success():
    found = summarize([said("a", "b", scores=(0.99, 1.0))], "exact_match", 2)
    assert found["p@1"].value == pytest.approx(0.5)
    assert summarize([said("a", "a", scores=(0.8, 0.8))], "exact_match", 2)["m@2"].value == 0.0


def test_samples_without_a_score_are_no_success_and_in_no_mean():
    found = summarize([said("a", "b", scores=(None, 1.0)), said("a", "b", scores=(None, None))], "exact_match", 2)
    assert found["p@1"].value == pytest.approx(0.25)
    assert found["exact_match"].value == 1.0
    assert "exact_match" not in summarize([said("a", scores=(None,))], "exact_match", 1)


def test_zero_right_is_no_certain_zero():
    found = summarize([said("a", "b"), said("a", "b", id="r")], "exact_match", 2)
    assert (found["p@1"].value, found["p@1"].low) == (0.0, 0.0)
    assert found["p@1"].high == pytest.approx(1 - 0.05**0.5)


# --- two models on the same questions


def both(*pairs):
    """Two models' answers to questions of those numbers of right ones of four."""
    made = [
        [said(*["yes"] * n + ["no"] * (4 - n), id=str(row)) for row, n in enumerate(ns)]
        for ns in zip(*pairs, strict=True)
    ]
    return made[0], made[1]


def test_a_difference_is_paired():
    """A model that is better by one answer on each question is so for certain, however unlike the questions are."""
    one, other = both((1, 0), (2, 1), (3, 2), (4, 3))
    found, count = compare_results(one, other, "exact_match", 4)
    assert (count, found["p@1"].value) == (4, 0.25)
    alone = [summarize(answered, "exact_match", 4)["p@1"] for answered in (one, other)]
    assert alone[0].low < alone[1].high  # two intervals by hand would not tell the models apart
    p = 1 - 0.05 ** (1 / 4)
    assert found["p@1"].low == pytest.approx(0.25 * (1 - p) - p)


def test_a_difference_that_varies_is_redrawn_by_question():
    one, other = both(*[(4, 0)] * 15, *[(2, 2)] * 5)
    found, _ = compare_results(one, other, "exact_match", 4)
    assert found["p@1"].value == found["m@4"].value == 0.75
    assert 0.5 < found["p@1"].low < 0.6 < 0.9 < found["p@1"].high <= 0.96
    mirrored, _ = compare_results(other, one, "exact_match", 4)
    assert mirrored["p@1"].value == -0.75
    assert mirrored["p@1"].low == pytest.approx(-found["p@1"].high)


def test_equal_models_differ_by_no_certain_zero():
    one, other = both(*[(2, 2)] * 10)
    found, _ = compare_results(one, other, "exact_match", 4)
    assert (found["p@1"].low, found["p@1"].value, found["p@1"].high) == (
        pytest.approx(0.05**0.1 - 1), 0.0, pytest.approx(1 - 0.05**0.1),
    )  # fmt: skip
    one, other = both(*[(4, 0)] * 10)
    found, _ = compare_results(one, other, "exact_match", 4)
    assert (found["p@1"].value, found["p@1"].high) == (1.0, 1.0)


def test_only_questions_of_both_are_compared():
    one, other = both((4, 0), (0, 0))
    found, count = compare_results(one, other[:1], "exact_match", 4)
    assert (count, found["p@1"].value) == (1, 1.0)
    with pytest.raises(QreditError, match="no question was answered by both"):
        compare_results(one[:1], other[1:], "exact_match", 4)


# --- sampling


@pytest.fixture(scope="module")
def network():
    return model()


def answers(network, count=5, k=3, seed=0, rows=256, **sampler):
    words = tokenizer()
    examples = [Example(f"What is {n}? ", str(n), id=str(n), aliases=("the",)) for n in range(count)]
    settings = {"seed": seed, "stop_tokens": [1], "rows_per_batch": rows}
    return list(
        answer_all(
            make_sampler(network, 0, **sampler),
            TokenFormat(Format.of(words), words),
            examples,
            parse_rewards("exact_match, substring"),
            TokenBudget(6, 4),
            k,
            **settings,
        )
    )


def test_every_question_is_answered_k_times_in_order(network):
    found = answers(network)
    assert [question.id for question in found] == list("01234")
    for question in found:
        assert len(question.predictions) == len(question.rationales) == 3
        assert {name: len(scores) for name, scores in question.scores.items()} == {"exact_match": 3, "substring": 3}


@pytest.mark.parametrize(("rows", "sizes"), [(256, [15]), (6, [6, 6, 3]), (7, [6, 6, 3]), (1, [3] * 5)])
def test_at_most_rows_per_batch_are_drawn_of_whole_questions(network, monkeypatch, rows, sizes):
    seen = []
    think = answering.think
    noted = lambda sampler, rows, *args, **kw: seen.append(len(rows)) or think(sampler, rows, *args, **kw)  # noqa: E731
    monkeypatch.setattr(answering, "think", noted)
    assert len(answers(network, rows=rows)) == 5
    assert seen == sizes


def test_samples_repeat_by_seed_and_differ_between_batches(network):
    first = answers(network, seed=3, rows=3)
    torch.manual_seed(99)
    assert answers(network, seed=3, rows=3) == first
    assert answers(network, seed=4, rows=3) != first
    twice = [Example("What? ", "1", id=str(n)) for n in range(2)]
    words = tokenizer()
    drawn = answer_all(
        make_sampler(network, 0), TokenFormat(Format.of(words), words), twice, parse_rewards("f1"), TokenBudget(6, 4),
        1, seed=0, stop_tokens=[1], rows_per_batch=1,
    )  # fmt: skip
    one, other = drawn
    assert one.rationales != other.rationales


def test_log_probabilities_are_those_of_sampled_tokens(network, monkeypatch):
    """Thinking -1 -2, a forced closing of two tokens, an answer -3 -6: mean -12/4, answer -9. Else unknown."""
    one = make_one_turn([1], [2, 3, 4, 5, 6, 7], [-1, -2, -9, -9, -3, -6], 2, 4, forced=True, ended=True)
    empty = make_one_turn([1], [4, 5], [0, 0], 0, 2, forced=True, ended=False)
    monkeypatch.setattr(answering, "think", lambda *args, **settings: [one, empty])
    (found,) = answers(network, count=1, k=2)
    assert (found.mean_logp, found.answer_logp) == ((-3.0, None), (-9.0, None))


def test_greedy_samples_of_a_question_are_all_alike(network):
    for question in answers(network, draw=SamplingParams(temperature=0.0)):
        assert len(set(question.predictions)) == 1


def test_the_model_keeps_its_mode(network):
    network.train()
    answers(network, count=1, k=1)
    assert network.training


def test_aliases_count_as_right(network, monkeypatch):
    monkeypatch.setattr(TokenFormat, "response_text", lambda self, ids: "the")
    assert answers(network, count=1, k=1)[0].scores["exact_match"] == (1.0,)


# --- samples on disk


def test_samples_are_one_json_line_each_and_read_back(tmp_path):
    path = tmp_path / "samples.jsonl"
    questions = [said(HOSTILE, "yes", id="1", rationales=(HOSTILE, "")), said("no", "", id=HOSTILE)]
    write_samples(path, questions)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == 2
    for line, question in zip(lines, questions, strict=True):
        assert json.loads(line) == json.loads(json.dumps(asdict(question)))


def test_a_samples_line_stays_one_line_for_any_reader(tmp_path):
    """str.splitlines also breaks at \\x85 and \\u2028, which JSON need not escape."""
    path = tmp_path / "samples.jsonl"
    write_samples(path, [said(HOSTILE)])
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["predictions"] == [HOSTILE]


def test_samples_are_utf8_whatever_the_locale(tmp_path, monkeypatch):
    path = tmp_path / "samples.jsonl"
    import io

    monkeypatch.setattr(io, "text_encoding", lambda encoding, stacklevel=2: encoding or "ascii")
    write_samples(path, [said("é")])
    assert json.loads(path.read_text(encoding="utf-8"))["predictions"] == ["é"]


def test_success_of_samples_in_any_order():
    """Question a: one of two right; b: one of one; c: a score that is missing, one below 1."""
    found = estimate_success(["a", "b", "a", "c", "c"], [1.0, 1.0, 0.0, None, 0.5])
    assert found.value == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found.low < found.value < found.high
