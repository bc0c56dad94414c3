"""Training on rollouts that vLLM samples: weights pushed, the ratio between both policies, what is refused.

Each test runs with an engine that draws with transformers; where vLLM is installed, some run with vLLM, too.
"""

import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig

from qredit import Objective, QreditError, on_span
from qredit.core.importance import sequence_mask, sequence_truncate, token_mask
from qredit.credit.group import center_by_group, scale_by_batch_std
from qredit.credit.reward import reward
from qredit.objectives import garl, logprob
from qredit.rollouts.sampling_params import SamplingParams
from qredit.samplers.vllm.server import ServerEngine
from qredit.tasks.base import Example
from qredit.trl import vllm_sampling
from tests.support.marks import e2e
from tests.support.rounding import gradient_bound
from tests.support.runs import first_step_gradients, length_reward, questions, relative_difference, settings, trainer
from tests.support.vllm_engines import TransformersEngine, needs_vllm, real_engine, real_server, wide_model
from tests.trl.test_resume import weights

BATCH_STD = Objective(on_span("sampled", reward() | center_by_group() | scale_by_batch_std()))
OBJECTIVES = ["garl(q=0.75)", *map(e2e, ("paft(q=0.5)", "grpo()", "logprob()", BATCH_STD))]


REAL = [needs_vllm, pytest.mark.vllm]


@pytest.fixture(params=["stand-in", pytest.param("vllm", marks=REAL), pytest.param("server", marks=REAL)])
def engine(request, monkeypatch):
    """What draws: made once for all tests in the case of vLLM, whose start takes most of a minute."""
    make = {"stand-in": lambda: TransformersEngine(wide_model()), "vllm": real_engine, "server": real_server}
    return install(monkeypatch, make[request.param]())


@pytest.fixture
def stand_in(monkeypatch):
    return install(monkeypatch, TransformersEngine(wide_model()))


def install(monkeypatch, made):
    monkeypatch.setattr(vllm_sampling, "check_vllm", lambda: "0.31.0")
    monkeypatch.setattr(vllm_sampling, "open_engine", lambda *given, **named: made)
    return made


def sampled_by_vllm(folder, objective="garl(q=0.75)", network=None, **changes):
    network = wide_model() if network is None else network
    return trainer(folder, objective, network=network, **({"use_vllm": True, "reward_funcs": length_reward} | changes))


def logged(made, name):
    return [entry[name] for entry in made.state.log_history if name in entry]


# --- the engine's policy is the one that learns


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_engine_and_trainer_agree_at_every_step(tmp_path, engine, objective):
    made = sampled_by_vllm(tmp_path, objective, max_steps=4)
    made.train()
    gaps = logged(made, "sampling/sampling_logp_difference/max")
    assert len(gaps) == 4
    assert max(gaps) < 1e-4
    assert logged(made, "sampling/weight_version") == [1, 2, 3, 4]
    assert all(seconds > 0 for seconds in logged(made, "sampling/sync_seconds"))
    assert all(abs(value - 1) < 1e-3 for value in logged(made, "sampling/importance_sampling_ratio/max"))
    assert all(value > 0.999 for value in logged(made, "sampling/importance_sampling_ratio/ess"))


@pytest.mark.e2e
def test_weights_that_are_not_pushed_would_be_seen(tmp_path, engine):
    """The mutant of the test above."""
    made = sampled_by_vllm(tmp_path, max_steps=4, learning_rate=1e-2)
    made.sampler.weights.version = lambda: 0
    made.train()
    assert max(logged(made, "sampling/sampling_logp_difference/max")) > 1e-2


@pytest.mark.e2e
def test_adapters_are_sampled_with_as_they_learn(tmp_path, engine):
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    made = sampled_by_vllm(tmp_path, max_steps=4, learning_rate=3e-2, peft_config=lora)
    made.train()
    assert max(logged(made, "sampling/sampling_logp_difference/max")) < 1e-4
    assert any(float(p.detach().abs().max()) > 1e-2 for name, p in made.model.named_parameters() if "lora_B" in name)


@pytest.mark.e2e
def test_one_push_serves_all_draws_of_a_generation(tmp_path, stand_in):
    """Rounds of dynamic sampling, several steps of a generation, and questions that are answered in between."""
    made = sampled_by_vllm(
        tmp_path, "grpo()", steps_per_generation=2, max_steps=4, dynamic_sampling=2,
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
    )  # fmt: skip
    made.train()
    calls = [call[0] for call in stand_in.calls]
    assert calls.count("load") == 2
    assert calls.count("generate") > 4


