"""Rollouts that repeat themselves, were cut off or are no text: each kind by hand."""

from dataclasses import replace

import pytest

from qredit.fields import degenerate_rollouts
from qredit.fields.degenerate_rollouts import count_most_frequent, is_cut_off, measure_garbled
from qredit.rollouts.trajectory import EndReason, Role, Segment
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout, tools


def spoken(speech, rationale, response="x"):
    """One whose thinking was dropped at an end of text, which is no budget."""
    return replace(rollout(speech, rationale, response), dropped_ends=1)


def test_each_kind_is_found_and_counted():
    speech = Spoken()
    plain, again = spoken(speech, "abcd"), spoken(speech, "ababab")
    cut = replace(plain, dropped_ends=0)
    capped = replace(plain, end=EndReason.CAP)
    broken = spoken(speech, "o\ufffd\x00k")
    given, told = tools(speech)
    asked = [plain, again, cut, capped, broken]
    found = degenerate_rollouts(gram=2, repeats=3, garbled=0.3).make(asked, given)
    assert found == {"degenerate": [False, True, True, True, True]}
    assert told == {"degenerate/repeats": 0.2, "degenerate/cut_off": 0.4, "degenerate/garbled": 0.2}
    kept = degenerate_rollouts(gram=2, repeats=3, garbled=0.3, cut_off=False).make(asked, given)
    assert kept == {"degenerate": [False, True, False, False, True]}
    strict = degenerate_rollouts(gram=2, repeats=4, garbled=0.5, cut_off=False).make(asked, given)
    assert strict == {"degenerate": [False] * 5}


def test_overlapping_runs_count():
    assert count_most_frequent([(1, 1, 1, 1)], 2) == 3
    assert count_most_frequent([(1, 2, 1, 2)], 2) == 2
    assert count_most_frequent([(1, 2), (1, 2), (2, 1)], 2) == 2
    assert count_most_frequent([(1,), (1,)], 2) == 0


def test_a_budget_that_ran_out_is_a_cut():
    speech = Spoken()
    forced = rollout(speech, "ab")
    assert is_cut_off(forced)
    assert not is_cut_off(replace(forced, dropped_ends=1))
    assert is_cut_off(replace(forced, dropped_ends=1, end=EndReason.CAP))


def turns(speech, *said, dropped_ends=0, sampled=False):
    """One that says each of these behind a closing, with an observation of equal, broken tokens in between."""
    segments = []
    for turn, word in enumerate(said):
        segments += [Segment(speech.ids("t"), Role.THINK, True, turn=turn)]
        segments += [Segment(speech.ids("<close>"), Role.CLOSE, sampled or turn > 0, turn=turn)]
        segments += [Segment(speech.ids(word), Role.ANSWER, True, turn=turn)]
        segments += [Segment(speech.ids("\ufffd", "\x00", "\ufffd"), Role.OBSERVATION, False, turn=turn)]
    return replace(rollout(speech, ""), segments=tuple(segments[:-1]), dropped_ends=dropped_ends)


def test_what_an_environment_says_is_nobody_s_fault():
    speech = Spoken()
    asked = [turns(speech, *words, sampled=True) for words in ("abcd", "aaaa")]
    found = degenerate_rollouts(gram=3, repeats=3, garbled=0.1).make(asked, tools(speech)[0])
    assert found == {"degenerate": [False, True]}


def test_a_dropped_end_of_one_turn_hides_no_budget_of_another():
    speech = Spoken()
    assert is_cut_off(turns(speech, "a", "b"))
    assert not is_cut_off(turns(speech, "a", "b", dropped_ends=1))
    two = turns(speech, "a", "b", dropped_ends=1)
    closings = tuple(replace(one, sampled=one.sampled and one.role != Role.CLOSE) for one in two.segments)
    assert is_cut_off(replace(two, segments=closings))


def test_a_branch_answers_for_its_own_turns():
    speech = Spoken()
    context = turns(speech, "a", "b", sampled=True)
    shown = tuple(replace(one, sampled=one.sampled and one.turn > 0, logp=None) for one in context.segments)
    assert not is_cut_off(replace(context, segments=shown, branch=1))
    dropped = turns(speech, "a", "b", dropped_ends=1)
    assert not is_cut_off(replace(dropped, dropped_ends=0, branch=1))
    for end, cut in ((EndReason.PRUNED, False), (EndReason.ERROR, False), (EndReason.BUDGET, True)):
        assert is_cut_off(replace(context, end=end)) is cut


def test_line_breaks_are_text_and_broken_bytes_are_not():
    assert measure_garbled("a\n\tb") == 0
    assert measure_garbled("a\x00\ufffd\ue000") == 0.75
    assert measure_garbled("") == 0


@pytest.mark.parametrize(
    ("changes", "said"), [({"gram": 0}, "gram"), ({"repeats": 1}, "repeats"), ({"garbled": 1.1}, "garbled")]
)
def test_arguments_out_of_range_are_refused(changes, said):
    with pytest.raises(QreditError, match=said):
        degenerate_rollouts(**({"gram": 2, "repeats": 2, "garbled": 0.5} | changes))
