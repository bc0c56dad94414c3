"""Scorers on answers worked by hand, what no scorer may reward, and the mathematics that must not hang."""

import os
import sys
import threading
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qredit.rewards import REGISTRY, find_unparseable, get, make_reward_function, math_equal, numeric
from qredit.rewards.answer_scorer import score_best
from qredit.rewards.math_equal import COMMAND, Worker
from qredit.rewards.numeric import is_numeric, last_number, parse_number
from qredit.rewards.text import exact_match, f1, normalize_answer, normalized_exact_match, substring
from qredit.rewards.thinking import closed_thinking, strip_thinking
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError

CHEAP = [scorer for name, scorer in REGISTRY.items() if name != "math_equal"]
JUDGES = [scorer for scorer in CHEAP if scorer.name != "format"]
WORDS = st.text(alphabet=st.sampled_from("aAbt the.no12%-$"), max_size=12)


# --- every scorer


@pytest.mark.parametrize("scorer", REGISTRY.values(), ids=lambda scorer: scorer.name)
@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
@pytest.mark.parametrize("golds", [[""], [" "], ["", "5"], ["?!"], ["the"], []], ids=repr)
def test_an_empty_prediction_never_matches(scorer, blank, golds):
    assert scorer(blank, golds) == 0.0


def test_whatever_a_scorer_matches_a_blank_never_counts():
    assert score_best(lambda prediction, gold: 1.0, "x", ["", "y"]) == 1.0
    assert score_best(lambda prediction, gold: 1.0, " ", ["y"]) == 0.0
    assert score_best(lambda prediction, gold: 1.0, "x", [" "]) == 0.0


@pytest.mark.parametrize("scorer", JUDGES, ids=lambda scorer: scorer.name)
def test_an_empty_gold_is_never_matched(scorer):
    assert scorer("anything", ["", " "]) == 0.0
    assert not scorer.parses(" ")


@given(WORDS, st.lists(WORDS, max_size=3), WORDS)
def test_scores_lie_in_0_to_1_and_another_alias_never_hurts(prediction, golds, alias):
    for scorer in CHEAP:
        score = scorer(prediction, golds)
        assert 0.0 <= score <= 1.0
        assert scorer(prediction, [*golds, alias]) >= score


@given(WORDS)
def test_a_gold_that_can_be_judged_is_its_own_right_answer(gold):
    for scorer in JUDGES:
        if scorer.parses(gold):
            assert scorer(gold, [gold]) == 1.0, scorer.name


@given(WORDS, WORDS)
def test_a_gold_that_cannot_be_judged_is_never_rewarded(prediction, gold):
    for scorer in JUDGES:
        if not scorer.parses(gold):
            assert scorer(prediction, [gold]) == 0.0, scorer.name


# --- text


def test_exact_match_forgives_white_space_around_alone():
    assert exact_match(" Paris\n", ["Paris"]) == 1.0
    assert exact_match("paris", ["Paris"]) == 0.0
    assert exact_match("Paris.", ["Paris"]) == 0.0
    assert exact_match("Lutetia", ["Paris", "Lutetia"]) == 1.0


def test_normalisation_deletes_punctuation_before_articles():
    """ "A.I." becomes "ai"; articles first would leave "i". "the-end" becomes one word, not "end"."""
    assert normalize_answer("A.I.") == "ai"
    assert normalize_answer("the-end") == "theend"
    assert normalize_answer("  The\tCat,  an  'A' and THE hat! ") == "cat and hat"
    assert normalize_answer("anthem of another") == "anthem of another"


@given(WORDS)
def test_normalising_case_spaces_and_final_punctuation_away(text):
    assert normalize_answer(f"  {text.upper()} !?") == normalize_answer(text)


def test_where_normalisation_leaves_nothing_texts_must_be_equal():
    """Options named "A" are ordinary golds; "the" and "..." are not answers to them."""
    for scorer in (normalized_exact_match, f1):
        assert scorer("A", ["A"]) == 1.0
        assert scorer("the", ["A"]) == 0.0
        assert scorer("...", ["A"]) == 0.0
        assert scorer("!", ["?"]) == 0.0
        assert scorer("the", ["Paris"]) == 0.0


