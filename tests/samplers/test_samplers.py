"""Thinking over any sampler: what is asked of it, where thinking closes, and that one call or two give the same."""

from dataclasses import replace
from itertools import chain, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import QreditError
from qredit.rollouts.format import encode
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.protocol import Completion, Request, StopReason, ThinkingSampler, check_completions
from qredit.samplers.think_then_answer import think, think_by_requests
from qredit.samplers.transformers import TransformersSampler, sample
from qredit.shared_prefix.share import share_prefix
from tests.rollouts.test_rollout import Scripted, say, text, tokens
from tests.support.marks import e2e
from tests.support.tiny import model, tokenizer

END = 1
(THE,) = encode(tokenizer(), " the")
FORMATS = {
    "tags": tokens(),
    "text": tokens(closing="\nAnswer:\n", opening="", end="\n"),
    "merging": tokens(closing=" th", opening="", end="at"),
    "closing holds an end": tokens(closing="<end>so", opening="", end="<end>"),
}


def logp_at(place: int) -> float:
    return -(place + 1) / 8


class ScriptedSampler:
    """Row r says scripts[r][place] at that place behind its prompt, whatever stands before it."""

    def __init__(self, scripts, prompts):
        self.scripts, self.starts = scripts, [len(prompt) for prompt in prompts]
        self.calls = []

    def sample(self, requests, seed):
        self.calls.append((list(requests), seed))
        return [self._drawn(*row) for row in zip(requests, self.scripts, self.starts, strict=True)]

    def _drawn(self, request, script, start):
        first = len(request.prompt_ids) - start
        ids, stop = (), None
        while stop is None:
            ids += (script[min(first + len(ids), len(script) - 1)],)
            if ids[-1] in request.stop_token_ids:
                stop = StopReason.END
            elif request.stop_string is not None and request.stop_string.length(ids) is not None:
                stop = StopReason.MARKER
            elif len(ids) == request.max_tokens:
                stop = StopReason.LENGTH
        return Completion(ids, tuple(logp_at(first + n) for n in range(len(ids))), stop)

    def sync(self, model):
        raise AssertionError("a script has no weights")


def thought(form, scripts, budget=TokenBudget(6, 4), prompts=None, stop_tokens=(END,)):
    prompts = prompts or [[5]] * len(scripts)
    sampler = ScriptedSampler(scripts, prompts)
    return think(sampler, prompts, form, budget, stop_tokens=stop_tokens, seed=7), sampler


def closing_of(rollout):
    return rollout.ids[rollout.close_start : rollout.close_end]


def without_logp(rollout):
    return replace(rollout, segments=tuple(replace(segment, logp=None) for segment in rollout.segments))


def facts(rollout):
    return rollout.forced, rollout.dropped_end, rollout.ended


# --- thinking over a scripted sampler


def test_a_closing_that_is_drawn_stays_as_it_is():
    (rollout,), _ = thought(tokens(), say("the cat</think>4<end>"))
    assert text(rollout.ids) == "the cat</think>4<end>"
    assert text(closing_of(rollout)) == "</think>"
    assert facts(rollout) == (False, False, True)
    assert rollout.logp == tuple(map(logp_at, range(len(rollout.ids))))


def test_a_closing_is_forced_at_budget_and_has_no_likelihood():
    form = FORMATS["text"]
    close = len(form.close_ids)
    assert close > 1
    (rollout,), _ = thought(form, [[9] * 20], TokenBudget(3, 2))
    assert list(rollout.ids) == [9, 9, 9, *form.close_ids, 9, 9]
    assert (rollout.close_start, rollout.close_end) == (3, 3 + close)
    assert facts(rollout) == (True, False, False)
    own = [*range(3), *range(3 + close, 5 + close)]
    assert [rollout.logp[place] for place in own] == [logp_at(place) for place in own]
    assert rollout.logp[3 : 3 + close] == (0.0,) * close


def test_a_closing_that_the_budget_just_holds_is_not_forced():
    (script,) = say("the cat</think>4<end>")
    length = script.index(3) + 1
    assert [thought(tokens(), [script], TokenBudget(n, 4))[0][0].forced for n in (length - 1, length)] == [True, False]


def test_an_end_in_thinking_is_dropped_and_thinking_closed():
    (rollout,), sampler = thought(tokens(), say("the<end>4<end>"))
    assert text(rollout.ids) == "the</think>4<end>"
    assert facts(rollout) == (True, True, True)
    assert rollout.logp[rollout.close_start] == 0.0
    assert rollout.logp[-1] == logp_at(len(rollout.ids) - 1)
    (answer,) = sampler.calls[1][0]
    assert answer.prompt_ids == (5, *rollout.ids[: rollout.close_end])


