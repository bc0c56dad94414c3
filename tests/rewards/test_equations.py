"""Equations are found in a text and recomputed exactly; what is no whole equation of numbers is left alone."""

import time
import warnings

import pytest

from qredit.rewards.equations import Equation, find_equations, judge_equations

HOLD = [
    "Doso: 19 - 74 = -55.",
    "So he has 5 * 3 = 15 apples, and 15 + 1,200 = 1215 in all.",
    "48/2 = <<48/2=24>>24 clips",
    "(3 + 4) × 2 = 14",
    "2 x 3 = 6 = 12 / 2",
    "$5.50 + $4 = $9.50",
    r"$\frac{3}{4} + \frac{1}{4} = 1$",
    r"6 \times 7 = 42 and 2^10 = 1024",
    "-10 / 3 = -3.33",
    "10 / 3 = 3.33 and 10 / 3 ≈ 3",
    "5 / 20 = 25%, or 5 / 20 * 100 = 25%",
    "- 3 + 4 = 7",
    "(so 3 + 4 = 7)",
    "7 − 4 = 3; -3 + 5 = 2",
    "1/4 = 25 %, and 1,200 + 5 = 1,205 ✓",
]
FAIL = ["19 - 74 = 55", "5 * 3 = 15, then 15 + 1 = 17", "7 / 2 = 4", "10 / 3 = 3.34", "2 + 2 = 4 = 5 - 2", "3 + 4 = -7"]
SILENT = [
    "",
    "no numbers at all",
    "x + 3 = 5",
    "x - 3 = 5",
    "7 = x + 3",
    "2x + 3 = 8",
    "20% of 50 = 10",
    "so 5 = 6",
    "half of 20 + 30 = 40",
    "f(2) + 1 = 5",
    "3 + 4 != 8 and 3 + 4 >= 5",
    "2 + 2 = 4 y",
    "2 + 3 = 5 thousand",
    "3 kg + 4 kg = 8 kg",
    "1 / 0 = 7",
    "9 ** 9 ** 9 = 1",
    "3 + 4 =",
    "2(3 + 4) = 15",
    *("√16 + 1 = 5", "log 10 + 1 = 2", "5 choose 2 + 1 = 11", "5! - 100 + 1 = 21", "5 ± 1 + 2 = 6", "3 ∙ 4 + 1 = 13"),
    *("4 + 5 = 3 squared", "7 / 2 = 3 and a half", "7 / 2 = 3 with remainder 1", "7 / 2 = 3 R1", "20° + 5 + 5 = 30"),
    *("10:30 + 2 = 12:30", "1,5 + 2 = 3,5", r"3\,000 + 1 = 3001"),
    "__import__('os').system('echo 1') + 1 = 2 + 2",
    "(" * 500 + "1 + 1" + ")" * 500 + " = 3",
]


@pytest.mark.parametrize("text", HOLD)
def test_equations_that_hold(text):
    assert judge_equations(text) is True


@pytest.mark.parametrize("text", FAIL)
def test_equations_that_do_not_hold(text):
    assert judge_equations(text) is False


@pytest.mark.parametrize("text", SILENT)
def test_nothing_is_said_without_an_equation_of_numbers(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's parser warns of odd texts
        assert judge_equations(text) is None


def test_a_chain_is_neighbours_that_are_equal():
    assert list(find_equations("2 + 3 = 5 = 10/2 ≈ 5")) == [
        Equation("2 + 3", "5"),
        Equation("5", "10 / 2"),
        Equation("10 / 2", "5", about=True),
    ]


@pytest.mark.parametrize("mark", ["\n", "(", "1,"])
def test_a_model_that_repeats_itself_costs_no_time(mark):
    """What grew with the square of the length took a minute here."""
    start = time.process_time()
    assert judge_equations("1 + 1 = 2" + mark * 50_000) in (None, True)
    assert time.process_time() - start < 10
