"""What a process says when another one of its run has ended."""

import pytest
import torch.distributed as dist

from qredit.trl.lost_process import report_lost_process
from qredit.utils.errors import QreditError


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:11155. This is typically caused by"),
        dist.DistBackendError("NCCL communicator was aborted"),
        dist.DistNetworkError("Failed to recv, got 0 bytes"),
    ],
)
def test_the_end_of_another_process_is_one_line(error):
    with (
        pytest.raises(QreditError, match=r"another process of this run has ended.*--resume"),
        report_lost_process("Go on with --resume."),
    ):
        raise error


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shape"), report_lost_process(""):
        raise RuntimeError("the shape is wrong")
