"""Two processes on gloo have the gradient of one, given the same rollouts; also when one has nothing to learn."""

import os
import subprocess
import sys

import pytest
import torch

from tests.support.paths import ROOT
from tests.support.ranks import CASES
from tests.support.rounding import gradient_bound
from tests.support.runs import relative_difference


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ranks", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=700,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, alone = (torch.load(folder / f"gradients-{name}.pt") for name in ("2-0", "2-1", "1-0"))
    return (first, second), alone


@pytest.mark.parametrize("case", [" ".join(case) for case in CASES if case[1] != "past-ddp"])
def test_two_ranks_have_the_gradient_of_one(gradients, case):
    (first, second), alone = gradients
    assert relative_difference(first[case], second[case]) == 0.0
    assert relative_difference(first[case], alone[case]) < gradient_bound()


def test_a_forward_past_the_wrapper_would_be_seen(gradients):
    """The mutant: scored on the unwrapped model, gradients are not synchronised, without any error."""
    (first, second), _ = gradients
    assert relative_difference(first["garl(q=0.75) past-ddp"], second["garl(q=0.75) past-ddp"]) > 1e-2
