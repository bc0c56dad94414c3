"""The variables of a process whose verl computes on a CPU, and the mark of tests that need verl."""

from importlib.util import find_spec

import pytest

FOLDER = "QREDIT_RECORD"
"""Names a folder for the rollouts of a run and for the weights that its servers are given."""
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda",  # the name under which verl's FSDP engine is registered
    "VERL_USE_EXTERNAL_MODULES": "tests.support.verl_cpu.platform",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default, behind whatever else the machine does
    "RAY_agent_register_timeout_ms": "300000",  # a busy machine is slow, not broken
    "RAY_worker_register_timeout_seconds": "300",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
needs_verl = pytest.mark.skipif(find_spec("verl") is None, reason="verl is not installed; make test-verl")
