"""Sampling over a vLLM engine, without vLLM: an engine that draws with transformers stands for it."""

import types
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qredit import QreditError
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.protocol import Request, StopReason, check_completions
from qredit.samplers.think_then_answer import think
from qredit.samplers.transformers import TransformersSampler
from qredit.samplers.vllm import version as versions
from qredit.samplers.vllm.colocate import ColocatedEngine, check_complete, check_length, choose_logprobs
from qredit.samplers.vllm.engine import EngineOutput, EngineRow
from qredit.samplers.vllm.sampler import VllmSampler, WeightSync
from qredit.samplers.vllm.settings import VllmSettings
from qredit.samplers.vllm.shared import TensorParallelEngine
from qredit.samplers.vllm.version import check_vllm
from qredit.samplers.vllm.weights import clean_name, iterate_weights
from tests.rollouts.test_rollout import tokens
from tests.support.vllm_engines import TransformersEngine, make_sampler, wide_model

GREEDY = SamplingParams(temperature=0.0)
PROMPTS = [tuple(range(5 + 3 * n, 14 + 5 * n)) for n in range(3)]


def without_logp(one):
    return replace(one, segments=tuple(replace(segment, logp=None) for segment in one.segments))


# --- ends, seeds


class Scripted:
    """Gives each call's outputs in their order."""

    dtype = "float32"

    def __init__(self, *outputs):
        self.outputs, self.rows = list(outputs), []

    def generate(self, rows, draw):
        self.rows.append(rows)
        return [EngineOutput(ids, (0.0,) * len(ids)) for ids in self.outputs.pop(0)]

    def is_any(self, going):
        return going

    def sleep(self):
        pass


def test_a_row_that_was_ended_too_early_goes_on():
    form = tokens(closing="\nAnswer:\n", opening="", end="\n")
    ids = tuple(form.close_ids)
    engine = Scripted([ids[:1], (7, 1)], [ids[1:]])
    requests = [Request((5,), 12, frozenset({1}), form.closing), Request((6,), 12, frozenset({1}), form.closing)]
    found = check_completions(requests, make_sampler(engine).sample(requests, 3))
    assert [(one.ids, one.stop) for one in found] == [(ids, StopReason.MARKER), ((7, 1), StopReason.END)]
    first, (again,) = engine.rows
    assert again.prompt_ids == (5, *ids[:1])
    assert again.max_tokens == 11
    assert len({again.seed, *(row.seed for row in first)}) == 3  # not the same draws once more


def test_a_row_that_was_ended_too_late_is_cut():
    """Ids say where a text ends, and not the engine, which may read it with what stands before."""
    form = tokens(closing="\nAnswer:\n", opening="", end="\n")
    ids = tuple(form.close_ids)
    requests = [Request((5,), 12, frozenset({1}), form.closing), Request((6,), 12, frozenset({1}), form.closing)]
    found = make_sampler(Scripted([(*ids, 7, 8), (9, 1, 7)])).sample(requests, 3)
    assert check_completions(requests, found) == found
    assert [(one.ids, one.stop) for one in found] == [(ids, StopReason.MARKER), ((9, 1), StopReason.END)]


def test_an_engine_that_draws_nothing_is_an_error():
    with pytest.raises(QreditError, match="drew nothing"):
        make_sampler(Scripted([()])).sample([Request((5,), 3)], 0)


def test_the_seed_of_a_row_is_of_the_call_and_its_place():
    engine = TransformersEngine(wide_model())
    sampler = make_sampler(engine)
    requests = [Request(PROMPTS[0], 8)] * 3
    whole = sampler.sample(requests, 7)
    assert sampler.sample(requests[:1], 7) == whole[:1]
    assert len({one.ids for one in whole}) == 3
    assert sampler.sample(requests[:1], 8) != whole[:1]


# --- weights


def test_weights_are_pushed_once_for_each_version():
    network, version = wide_model(), ["a"]
    engine = TransformersEngine(network)
    sampler = make_sampler(engine, version=lambda: version[0])
    for now, pushes in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        version[0] = now
        sampler.sync(network)
        assert [call for call in engine.calls if call[0] == "load"] == [("load",)] * pushes
        assert sampler.weights.count == pushes
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(-0.5)
    version[0] = "c"
    sampler.sync(network)
    theirs = think(
        TransformersSampler(network, 0, GREEDY), PROMPTS, tokens(), TokenBudget(9, 4), stop_tokens=[1], seed=0
    )
    ours = think(replace(sampler, draw=GREEDY), PROMPTS, tokens(), TokenBudget(9, 4), stop_tokens=[1], seed=0)
    assert list(map(without_logp, ours)) == list(map(without_logp, theirs))


