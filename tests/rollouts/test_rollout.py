"""Format, sampling and collation: where thinking ends, what is forced, what is appended, and that ids stay ids."""

from dataclasses import replace

import pytest
import torch

from qredit import QreditError
from qredit.rollouts.collate import choose_tails, collate
from qredit.rollouts.format import Format, StopString, TokenFormat, encode
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.rollouts.trajectory import Trajectory, make_one_turn
from qredit.samplers.transformers import sample
from tests.support.tiny import chat_tokenizer, model, qwen_tokenizer, tokenizer

CPU = torch.device("cpu")


def tokens(**strings) -> TokenFormat:
    return TokenFormat(Format.of(tokenizer(), **strings), tokenizer())


# --- format


def test_the_format_follows_the_tokenizer():
    assert Format.of(tokenizer()) == Format("<think>", "</think>", "", "<end>")
    assert Format.of(chat_tokenizer()) == Format("<think>\n", "</think>", "\n\n", "<end>")
    assert Format.of(tokenizer(thinking=False)) == Format("", "\nAnswer:\n", "", "<end>")
    assert Format.of(tokenizer(), closing="###", end="\n").closing == "###"


def test_an_empty_closing_or_end_is_refused():
    with pytest.raises(QreditError, match="closing must not be empty"):
        Format.of(tokenizer(), closing="")
    with pytest.raises(QreditError, match="end must not be empty"):
        Format.of(tokenizer(), end="")


def test_a_prompt_gets_the_opening_once():
    form, chat = Format.of(chat_tokenizer()), chat_tokenizer()
    messages = [{"role": "user", "content": "What is two?"}]
    assert form.render(messages, chat) == "<|user|>What is two?\n<|assistant|><think>\n"
    assert form.render(messages, chat, opened=True) == "<|user|>What is two?\n<|assistant|><think>\n"
    assert Format.of(tokenizer()).render("What is two?", tokenizer()) == "What is two?<think>"


def test_a_template_that_closes_thinking_is_refused_with_switch():
    with pytest.raises(QreditError, match="enable_thinking: true"):
        Format.of(chat_tokenizer()).render([{"role": "user", "content": "?"}], chat_tokenizer(), enable_thinking=False)


def test_messages_without_a_template_are_refused():
    with pytest.raises(QreditError, match="no chat template"):
        Format.of(tokenizer()).render([{"role": "user", "content": "?"}], tokenizer())


def test_answer_ids_are_what_the_text_would_be():
    form = tokens(seam=" ")
    ids = form.answer_ids("Paris")
    whole = encode(tokenizer(), "</think> Paris<end>")
    assert form.close_ids + ids == whole
    assert ids[-1] == tokenizer().eos_token_id


def test_an_answer_merged_with_its_seam_is_one_token_as_in_text():
    """Both belong to the answer: they are scored and trained together, and sampled together."""
    (the,) = encode(tokenizer(), " the")
    assert tokens(seam=" ").answer_ids("the") == [the, tokenizer().eos_token_id]
    assert tokens(seam=" ").response_text([the, tokenizer().eos_token_id]) == "the"


def test_a_closing_that_merges_with_the_seam_is_refused():
    with pytest.raises(QreditError, match=r"merges into ' the'; set answer_seam to ''"):
        tokens(closing=" th", seam="e\n").answer_ids("Paris")
    assert tokens(closing=" th", seam="").answer_ids("Paris")


ANSWERS = ("Paris", "12,500.5 %", "the cat's house", "-3", "x\u00b2 = 4", "\u6771\u4eac", "a\nb", "New York City", "'s")


@pytest.mark.parametrize("seam", ["\n\n", "\n", ""])
@pytest.mark.parametrize("answer", ANSWERS)
def test_behind_qwens_split_answers_join_as_their_text_does(answer, seam):
    form = TokenFormat(Format.of(qwen_tokenizer(), closing="</think>", seam=seam), qwen_tokenizer())
    ids = form.close_ids + form.answer_ids(answer)
    assert ids == encode(qwen_tokenizer(), f"</think>{seam}{answer}<end>")
    assert qwen_tokenizer().decode(ids, skip_special_tokens=True) == f"{seam}{answer}"


@pytest.mark.parametrize(("seam", "answer"), [("\n", "\nx"), (" ", "the"), ("\n ", "Paris")])
def test_behind_qwens_split_an_answer_may_merge_with_its_seam(seam, answer):
    form = TokenFormat(Format.of(qwen_tokenizer(), closing="</think>", seam=seam), qwen_tokenizer())
    ids = form.close_ids + form.answer_ids(answer)
    assert ids == encode(qwen_tokenizer(), f"</think>{seam}{answer}<end>")
    apart = encode(qwen_tokenizer(), f"</think>{seam}") + encode(qwen_tokenizer(), f"{answer}<end>")
    assert ids != apart


