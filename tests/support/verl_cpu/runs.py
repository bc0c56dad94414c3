"""A run of `qredit verl` on a CPU that leaves its rollouts behind: `python -m tests.support.verl_cpu.runs FOLDER FILE`.

Rollouts stand in FOLDER/rollouts.jsonl, weights that a server was given in FOLDER/weights-STEP-SERVER.pt.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import ray
from omegaconf import open_dict
from ray._private import ray_constants, services
from ray.cluster_utils import Cluster
from verl.trainer.main_ppo import run_ppo

from qredit.verl.launch import configure
from qredit.verl.task_runner import QreditTaskRunner
from tests.support.ports import free_port
from tests.support.recorded_rows import to_text
from tests.support.verl_cpu.environment import FOLDER
from tests.support.verl_cpu.planned import plan_rollouts, plan_steps, read_plan

AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
_Runner = QreditTaskRunner.__ray_metadata__.modified_class


@ray.remote
class RecordingTaskRunner(_Runner):
    def run(self, config):
        import qredit.engine.gathered_rows as module

        collate = module.collate

        def keep(trajectories, *given):
            with (Path(os.environ[FOLDER]) / "rollouts.jsonl").open("a") as file:
                file.writelines(json.dumps([one.group, to_text(one, 0)]) + "\n" for one in trajectories)
            return collate(trajectories, *given)

        module.collate = keep
        if read_plan():
            from qredit.verl.trainer import QreditTrainer

            plan_steps(QreditTrainer)
        super().run(config)


def wait_for_nodes():
    """Have Ray wait for a node of its own as long as it takes on a busy machine, and not for 30 seconds."""
    get_node = services.get_node

    def get_node_patiently(*given):
        ends = time.monotonic() + 300
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.5)

    services.get_node = get_node_patiently


def tell_raylets_ports():
    """Tell raylets the port that their agent listens on, as Ray tells them the others, which it leaves out.

    A raylet that is not told waits 15 seconds for its agent to say it, and then ends.
    """
    start = services.start_ray_process

    def start_told(command, process_type, *given, **named):
        port = re.search(r"--listen-port=(\d+)", " ".join(command))
        if process_type == ray_constants.PROCESS_TYPE_RAYLET and port is not None:
            command = [*command, f"--dashboard_agent_listen_port={port[1]}"]
        return start(command, process_type, *given, **named)

    services.start_ray_process = start_told


def main(folder, file, *overrides):
    os.environ[FOLDER] = folder
    wait_for_nodes()
    tell_raylets_ports()
    config, settings = configure(file, overrides)
    if read_plan():
        plan_rollouts(config, settings)
    nodes = start_nodes(config)
    try:
        run_ppo(config, task_runner_class=RecordingTaskRunner)
    finally:
        ray.shutdown()
        nodes.shutdown()


def start_nodes(config):
    """Ray's nodes, all on this machine, each with its own store and its share of GPUs that are not there.

    Args:
        config: of the run, which is told the address of the cluster.
    """
    given = dict(config.ray_kwargs.ray_init)
    node = {name: given[name] for name in ("num_cpus", "object_store_memory")}
    cluster = Cluster()
    for _ in range(config.trainer.nnodes):
        # A raylet that has to learn these ports from its agents gives them less time than a busy machine takes.
        ports = {name: free_port() for name in AGENT_PORTS}
        cluster.add_node(wait=False, num_gpus=config.trainer.n_gpus_per_node, include_dashboard=False, **node, **ports)
    cluster.wait_for_nodes(timeout=300)
    with open_dict(config):
        config.ray_kwargs.ray_init = {"address": cluster.address}
    return cluster


if __name__ == "__main__":
    main(*sys.argv[1:])