def test_a_push_that_failed_is_made_again():
    class Failing(TransformersEngine):
        def load(self, weights):
            self.calls.append(("load",))
            if len(self.calls) == 2:
                raise ConnectionError

    engine, version, network = Failing(wide_model()), [0], wide_model()
    sampler = make_sampler(engine, network, version=lambda: version[0])
    version[0] = 1
    with pytest.raises(ConnectionError):
        sampler.sync(network)
    version[0] = 0  # what it had before it failed is no longer known
    sampler.sync(network)
    assert len(engine.calls) == 3


def test_adapters_are_merged_and_taken_out_bit_for_bit():
    plain = dict(wide_model().named_parameters())
    network = get_peft_model(wide_model(), LoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {name: value.clone() for name, value in iterate_weights(network)}
    deltas = {
        f"model.{name}.weight": layer.get_delta_weight("default")
        for name, layer in network.get_base_model().model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    assert len(deltas) == 4
    assert given.keys() == plain.keys()
    assert all(torch.allclose(given[name], plain[name] + deltas.get(name, 0.0), atol=1e-6) for name in plain)
    assert all(not torch.equal(given[name], plain[name]) for name in deltas)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_names_are_those_of_a_checkpoint():
    wrapped = (
        "base_model.model.model.layers.0._fsdp_wrapped_module.mlp._checkpoint_wrapped_module.up_proj.base_layer.weight"
    )
    assert clean_name(wrapped) == "model.layers.0.mlp.up_proj.weight"
    assert clean_name("base_model.model.lm_head.modules_to_save.default.weight") == "lm_head.weight"


def test_weights_that_no_push_reaches_are_refused():
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 2, bias=False)})
    check_complete(network, {"a.weight", "b.weight"})
    check_complete(network, None)  # some versions do not tell
    with pytest.raises(QreditError, match="1 weights of this model by names .* first 'b.weight'"):
        check_complete(network, {"a.weight"})
    network["b"].weight = torch.nn.Parameter(torch.empty(0))
    with pytest.raises(QreditError, match="keeps 'b.weight' where no push reaches it"):
        check_complete(network, {"a.weight", "b.weight"})


# --- sleep, tensor parallelism: with engines that stand for cards


class Llm:
    """Notes what is asked of vLLM."""

    def __init__(self):
        self.calls = []
        network = torch.nn.Linear(1, 1)
        network.load_weights = self._load
        runner = types.SimpleNamespace(model_runner=types.SimpleNamespace(model=network))
        self.llm_engine = types.SimpleNamespace(model_executor=types.SimpleNamespace(driver_worker=runner))

    def _load(self, weights):
        self.calls.append("load")
        return {name for name, _ in weights}

    def reset_prefix_cache(self):
        self.calls.append("reset")
        return True

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self):
        self.calls.append("wake")


def test_the_engine_is_awake_where_weights_and_draws_need_it():
    llm = Llm()
    engine = ColocatedEngine(llm, "float32", 99, naps=True)
    weights = WeightSync(engine, lambda: len(llm.calls))
    network = torch.nn.Linear(1, 1)
    sampler = VllmSampler(engine, weights)
    sampler.sync(network)
    engine.sleep()
    engine.sleep()
    sampler.sync(network)
    assert llm.calls == ["load", "reset", "sleep 1", "wake", "load", "reset"]


def test_an_engine_without_sleep_mode_stays_awake():
    llm = Llm()
    ColocatedEngine(llm, "float32", 99).sleep()
    assert llm.calls == []


def test_thinking_ends_with_sleep_even_where_it_fails():
    class Broken(TransformersEngine):
        def generate(self, rows, draw):
            raise RuntimeError("lost")

    engine = Broken(wide_model())
    with pytest.raises(RuntimeError, match="lost"):
        think(make_sampler(engine), PROMPTS, tokens(), TokenBudget(3, 3), stop_tokens=[1], seed=0)
    assert engine.calls == [("sleep",)]


