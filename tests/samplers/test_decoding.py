"""Rules that draw in another way: a given beginning, longer thinking, temperature and budget by difficulty."""

from dataclasses import replace

import pytest

from qredit import QreditError
from qredit.rewards import get
from qredit.rollouts.field_functions import difficulty_tags
from qredit.rollouts.format import encode
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.decoding import begin_with, budget_forcing, by_difficulty
from qredit.samplers.decoding.by_difficulty import EASY, HARD, NORMAL
from qredit.samplers.decoding.parsing import parse_decoding
from qredit.samplers.decoding.protocol import DecodingTools
from qredit.samplers.protocol import Completion, StopReason
from tests.rollouts.test_rollout import tokens
from tests.support.tiny import tokenizer

END = 1
FORM = tokens(closing="</think>", opening="", end="<end>")
(CLOSE,) = FORM.close_ids
WAIT = tuple(encode(tokenizer(), "Wait"))
THE, CAT, TWO = (encode(tokenizer(), text)[0] for text in (" the", " cat", " two"))


class Scripted:
    """Says the next script of its list for each request, as far as the request lets it, with log p = -1 a token."""

    def __init__(self, *scripts, logp=-1.0):
        self.scripts, self.logp = list(scripts), logp
        self.calls = []

    def sample(self, requests, seed):
        self.calls.append((requests, seed))
        return [self._say(request, self.scripts.pop(0)) for request in requests]

    def _say(self, request, script):
        for length in range(1, len(script) + 1):
            ids = tuple(script[:length])
            stop = self._stop(request, ids)
            if stop is not None:
                return Completion(ids, (self.logp,) * length, stop)
        raise AssertionError("a script that does not end")

    def _stop(self, request, ids):
        if ids[-1] in request.stop_token_ids:
            return StopReason.END
        if request.stop_string is not None and request.stop_string.length(ids) is not None:
            return StopReason.MARKER
        return StopReason.LENGTH if len(ids) == request.max_tokens else None

    def sync(self, model):
        raise AssertionError("a script has no weights")


def played(rule, sampler, prompts, thinking=12, examples=None, sampler_at=None):
    tools = DecodingTools(FORM, TokenBudget(thinking, 3), get("exact_match"), sampler_at)
    rows = examples or [{"id": str(n)} for n in range(len(prompts))]
    return rule.make_play(tools)(sampler, prompts, rows, stop_tokens=[END], seed=7)


def parts(rollout):
    return [(str(segment.role), tuple(segment.ids), segment.sampled) for segment in rollout.segments]


ANSWER = (TWO, END)


def test_wait_takes_the_place_of_an_end_of_thinking():
    sampler = Scripted((THE, CAT, CLOSE), (TWO, CLOSE), ANSWER)
    (rollout,) = played(budget_forcing(), sampler, [[9]])
    assert parts(rollout) == [
        ("think", (THE, CAT), True),
        ("think", WAIT, False),
        ("think", (TWO,), True),
        ("close", (CLOSE,), True),
        ("answer", ANSWER, True),
    ]
    assert rollout.close_start == 3 + len(WAIT)
    (again,), _ = sampler.calls[1]
    assert again.prompt_ids == (9, THE, CAT, *WAIT)
    assert again.max_tokens == 12 - 2 - len(WAIT)
    assert len({seed for _, seed in sampler.calls}) == 3


def test_all_thinking_together_keeps_to_the_budget():
    """Six tokens: two, the text, then what is left; the closing is forced at the end, as ever."""
    thinking = 2 + len(WAIT) + 3
    sampler = Scripted((THE, CAT, CLOSE), (TWO,) * 9, ANSWER)
    (rollout,) = played(budget_forcing(times=3), sampler, [[9]], thinking=thinking)
    assert rollout.close_start == thinking
    assert rollout.forced


@pytest.mark.parametrize("spare", [0, 1])
def test_nothing_is_put_where_no_token_would_follow(spare):
    """Two tokens of thinking are kept; with one spare a token fits behind the text."""
    sampler = Scripted((THE, CAT, CLOSE), *([(TWO,)] if spare else []), ANSWER)
    (rollout,) = played(budget_forcing(), sampler, [[9]], thinking=2 + len(WAIT) + spare)
    assert (WAIT in [tuple(segment.ids) for segment in rollout.segments]) is bool(spare)


def test_rows_wait_apart_and_as_often_as_asked():
    """The first ends twice; the second uses its budget up and is not asked again."""
    sampler = Scripted((THE, CLOSE), (CAT,) * 20, (CAT, END), (TWO, CLOSE), ANSWER, (THE, END))
    first, second = played(budget_forcing(times=2, text="Wait"), sampler, [[9], [8]], thinking=20)
    assert [len(requests) for requests, _ in sampler.calls] == [2, 1, 1, 2]
    assert [ids for role, ids, _ in parts(first) if role == "think"] == [(THE,), WAIT, (CAT,), WAIT, (TWO,)]
    assert [role for role, _, _ in parts(second)] == ["think", "close", "answer"]
    assert second.answer_ids == (THE, END)


# --- by difficulty


