"""Two processes on gloo have the gradient of one, given the same rollouts; also when one has nothing to learn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ports import free_port
from ranks import CASES
from rounding import gradient_bound
from runs import relative_difference

HERE = Path(__file__).parent


def launched(folder: Path, world: int) -> list[dict]:
    """Run ranks.py on that many processes; the gradients of every case, for each rank."""
    launcher = [sys.executable]
    if world > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(world), "--master_port", str(free_port())]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    ran = subprocess.run(
        [*launcher, str(HERE / "ranks.py"), str(folder)],
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
