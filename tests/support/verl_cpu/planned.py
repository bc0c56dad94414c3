"""A run whose steps each learn in a way of their own: one start of Ray serves many objectives.

FOLDER/plan.json holds a mapping for each step: its `objective`; `actor`, options of verl's of that name; `fails`,
sessions that fail, as [index of the prompt, number of the session]; `success`, what its groups are said to show.
Without that file a run is an ordinary one.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from omegaconf import open_dict

from qredit.verl.agent_loop import QreditAgentLoop, make_layout
from tests.support.verl_cpu.environment import FOLDER

PLAN = "plan.json"
AGENTS = """
- name: qredit
  _target_: tests.support.verl_cpu.planned.PlannedAgentLoop
"""


def read_plan():
    """What each step does; nothing where a run is an ordinary one."""
    file = Path(os.environ[FOLDER]) / PLAN
    return json.loads(file.read_text()) if file.is_file() else []


def plan_rollouts(config, settings):
    """Have the rollouts of a run drawn for the objective of their step.

    Args:
        config: of the run, as it was made ready.
        settings: of the run.
    """
    file = Path(os.environ[FOLDER]) / "agents.yaml"
    file.write_text(AGENTS)
    with open_dict(config):
        config.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(file)
        # a worker for the reference model is there from the beginning, or never
        needed = [replace(settings, objective=one["objective"]).needs_reference for one in read_plan()]
        config.actor_rollout_ref.actor.use_kl_loss = any(needed)


def plan_steps(trainer):
    """Have each step of a class of trainers learn by the objective of its own; stages begin anew with another."""
    step, module = trainer.step, sys.modules[trainer.__module__]
    measured = module.list_success

    def step_by_plan(self, *given, **named):
        own = read_plan()[self.global_steps - 1]
        if own["objective"] != self.settings.objective:
            self._learn_by(replace(self.settings, objective=own["objective"]))
        module.list_success = lambda facts: own.get("success") or measured(facts)
        with open_dict(self.config):
            actor = {"ppo_mini_batch_size": 2, "ppo_epochs": 1} | own.get("actor", {})
            self.config.actor_rollout_ref.actor.update(actor)
        return step(self, *given, **named)

    trainer.step = step_by_plan


class PlannedAgentLoop(QreditAgentLoop):
    """Draws as the plan says of the step that a prompt is of."""

    async def run(self, sampling_params, **row):
        own = read_plan()[int(row["global_steps"]) - 1]
        if [int(row["index"]), int(row["session_id"])] in own.get("fails", []):
            raise RuntimeError("this session fails on purpose")
        self.settings = replace(self.settings, objective=own["objective"])
        length, path = int(self.rollout_config.response_length), str(self.config.actor_rollout_ref.model.path)
        self.asked, self.tails = make_layout(self.settings, self.tokenizer, length, path)
        return await super().run(sampling_params, **row)