def test_f1_counts_tokens_as_often_as_they_occur():
    """b b c against b c c d: two in common of 3 and 4, so P = 2/3, R = 1/2, F1 = 4/7. Against b b d: two of 3 and 3."""
    assert f1("b b c", ["b c c d"]) == pytest.approx(4 / 7)
    assert f1("b b c", ["b b d"]) == pytest.approx(2 / 3)
    assert f1("The red  car.", ["red car"]) == 1.0
    assert f1("x y", ["z"]) == 0.0
    assert f1("x y", ["z", "x"]) == pytest.approx(2 / 3)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_bounds_the_normalised_exact_match(one, other):
    assert f1(one, [other]) == f1(other, [one])
    assert normalized_exact_match(one, [other]) <= f1(one, [other])


def test_yes_no_and_noanswer_are_all_or_nothing():
    assert f1("yes it was", ["yes"]) == 0.0
    assert f1("no", ["no one"]) == 0.0
    assert f1("noanswer", ["noanswer given"]) == 0.0
    assert f1("Yes.", ["yes"]) == 1.0
    assert f1("yes it was", ["yes it is"]) == pytest.approx(2 / 3)


def test_substring_is_literal_and_one_way():
    assert substring("so it is 14%, roughly", ["14%"]) == 1.0
    assert substring("14", ["14%"]) == 0.0
    assert substring("paris", ["Paris"]) == 0.0


# --- numbers

EQUAL = [
    ("1,234.50", "1234.5"),
    ("$ 3.6", "3.6"),
    ("US$3.6", "$ 3.6"),
    ("The answer is 72.", "72"),
    ("14%", "0.14"),
    ("0.14", "14 %"),
    ("14", "14%"),
    ("14%", "14"),
    ("14 percent", "14%"),
    ("3.6 million", "3.6"),
    ("$3,600,000", "$ 3.6 million"),
    ("3.6 billion dollars", "3600 million"),
    ("(4.3)", "-4.3"),
    ("-$ 4.3", "$ -4.3"),
    ("−4.3%", "-0.043"),
    ("1.5e-3", "0.0015"),
    ("300%", "3"),
    ("14.1%", "0.14136"),
    ("0.0", "0"),
    ("Yes.", "yes"),
]
DIFFERENT = [
    ("14", "0.14"),
    ("0.14", "14"),
    ("3.6 billion", "3.6 million"),
    ("14%", "14 million"),
    ("-14%", "14%"),
    ("4.3", "(4.3)"),
    ("14.2%", "14.1%"),
    ("1001", "1000"),
    ("2019", "2018"),
    ("400%", "4.1"),
    ("0.001", "0"),
    ("72 or 73", "72"),
    ("71, 72, 73", "72"),
    ("10-12", "10"),
    ("1/2", "2"),
    ("72nd", "72"),
    ("x72", "72"),
    ("1,23", "123"),
    ("yes it is", "yes"),
    ("no", "yes"),
    ("1", "yes"),
]


@pytest.mark.parametrize(("prediction", "gold"), EQUAL)
def test_the_same_number_written_otherwise(prediction, gold):
    assert numeric(prediction, [gold]) == 1.0


@pytest.mark.parametrize(("prediction", "gold"), DIFFERENT)
def test_another_number_or_more_than_one(prediction, gold):
    assert numeric(prediction, [gold]) == 0.0


@given(st.decimals(min_value="0.001", max_value="1e6", places=4), st.integers(3, 7), st.sampled_from(["", "-"]))
def test_a_rounded_fraction_is_right_and_one_per_cent_off_not(value, digits, sign):
    assume(value % 1)
    assert numeric(f"{sign}{value:.{digits}g}", [f"{sign}{value}"]) == 1.0
    assert numeric(f"{sign}{value * 101 / 100:f}", [f"{sign}{value}"]) == 0.0


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_are_equal_or_not(one, other):
    assert numeric(f"{one:,}", [str(other)]) == float(one == other)
    assert numeric(f"${one:,}", [str(one)]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold", "right"),
    [
        ("48 + 24 = 72 clips.", "72", 1.0),
        ("#### 1,200", "1200", 1.0),
        ("so it costs $18.00", "18", 1.0),
        ("5 or 6", "6", 1.0),
        ("72 clips in 2 months", "72", 0.0),
        ("3", "-3", 0.0),
        ("none", "3", 0.0),
        ("", "3", 0.0),
    ],
)
def test_the_last_number_counts_whatever_stands_before_it(prediction, gold, right):
    assert last_number(prediction, [gold]) == right


def test_answers_that_end_in_one_number_are_one_vote():
    grouped = get("last_number").grouped(["5 or 6", "$6.00", "no idea", "5", "No idea."])
    assert grouped == [[0, 1], [2, 4], [3]]


