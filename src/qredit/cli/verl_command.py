"""Train on verl: Ray, FSDP2 and vLLM on one node or several.

CONFIG is a YAML file of verl's options with a key `qredit`; what it does not name is verl's default. Overrides are
Hydra's: trainer.total_epochs=2, +qredit.reward=math_equal. See docs/verl.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from qredit.cli.parser import Parser

if TYPE_CHECKING:
    from qredit.verl.settings import VerlSettings


def add_arguments(parser: Parser) -> None:
    """The file and the overrides."""
    parser.add_argument("file", metavar="CONFIG", help="YAML file of verl's options and of qredit")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*", help="Hydra's: a.b=value, +a.b=value, ~a.b")


def run(given: dict[str, Any], out: Console, progress: Console) -> Mapping[str, Any]:
    """Train.

    Args:
        given: the options of the command line by name; those that were not given are absent.
        out: where the result is shown.
        progress: where progress bars go.
    """
    from qredit.runs.folder import RunFolder, ensure_writable
    from qredit.verl import launch

    config, settings = launch.configure(given["file"], given["overrides"])
    folder, objective = str(config.trainer.default_local_dir), settings.make_objective()
    run_folder = RunFolder(ensure_writable(Path(folder).expanduser()))
    run_folder.write_config(describe_run(config, settings))
    run_folder.write_record(str(objective), objective.expansion, settings.seed, {})
    launch.run(config)
    out.print(f"checkpoints are in {folder}", soft_wrap=True, markup=False)
    return {"checkpoints": folder, "objective": str(objective)}


def describe_run(config: Any, settings: "VerlSettings") -> dict[str, Any]:
    """The options that a report shows, under the names of `qredit train`."""
    policy, data = config.actor_rollout_ref, config.data
    return {
        "engine": "verl",
        "objective": settings.text,
        "model": str(policy.model.path),
        "seed": settings.seed,
        **({} if settings.guard is None else {"guard": settings.guard}),
        "m": int(policy.rollout.n),
        "prompts_per_step": int(data.train_batch_size),
        "max_completion_length": int(data.max_response_length),
        "lr": float(policy.actor.optim.lr),
    }
