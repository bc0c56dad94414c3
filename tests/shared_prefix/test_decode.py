"""Decoding that shares each prompt's keys draws the tokens of transformers' generate."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.transformers import sample
from qredit.shared_prefix import decode
from qredit.shared_prefix.decode import Decoder, DecodingCache
from qredit.shared_prefix.share import share_prefix
from tests.shared_prefix.test_prefix import CONFIGS, network
from tests.support.marks import e2e
from tests.support.tiny import model, tokenizer

FORMAT = TokenFormat(Format.of(tokenizer()), tokenizer())
PROMPTS = [
    tuple(FORMAT.prompt_ids(text)) for text in ("What is 2? ", "The cat lives in the big house. Where? ", "One ")
]
ROWS = [PROMPTS[number] for number in (0, 1, 0, 2, 1, 0, 0, 2, 1, 1)]


def drawn(made, rows=ROWS, seed=3, **draw):
    return sample(
        made,
        rows,
        FORMAT,
        TokenBudget(thinking=12, answer=5),
        draw=SamplingParams(**draw),
        stop_tokens=[1, *range(20, 80)],  # so many that rows end at different times
        pad=0,
        seed=seed,
    )


@pytest.mark.parametrize("seed", [0, e2e(1), e2e(2)])
@pytest.mark.parametrize("draw", [{}, {"temperature": 0.7, "top_k": 20}, {"repetition_penalty": 1.3}], ids=str)
def test_the_tokens_are_those_of_generate(seed, draw):
    made = model()
    expected = drawn(made, seed=seed, **draw)
    assert share_prefix(made) is None
    found = drawn(made, seed=seed, **draw)
    assert [r.ids for r in found] == [r.ids for r in expected]
    assert len({len(r.ids) for r in found}) > 1  # some rows ended before others
    for one, other in zip(found, expected, strict=True):
        assert (one.close_start, one.forced, one.ended) == (other.close_start, other.forced, other.ended)
        assert one.logp == pytest.approx(other.logp, abs=1e-5)


def test_the_tokens_are_those_of_generate_with_adapters():
    base = model()
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    expected = drawn(made)
    assert share_prefix(made) is None
    assert [r.ids for r in drawn(made)] == [r.ids for r in expected]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_logits_are_those_of_the_ordinary_forward(name):
    """Prefill, then three tokens of which one row is left out in between."""
    made = network(CONFIGS[name]).eval()
    rows = [(5, 6, 7), (8, 9), (5, 6, 7), (8, 9), (8, 9)]
    tokens = torch.tensor([[11, 12, 13], [14, 15, 16], [17, 18, 19], [20, 21, 22], [23, 24, 25]])
    with torch.no_grad():
        expected = [
            made(torch.tensor([[*row, *more.tolist()]])).logits[0, len(row) - 1 :]
            for row, more in zip(rows, tokens, strict=True)
        ]
        assert share_prefix(made) is None
        decoder = Decoder(made, rows, capacity=3)
        for step in range(4):
            scores = decoder.prefill() if step == 0 else decoder.step(tokens[decoder.rows, step - 1])
            for place, row in enumerate(decoder.rows.tolist()):
                assert torch.allclose(scores[place], expected[row][step], atol=1e-5)
            if step == 1:
                decoder.keep_rows((decoder.rows != 3).nonzero()[:, 0])
    assert decoder.rows.tolist() == [0, 2, 1, 4]


def test_each_prompt_is_prefilled_once():
    made = model()
    share_prefix(made)
    assert Decoder(made, ROWS, 4).packing.ids.shape[1] == sum(map(len, PROMPTS))


def test_keys_of_the_prompt_are_held_once():
    made = model()
    share_prefix(made)
    decoder = Decoder(made, [PROMPTS[0]] * 8, 4)
    with torch.no_grad():
        decoder.prefill()
    (prompt,) = decoder.keys.layers[0].prompts
    assert prompt[0].shape == (1, 2, len(PROMPTS[0]), 8)


# --- mutants


def test_a_decoder_that_forgets_the_prompt_is_caught(monkeypatch):
    def own_alone(query, keys, values, own, own_values, scale):
        return torch.matmul(own.softmax(3), own_values)

    monkeypatch.setattr(decode, "_attend_to_both", own_alone)
    with pytest.raises(AssertionError):
        test_the_logits_are_those_of_the_ordinary_forward("qwen3")


def test_rows_left_out_of_keys_by_the_wrong_number_are_caught(monkeypatch):
    right = DecodingCache.keep_rows
    monkeypatch.setattr(DecodingCache, "keep_rows", lambda self, stay: right(self, torch.arange(len(stay))))
    with pytest.raises(AssertionError):
        test_the_logits_are_those_of_the_ordinary_forward("qwen3")


# --- the distribution


def test_sequences_come_with_their_probability():
    """χ² of 16,000 rollouts of two thinking tokens over a vocabulary cut to four, against the model's own products."""
    made = model().eval()
    kept = torch.tensor([40, 41, 42, 43])
    head = made.get_output_embeddings()
    made.lm_head = torch.nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        made.lm_head.weight.copy_(6 * head.weight)
        made.lm_head.bias.fill_(-1e4)
        made.lm_head.bias[kept] = 0.0
    prompt, budget = PROMPTS[0], TokenBudget(thinking=2, answer=1)
    share_prefix(made)
    seen = torch.zeros(4, 4)
    for seed in range(4):
        for rollout in sample(made, [prompt] * 4000, FORMAT, budget, stop_tokens=[1], pad=0, seed=seed):
            seen[rollout.ids[0] - 40, rollout.ids[1] - 40] += 1
    with torch.no_grad():
        first = made(torch.tensor([prompt])).logits[0, -1, kept].softmax(0)
        then = torch.stack([made(torch.tensor([[*prompt, int(k)]])).logits[0, -1, kept].softmax(0) for k in kept])
    expected = 16_000 * first[:, None] * then
    statistic = float(((seen - expected) ** 2 / expected).sum())
    assert int(seen.sum()) == 16_000
    assert float(expected.min()) > 5
    assert statistic < 37.7, math.sqrt(statistic)  # χ²(15), 99.9 %
