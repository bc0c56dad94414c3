"""Two processes on gloo, DDP or FSDP2, have the gradient of one on the same rollouts; also with nothing to learn."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.support.paths import ROOT
from tests.support.ranks import CASES, SHARDED_CASES
from tests.support.rounding import gradient_bound
from tests.support.runs import relative_difference
from tests.support.tiny import model
from tests.support.toy_server import ToyServer
from tests.support.vllm_engines import wide_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    server = ToyServer()
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ranks", str(folder), str(server.port)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=700,
    )  # fmt: skip
    server.close()
    assert done.returncode == 0, done.stderr[-3000:]
    runs = {name: folder / name for name in ("alone", "ddp", "fsdp", "served", "served-fsdp", "guided")}
    names = ("2-0", "2-1", "fsdp-0", "fsdp-1", "1-0")
    first, second, *sharded, alone = (torch.load(folder / f"gradients-{name}.pt") for name in names)
    return (first, second), sharded, alone, runs


@pytest.mark.parametrize("case", [" ".join(case) for case in CASES if case[1] != "past-ddp"])
def test_two_ranks_have_the_gradient_of_one(gradients, case):
    (first, second), _, alone, _ = gradients
    assert relative_difference(first[case], second[case]) == 0.0
    assert relative_difference(first[case], alone[case]) < gradient_bound()


@pytest.mark.parametrize("case", [" ".join(case) for case in SHARDED_CASES])
def test_two_ranks_with_sharded_weights_have_it_too(gradients, case):
    """FSDP2. Ranks differ in how many rows carry a coefficient, and yet make equally many forward passes."""
    _, (first, second), alone, _ = gradients
    assert relative_difference(first[case], second[case]) == 0.0
    assert relative_difference(first[case], alone[case]) < gradient_bound()


def test_checkpoints_of_two_ranks_hold_the_weights_of_one(gradients):
    runs = gradients[-1]
    for place in ("whole/checkpoint-2", "whole/final"):
        alone, *others = (load_file(runs[name] / place / "model.safetensors") for name in ("alone", "ddp", "fsdp"))
        for other in others:
            assert max(float((other[name] - value).abs().max()) for name, value in alone.items()) < 1e-5


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_resumed_run_on_two_ranks_ends_like_an_unbroken_one(gradients, name):
    ends = (load_file(gradients[-1][name] / place / "final" / "model.safetensors") for place in ("whole", "resumed"))
    whole, resumed = ends
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_two_ranks_are_guided_like_one(gradients):
    """q, the roll-back and the slower steps after it: every rank decides by the groups of all of them."""
    folder = gradients[-1]["guided"]
    alone, first, second = (torch.load(folder / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert len(alone["auto"]) > 1
    assert [one["step"] for one in alone["guard"]] == [20]
    for name in ("auto", "guard", "rates"):
        assert first[name] == second[name] == alone[name], name
    assert relative_difference(first["weights"], second["weights"]) == 0.0
    assert relative_difference(first["weights"], alone["weights"]) < 1e-4
    start = dict(model().named_parameters())
    assert relative_difference(alone["weights"], {name: p.detach() for name, p in start.items()}) > 1e-2


@pytest.mark.parametrize("name", ["served", "served-fsdp"])
def test_two_ranks_sample_with_one_server(gradients, name):
    """One of them pushes, whole weights also where they are sharded; each draws rows of its own."""
    folder = gradients[-1][name]
    first, second = (torch.load(folder.with_name(f"{name}-{rank}.pt")) for rank in range(2))
    steps = [entry for entry in first["log"] if "sampling/weight_version" in entry]
    assert [entry["sampling/weight_version"] for entry in steps] == [1, 2]
    assert max(entry["sampling/sampling_logp_difference/max"] for entry in steps) < 1e-4
    assert first["ids"].tolist() != second["ids"].tolist()
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    start = dict(wide_model().named_parameters())
    assert any(not torch.equal(value, start[name.removeprefix("module.")]) for name, value in first["weights"].items())


def test_a_forward_past_the_wrapper_would_be_seen(gradients):
    """The mutant: scored on the unwrapped model, gradients are not synchronised, without any error."""
    (first, second), *_ = gradients
    assert relative_difference(first["garl(q=0.75) past-ddp"], second["garl(q=0.75) past-ddp"]) > 1e-2
