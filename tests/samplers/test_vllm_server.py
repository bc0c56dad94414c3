"""vLLM on a server: what it has to be, pushes through files, and what happens when it is lost."""

import socket
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qredit import QreditError
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.think_then_answer import think
from qredit.samplers.transformers import TransformersSampler
from qredit.samplers.vllm import server as servers
from qredit.samplers.vllm.server import ServerLostError, connect
from qredit.samplers.vllm.settings import VllmSettings
from tests.rollouts.test_rollout import tokens
from tests.support.tiny import model
from tests.support.toy_server import ToyServer
from tests.support.vllm_engines import largest_gap, make_sampler, needs_vllm, real_server, wide_model

GREEDY = SamplingParams(temperature=0.0)
PROMPTS = [tuple(range(5 + 3 * n, 14 + 5 * n)) for n in range(3)]


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.01)
    made = ToyServer()
    yield made
    made.close()


def named(network, name="model"):
    network.config._name_or_path = name
    return network


def connected(port, network=None, draw=SamplingParams(), timeout=5.0, length=99, **changes):
    settings = VllmSettings(mode="server", server_port=port, server_timeout=timeout)
    network = named(wide_model()) if network is None else network
    return connect(settings, network.config, draw, **({"dtype": "float32", "length": length} | changes))


def with_adapters(network, spread):
    """A network with adapters that change what it predicts."""
    made = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.normal_(std=spread) if "lora_B" in name else None
    return made


def without_logp(one):
    return replace(one, segments=tuple(replace(segment, logp=None) for segment in one.segments))


def drawn(sampler, seed=3):
    return think(sampler, PROMPTS, tokens(), TokenBudget(12, 4), stop_tokens=[1], seed=seed)


def test_a_server_draws_what_transformers_draws_after_pushes(toy):
    version, network = [0], wide_model(seed=4)
    sampler = make_sampler(connected(toy.port), draw=GREEDY, version=lambda: version[0])
    for _ in range(2):
        sampler.sync(network)
        theirs = drawn(TransformersSampler(network, 0, GREEDY))
        assert list(map(without_logp, drawn(sampler))) == list(map(without_logp, theirs))
        version[0] += 1
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(-0.7)
    assert toy.paths.count("/collective_rpc") == toy.paths.count("/reset_prefix_cache") == 2


@pytest.mark.parametrize("size", [4096, 1 << 30])
def test_weights_travel_in_shards_and_leave_no_file(toy, monkeypatch, tmp_path, size):
    monkeypatch.setattr(servers, "_SHARD_BYTES", size)
    monkeypatch.setattr(servers.tempfile, "tempdir", str(tmp_path))
    network = with_adapters(wide_model(seed=4), 0.3)  # merged while they are written
    sampler = make_sampler(connected(toy.port), network, GREEDY)
    assert drawn(sampler)
    assert largest_gap(network, drawn(replace(sampler, draw=SamplingParams()))) < 1e-5
    assert not list(tmp_path.iterdir())


def test_requests_are_made_again_where_a_server_is_away(toy):
    sampler = make_sampler(connected(toy.port), wide_model())
    expected = drawn(sampler)
    toy.busy = 4
    assert drawn(sampler) == expected


def test_a_server_that_is_lost_is_said_after_several_tries(toy):
    sampler = make_sampler(connected(toy.port), wide_model())
    toy.dies_after = toy.drawn + 1
    with pytest.raises(ServerLostError, match="does not answer any more, after 6 tries .* go on .* by --resume"):
        drawn(sampler)


def test_a_server_that_was_started_again_has_lost_the_weights(toy):
    sampler = make_sampler(connected(toy.port), wide_model())
    toy.info["vllm_config"]["instance_id"] = "second"
    with pytest.raises(ServerLostError, match="was started again and has lost the weights"):
        drawn(sampler)
    sampler.weights.pushed = None
    sampler.sync(wide_model())
    assert drawn(sampler)


def test_no_server_is_said_with_address_and_waiting_time():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(QreditError, match=f"no vLLM server answers at http://127.0.0.1:{port}: waited 1 s, .* is 1.5"):
        connected(port, timeout=1.5)


@pytest.mark.parametrize(
    ("info", "changes", "said"),
    [
        ({"model": "other"}, {}, "serves 'other', and this run's model is 'model'"),
        (
            {"dtype": "torch.bfloat16"},
            {},
            "dtype bfloat16, and this run needs float32: start it with --dtype float32",
        ),
        ({"max_model_len": 98}, {}, "takes 98 tokens, and the longest prompt and its completion are 99"),
        ({}, {"draw": SamplingParams(temperature=0.7)}, "this run needs processed_logprobs"),
        ({"logprobs_mode": "processed_logprobs"}, {"draw": GREEDY}, "this run needs raw_logprobs"),
    ],
)
def test_a_server_that_does_not_fit_is_refused(toy, info, changes, said):
    toy.info["vllm_config"]["model_config"] |= info
    with pytest.raises(QreditError, match=said) as found:
        connected(toy.port, **changes)
    assert "\n" not in str(found.value)


def test_another_model_is_known_by_its_configuration(toy, tmp_path):
    model(num_hidden_layers=3).save_pretrained(tmp_path / "model")
    toy.info["vllm_config"]["model_config"]["model"] = str(tmp_path / "model")
    with pytest.raises(QreditError, match="another model than this run's: its num_hidden_layers is 3, not 2"):
        connected(toy.port)


def test_a_server_without_what_pushes_need_is_refused(toy):
    toy.info = None
    with pytest.raises(QreditError, match="status 404.*start it with VLLM_SERVER_DEV_MODE=1"):
        connected(toy.port)


def test_what_is_no_vllm_server_is_refused(toy):
    toy.info = {}
    with pytest.raises(QreditError, match="is no vLLM server that works here"):
        connected(toy.port)


def test_processes_that_push_nothing_go_through_the_weights(toy):
    waited, gone = [], []
    engine = connected(toy.port, main=False, wait=lambda: waited.append(True))
    engine.load((gone.append(name) or (name, value)) for name, value in wide_model().named_parameters())
    assert len(gone) == len(dict(wide_model().named_parameters()))
    assert waited == [True]
    assert "/collective_rpc" not in toy.paths


@pytest.mark.vllm
@needs_vllm
@pytest.mark.parametrize("adapted", [False, True])
def test_vllms_own_server_draws_with_what_was_pushed(adapted):
    """Log-probabilities within 1e-4 of a forward pass, more than 1 nat away before the push."""
    sampler, network, version = make_sampler(real_server(), wide_model()), wide_model(seed=4), [0]
    sampler.weights.version = lambda: version[0]
    if adapted:
        network = with_adapters(wide_model(), 0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sampler.sync(network)  # of the same version: nothing is pushed
    assert largest_gap(network, drawn(sampler)) > 1
    version[0] = 1
    sampler.sync(network)
    assert largest_gap(network, drawn(sampler)) < 1e-4
    greedy = replace(sampler, draw=GREEDY)
    theirs = drawn(TransformersSampler(network, 0, GREEDY))
    assert list(map(without_logp, drawn(greedy))) == list(map(without_logp, theirs))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
