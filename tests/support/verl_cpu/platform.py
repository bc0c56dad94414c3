"""The platform: what verl asks of a device, answered for a CPU."""

import importlib
import types
from contextlib import contextmanager

import torch
import torch.distributed.fsdp
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

MODULE = types.SimpleNamespace(
    **{name: (lambda *a, **k: 0) for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated")},
    **{name: (lambda *a, **k: 0) for name in ("memory_reserved", "current_device", "device_count")},
    **{name: (lambda *a, **k: None) for name in ("empty_cache", "synchronize", "set_device", "ipc_collect")},
    **{name: (lambda *a, **k: None) for name in ("manual_seed", "manual_seed_all", "reset_peak_memory_stats")},
    mem_get_info=lambda *a, **k: (1 << 34, 1 << 34),
    get_device_name=lambda *a, **k: "cpu",
    is_available=lambda: True,
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = MODULE

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"  # what verl moves tensors to

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    def manual_seed_all(self, seed):
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


_init = torch.distributed.init_process_group


def init_process_group(backend=None, *args, **kwargs):
    """verl asks for `cpu:gloo,cpu:gloo`, which names a device twice."""
    return _init("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)


torch.distributed.init_process_group = init_process_group


class UnpinnedOffload(torch.distributed.fsdp.CPUOffloadPolicy):
    """verl has its reference worker pin memory, which takes a device to pin it for."""

    def __init__(self, pin_memory=False):
        super().__init__(pin_memory=False)


torch.distributed.fsdp.CPUOffloadPolicy = UnpinnedOffload


def _load_replica():
    return importlib.import_module("tests.support.verl_cpu.rollout").CpuReplica


def register_rollout():
    from verl.workers.rollout import base, replica

    replica.RolloutReplicaRegistry.register("cpu", _load_replica)
    base._ROLLOUT_REGISTRY[("cpu", "async")] = "tests.support.verl_cpu.rollout.CpuServerAdapter"


register_rollout()
