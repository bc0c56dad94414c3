"""The process that drives a run: verl's own, with our trainer in its registry."""

from typing import Any

import ray
from verl.trainer.main_ppo import TaskRunnerV1

_Runner = TaskRunnerV1.__ray_metadata__.modified_class


@ray.remote
class QreditTaskRunner(_Runner):  # type: ignore[misc, valid-type]
    """verl looks trainers up by name in the process that runs this."""

    def run(self, config: Any) -> None:
        import qredit.verl.trainer  # noqa: F401  # registers

        super().run(config)
