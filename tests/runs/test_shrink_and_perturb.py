"""Shrink and perturb before a run: the rule by hand, its seed, what is refused, and that a run resumes on it."""

import pytest
import torch
from safetensors.torch import load_file

from qredit.cli.main import main
from qredit.runs.shrink_and_perturb import shrink_and_perturb
from tests.support.folders import SHORT, data_file, flags, model_folder
from tests.support.tiny import model


def perturbed(shrink, noise, seed=0, network=None):
    network = model() if network is None else network
    shrink_and_perturb(network, shrink, noise, seed)
    return torch.cat([weight.flatten() for weight in network.parameters()]).detach()


def test_weights_shrink_and_noise_is_added():
    before = perturbed(1.0, 0.0)
    assert torch.equal(perturbed(0.5, 0.0), before / 2)
    noise = perturbed(0.5, 0.3) - before / 2
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert torch.equal(perturbed(0.5, 0.3), perturbed(0.5, 0.3))
    assert not torch.equal(perturbed(0.5, 0.3), perturbed(0.5, 0.3, seed=1))


def test_shared_weights_are_changed_once():
    tied = model(tie_word_embeddings=True)
    before = tied.get_output_embeddings().weight.clone()
    shrink_and_perturb(tied, 0.5, 0.0, 0)
    assert torch.equal(tied.get_output_embeddings().weight, before / 2)


def test_a_run_begins_with_perturbed_weights(tmp_path):
    """At a rate that moves nothing in float32 the final model is the perturbed one."""
    folder, data = model_folder(tmp_path / "tiny"), data_file(tmp_path / "data.jsonl")
    chosen = {"task": "jsonl", "data": data, "model": folder, "output": tmp_path / "run", "shrink": 0.5, "perturb": 0.1}
    assert (
        main(["train", "--quiet", *flags(**{**SHORT, **chosen, "steps": 1, "lr": 1e-30, "objective": "grpo()"})]) == 0
    )
    network = model(num_hidden_layers=1)
    shrink_and_perturb(network, 0.5, 0.1, 0)
    found = load_file(tmp_path / "run" / "final" / "model.safetensors")
    assert all(
        torch.allclose(found[name], value, atol=1e-7) for name, value in network.named_parameters() if name in found
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shrink": 0.5}, "shrink needs perturb"),
        ({"perturb": 0.1}, "perturb needs shrink"),
        ({"shrink": 0, "perturb": 0.1}, "shrink must be above 0 and at most 1, got 0"),
        ({"shrink": 0.5, "perturb": -1}, "perturb must be 0 or more, got -1"),
        ({"shrink": 0.5, "perturb": 0.1, "lora": True}, "leave lora out"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_at_once(given, words, capsys):
    assert main(["train", *flags(**given)]) == 2
    assert words in capsys.readouterr().err