def test_token_of_closing_that_ends_texts_does_not_end_thinking():
    form = FORMATS["closing holds an end"]
    assert form.close_ids[0] == END == form.stop_ids[0]
    (rollout, other), _ = thought(form, say("a<end>b<end>so4<end>", "a<end>b" + "c" * 20), TokenBudget(8, 4))
    assert text(rollout.ids) == "a<end>b<end>so4<end>"
    assert text(closing_of(rollout)) == "<end>so"
    assert facts(rollout) == (False, False, True)
    assert facts(other) == (True, False, False)
    assert other.close_start == 8


def test_no_budget_for_thinking_closes_at_once():
    (rollout,), sampler = thought(tokens(), [[9, *encode(tokenizer(), "4<end>")]], TokenBudget(0, 3))
    assert text(rollout.ids) == "</think>4<end>"
    assert (rollout.close_start, *facts(rollout)) == (0, True, False, True)
    assert len(sampler.calls) == 1


def test_no_budget_for_answers_asks_for_rationales_alone():
    (rollout,), sampler = thought(tokens(), say("the cat</think>4<end>"), TokenBudget(9, 0))
    assert text(rollout.ids) == "the cat</think>"
    assert facts(rollout) == (False, False, False)
    assert len(sampler.calls) == 1


@pytest.mark.parametrize(
    ("form", "said", "answer", "ended"),
    [
        ("tags", "a</think>4<end>the", "4<end>", True),
        ("text", "a\nAnswer:\nParis\n4", "Paris\n", True),
        ("text", "a\nAnswer:\nP<end>4", "P<end>", True),
        ("text", "a\nAnswer:\none two three four", None, False),
    ],
)
def test_an_answer_ends_by_a_stop_token_formats_end_or_budget(form, said, answer, ended):
    (rollout,), _ = thought(FORMATS[form], say(said), TokenBudget(20, 4))
    assert rollout.ended == ended
    assert not rollout.forced
    assert text(rollout.answer_ids) == answer if ended else len(rollout.answer_ids) == 4


def test_token_that_ends_texts_by_its_id_alone_ends_answer_too():
    """Those of the model beside the format's own."""
    script = [*encode(tokenizer(), "a</think>4"), 40, 41]
    (rollout,), _ = thought(tokens(), [script], TokenBudget(5, 5), stop_tokens=(40,))
    assert (rollout.ids, rollout.ended) == (tuple(script[:-1]), True)
    (rollout,), _ = thought(tokens(), say("a</think>4<end>the"), TokenBudget(5, 5), stop_tokens=(40,))
    assert text(rollout.ids) == "a</think>4<end>"


def test_a_closing_may_end_in_a_token_that_goes_on():
    form = FORMATS["merging"]
    (rollout,), _ = thought(form, [[40, 41, THE, 42, 43]], TokenBudget(9, 2))
    assert closing_of(rollout) == (THE,)
    assert (rollout.answer_ids, rollout.forced) == ((42, 43), False)


def test_an_end_token_is_dropped_even_in_a_closing():
    form = FORMATS["merging"]
    (rollout,), _ = thought(form, [[40, 41, THE, 42, 43]], TokenBudget(9, 2), stop_tokens=(THE,))
    assert list(rollout.ids[: rollout.close_end]) == [40, 41, *form.close_ids]
    assert facts(rollout) == (True, True, False)


def test_rows_are_asked_together_and_go_their_own_way():
    scripts = say("the cat</think>4<end>", "one two three four five six seven", "the<end>Paris is big")
    prompts, form, budget = [[5], [5, 6, 8], [7]], tokens(), TokenBudget(4, 3)
    rollouts, sampler = thought(form, scripts, budget, prompts)
    assert rollouts == [
        thought(form, [script], budget, [prompt])[0][0] for script, prompt in zip(scripts, prompts, strict=True)
    ]
    assert [facts(rollout) for rollout in rollouts] == [
        (False, False, True),
        (True, False, False),
        (True, True, False),
    ]
    (first, seed), (second, other) = sampler.calls
    assert seed != other
    assert [request.prompt_ids for request in first] == [(5,), (5, 6, 8), (7,)]
    assert {(request.max_tokens, request.stop_token_ids, request.stop_string) for request in first} == {
        (4, frozenset({END}), form.closing)
    }
    assert [request.max_tokens for request in second] == [3] * 3