def test_behind_qwens_split_none_may_merge_with_the_closing():
    form = TokenFormat(Format.of(qwen_tokenizer(), closing="so\n", seam=""), qwen_tokenizer())
    with pytest.raises(QreditError, match="does not join at the seam.*take the white space around it away"):
        form.answer_ids("\nx")
    assert form.answer_ids("x")


def test_qwens_split_keeps_digits_apart_and_line_ends_together():
    split = qwen_tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str
    assert [text for text, _ in split("in 1984.\n\n It's")] == [
        "in",
        "\u0120",
        "1",
        "9",
        "8",
        "4",
        ".\u010a\u010a",
        "\u0120It",
        "'s",
    ]


@pytest.mark.parametrize(
    ("text", "length"),
    [("so 4\nAnswer:\n", 3), ("so 4\nAnswer:", None), ("so 4\nAnswer:\nParis", None), ("", None)],
)
def test_a_closing_of_several_tokens_is_found_at_its_last(text, length):
    marker = StopString(tokenizer(), "\nAnswer:\n")
    found = marker.length(encode(tokenizer(), text))
    if length is None:
        assert found is None
    else:
        assert found is not None
        assert "\nAnswer:\n" in tokenizer().decode(encode(tokenizer(), text)[-found:])
        assert "\nAnswer:\n" not in tokenizer().decode(encode(tokenizer(), text)[-found + 1 :])


def test_a_closing_is_found_however_it_is_split_into_tokens():
    marker = StopString(tokenizer(), "\nAnswer:\n")
    letters = [encode(tokenizer(), letter)[0] for letter in "x\nAnswer:\n"]
    assert [marker.length(letters[:end]) for end in range(len(letters) + 1)] == [None] * len(letters) + [9]


# --- sampling


class Scripted(torch.nn.Module):
    """Stands for a model whose next token is given: row r says script[r], one token per step."""

    device = CPU

    def __init__(self, scripts, vocabulary):
        super().__init__()
        self.scripts, self.vocabulary = scripts, vocabulary
        self.modes = []

    def generate(self, input_ids, attention_mask, generation_config, logits_processor, stopping_criteria):
        self.modes.append(self.training)
        ids = input_ids
        for step in range(generation_config.max_new_tokens):
            scores = torch.full((len(ids), self.vocabulary), -50.0)
            for row, script in enumerate(self.scripts):
                scores[row, script[min(step, len(script) - 1)]] = 50.0
            chosen = logits_processor(ids, scores)
            assert (chosen > -torch.inf).sum(1).tolist() == [1] * len(ids)
            ids = torch.cat([ids, chosen.argmax(1, keepdim=True)], 1)
            if stopping_criteria(ids, None).all():
                break
        return ids


def say(*texts):
    return [encode(tokenizer(), text) for text in texts]


def sampled(form, scripts, budget=TokenBudget(6, 4), **settings):
    source = Scripted(scripts, len(tokenizer()))
    return sample(source, [[5]] * len(scripts), form, budget, stop_tokens=[1], pad=0, seed=0, **settings)


def text(ids):
    return tokenizer().decode(ids)


def test_a_rationale_that_closes_itself():
    (rollout,) = sampled(tokens(), say("the cat</think>4<end>"))
    assert text(rollout.ids) == "the cat</think>4<end>"
    assert (rollout.forced, rollout.dropped_end, rollout.ended) == (False, False, True)
    assert text(rollout.ids[rollout.close_start : rollout.close_end]) == "</think>"
    assert text(rollout.answer_ids) == "4<end>"


def test_budget_that_ends_forces_closing_and_goes_on_to_answer():
    (rollout,) = sampled(tokens(), say("the cat the cat the cat the cat the cat"), TokenBudget(3, 2))
    assert (rollout.forced, rollout.dropped_end, rollout.ended) == (True, False, False)
    assert rollout.close_start == 3
    assert text(rollout.ids[3:4]) == "</think>"
    assert rollout.logp[3] == 0.0
    assert len(rollout.answer_ids) == 2


def test_an_end_while_thinking_is_dropped_and_thinking_closed():
    (rollout,) = sampled(tokens(), say("the<end>4<end>"))
    assert text(rollout.ids) == "the</think>4<end>"
    assert (rollout.forced, rollout.dropped_end, rollout.ended) == (True, True, True)


