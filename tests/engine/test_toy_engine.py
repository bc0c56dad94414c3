"""The step serves a second engine: without TRL it has the gradients of TRL's adapter, and it learns."""

import ast
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit import pocket, tasks
from qredit.objectives.parsing import parse
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.samplers.transformers import sample
from tests.support.imports import imports_when_read, loaded_with
from tests.support.marks import e2e
from tests.support.paths import SUPPORT
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, length_reward, relative_difference, trainer
from tests.support.tiny import model, tokenizer
from tests.support.toy_engine import ToyEngine


def test_it_is_short():
    lines = (SUPPORT / "toy_engine.py").read_text().splitlines()
    assert len(lines) <= 150


def test_it_imports_no_other_engine():
    own = ast.parse((SUPPORT / "toy_engine.py").read_text())
    loaded = set().union(*map(loaded_with, imports_when_read(own)))
    assert "transformers" in loaded
    assert not loaded & {"trl", "datasets", "accelerate", "peft"}


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("objective", ["garl(q=0.75)", e2e("paft(q=0.5)"), "grpo()", e2e("kl_cov()")])
def test_it_has_the_gradients_of_trls_adapter_on_the_same_rows(tmp_path, objective, window):
    cut = {"per_device_train_batch_size": 8 // window, "gradient_accumulation_steps": window}
    made = trainer(tmp_path, objective, reward_funcs=length_reward, **cut)
    seen, sampled = [], made.rollout_sampler.sampled

    def keep(*given):
        seen.append(sampled(*given))
        return seen[-1]

    made.rollout_sampler.sampled = keep
    theirs = first_step_gradients(made)
    toy = ToyEngine(model(), parse(objective), made.format, tokenizer(), draw=None, reward=None, window=window)
    list(toy.learn(seen[0], update=False))
    ours = {name: p.grad for name, p in toy.model.named_parameters() if p.grad is not None}
    assert relative_difference(ours, theirs) < gradient_bound(torch.float32)


@pytest.mark.e2e
def test_it_learns_where_rewards_are_zero():
    """GARL on a pocket model whose every reward is 0: the likelihood of the answers rises."""
    task, folder = tasks.get("pocket-dial"), pocket.get_model_path("dial-2")
    own = AutoTokenizer.from_pretrained(folder, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    format = TokenFormat(Format.of(own), own)
    rows = [
        {"prompt_ids": format.prompt_ids(one.prompt), "answer_ids": format.answer_ids(one.answer)}
        for one in task.loaded(None, "train", "cold", 8).examples
    ]
    draw = partial(
        sample, network, format=format, budget=TokenBudget(32, 8), stop_tokens=[own.eos_token_id], pad=own.pad_token_id
    )
    toy = ToyEngine(
        network,
        parse("garl(q=0.75)"),
        format,
        own,
        draw=lambda prompts, number: draw(prompts, seed=number),
        reward=lambda text, row: 0.0,
        m=8,
        prompts=4,
    )
    shown = list(toy.train(rows, generations=20))
    assert {one["groups/no_success"] for one in shown} == {1.0}
    likely = [one["p_hat/log10_q50"] for one in shown]
    assert sum(likely[-5:]) / 5 > sum(likely[:5]) / 5 + 0.25  # six other seeds of the draws gave 0.49 to 0.65
