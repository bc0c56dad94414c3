"""The configuration of a tiny run on verl, and such a run in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
from omegaconf import OmegaConf

from qredit.verl.checkpoint import MARKER
from tests.support.paths import ROOT, SOURCE
from tests.support.verl_cpu.environment import ENVIRONMENT

WHOLE = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
PATIENCE = 1500  # seconds for a run, on a machine that does other work


def write_config(folder, model, data, objective, **changes):
    """The file of a tiny run on two workers: two prompts of four rollouts a step, float32, plain gradient descent."""
    chosen = {
        "qredit.objective": objective,
        "qredit.answer_budget": 8,
        "data.train_files": [str(data / "train.parquet")],
        "data.val_files": [str(data / "validation.parquet")],
        "data.train_batch_size": 2,
        "data.max_prompt_length": 128,
        "data.max_response_length": 40,
        "data.dataloader_num_workers": 0,
        "data.shuffle": False,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.model.use_remove_padding": False,
        "actor_rollout_ref.model.enable_gradient_checkpointing": False,
        "actor_rollout_ref.model.override_config": {"attn_implementation": "eager"},
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 256,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
        "actor_rollout_ref.actor.use_torch_compile": False,
        "actor_rollout_ref.actor.optim": {"optimizer": "SGD", "lr": 0.01, "weight_decay": 0.0, "clip_grad": 1e9},
        "actor_rollout_ref.actor.fsdp_config.strategy": "fsdp2",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.actor.fsdp_config.mixed_precision": WHOLE,
        "actor_rollout_ref.ref.fsdp_config.strategy": "fsdp2",
        "actor_rollout_ref.ref.fsdp_config.use_torch_compile": False,
        "actor_rollout_ref.ref.fsdp_config.mixed_precision": WHOLE,
        "actor_rollout_ref.rollout.name": "cpu",
        "actor_rollout_ref.rollout.n": 4,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.load_format": "safetensors",
        "actor_rollout_ref.rollout.agent.num_workers": 1,
        "reward.num_workers": 1,
        "trainer.n_gpus_per_node": 2,
        "trainer.device": "cpu",
        "trainer.logger": ["console"],
        "trainer.val_before_train": False,
        "trainer.total_training_steps": 2,
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.resume_mode": "disable",
        "ray_kwargs.ray_init": {
            "num_cpus": 64, "object_store_memory": 300_000_000,
        },
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        **changes,
    }  # fmt: skip
    config = OmegaConf.create()
    for name, value in chosen.items():
        OmegaConf.update(config, name, value, force_add=True)
    OmegaConf.save(config, folder / "run.yaml")
    return folder / "run.yaml"


def start(folder, file, kill_after=None):
    """Run it in a process of its own, which ends its Ray; returns what it wrote to its output.

    Args:
        folder: of the run.
        file: its configuration.
        kill_after: a step; all of the run's processes are killed once its checkpoint is complete.
    """
    variables = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, (SOURCE.parent, ROOT)))}
    variables.pop("CUDA_VISIBLE_DEVICES", None)  # where it is empty, Ray believes in no GPUs
    output = folder / "output.txt"
    with output.open("w") as file_of_output:
        done = subprocess.Popen(
            [sys.executable, "-m", "tests.support.verl_cpu.runs", str(folder), str(file)],
            env=variables, cwd=folder, stdout=file_of_output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            if kill_after is None:
                done.wait(timeout=PATIENCE)
            else:
                wait_for_checkpoint(folder / "checkpoints" / MARKER, kill_after, done)
        finally:
            kill_all(done)
    said = output.read_text(errors="replace")
    assert done.returncode == (0 if kill_after is None else -signal.SIGKILL), said[-4000:]
    return said


def wait_for_checkpoint(marker, step, process):
    """Until verl has marked the checkpoint of a step as complete, or the run is over."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends and process.poll() is None:
        if marker.is_file() and marker.read_text().strip() == str(step):
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


def kill_all(process):
    """SIGKILL to a process and to all that came from it, Ray's among them; nothing if it has ended by itself."""
    if process.poll() is not None:
        return
    root = psutil.Process(process.pid)
    every = [root, *root.children(recursive=True)]
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(timeout=60)
    psutil.wait_procs(every, timeout=60)