def test_processes_that_share_an_engine_keep_their_own_rows():
    """Two processes with one row and two rows: both ask for all three, with the seeds of their own."""
    rows = [EngineRow(PROMPTS[n], 6, (1,), None, seed=40 + n) for n in range(3)]
    alone = TransformersEngine(wide_model()).generate(rows, SamplingParams())
    for place, mine in enumerate((rows[:1], rows[1:])):
        engine = TransformersEngine(wide_model())
        shared = TensorParallelEngine(engine, lambda value: [rows[:1], rows[1:]], place)
        assert shared.generate(mine, SamplingParams()) == (alone[:1], alone[1:])[place]
        assert engine.calls == [("generate", [40, 41, 42])]
    assert TensorParallelEngine(engine, lambda value: [value, True], 0).is_any(False)
    assert not TensorParallelEngine(engine, lambda value: [value, False], 1).is_any(False)


# --- settings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vllm_mode": "serve"}, "vllm_mode must be colocate or server, got 'serve'"),
        ({"vllm_model_impl": "own"}, "vllm_model_impl must be vllm or transformers or auto, got 'own'"),
        ({"vllm_gpu_memory_utilization": 0}, "vllm_gpu_memory_utilization .* got 0"),
        ({"vllm_gpu_memory_utilization": 1.5}, "vllm_gpu_memory_utilization .* got 1.5"),
        ({"vllm_tensor_parallel_size": 0}, "vllm_tensor_parallel_size must be at least 1, got 0"),
        ({"vllm_max_model_length": 0}, "vllm_max_model_length must be at least 1, got 0"),
        ({"vllm_mode": "server", "vllm_server_timeout": 0}, "vllm_server_timeout .* got 0"),
        ({"vllm_mode": "server", "vllm_server_port": 70000}, "vllm_server_port .* got 70000"),
        ({"vllm_server_host": "gpu7"}, "vllm_server_host='gpu7' has no effect with vllm_mode=colocate"),
        (
            {"vllm_mode": "server", "vllm_tensor_parallel_size": 2},
            "vllm_tensor_parallel_size=2 has no effect with vllm_mode=server",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(options, said):
    with pytest.raises(QreditError, match=said):
        VllmSettings.parse(options)


def test_a_server_is_asked_where_it_listens():
    assert VllmSettings(mode="server").url == "http://127.0.0.1:8000"
    assert VllmSettings(mode="server", server_base_url="http://a:1/").url == "http://a:1"


def test_tensor_parallel_must_divide_the_processes():
    VllmSettings(tensor_parallel_size=2).check_processes(4)
    with pytest.raises(QreditError, match="vllm_tensor_parallel_size=2 does not divide the 3 processes"):
        VllmSettings(tensor_parallel_size=2).check_processes(3)


def test_a_length_that_prompts_do_not_fit_is_refused():
    check_length(VllmSettings(max_model_length=30), 30)
    with pytest.raises(QreditError, match="vllm_max_model_length=29 is less than the 30 tokens"):
        check_length(VllmSettings(max_model_length=29), 30)


def test_log_probs_are_the_models_or_the_draw_is_refused():
    assert choose_logprobs(SamplingParams()) == "raw_logprobs"
    assert choose_logprobs(SamplingParams(top_p=0.9, top_k=5)) == "raw_logprobs"
    assert choose_logprobs(SamplingParams(temperature=0.7)) == "processed_logprobs"
    for changed in ({"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.1}):
        with pytest.raises(QreditError, match="need temperature 1, got 0.7"):
            choose_logprobs(SamplingParams(temperature=0.7, **changed))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "needs vllm 0.22 to 0.31, not installed here"),
        ("0.21.3", "needs vllm 0.22 to 0.31; installed is 0.21.3"),
        ("0.32.0", "needs vllm 0.22 to 0.31; installed is 0.32.0"),
        ("1.0", "installed is 1.0"),
    ],
)
def test_a_version_that_does_not_fit_is_refused(monkeypatch, found, said):
    monkeypatch.setattr(versions, "find_spec", lambda name: found)
    monkeypatch.setattr(versions, "_find_version", lambda: found)
    with pytest.raises(QreditError, match=said):
        check_vllm()


@pytest.mark.parametrize("found", ["0.22.0", "0.31.0+cpu", "0.30.2.dev1"])
def test_versions_that_fit_are_told(monkeypatch, found):
    monkeypatch.setattr(versions, "find_spec", lambda name: True)
    monkeypatch.setattr(versions, "_find_version", lambda: found)
    assert check_vllm() == found
