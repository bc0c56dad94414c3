"""Commands that sample with vLLM: the same answers as with transformers, and refusals before a model is loaded."""

import json

import pytest
import torch
from safetensors.torch import load_file

from qredit.cli import main
from qredit.engine.checkpoint import find_newest_complete
from qredit.runs import samplers
from qredit.samplers.vllm import server as servers
from qredit.samplers.vllm import version as versions
from qredit.trl import vllm_sampling
from tests.support.folders import SHORT, data_file, flags
from tests.support.tiny import tokenizer
from tests.support.toy_server import ToyServer
from tests.support.vllm_engines import TransformersEngine, needs_vllm, wide_model

RATES = ("k", "p@1", "ended", "forced")


@pytest.fixture
def network(tmp_path):
    folder = tmp_path / "model"
    wide_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=["stand-in", pytest.param("vllm", marks=[needs_vllm, pytest.mark.vllm])])
def engine(request, monkeypatch):
    if request.param == "vllm":
        return
    for module in (samplers, vllm_sampling):
        monkeypatch.setattr(module, "check_vllm", lambda: "0.31.0")
        monkeypatch.setattr(module, "open_engine", lambda *given, **named: TransformersEngine(wide_model(seed=9)))


def answers(folder):
    return [json.loads(line) for line in folder.read_text().splitlines()]


def test_answers_are_those_of_transformers(tmp_path, network, engine):
    shared = {"task": "jsonl", "data": data_file(tmp_path / "train.jsonl"), "model": network, "split": "train"}
    shared |= {"temperature": 0, "max_completion_length": 12, "answer_budget": 4}
    for name, more in (("own", {}), ("vllm", {"use_vllm": "true"})):
        assert main(["eval", *flags(**shared, **more, samples=tmp_path / f"{name}.jsonl")]) == 0
    ours, theirs = answers(tmp_path / "own.jsonl"), answers(tmp_path / "vllm.jsonl")
    for name in ("mean_logp", "answer_logp"):
        found, wanted = ([logp for one in rows for logp in one.pop(name)] for rows in (theirs, ours))
        assert found == pytest.approx(wanted, abs=1e-3)
    assert theirs == ours


@pytest.mark.e2e
def test_training_and_probe_sample_with_it(tmp_path, network, engine, monkeypatch):
    data = data_file(tmp_path / "train.jsonl")
    run = {"task": "jsonl", "data": data, "model": network, "use_vllm": "true"}
    assert main(["train", *flags(**run, output=tmp_path / "run", **SHORT)]) == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [one["sampling/sampling_logp_difference/max"] for one in logged if "sampling/weight_version" in one]
    assert gaps
    assert max(gaps) < 1e-4
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["sampled_with"] == "vLLM 0.31.0 (colocate), float32"
    opened, open_engine = [], samplers.open_engine
    monkeypatch.setattr(samplers, "open_engine", lambda *a, **named: opened.append(named) or open_engine(*a, **named))
    assert main(["probe", *flags(**run, m=4, examples=2, max_completion_length=12, answer_budget=4)]) == 0
    assert opened


@pytest.mark.parametrize("command", ["train", "eval", "probe", "compare"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_vllm": "true"}, "use_vllm needs vllm 0.22 to 0.31; installed is 0.9.1"),
        ({"vllm_gpu_memory_utilization": 0.5}, "vllm_gpu_memory_utilization=0.5 has no effect without use_vllm"),
        ({"use_vllm": "true", "vllm_mode": "own"}, "vllm_mode must be colocate or server, got 'own'"),
    ],
)
def test_refusals_are_one_line_before_a_model_is_loaded(tmp_path, network, monkeypatch, capsys, command, options, said):
    monkeypatch.setattr(versions, "find_spec", lambda name: True)
    monkeypatch.setattr(versions, "_find_version", lambda: "0.9.1")
    for name in ("qredit.runs.train.load_model", "qredit.runs.load.load_model"):
        monkeypatch.setattr(name, lambda *given, **named: pytest.fail("a model is loaded"))
    data = data_file(tmp_path / "train.jsonl")
    told = {"task": "jsonl", "data": data, "model": network}
    argv = {
        "train": ["train", *flags(**told, output=tmp_path / "run", **SHORT, **options)],
        "eval": ["eval", *flags(**told, split="train", **options)],
        "probe": ["probe", *flags(**told, **options)],
        "compare": ["compare", "grpo()", *flags(**told, output=tmp_path / "compare", seeds=1, questions=2, **options)],
    }[command]
    assert main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.e2e
def test_a_run_whose_server_is_lost_goes_on_and_ends_the_same(tmp_path, network, monkeypatch, capsys):
    """One line and status 2; the run then goes on from its last checkpoint, with a server that was started again."""
    monkeypatch.setattr(servers, "_FIRST_PAUSE", 0.01)
    options = {"task": "jsonl", "data": data_file(tmp_path / "train.jsonl"), "model": network, **SHORT, "steps": 3}
    options |= {"use_vllm": "true", "vllm_mode": "server", "save_every": 1, "eval_every": 0}

    def train(server, output, *more, **changes):
        return main(["train", *flags(**options, vllm_server_port=server.port, output=output, **changes), *more])

    whole = ToyServer(network)
    assert train(whole, tmp_path / "whole") == 0
    lost = ToyServer(network)
    lost.dies_after = whole.drawn * 2 // 3 + 1
    assert train(lost, tmp_path / "cut") == 2
    said = capsys.readouterr().err
    assert f"the vLLM server at http://127.0.0.1:{lost.port} does not answer any more" in said
    lost.close()
    assert find_newest_complete(tmp_path / "cut")[0] is not None
    again = ToyServer(network, port=lost.port, instance="second")
    assert main(["train", "--resume", "--output", str(tmp_path / "cut")]) == 0
    for server in (whole, again):
        server.close()
    final = [load_file(tmp_path / name / "final" / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(value, final[1][name]) for name, value in final[0].items())