def test_a_forced_closing_of_several_tokens_is_complete():
    form = tokens(closing="\nAnswer:\n", opening="")
    (rollout,) = sampled(form, say("the cat the cat the cat the cat the cat"), TokenBudget(2, 1))
    assert text(rollout.ids[rollout.close_start : rollout.close_end]) == "\nAnswer:\n"
    assert rollout.forced


def test_a_textual_end_closes_an_answer_but_not_a_rationale():
    form = tokens(closing="\nAnswer:\n", opening="", end="\n")
    (rollout,) = sampled(form, say("a\nb\nAnswer:\nParis\n4"), TokenBudget(12, 9))
    assert text(rollout.ids) == "a\nb\nAnswer:\nParis\n"
    assert rollout.ended
    assert form.response_text(rollout.answer_ids) == "Paris"


def test_no_thinking_budget_forces_the_closing_at_once():
    (rollout,) = sampled(tokens(), [[9, *encode(tokenizer(), "4<end>")]], TokenBudget(0, 3))
    assert (rollout.close_start, rollout.forced) == (0, True)


def test_rows_go_their_own_way_and_the_model_keeps_its_mode():
    scripts = say("the cat</think>4<end>", "one two three four five six seven", "the<end>Paris is big")
    source = Scripted(scripts, len(tokenizer()))
    source.train()
    rollouts = sample(source, [[5], [5, 6], [7]], tokens(), TokenBudget(6, 3), stop_tokens=[1], pad=0, seed=0)
    assert source.modes == [False]
    assert source.training
    alone = [sampled(tokens(), [script], TokenBudget(6, 3))[0] for script in scripts]
    assert [one.segments for one in rollouts] == [one.segments for one in alone]


def test_same_seed_draws_same_rollouts_and_another_seed_others():
    network, prompts = model(), [[40, 41, 42], [50, 51]] * 3

    def draw(seed):
        return sample(network, prompts, tokens(), TokenBudget(6, 3), stop_tokens=[1], pad=0, seed=seed)

    torch.manual_seed(1)
    first = draw(7)
    torch.manual_seed(2)
    assert draw(7) == first
    assert draw(8) != first


