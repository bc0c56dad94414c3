"""Commands that sample with vLLM: the same answers as with transformers, and refusals before a model is loaded."""

import json

import pytest

from qredit.cli import main
from qredit.runs import samplers
from qredit.samplers.vllm import version as versions
from qredit.trl import vllm_sampling
from tests.support.folders import SHORT, data_file, flags
from tests.support.tiny import tokenizer
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
    assert answers(tmp_path / "vllm.jsonl") == answers(tmp_path / "own.jsonl")


def test_training_and_probe_sample_with_it(tmp_path, network, engine, capsys):
    data = data_file(tmp_path / "train.jsonl")
    run = {"task": "jsonl", "data": data, "model": network, "use_vllm": "true"}
    assert main(["train", *flags(**run, output=tmp_path / "run", **SHORT)]) == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    gaps = [one["sampling/sampling_logp_difference/max"] for one in logged if "sampling/weight_version" in one]
    assert gaps
    assert max(gaps) < 1e-4
    assert main(["probe", *flags(**run, m=4, examples=2, max_completion_length=12, answer_budget=4)]) == 0


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
