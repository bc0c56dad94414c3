"""math_equal on pairs of answers by kind (math_pairs.json), and laws that hold for any answer."""

import json
import string
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qredit.rewards.math_equal import is_math, math_equal

_FILE = Path(__file__).with_name("math_pairs.json")
KINDS = {
    kind["kind"]: [pair for pair in kind["pairs"] if not pair.get("arguable")]
    for kind in json.loads(_FILE.read_text(encoding="utf-8"))["kinds"]
}


def _shown(pairs):
    return [(pair["gold"], pair["prediction"], pair["why"]) for pair in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_no_unequal_pair_is_rewarded(kind):
    wrong = [pair for pair in KINDS[kind] if not pair["equal"] and math_equal(pair["prediction"], [pair["gold"]])]
    assert not _shown(wrong)


def test_at_least_98_percent_of_the_equal_pairs_are_rewarded():
    pairs = [pair for kind in KINDS.values() for pair in kind if pair["equal"] and not pair.get("unreadable_ok")]
    missed = [pair for pair in pairs if not math_equal(pair["prediction"], [pair["gold"]])]
    assert len(missed) <= 0.02 * len(pairs), _shown(missed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_counted_and_never_rewarded(kind):
    unread = {pair["gold"] for pair in KINDS[kind] if not is_math(pair["gold"])}
    texts = [pair["prediction"] for pair in KINDS[kind]]
    assert not [gold for gold in unread if any(math_equal(text, [gold]) for text in (gold, *texts))]
    readable = [pair for pair in KINDS[kind] if pair["equal"] and not pair.get("unreadable_ok")]
    assert not [pair["gold"] for pair in readable if pair["gold"] in unread]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gold_that_can_be_read_rewards_itself(kind):
    golds = {pair["gold"] for pair in KINDS[kind] if is_math(pair["gold"])}
    assert not [gold for gold in golds if not math_equal(gold, [gold])]


HOSTILE = [
    "9" * 10_000, "2^{2^{2^{100}}}", r"\frac{1}{" * 200 + "2" + "}" * 200, "(" * 3000 + "1" + ")" * 3000,
    "1e999999999", "nan", "inf", "0/0", r"\frac{0}{0}", "True", "(10^6)!", "\\boxed{" * 100 + "5", "{" * 3000,
    "5," * 1500 + "5", "1 or 5",
    "5" * 500 + "e9", "\\pm " * 50 + "5", "__import__('os')", "\x00", "\\" * 99, "+-" * 900,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_earn_nothing_and_raise_nothing(text):
    assert math_equal(text, ["5"]) == 0.0
    assert math_equal("5", [text]) == 0.0


# --- laws

numbers = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9)
whole = st.integers(-(10**12), 10**12)
units = st.sampled_from(["", " km", " apples", "%", r"\text{ cm}", r"\%"])
_SENTENCES = (
    "{}",
    "The answer is {}.",
    r"\boxed{{{}}}",
    "So it is {}.",
    "**{}**",
    "#### {}",
    "It is {}, since 7 is odd.",
)
sentences = st.sampled_from(_SENTENCES)


def _spellings(value):
    """One whole number in several spellings."""
    wide = str(value).translate(str.maketrans(string.digits + "-", "０１２３４５６７８９−"))
    return [str(value), f"{value:,}", wide, f"{value}.0", rf"\frac{{{value * 3}}}{{3}}", f"${value}$"]


@given(value=whole, index=st.integers(0, 5), other=st.integers(0, 5), sentence=sentences)
def test_a_number_is_itself_in_every_spelling_and_sentence(value, index, other, sentence):
    written = _spellings(value)
    assert math_equal(sentence.format(written[index]), [written[other]]) == 1.0


@given(value=whole, step=st.integers(1, 9), index=st.integers(0, 5), other=st.integers(0, 5), sentence=sentences)
def test_another_number_is_never_rewarded(value, step, index, other, sentence):
    assert math_equal(sentence.format(_spellings(value + step)[index]), [_spellings(value)[other]]) == 0.0


@given(value=numbers, exponent=st.integers(-300, 300), unit=units, place=st.integers(1, 6))
def test_no_digit_may_differ_however_small_the_number(value, exponent, unit, place):
    gold = f"{value}e{exponent}"
    other = f"{value + Decimal(1).scaleb(-place)}e{exponent}"
    assert math_equal(gold, [gold + unit]) == 1.0
    assert math_equal(other, [gold + unit]) == 0.0


@given(
    values=st.lists(st.integers(0, 99), min_size=2, max_size=4),
    connector=st.sampled_from([", ", " and ", " or ", "; "]),
)
def test_naming_several_values_never_wins_one_of_them(values, connector):
    listed = connector.join(map(str, values))
    assert not any(math_equal(listed, [str(value)]) for value in values)
    assert not any(math_equal(str(value), [listed]) for value in values)
    assert math_equal(connector.join(map(str, reversed(values))), [listed]) == 1.0


_ANSWERS = st.sampled_from([text for pairs in KINDS.values() for pair in pairs for text in (pair["gold"],)])


@settings(max_examples=60)
@given(one=_ANSWERS, other=_ANSWERS)
def test_equality_of_two_golds_is_symmetric(one, other):
    if is_math(one) and is_math(other):
        assert math_equal(one, [other]) == math_equal(other, [one])