@pytest.mark.e2e
def test_answers_come_from_the_weights_of_the_moment(tmp_path, engine, monkeypatch):
    made = sampled_by_vllm(tmp_path, max_steps=2, learning_rate=1e-1, temperature=0.5, biased_sampling=True)
    made.train()
    draws, generate = set(), engine.generate
    monkeypatch.setattr(engine, "generate", lambda rows, draw: draws.add(draw) or generate(rows, draw))
    asked = [Example(id="a", prompt="What is two? ", answer="2")]
    first = made.answers(asked, [], 6, seed=4)
    assert draws == {SamplingParams()}  # and not those of training
    made.sampler.weights.pushed = None
    assert made.answers(asked, [], 6, seed=4) == first  # pushed once more, nothing changes
    assert len(set(first[0].rationales)) > 1


@pytest.mark.e2e
def test_weights_taken_back_are_pushed_again(tmp_path, engine):
    made = sampled_by_vllm(tmp_path, max_steps=3, learning_rate=1e-2, save_strategy="steps", save_steps=1)
    made.train()
    made._draw([[5, 6, 7]], 9)
    made.restore_weights(tmp_path / "checkpoint-1")
    (drawn,) = made._draw([[5, 6, 7]], 9)
    count = made.sampler.weights.count
    assert gap(made, drawn) < 1e-4
    made._draw([[5, 6, 7]], 10)
    assert made.sampler.weights.count == count


def gap(made, one):
    ids = torch.tensor([[*one.prompt, *one.ids]])
    with torch.no_grad():
        told = made.model(ids).logits[0, len(one.prompt) - 1 : -1].log_softmax(-1)
    own = told.gather(1, ids[0, len(one.prompt) :, None])[:, 0].tolist()
    return max(abs(a - b) for a, b in zip(own, one.logp, strict=True) if b != 0)


@pytest.mark.e2e
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_that_is_resumed_ends_with_the_same_weights(tmp_path, engine, step):
    shared = {"max_steps": 4, "steps_per_generation": 2, "save_strategy": "steps", "save_steps": 1}
    whole = sampled_by_vllm(tmp_path, data=questions(8), **shared)
    whole.train()
    again = sampled_by_vllm(tmp_path, data=questions(8), network=wide_model(seed=5), **shared)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    rounding = 1e-5 if isinstance(engine, ServerEngine) else 0.0  # a server computes rows together as they arrive
    assert float((weights(again) - weights(whole)).abs().max()) <= rounding


# --- an engine that differs


RATIOS = [
    garl(0.5, ratio=sequence_truncate(math.inf)),
    garl(0.5, ratio=sequence_mask(1.05)),
    logprob(ratio=token_mask(1.02)),
]


@pytest.mark.parametrize(
    "objective", [*RATIOS, "grpo()", *map(e2e, ("grpo() | weigh_by_ratio()", BATCH_STD, "paft(q=0.5)"))], ids=str
)
def test_gradient_is_that_of_ratios_to_the_engine(tmp_path, monkeypatch, objective):
    """The gradient of a step is that of the objective on the same rows, with the engine's log-probabilities in them."""
    install(monkeypatch, TransformersEngine(wide_model(), noise=0.3))
    made = sampled_by_vllm(tmp_path, objective)
    gradients = first_step_gradients(made)
    rows = made._generation.microbatches[0].rows
    assert relative_difference(gradients, by_hand(made, rows, rows.batch.sampler_logp)) < gradient_bound()
    assert relative_difference(gradients, by_hand(made, rows, None)) > 1e-3


@pytest.mark.e2e
@pytest.mark.parametrize("objective", ["garl(q=0.75)", "grpo()"])
def test_without_correction_rollouts_count_as_the_policys_own(tmp_path, monkeypatch, objective):
    install(monkeypatch, TransformersEngine(wide_model(), noise=0.3))
    made = sampled_by_vllm(tmp_path, objective, vllm_importance_sampling_correction=False)
    gradients = first_step_gradients(made)
    rows = made._generation.microbatches[0].rows
    assert relative_difference(gradients, by_hand(made, rows, None)) < gradient_bound()


