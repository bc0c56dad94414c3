"""A run of `qredit verl` on a CPU that leaves its rollouts behind: `python -m tests.support.verl_cpu.runs FOLDER FILE`.

Rollouts stand in FOLDER/rollouts.jsonl, weights that a server was given in FOLDER/weights-STEP-SERVER.pt.
"""

import json
import os
import sys
from pathlib import Path

import ray
from omegaconf import open_dict
from verl.trainer.main_ppo import run_ppo

from qredit.verl.launch import configure
from qredit.verl.task_runner import QreditTaskRunner
from tests.support.verl_cpu.environment import FOLDER
from tests.support.verl_cpu.planned import plan_rollouts, plan_steps, read_plan

_Runner = QreditTaskRunner.__ray_metadata__.modified_class


@ray.remote
class RecordingTaskRunner(_Runner):
    def run(self, config):
        import qredit.engine.gathered_rows as module

        kept = module.from_text

        def keep(text, group):
            with (Path(os.environ[FOLDER]) / "rollouts.jsonl").open("a") as file:
                file.write(json.dumps([group, text]) + "\n")
            return kept(text, group)

        module.from_text = keep
        if read_plan():
            from qredit.verl.trainer import QreditTrainer

            plan_steps(QreditTrainer)
        super().run(config)


def main(folder, file, *overrides):
    os.environ[FOLDER] = folder
    config, _ = configure(file, overrides)
    if read_plan():
        plan_rollouts(config)
    nodes = start_nodes(config) if config.trainer.nnodes > 1 else None
    try:
        run_ppo(config, task_runner_class=RecordingTaskRunner)
    finally:
        ray.shutdown()
        if nodes is not None:
            nodes.shutdown()


def start_nodes(config):
    """A cluster of several raylets on this machine, each with its own store and its share of GPUs that are not there.

    Args:
        config: of the run, which is told the address of the cluster.
    """
    from ray.cluster_utils import Cluster

    given = dict(config.ray_kwargs.ray_init)
    cpus, store = given.pop("num_cpus"), given.pop("object_store_memory")
    node = {"num_cpus": cpus, "num_gpus": config.trainer.n_gpus_per_node, "object_store_memory": store}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(config.trainer.nnodes - 1):
        cluster.add_node(**node)
    with open_dict(config):
        config.ray_kwargs.ray_init = {"address": cluster.address}
    return cluster


if __name__ == "__main__":
    main(*sys.argv[1:])