class Rude(ScriptedSampler):
    """Gives what it was told to, whatever it was asked."""

    def __init__(self, *completions):
        self.completions = list(completions)

    def sample(self, requests, seed):
        return self.completions


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ([], "0 completions to 1 requests"),
        ([Completion((9, END), (0.0,), StopReason.END)], "2 tokens and 1 log-prob"),
        ([Completion((9,) * 4, (0.0,) * 4, StopReason.LENGTH)], "4 tokens; max_tokens is 3"),
        ([Completion((), (), StopReason.LENGTH)], "0 tokens"),
        ([Completion((9, 9), (0.0,) * 2, StopReason.LENGTH)], "after 2 of 3 tokens"),
        ([Completion((9, END, 9), (0.0,) * 3, StopReason.LENGTH)], "goes on behind a token that ends it"),
        ([Completion((9, 9, END), (0.0,) * 3, StopReason.LENGTH)], "stopped for LENGTH at token 1"),
        ([Completion((9, 9), (0.0,) * 2, StopReason.END)], "stopped for END at token 9"),
        ([Completion((9, 9), (0.0,) * 2, StopReason.MARKER)], "does not complete '</think>'"),
        ([Completion((9, 9, 3), (0.0,) * 3, StopReason.LENGTH)], "completes '</think>'"),
    ],
)
def test_a_completion_that_was_not_asked_for_is_refused(completions, message):
    with pytest.raises(QreditError, match=message):
        think(Rude(*completions), [[5]], tokens(), TokenBudget(3, 3), stop_tokens=[END], seed=0)


def test_completions_that_were_asked_for_pass():
    request = Request((5,), 3, frozenset({END}), tokens().closing)
    for ids, stop in (((9, END), StopReason.END), ((9, 3), StopReason.MARKER), ((9, 9, 9), StopReason.LENGTH)):
        completion = Completion(ids, (0.0,) * len(ids), stop)
        assert check_completions([request], [completion]) == [completion]


def test_a_request_for_no_token_is_refused():
    with pytest.raises(QreditError, match="max_tokens is 0"):
        Request((5,), 0)


# --- any script

POOL = {
    "tags": [*range(4), 9, 40, 41],
    "text": [END, 9, 40, *(encode(tokenizer(), letter)[0] for letter in "\nAnswer:"), *tokens(closing=":\n").close_ids],
    "merging": [END, 9, *encode(tokenizer(), " the th at t h a")],
    "closing holds an end": [END, END, 9, 40, *encode(tokenizer(), "so s o")],
}


@st.composite
def cases(draw):
    """Format, scripts of its marks' pieces, budget, end-of-text ids, prompts."""
    name = draw(st.sampled_from(sorted(FORMATS)))
    form = FORMATS[name]
    pieces = [*([token] for token in POOL[name]), form.close_ids, form.end_ids]
    script = st.lists(st.sampled_from(pieces), min_size=1, max_size=12).map(lambda parts: [*chain.from_iterable(parts)])
    scripts = draw(st.lists(script, min_size=1, max_size=3))
    prompts = [draw(st.lists(st.sampled_from([5, 6, 7]), min_size=1, max_size=3)) for _ in scripts]
    budget = TokenBudget(draw(st.integers(0, 8)), draw(st.integers(1, 5)))
    return form, scripts, budget, draw(st.sampled_from([(), (40, THE), (END,), (END, *form.close_ids)])), prompts


@given(cases())
def test_spans_are_consistent_and_ids_are_those_that_were_drawn(case):
    form, scripts, budget, stop_tokens, prompts = case
    rollouts, _ = thought(form, scripts, budget, prompts, stop_tokens)
    ends = {*stop_tokens, *form.stop_ids}
    for rollout, script in zip(rollouts, scripts, strict=True):
        said = [script[min(place, len(script) - 1)] for place in range(len(rollout.ids))]
        start, end = rollout.close_start, rollout.close_end
        assert 0 <= start < end <= len(rollout.ids) == len(rollout.logp)
        for place, (token, logp) in enumerate(zip(rollout.ids, rollout.logp, strict=True)):
            if rollout.forced and start <= place < end:
                assert (token, logp) == (form.close_ids[place - start], 0.0)
            else:
                assert (token, logp) == (said[place], logp_at(place))
        assert form.closing.length(rollout.ids[:end]) == end - start or rollout.forced
        assert form.closing.text in text(closing_of(rollout))
        assert (start if rollout.forced else end) <= budget.thinking
        assert rollout.dropped_end == (rollout.forced and start < budget.thinking)
        assert not rollout.dropped_end or said[start] in ends - {*form.close_ids}
        assert len(rollout.answer_ids) <= budget.answer
        assert rollout.ended or len(rollout.answer_ids) == budget.answer


@given(cases())
def test_two_calls_give_what_one_gives(case):
    form, scripts, budget, stop_tokens, prompts = case
    found, _ = thought(form, scripts, budget, prompts, stop_tokens)
    source = Scripted(scripts, len(tokenizer()))
    expected = sample(source, prompts, form, budget, stop_tokens=stop_tokens, pad=0, seed=0)
    assert [without_logp(one) for one in found] == [without_logp(one) for one in expected]


# --- transformers behind the protocol