def by_hand(made, rows, sampler_logp):
    network = wide_model().train()
    ids = torch.cat([rows.prompt_ids, rows.batch.ids], 1)
    mask = torch.cat([rows.prompt_mask, rows.batch.mask.long()], 1)
    width = rows.batch.mask.shape[1]
    logp = network(ids, attention_mask=mask).logits[:, -width - 1 : -1].log_softmax(-1)
    logp = logp.gather(-1, rows.batch.ids[..., None])[..., 0]
    batch = made.scorer.attach_scores(rows.batch, {"logp": logp, "entropy": None})
    made.objective.loss(logp, replace(batch, sampler_logp=sampler_logp)).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_the_log_tells_how_far_engine_and_trainer_are_apart(tmp_path, monkeypatch):
    engine = install(monkeypatch, TransformersEngine(wide_model(), noise=0.3))
    made = sampled_by_vllm(tmp_path, "garl(q=0.75, ratio=sequence_truncate(limit=1.05))", max_steps=1)
    made.train()
    batch = made._generation.microbatches[0].rows.batch
    told = made.state.log_history[0]
    network = wide_model()
    gaps, ratios = [], []
    for row in range(len(batch.mask)):
        rows = made._generation.microbatches[0].rows
        prompt = rows.prompt_ids[row][rows.prompt_mask[row].bool()]
        ids = torch.cat([prompt, batch.ids[row][batch.mask[row]]])[None]
        with torch.no_grad():
            own = network(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        own = own.gather(1, ids[0, len(prompt) :, None])[:, 0]
        drawn = batch.sampled[row][batch.mask[row]]
        change = (own - batch.sampler_logp[row][batch.mask[row]])[drawn]
        gaps += change.abs().tolist()
        ratios.append(float(change.double().sum().exp()))
    expected = {
        "sampling_logp_difference/mean": sum(gaps) / len(gaps),
        "sampling_logp_difference/max": max(gaps),
        "importance_sampling_ratio/min": min(ratios),
        "importance_sampling_ratio/mean": sum(ratios) / len(ratios),
        "importance_sampling_ratio/max": max(ratios),
        "importance_sampling_ratio/ess": sum(ratios) ** 2 / len(ratios) / sum(r * r for r in ratios),
        "importance_sampling_ratio/cut": sum(ratio > 1.05 for ratio in ratios) / len(ratios),
    }
    found = {name: told[f"sampling/{name}"] for name in expected}
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected["importance_sampling_ratio/cut"] > 0
    assert engine.noise > 0


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vllm_mode": "server"}, "vllm_mode='server' has no effect without use_vllm"),
        ({"vllm_importance_sampling_correction": False}, "has no effect without use_vllm"),
        ({"use_vllm": True, "vllm_mode": "own"}, "vllm_mode must be colocate or server"),
        (
            {"use_vllm": True, "vllm_importance_sampling_mode": "token_mask"},
            "the objective: .*sequence_mask",
        ),
        ({"use_vllm": True, "vllm_importance_sampling_clip_max": 2.0}, "belongs to the objective"),
        ({"use_vllm": True, "vllm_group_port": 1}, "vllm_group_port=1 is not supported: weights reach a server"),
        ({"use_vllm": True, "vllm_structured_outputs_regex": "a"}, "is not supported"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, changes, said):
    with pytest.raises(QreditError, match=said):
        settings(tmp_path, **changes)


def test_a_missing_vllm_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    def missing():
        raise QreditError("use_vllm needs vllm 0.22 to 0.31, not installed here")

    monkeypatch.setattr(vllm_sampling, "check_vllm", missing)
    with pytest.raises(QreditError, match="use_vllm needs vllm"):
        sampled_by_vllm(tmp_path)


def test_draws_whose_log_probs_are_not_the_models_are_refused(tmp_path, stand_in):
    with pytest.raises(QreditError, match="need temperature 1, got 0.7"):
        sampled_by_vllm(tmp_path, "grpo()", temperature=0.7, top_p=0.9)


def test_quantised_weights_are_refused(tmp_path, stand_in):
    network = wide_model()
    network.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(QreditError, match="use_vllm with quantised weights .bitsandbytes. is not supported"):
        vllm_sampling.check_not_quantized(network)


def test_tensor_parallel_that_does_not_divide_is_refused(tmp_path, stand_in):
    with pytest.raises(QreditError, match="vllm_tensor_parallel_size=2 does not divide the 1 process of this run"):
        sampled_by_vllm(tmp_path, vllm_tensor_parallel_size=2)


def test_the_engine_is_made_for_the_longest_prompt(tmp_path, monkeypatch, stand_in):
    seen = []
    monkeypatch.setattr(vllm_sampling, "open_engine", lambda *given, **named: seen.append(named) or stand_in)
    made = sampled_by_vllm(tmp_path)
    longest = max(map(len, made.train_dataset["prompt_ids"]))
    assert seen[0]["length"] == longest + len(made.format.close_ids) + 10
    assert seen[0]["dtype"] == "float32"
    assert made.args.use_vllm
