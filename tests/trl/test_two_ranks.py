"""Two processes on gloo have the gradient of one, given the same rollouts; also when one has nothing to learn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT, SUPPORT
from tests.support.ports import free_port
from tests.support.ranks import CASES
from tests.support.rounding import gradient_bound
from tests.support.runs import relative_difference


def launched(folder: Path, world: int) -> list[dict]:
    """Run ranks.py on that many processes; the gradients of every case, for each rank."""
    launcher = [sys.executable]
    if world > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(world), "--master_port", str(free_port())]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    ran = subprocess.run(
        [*launcher, str(SUPPORT / "ranks.py"), str(folder)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [torch.load(folder / f"gradients-{world}-{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return launched(folder, 2), launched(folder, 1)[0]


@pytest.mark.parametrize("case", [" ".join(case) for case in CASES if case[1] != "past-ddp"])
def test_two_ranks_have_the_gradient_of_one(gradients, case):
    (first, second), alone = gradients
    assert relative_difference(first[case], second[case]) == 0.0
    assert relative_difference(first[case], alone[case]) < gradient_bound()


def test_a_forward_past_the_wrapper_would_be_seen(gradients):
    """The mutant: scored on the unwrapped model, gradients are not synchronised, without any error."""
    (first, second), _ = gradients
    assert relative_difference(first["garl(q=0.75) past-ddp"], second["garl(q=0.75) past-ddp"]) > 1e-2