def greedy(seed=0, shared=True):
    """A sampler without noise over a model whose greedy texts vary."""
    made = model(seed, tie_word_embeddings=False, initializer_range=0.5)
    if shared:
        assert share_prefix(made) is None
    return TransformersSampler(made, 0, SamplingParams(temperature=0.0))


@pytest.mark.parametrize("shared", [True, e2e(False)])
def test_without_noise_two_calls_of_a_model_give_what_one_gives(shared):
    prompts = [encode(tokenizer(), words) for words in ("What is two?", "the cat", "Paris is big, London")]
    made = [tokens(closing=closing, opening="", end=end) for closing, end in (("o", "a"), ("x", "<end>"), ("in", "o"))]
    budgets, kinds = (TokenBudget(20, 8), TokenBudget(3, 10), TokenBudget(0, 4)), set()
    for sampler, form, budget in product((greedy(0, shared), greedy(1, shared)), made, budgets):
        asked = (prompts, form, budget)
        one = think(sampler, *asked, stop_tokens=[1, *range(60, 80)], seed=0)
        two = think_by_requests(sampler, *asked, stop_tokens=[1, *range(60, 80)], seed=0)
        assert [without_logp(r) for r in two] == [without_logp(r) for r in one]
        for mine, theirs in zip(two, one, strict=True):
            assert mine.logp == pytest.approx(theirs.logp, abs=1e-4)
        kinds |= {facts(rollout) for rollout in one}
    assert kinds == {(forced, cut, ended) for forced, cut in ((0, 0), (1, 0), (1, 1)) for ended in (0, 1)}


def test_thinking_is_one_call_where_the_sampler_offers_it():
    source = Scripted(say("the cat</think>4<end>"), len(tokenizer()))
    sampler = TransformersSampler(source, 0)
    (one,) = think(sampler, [[5]], tokens(), TokenBudget(6, 4), stop_tokens=[END], seed=0)
    assert text(one.ids) == "the cat</think>4<end>"
    assert len(source.modes) == 1
    assert isinstance(sampler, ThinkingSampler)
    assert not isinstance(ScriptedSampler([], []), ThinkingSampler)


def test_each_request_stops_for_its_own_reason():
    (script,) = say("the cat</think>4<end>the cat")
    source = Scripted([script] * 5, len(tokenizer()))
    close, end = script.index(3) + 1, script.index(END) + 1
    requests = [
        Request((5,), 2),
        Request((5, 6), 20, frozenset({END})),
        Request((5,), 20, frozenset({END}), tokens().closing),
        Request((5,), 20, frozenset({3, END}), tokens().closing),
        Request((5,), 20, stop_string=FORMATS["merging"].end),
    ]
    completions = TransformersSampler(source, 0).sample(requests, seed=0)
    at = next(n for n in range(1, 20) if "at" in text(script[:n]))
    assert [(list(one.ids), one.stop) for one in completions] == [
        (script[:2], StopReason.LENGTH),
        (script[:end], StopReason.END),
        (script[:close], StopReason.MARKER),
        (script[:close], StopReason.END),
        (script[:at], StopReason.MARKER),
    ]
    assert check_completions(requests, completions) == completions


def requests_of(*lengths):
    prompts = (encode(tokenizer(), words) for words in ("What is two?", "the cat", "What is two?"))
    return [Request(tuple(ids), n, frozenset({END, *range(60, 80)})) for ids, n in zip(prompts, lengths, strict=True)]


@pytest.mark.parametrize("shared", [True, False])
def test_completions_carry_models_likelihoods_at_temperature(shared):
    made = model()
    if shared:
        share_prefix(made)
    requests = requests_of(3, 9, 6)
    completions = check_completions(
        requests, TransformersSampler(made, 0, SamplingParams(temperature=0.7, top_k=50)).sample(requests, 4)
    )
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([[*request.prompt_ids, *completion.ids]])
        with torch.no_grad():
            logp = (model()(ids).logits[0, len(request.prompt_ids) - 1 : -1] / 0.7).log_softmax(-1)
        own = logp.gather(1, ids[0, len(request.prompt_ids) :, None])[:, 0]
        assert completion.logp == pytest.approx(own.tolist(), abs=1e-4)


def test_completions_are_a_function_of_requests_and_seed():
    sampler, requests = TransformersSampler(model(), 0), requests_of(9, 9, 9)
    first = sampler.sample(requests, 3)
    torch.manual_seed(5)
    assert sampler.sample(requests, 3) == first
    assert sampler.sample(requests, 4) != first
    assert first[0] != first[2]  # rows of one prompt have noise of their own


def test_a_synced_sampler_draws_with_the_other_weights():
    sampler, other = greedy(0), greedy(1)
    requests = requests_of(6, 6, 6)
    expected = other.sample(requests, 0)
    assert sampler.sample(requests, 0) != expected
    sampler.sync(other.model)
    assert sampler.sample(requests, 0) == expected
