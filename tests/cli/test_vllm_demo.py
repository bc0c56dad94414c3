"""The demo's effect with vLLM: from a start without any success GRPO stays there, and GARL escapes."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qredit.cli import main
from qredit.pocket.models import get_model_path
from qredit.runs.experiment import read_curves
from tests.support.folders import flags
from tests.support.vllm_engines import needs_vllm, widen_heads

STEPS = 10


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The demo's base model with heads of 48, which vLLM computes, if not by its own list of sizes."""
    folder = tmp_path_factory.mktemp("pocket") / "hotpot"
    own = get_model_path("hotpot")
    widen_heads(AutoModelForCausalLM.from_pretrained(own, dtype=torch.float32)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(own).save_pretrained(folder)
    return folder


def test_the_wider_model_is_the_same_function(wide):
    own, wider = (
        AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (get_model_path("hotpot"), wide)
    )
    assert wider.config.head_dim == 2 * own.config.head_dim
    ids = torch.arange(5, 125).reshape(2, 60)
    with torch.no_grad():
        left, right = (each(ids).logits.log_softmax(-1) for each in (own, wider))
    assert float((left - right).abs().max()) < 1e-3


def train(model, objective, folder):
    """The demo's settings, on fewer questions."""
    sizes = {"m": 16, "prompts_per_step": 8, "max_completion_length": 40, "answer_budget": 8, "subset": 512}
    options = {"task": "pocket-hotpot", "style": "cold", "model": model, "objective": objective, "output": folder}
    assert main(["train", *flags(**options, **sizes, steps=STEPS, lr=3e-4, use_vllm="true", cpu=True)]) == 0
    return read_curves(folder / "metrics.jsonl")


@pytest.mark.vllm
@needs_vllm
def test_grpo_stays_where_it_is_and_garl_escapes(tmp_path, wide):
    stalled = train(wide, "grpo()", tmp_path / "grpo")
    escaped = train(wide, "garl(q=0.75)", tmp_path / "garl")
    assert stalled["curve"] == [0.0] * STEPS
    before, after = load_file(wide / "model.safetensors"), load_file(tmp_path / "grpo" / "final" / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert escaped["curve"][:3] == [0.0] * 3
    assert sum(escaped["curve"][-3:]) / 3 > 0.1
    assert escaped["p_hat"][-1] > escaped["p_hat"][0] + 8  # orders of magnitude
    logged = [json.loads(line) for line in (tmp_path / "garl" / "metrics.jsonl").read_text().splitlines()]
    gaps = [one["sampling/sampling_logp_difference/max"] for one in logged if "sampling/weight_version" in one]
    assert len(gaps) == STEPS
    assert max(gaps) < 1e-4
