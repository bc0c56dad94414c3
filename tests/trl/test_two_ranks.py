"""Two processes on gloo have the gradient of one, given the same rollouts; also when one has nothing to learn."""

import os
import signal
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from tests.support import ranks
from tests.support.ports import free_port
from tests.support.ranks import CASES
from tests.support.rounding import gradient_bound
from tests.support.runs import relative_difference


def forked(folder: Path, world: int) -> list[dict]:
    """Run ranks.py on that many forks of this process; the gradients of every case, for each rank."""
    port = str(free_port())
    pids = [fork_rank(folder, rank, world, port) for rank in range(world)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    said = [path.read_text()[-3000:] for path in folder.glob("error-*")]
    assert statuses == [0] * world, said
    return [torch.load(folder / f"gradients-{world}-{rank}.pt") for rank in range(world)]


def fork_rank(folder: Path, rank: int, world: int, port: str) -> int:
    """A process that runs one rank, and has imported everything already; its id."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(300)  # a rank that waits for the other must not wait for ever
    try:
        os.environ |= {"ACCELERATE_USE_CPU": "true", "TOKENIZERS_PARALLELISM": "false"}
        if world > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        AcceleratorState._reset_state(reset_partial_state=True)  # it would go on as the one process of other tests
        GradientState._reset_state()
        ranks.save_gradients(folder)
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return forked(folder, 2), forked(folder, 1)[0]


@pytest.mark.parametrize("case", [" ".join(case) for case in CASES if case[1] != "past-ddp"])
def test_two_ranks_have_the_gradient_of_one(gradients, case):
    (first, second), alone = gradients
    assert relative_difference(first[case], second[case]) == 0.0
    assert relative_difference(first[case], alone[case]) < gradient_bound()


def test_a_forward_past_the_wrapper_would_be_seen(gradients):
    """The mutant: scored on the unwrapped model, gradients are not synchronised, without any error."""
    (first, second), _ = gradients
    assert relative_difference(first["garl(q=0.75) past-ddp"], second["garl(q=0.75) past-ddp"]) > 1e-2
