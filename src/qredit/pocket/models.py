"""The pocket models: which there are, and where they lie. How they are made: experiments/pocket_models."""

from collections.abc import Mapping
from pathlib import Path

from qredit.utils.errors import QreditError, look_up

FOLDER = Path(__file__).parent / "models"
LEVELS = (1, 2, 3, 4, 6, 8, 12)
DEFAULT_LEVEL = 6
TASKS: Mapping[str, str] = {
    "hotpot": "pocket-hotpot",
    "musique": "pocket-musique",
    "finqa": "pocket-finqa",
    **{f"dial-{level}": "pocket-dial" for level in LEVELS},
    "search": "pocket-hotpot",
}
"""The task that each model is a base model for, by the model's name."""
OF_ENVIRONMENTS: Mapping[str, str] = {"pocket-search": "search"}
"""The model that has seen the format of an environment, by the environment's name."""


def get_model_name(task: str, coldness: int | None = None, env: str | None = None) -> str:
    """The name of a task's pocket model.

    Args:
        task: name of the task.
        coldness: -log10 p0, for pocket-dial alone, which has a model at each of `LEVELS`; None is `DEFAULT_LEVEL`.
        env: name of the environment that is played, if one is.

    Raises:
        QreditError: the task has no pocket model, or not at that coldness.
    """
    if task == "pocket-dial":
        level = DEFAULT_LEVEL if coldness is None else coldness
        if level not in LEVELS:
            raise QreditError(f"coldness must be one of {', '.join(map(str, LEVELS))}, got {level}")
        return f"dial-{level}"
    own_of_env = None if env is None else OF_ENVIRONMENTS.get(env)
    if own_of_env is not None and TASKS[own_of_env] == task:
        return own_of_env
    found = [name for name, own in TASKS.items() if own == task]
    if not found:
        tasks = ", ".join(dict.fromkeys(TASKS.values()))
        raise QreditError(f"task {task} has no pocket model (there are some for {tasks}); give --model FOLDER_OR_ID")
    return found[0]


def get_model_path(name: str) -> Path:
    """The folder of a pocket model, loadable with from_pretrained.

    Raises:
        QreditError: there is no model of that name.
    """
    look_up("pocket model", name, TASKS)
    return FOLDER / name