def test_which_golds_are_numeric():
    assert all(map(is_numeric, ["14%", "$ 1,200.5 million", "yes", "No.", "(3)"]))
    assert not any(map(is_numeric, ["", "Paris", "2 of 3", "1/2", "maybe", "10-12"]))
    assert parse_number("1" * 60).value == int("1" * 60)


# --- format


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", "Paris"),
        ("<think>hm</think> Paris", " Paris"),
        ("hm</think>Paris", "Paris"),
        ("<think>hm", ""),
        ("<think>hm</think>", ""),
        ("a</think>b</think>c", ""),
        ("<think>a</think>b<think>c", ""),
        ("<think><think>a</think>b", ""),
    ],
)
def test_the_answer_is_what_follows_the_one_closed_thinking(text, answer):
    assert strip_thinking(text) == answer
    assert strip_thinking(answer) == answer
    assert closed_thinking(text, ["unused"]) == float(bool(answer))


def test_an_opening_tag_costs_nothing_but_an_empty_answer_does():
    assert closed_thinking("hm</think>\nParis", []) == 1.0
    assert closed_thinking("hm</think>\n ", []) == 0.0


# --- mathematics

SLOW = "-" * 1900 + "5"  # its grammar alone takes minutes


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        (r"\frac{1}{2}", "0.5", 1.0),
        (r"The answer is $\frac{1}{2}$.", "1/2", 1.0),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
        ("2^{10}", "1024", 1.0),
        ("2", "2^{10}", 0.0),
        ("- 3", "3", 0.0),
        (r"\sqrt{8}", r"$2\sqrt{2}$", 1.0),
        (r"\sqrt{8", r"2\sqrt{2}", 0.0),
        ("hello", "Hello.", 1.0),  # a gold of plain words is compared as words
        ("2", "1 and 2", 0.0),
        ("30", "2 hours and 30 minutes", 0.0),
        ("18.9", r"\$18.90", 1.0),
        ("0.0000002", "0.0000001", 0.0),
        ("C) Paris", "C", 1.0),
        ("C) Paris or D) Rome", "C", 0.0),
        ("Ann sold 48 + 24 = 72 clips.", "72", 1.0),
        # public reports on Math-Verify: 14, 25, 37, 60, 76
        (r"$\frac{1}{2006!}$", r"$\frac{1}{2004!}$", 0.0),
        ("$n=1, 2, 3$", "$n=2, 3, 4$", 0.0),
        ("$D = (0, 1.5)$", "$D = (0, 1)$", 0.0),
        (r"$\frac{1}{3 \cdot 2^{2006}}$", r"$\frac{2^{2005}+1}{3 \cdot 2^{2006}}$", 0.0),
        ("$2021$", r"$\pm 2021$", 0.0),
        ("$1:00$", "$12:00$", 0.0),
        (r"the solution is $m \in [\sqrt{2}, +\infty)$", r"\boxed{m \geq \sqrt{2}}", 1.0),
        ("$13$", r"$\text{13}$", 1.0),
        ("3x + 4y + 14=0", "3*x-1*y+13=0", 0.0),
        ("122 + 294 + 489 = 905\n\nThus, the number is **73**.\n\n---\n\nFinal Answer: **73**", "73", 1.0),
    ],
)
def test_math_compares_objects_not_strings(prediction, gold, score):
    assert math_equal(prediction, [gold]) == score


def test_a_gold_that_cannot_be_read_is_reported_not_rewarded():
    examples = [
        Example("q", "2 boys and 3 girls", "a"),
        Example("q", "2 of 3, or 4", "b", aliases=("2",)),
        Example("q", r"\frac{1}{2}", "c"),
        Example("q", "", "d"),
    ]
    assert [example.id for example in find_unparseable("math_equal", examples)] == ["a", "d"]
    assert [example.id for example in find_unparseable("numeric", examples)] == ["a", "c", "d"]
    assert [example.id for example in find_unparseable("exact_match", examples)] == ["d"]
    assert math_equal("2 boys and 3 girls", ["2 boys and 3 girls"]) == 0.0


@pytest.fixture
def impatient():
    worker = Worker(COMMAND, seconds=1.0)
    yield worker
    worker.close()


def test_a_pathological_expression_costs_its_time_limit_alone(impatient, caplog):
    assert impatient.ask("equal", "1", "1")
    first = impatient._process
    start = time.monotonic()
    assert not impatient.ask("equal", SLOW, "1")
    assert time.monotonic() - start < 10.0
    assert "no answer (limit 1 s), taken as false: equal('---" in caplog.text
    assert first.poll() is not None, "the stuck process is dead"
    assert impatient.ask("equal", "2", "2")
    assert impatient._process.pid != first.pid


