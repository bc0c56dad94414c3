"""Optimisers by name: which weights Muon gets, how it learns imbalanced data, that parts step as apart, and resumes."""

import copy
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn, optim

from qredit.callbacks.metrics_file import MetricsWriter
from qredit.cli.main import main
from qredit.engine.optimizers import muon
from qredit.engine.optimizers.protocol import AdamSettings
from tests.support.folders import data_file, flags, model_folder, rows
from tests.support.tiny import model


def settings(**changes):
    return AdamSettings(**{"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "decayed": ()} | changes)


def differentiated(seed=0):
    network = model(num_hidden_layers=1)
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    return network


def test_matrices_go_to_muon_and_the_rest_to_adam():
    network = differentiated()
    head = network.get_output_embeddings().weight
    made = muon().make(network, settings(decayed={"model.embed_tokens.weight"}))
    names = {id(weight): name for name, weight in network.named_parameters()}
    groups = [{names[id(weight)] for weight in group["params"]} for group in made.param_groups]
    assert len(groups[0]) == 7
    assert all("proj" in name for name in groups[0])
    assert groups[1] == {"model.embed_tokens.weight"}
    assert {name for name in groups[2] if "norm" not in name} <= {names[id(head)]}
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.1, 0.0]


def test_a_step_is_orthogonal_on_matrices_and_adams_elsewhere():
    """The first step of Adam is lr · sign(gradient); a matrix moves by 0.2 · sqrt(side) · lr, near-orthogonal."""
    network = differentiated()
    before = copy.deepcopy(network)
    muon().make(network, settings(weight_decay=0.0)).step()
    for (name, old), new in zip(before.named_parameters(), network.parameters(), strict=True):
        moved = (new - old).detach()
        if "proj" in name:
            singular = torch.linalg.svdvals(moved) / (0.01 * 0.2 * max(moved.shape) ** 0.5)
            assert 0.5 < float(singular.min()) <= float(singular.max()) < 1.5
        else:
            assert torch.allclose(moved, -0.01 * new.grad.sign(), atol=1e-5)


# Component c of the data: with probability FREQUENCY[c] the input is column c of INPUTS and the target that of TARGETS.
FREQUENCY = torch.tensor([0.7, 0.2, 0.07, 0.03])
INPUTS = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
TARGETS = INPUTS.roll(1, 1)


class Matrix(nn.Module):
    """y = W x from W = 0, inside a model: neither an embedding nor a head."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def get_input_embeddings(self):
        return None

    get_output_embeddings = get_input_embeddings


def learn_components(make, steps) -> Tensor:
    """(steps, 4): target' W input of each component after each step on the mean squared error; learned, it is 1."""
    network, learned = Matrix(), []
    optimizer = make(network)
    for _ in range(steps):
        network.weight.grad = (network.weight.detach() @ INPUTS - TARGETS) * FREQUENCY @ INPUTS.T
        optimizer.step()
        learned.append((TARGETS * (network.weight.detach() @ INPUTS)).sum(0))
    return torch.stack(learned)


def test_muon_learns_rare_components_as_fast():
    """Exact spectral descent (arXiv 2510.22980) moves each component by 0.2 · sqrt(4) · lr a step, SGD by its share.

    So where the mean loss over the data is the same, that over the components is far lower with Muon.
    """
    spectral = learn_components(lambda network: muon().make(network, settings(weight_decay=0.0, lr=0.1)), 15)
    pace = spectral / (0.2 * 2 * 0.1 * torch.arange(1, 16)[:, None])
    assert 0.6 < float(pace.min()) <= float(pace.max()) < 1.25
    assert float((spectral.amin(1) / spectral.amax(1)).min()) > 0.6
    plain = learn_components(lambda network: optim.SGD(network.parameters(), lr=1.0), 3)
    assert torch.allclose(plain, 1 - (1 - FREQUENCY) ** torch.arange(1, 4)[:, None])
    left = (1 - torch.stack([plain[0], spectral[-1]])) ** 2
    assert (left @ FREQUENCY).tolist() == pytest.approx([0.28, 0.30], abs=0.05)
    assert left.mean(1).tolist() == pytest.approx([0.63, 0.28], abs=0.05)


def test_a_loaded_state_is_stepped_on():
    """Two steps, with the state carried to another optimiser in between, or not."""
    whole, cut = differentiated(), differentiated()
    one, two = (muon().make(network, settings()) for network in (whole, cut))
    one.step()
    two.step()
    again = muon().make(cut, settings(lr=9.0))
    again.load_state_dict(copy.deepcopy(two.state_dict()))
    for optimizer, network in ((one, whole), (again, cut)):
        for weight in network.parameters():
            weight.grad = weight.grad.roll(1, 0)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_a_run_with_muon_resumes(tmp_path, monkeypatch):
    data = data_file(tmp_path / "shown.jsonl", rows(6))
    chosen = {"task": "jsonl", "data": data, "model": model_folder(tmp_path / "tiny"), "optimizer": "muon()"}
    chosen |= {"prompts_per_step": 2, "steps": 3, "save_every": 1, "lr": 1e-2}
    assert main(["sft", "--quiet", *flags(**chosen, output=tmp_path / "whole")]) == 0

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsWriter, "on_step_begin", stop)
        assert main(["sft", "--quiet", *flags(**chosen, output=tmp_path / "cut")]) == 130
    assert main(["sft", "--quiet", "--resume", "--output", str(tmp_path / "cut")]) == 0
    cut, whole = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"optimizer": "moun()"}, "unknown optimiser 'moun'; did you mean 'muon'?"),
        ({"optimizer": "muon(steps=0)"}, "steps of muon"),
        ({"optimizer": "muon()", "optim": "sgd"}, "give optim or optimizer"),
        ({"optim": "galore_adamw", "cpu": True}, "optim=galore_adamw needs galore-torch"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_said_at_once(given, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "galore_torch", None)
    assert main(["train", *flags(**given)]) == 2
    assert words in capsys.readouterr().err
