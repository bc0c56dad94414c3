"""A run of `qredit verl` on a CPU that leaves its rollouts behind: `python -m tests.support.verl_cpu.runs FOLDER FILE`.

Rollouts stand in FOLDER/rollouts.jsonl, weights that a server was given in FOLDER/weights-STEP-SERVER.pt.
"""

import json
import os
import sys
from pathlib import Path

import ray
from verl.trainer.main_ppo import run_ppo

from qredit.verl.launch import configure
from qredit.verl.task_runner import QreditTaskRunner
from tests.support.verl_cpu.environment import FOLDER

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
        super().run(config)


def main(folder, file, *overrides):
    os.environ[FOLDER] = folder
    config, _ = configure(file, overrides)
    try:
        run_ppo(config, task_runner_class=RecordingTaskRunner)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