def test_the_limit_holds_off_the_main_thread(impatient):
    """Where an alarm signal cannot be set: four threads, one of them with an expression that never ends."""
    questions = [("2", "2"), (SLOW, "1"), ("3", "2"), (r"\frac{4}{2}", "2")]
    answers = {}

    def ask(question):
        answers[question] = impatient.ask("equal", *question)

    threads = [threading.Thread(target=ask, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == dict(zip(questions, [True, False, False, True], strict=True))


def _script(body):
    return [sys.executable, "-c", f"import sys, time\nprint('ready', flush=True)\n{body}"]


def test_a_worker_that_dies_or_never_answers_is_replaced():
    silent = Worker(_script("time.sleep(60)"), seconds=0.2)
    dying = Worker(_script("sys.stdin.readline(); sys.exit(3)"), seconds=20)
    start = time.monotonic()
    for worker in (silent, dying):
        assert [worker.ask("equal", "1", "1") for _ in range(2)] == [False, False]
        worker.close()
    assert time.monotonic() - start < 15


@pytest.mark.e2e
def test_interrupted_question_does_not_leave_its_answer_to_next(impatient, monkeypatch):
    module = sys.modules[Worker.__module__]
    real = module.exchange_line

    def interrupted(process, line, seconds):
        if line is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            raise KeyboardInterrupt
        return real(process, line, seconds)

    monkeypatch.setattr(module, "exchange_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        impatient.ask("equal", "1", "1")
    monkeypatch.undo()
    assert not impatient.ask("equal", "1", "2")


def test_a_worker_that_does_not_start_says_what_was_run():
    with pytest.raises(QreditError, match="did not start: .*-c"):
        Worker([sys.executable, "-c", "raise SystemExit(1)"]).ask("equal", "1", "1")


def test_interrupted_start_does_not_leave_its_greeting_to_next(impatient, monkeypatch):
    module = sys.modules[Worker.__module__]

    def interrupted(process, line, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "exchange_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        impatient.ask("equal", "1", "1")
    monkeypatch.undo()
    assert impatient.ask("equal", "1", "1")


@pytest.mark.e2e
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_worker_of_its_own(impatient):
    assert impatient.ask("equal", "1", "1")
    parents = impatient._process.pid
    child = os.fork()
    if child == 0:
        ok = impatient.ask("equal", "2", "2") and impatient._process.pid != parents
        impatient.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert impatient.ask("equal", "3", "3")
    assert impatient._process.pid == parents


# --- as a trainer's reward


def test_a_reward_has_its_scorers_name_and_reads_aliases():
    reward = make_reward_function("exact_match")
    assert reward.__name__ == "exact_match"
    given_by_trl = {"prompts": ["q"] * 3, "completion_ids": [[1]] * 3, "trainer_state": None, "source": ["x"] * 3}
    scores = reward(
        completions=["unused"] * 3,
        response=["Paris", "Lutetia", "Rome"],
        answer=["Paris"] * 3,
        aliases=[None, ["Lutetia"], []],
        **given_by_trl,
    )
    assert scores == [1.0, 1.0, 0.0]


def test_without_response_completion_is_cut_after_its_thinking():
    completions = ["<think>is it?</think> Paris", "is it? Paris</think>Rome", "Paris", "<think>Paris"]
    chats = [[{"role": "assistant", "content": text}] for text in completions]
    for form in (completions, chats):
        assert make_reward_function("exact_match")(completions=form, answer=["Paris"] * 4) == [1.0, 0.0, 1.0, 0.0]
        assert make_reward_function("format")(completions=form, answer=["Paris"] * 4) == [1.0, 1.0, 1.0, 0.0]
    assert make_reward_function("exact_match")(completions=[[], [{"role": "assistant"}]], answer=["a", "a"]) == [
        0.0,
        0.0,
    ]


def test_one_alias_as_a_string_is_not_taken_letter_by_letter():
    reward = make_reward_function("exact_match")
    assert reward(completions=["L", "Lutetia"], answer=["Paris"] * 2, aliases=["Lutetia"] * 2) == [0.0, 1.0]


def test_missing_answer_column_and_an_unknown_reward_are_named():
    with pytest.raises(QreditError, match="reward 'f1' needs a column 'answer'; there are: solution"):
        make_reward_function("f1")(completions=["a"], solution=["a"])
    with pytest.raises(QreditError, match="unknown reward 'exact_mach'; did you mean 'exact_match'"):
        get("exact_mach")