def test_sampled_log_probabilities_are_the_models_own():
    network, form = model(), tokens()
    prompts = [encode(tokenizer(), "What is two?<think>"), encode(tokenizer(), "the cat<think>")]
    rollouts = sample(network, prompts, form, TokenBudget(6, 3), stop_tokens=[1], pad=0, seed=3)
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        ids = torch.tensor([prompt + list(rollout.ids)])
        with torch.no_grad():
            logp = network(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        own = logp.gather(1, ids[0, len(prompt) :, None])[:, 0]
        drawn = torch.ones(len(rollout.ids), dtype=torch.bool)
        if rollout.forced:
            drawn[rollout.close_start : rollout.close_end] = False
        assert torch.allclose(torch.tensor(rollout.logp)[drawn], own[drawn], atol=1e-4)
        assert torch.tensor(rollout.logp)[~drawn].tolist() == [0.0] * int((~drawn).sum())


def test_sampling_follows_the_models_distribution():
    """First tokens of 4000 rows against the softmax, total variation distance below three times its expectation."""
    network, prompt, rows = model(), [40, 41, 42], 4000
    rollouts = sample(network, [prompt] * rows, tokens(), TokenBudget(1, 1), stop_tokens=[1], pad=0, seed=0)
    with torch.no_grad():
        p = network(torch.tensor([prompt])).logits[0, -1].softmax(-1).double()
    p[3] += p[1]  # an end of text is dropped and the closing forced instead
    p[1] = 0.0
    seen = torch.bincount(torch.tensor([r.ids[0] for r in rollouts]), minlength=len(p)).double() / rows
    expected = float((2 * p * (1 - p) / (torch.pi * rows)).sqrt().sum() / 2)
    assert float((seen - p).abs().sum() / 2) < 1.5 * expected


def test_temperature_zero_is_greedy_and_top_k_keeps_its_tokens():
    network, prompt = model(), [40, 41, 42]
    with torch.no_grad():
        best = network(torch.tensor([prompt])).logits[0, -1].topk(2).indices.tolist()

    def firsts(how):
        rollouts = sample(network, [prompt] * 50, tokens(), TokenBudget(1, 1), draw=how, stop_tokens=[1], pad=0, seed=0)
        return {r.ids[0] for r in rollouts}

    assert firsts(SamplingParams(temperature=0.0)) == {best[0]}
    assert firsts(SamplingParams(top_k=2)) == set(best)
    assert not SamplingParams().is_biased
    assert SamplingParams(top_p=0.9).is_biased


# --- collation


def rollout(prompt=(5,), golds=((30, 1),), forced=False, **known) -> Trajectory:
    """Ids 10 11 | 3 | 20 1: rationale, closing, answer."""
    made = make_one_turn(prompt, (10, 11, 3, 20, 1), (-1.0, -2.0, -3.0, -4.0, -5.0), 2, 3, forced=forced, ended=True)
    return replace(made, golds=golds, **known)


def test_the_two_tails_of_a_sampled_closing():
    item = rollout(prompt=(5, 6), group=4, golds=((30, 31, 1),), reward=1.0)
    rows = collate([item], ("answer", "response"), pad=0, seed=9, device=CPU)
    batch = rows.batch
    assert batch.ids.tolist() == [[10, 11, 3, 30, 31, 1], [10, 11, 3, 20, 1, 0]]
    assert batch.mask.sum(1).tolist() == [6, 5]
    assert batch.rationale.int().tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert batch.close.int().tolist() == [[0, 0, 1, 0, 0, 0]] * 2
    assert batch.answer.int().tolist() == [[0, 0, 0, 1, 1, 1], [0] * 6]
    assert batch.response.int().tolist() == [[0] * 6, [0, 0, 0, 1, 1, 0]]
    assert batch.sampled.int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert batch.sampler_logp.tolist() == [[-1, -2, -3, 0, 0, 0], [-1, -2, -3, -4, -5, 0]]
    assert batch.rollouts == 1
    assert batch.reward.isnan().tolist() == [True, False]
    assert rows.prompt_ids.tolist() == [[5, 6]] * 2


def test_a_forced_closing_is_not_of_rationale_and_not_sampled():
    item = rollout(forced=True, reward=0.0)
    batch = collate([item], ("answer",), pad=0, seed=0, device=CPU).batch
    assert batch.rationale.int().tolist() == [[1, 1, 0, 0, 0]]
    assert batch.sampled.int().tolist() == [[1, 1, 0, 0, 0]]
    assert batch.trainable.int().tolist() == [[1, 1, 0, 1, 1]]
    assert batch.reward.tolist() == [0.0]


def test_prompts_are_padded_to_the_left():
    items = [rollout(), rollout(prompt=(7, 8, 9), group=1)]
    rows = collate(items, ("response",), pad=0, seed=0, device=CPU)
    assert rows.prompt_ids.tolist() == [[0, 0, 5], [7, 8, 9]]
    assert rows.prompt_mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("needs", "tails"),
    [
        ({"answer_logp"}, ("answer",)),
        ({"reward"}, ("response",)),
        ({"reward", "answer_logp", "seed"}, ("answer", "response")),
        (set(), ("response",)),
    ],
)
def test_needs_decide_the_tails(needs, tails):
    assert choose_tails(needs) == tails


# --- nothing but the draw changes the distribution


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.5},
        {"suppress_tokens": [5, 6]},
        {"no_repeat_ngram_size": 2},
        {"num_return_sequences": 2},
    ],
    ids=str,
)
def test_the_models_own_generation_config_is_set_aside(changes):
    network, form = model(), tokens()
    plain = _drawn(network, form)
    for name, value in changes.items():
        setattr(network.generation_config, name, value)
    before = network.generation_config.to_dict()
    assert _drawn(network, form) == plain
    assert network.generation_config.to_dict() == before


def test_recorded_likelihoods_are_the_models_at_its_temperature():
    network, form = model(), tokens()
    for draw in (
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(top_p=0.5),
        SamplingParams(top_k=3, temperature=2.0),
        SamplingParams(repetition_penalty=2.0),
    ):
        rollout = _drawn(network, form, draw)[0]
        prompt = form.prompt_ids("What is two?")
        with torch.no_grad():
            logits = network(torch.tensor([prompt + list(rollout.ids)])).logits[0, len(prompt) - 1 : -1]
        logp = (logits / draw.temperature).log_softmax(-1)
        for place, (token, recorded) in enumerate(zip(rollout.ids, rollout.logp, strict=True)):
            if recorded != 0.0:
                assert recorded == pytest.approx(float(logp[place, token]), abs=1e-4), draw


def _drawn(network, form, draw=SamplingParams()):
    prompt = form.prompt_ids("What is two?")
    return sample(network, [prompt] * 3, form, TokenBudget(6, 3), draw=draw, stop_tokens=[1], pad=0, seed=5)
