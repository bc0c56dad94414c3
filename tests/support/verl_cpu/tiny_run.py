"""The configuration of a tiny run on verl, and such a run in a process of its own."""

import os
import subprocess
import sys

from omegaconf import OmegaConf

from tests.support.paths import ROOT, SOURCE
from tests.support.verl_cpu.environment import ENVIRONMENT


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
        "actor_rollout_ref.actor.fsdp_config.mixed_precision": dict.fromkeys(
            ("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32"
        ),
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
            "num_cpus": 64, "num_gpus": 2, "include_dashboard": False, "object_store_memory": 300_000_000,
        },
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        **changes,
    }  # fmt: skip
    config = OmegaConf.create()
    for name, value in chosen.items():
        OmegaConf.update(config, name, value, force_add=True)
    OmegaConf.save(config, folder / "run.yaml")
    return folder / "run.yaml"


def start(folder, file):
    """Run it in a process of its own, which ends its Ray; returns what it wrote to its output."""
    variables = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, (SOURCE.parent, ROOT)))}
    variables.pop("CUDA_VISIBLE_DEVICES", None)  # where it is empty, Ray believes in no GPUs
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.verl_cpu.runs", str(folder), str(file)],
        env=variables, cwd=folder, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr
