"""vLLM itself, on the CPU: its draws against transformers', and pushes of weights. Skipped where it is missing."""

import gc
from dataclasses import replace
from itertools import product

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qredit import QreditError
from qredit.rollouts.format import encode
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.protocol import Request
from qredit.samplers.think_then_answer import think
from qredit.samplers.transformers import TransformersSampler
from qredit.samplers.vllm.colocate import start_engine
from qredit.samplers.vllm.settings import VllmSettings
from tests.rollouts.test_rollout import tokens
from tests.support.tiny import model, tokenizer
from tests.support.vllm_engines import LENGTH, largest_gap, make_sampler, needs_vllm, real_engine, wide_model

pytestmark = [needs_vllm, pytest.mark.vllm]

CPU = torch.device("cpu")
GREEDY = SamplingParams(temperature=0.0)
FORMATS = {
    1: tokens(),
    2: tokens(closing=" th", opening="", end="at"),
    9: tokens(closing="\nAnswer the cat so", opening="", end="\n"),
}
PROMPTS = [tuple(range(5 + 3 * n, 14 + 5 * n)) for n in range(6)]


def start(network, length=LENGTH):
    return start_engine(
        network, tokenizer(), VllmSettings(), SamplingParams(), device=CPU, dtype="float32", length=length
    )


def drawn(sampler, form, budget, prompts=PROMPTS, seed=3):
    return think(sampler, prompts, form, budget, stop_tokens=[1], seed=seed)


def without_logp(one):
    return replace(one, segments=tuple(replace(segment, logp=None) for segment in one.segments))


def test_closings_are_of_the_lengths_that_they_are_named_by():
    found = {length: len(form.close_ids) for length, form in FORMATS.items()}
    assert found[1] == 1
    assert found[2] >= 2
    assert found[9] >= 9


@pytest.mark.parametrize(("length", "thinking"), product(FORMATS, (0, 1, 12)))
def test_greedy_draws_are_those_of_transformers(length, thinking):
    """In every field, log-probabilities within 1e-5."""
    form, budget, network = FORMATS[length], TokenBudget(thinking, 6), wide_model()
    theirs = drawn(TransformersSampler(network, 0, GREEDY), form, budget)
    ours = drawn(make_sampler(real_engine(), network, GREEDY), form, budget)
    assert list(map(without_logp, ours)) == list(map(without_logp, theirs))
    assert (
        max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x.logp, y.logp, strict=True)) < 1e-5
    )


def test_a_sampled_closing_and_a_forced_one_are_both_met():
    """The test above compares both, and answers that end and do not."""
    every = [
        one
        for form in FORMATS.values()
        for one in drawn(make_sampler(real_engine(), wide_model()), form, TokenBudget(40, 30), PROMPTS * 8)
    ]
    assert {one.forced for one in every} == {True, False}
    assert {one.ended for one in every} == {True, False}
    assert {one.dropped_end for one in every} == {True, False}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_of_draws_are_those_of_a_forward_pass(temperature):
    network = wide_model()
    sampler = make_sampler(real_engine(temperature), network, SamplingParams(temperature=temperature))
    found = drawn(sampler, FORMATS[9], TokenBudget(24, 8), PROMPTS * 4)
    assert len({one.ids for one in found}) > 12  # rows of one prompt differ
    assert largest_gap(network, found, temperature) < 1e-4
    assert largest_gap(network, found, 1.7 - temperature) > 0.1  # the test can tell temperatures apart


def test_a_row_draws_the_same_alone_or_in_a_batch():
    sampler = make_sampler(real_engine(), wide_model())
    requests = [Request(prompt, 16) for prompt in PROMPTS]
    whole = sampler.sample(requests, seed=11)
    assert [sampler.sample(requests[:count], seed=11)[0].ids for count in (1, 3)] == [whole[0].ids] * 2
    assert sampler.sample(requests, seed=12)[0].ids != whole[0].ids


def test_a_textual_end_stops_an_answer():
    form = tokens(closing="\nAnswer:\n", opening="", end=tokenizer().decode(encode(tokenizer(), "e")))
    found = drawn(make_sampler(real_engine(), wide_model()), form, TokenBudget(2, 40), PROMPTS * 6)
    ended = [one for one in found if one.ended and one.answer_ids[-1] != 1]
    assert ended
    assert all("e" in tokenizer().decode(list(one.answer_ids[-1:])) for one in ended)


def test_prompts_are_read_whole_however_many_there_are():
    """More tokens than the engine reads at once: a row whose prompt it reads in parts would take its draws back."""
    prompts = [tuple(5 + (place * place + row) % 40 for place in range(200)) for row in range(24)]
    sampler = make_sampler(real_engine(), wide_model())
    found = drawn(sampler, FORMATS[1], TokenBudget(6, 3), prompts)
    assert largest_gap(wide_model(), found) < 1e-4
    assert drawn(sampler, FORMATS[1], TokenBudget(6, 3), prompts[:1])[0].ids == found[0].ids


def test_weights_that_moved_are_drawn_with_after_the_next_push():
    engine, network = real_engine(), wide_model()
    version = [0]
    sampler = make_sampler(engine, network, version=lambda: version[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.6 * torch.randn(parameter.shape) * parameter.std())
    form, budget = FORMATS[1], TokenBudget(24, 8)
    sampler.sync(network)  # of the same version: nothing is pushed
    assert largest_gap(network, drawn(sampler, form, budget)) > 1
    version[0] = 1
    sampler.sync(network)
    # the same prompts, whose keys and values under the weights before must be forgotten
    assert largest_gap(network, drawn(sampler, form, budget)) < 1e-4
    assert sampler.weights.count == 2


def test_adapters_are_merged_and_the_base_stays_bit_for_bit():
    network = get_peft_model(wide_model(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sampler = make_sampler(real_engine(), network.eval())
    found = drawn(sampler, FORMATS[1], TokenBudget(24, 8))
    assert largest_gap(network, found) < 1e-4
    with network.disable_adapter():
        assert largest_gap(network, found) > 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_generators_of_the_run_are_left_alone():
    network = wide_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    engine = start(network, LENGTH + 1)  # not one that is there
    make_sampler(engine, network)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"head_dim": 8}, "head_dim=8"),  # it is loaded, and no kernel computes it
        ({"num_attention_heads": 3, "num_key_value_heads": 2, "head_dim": 32}, "not divisible"),
    ],
)
def test_a_model_that_it_cannot_run_is_refused_in_one_line(shape, said):
    with pytest.raises(QreditError, match=f"vLLM cannot run model .*{said}") as found:
        start(model(**shape))
    assert "\n" not in str(found.value)


def test_a_refused_model_leaves_other_engines_as_they_are():
    sampler = make_sampler(real_engine(), wide_model())
    before = drawn(sampler, FORMATS[1], TokenBudget(6, 3))
    with pytest.raises(QreditError, match="head_dim=8"):
        start(model(head_dim=8))
    gc.collect()
    assert drawn(sampler, FORMATS[1], TokenBudget(6, 3)) == before


def test_an_engine_is_shared_by_runs_of_the_same_shape():
    engine = start(wide_model(), LENGTH)
    assert start(wide_model(seed=3), LENGTH - 10) is engine
    with pytest.raises(QreditError, match=f"take {engine.length + 1} tokens, and vLLM was made for {engine.length}"):
        make_sampler(engine).sample([Request((5,) * 9, engine.length - 8)], 0)