def test_strategies_of_the_worked_examples():
    rule = by_difficulty(pilot=4, alpha=0.7, beta=0.3, gamma=0.3)
    assert rule.choose(0.9, 0.5) == EASY
    assert rule.choose(0.9, 0.2) == NORMAL
    assert rule.choose(0.1, 0.5) == HARD
    assert rule.choose(0.5, 0.2) == EASY
    assert rule.choose(0.3, 0.2) == EASY  # not below gamma


def test_pilots_say_how_the_others_are_drawn():
    """Two questions of three samples, two pilots each. The first's agree, the second's do not."""
    pilots = Scripted((THE,) * 10, (THE,) * 10, (THE,) * 10, (THE,) * 10, ANSWER, ANSWER, ANSWER, (CAT, END), logp=-0.1)
    others = {0.8: Scripted((CAT,) * 10, ANSWER), 0.4: Scripted((CAT,) * 10, (THE, END))}
    asked = [{"id": name} for name in "aaabbb"]
    rule = by_difficulty(pilot=2, alpha=0.9, beta=0.2, gamma=0.6)
    found = played(rule, pilots, [[9]] * 3 + [[8]] * 3, 10, asked, others.__getitem__)
    assert [one.answer_ids for one in found] == [ANSWER] * 4 + [(CAT, END), (THE, END)]
    assert [one.prompt for one in found] == [(9,)] * 3 + [(8,)] * 3
    assert [one.close_start for one in found] == [10] * 5 + [5]  # half the thinking budget of a hard one


def test_unsure_pilots_that_agree_are_easy():
    pilots = Scripted((THE,) * 10, ANSWER, logp=-0.3)
    (_, other) = played(
        by_difficulty(pilot=1, alpha=0.9, beta=0.2, gamma=0.6), pilots, [[9]] * 2, 10, [{"id": "a"}] * 2,
        {0.5: Scripted((CAT,) * 10, ANSWER)}.__getitem__,
    )  # fmt: skip
    assert other.close_start == 4


# --- a given beginning


def test_a_response_begins_with_the_text_and_goes_on():
    """A beginning of the model's own tokenizer, behind the prompt; it was not sampled and counts in the budget."""
    easy = tuple(encode(tokenizer(), "[Easy]"))
    sampler = Scripted((CAT, CLOSE), (THE,) * 20, ANSWER, (CAT, END))
    first, second = played(begin_with("[Easy]"), sampler, [[9], [8, 7]], thinking=len(easy) + 4)
    assert parts(first) == [
        ("think", easy, False),
        ("think", (CAT,), True),
        ("close", (CLOSE,), True),
        ("answer", ANSWER, True),
    ]
    assert (second.prompt, second.close_start, second.forced) == ((8, 7), len(easy) + 4, True)
    assert [request.prompt_ids for request in sampler.calls[0][0]] == [(9, *easy), (8, 7, *easy)]
    assert [request.max_tokens for request in sampler.calls[0][0]] == [4, 4]
    read = [replace(one, rationale=FORM.text(one.rationale_ids)) for one in (first, second)]
    assert difficulty_tags(read, None) == [1, 1]  # as the rewards of AdaCtrl read it


@pytest.mark.parametrize(
    ("text", "thinking", "words"),
    [
        ("[Hard]", len(encode(tokenizer(), "[Hard]")), "and thinking may take"),
        ("a</think>", 40, "spells the control token '</think>'"),
        ("a<end>", 40, "spells the control token '<end>'"),
    ],
)
def test_a_beginning_that_ends_thinking_is_refused(text, thinking, words):
    with pytest.raises(QreditError, match=words):
        begin_with(text).check_layout(FORM, TokenBudget(thinking, 3))
    begin_with("[Hard]").check_layout(FORM, TokenBudget(40, 3))


def test_a_text_that_the_tokenizer_cannot_write_is_refused():
    class Mute(begin_with):
        def _ids(self, format):
            return super()._ids(format)[1:]

    with pytest.raises(
        QreditError, match=r"turns the text of .*\(text='\[Easy\]'\) into 'Easy\]'; give one that it keeps"
    ):
        Mute("[Easy]").check_layout(FORM, TokenBudget(40, 3))


# --- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget_focring()", "did you mean 'budget_forcing'"),
        ("budget_forcing(times=0)", "times must be a whole number, at least 1, got 0"),
        ("budget_forcing(text='')", "text must be a text that is not empty"),
        ("begin_with()", "missing 1 required"),
        ("begin_with('')", "text must be a text that is not empty, got ''"),
        ("by_difficulty(pilot=4)", "missing 3 required"),
        ("by_difficulty(pilot=4, alpha=0.5, beta=0.1, gamma=0.6)", "gamma must lie between 0 and alpha=0.5, got 0.6"),
        ("by_difficulty(pilot=4, alpha=1.5, beta=0.1, gamma=0.6)", "alpha must lie between 0 and 1, got 1.5"),
        ("by_difficulty(pilot=4, alpha=1.0, beta=-1, gamma=0.6)", "beta must be 0 or more, got -1"),
    ],
)
def test_a_rule_of_drawing_that_cannot_be_used_says_why(text, words):
    with pytest.raises(QreditError, match=words):
        parse_decoding(text)


def test_pilots_leave_a_sample():
    with pytest.raises(QreditError, match="needs k of at least 5, got 4"):
        by_difficulty(4, 0.7, 0.3, 0.3).check_size(4)
    by_difficulty(4, 0.7, 0.3, 0.3).check_size(5)
