"""The folder of a run: what lies where, and that nothing of an older run is overwritten."""

import contextlib
import itertools
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from qredit.utils.atomic_files import write_text_atomic
from qredit.utils.errors import QreditError
from qredit.utils.extras import get_installed_version

RECORDED_PACKAGES = ("qredit", "torch", "transformers", "trl", "accelerate", "peft", "datasets")
MARKS = {"rationales": "sft", "pairs_per_prompt": "dpo"}
"""An option that the config of a command's runs holds, and no other's; those of `qredit train` hold none of them."""
Command = Literal["train", "sft", "dpo"]
RESUMABLE_CHANGES = ("steps", "save_every", "log_every", "data", "model")
FORMER_BEHAVIOUR = {
    "aliases": "reward",
    "passages": "all",
    "load_in_4bit": False,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
    "field": [],
    "keep_rollouts": False,
}
"""What runs did whose config.yaml does not say so, for it is older than the option."""


def ensure_writable(folder: Path) -> Path:
    """The folder, made if it was not there.

    Raises:
        QreditError: it is a file, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise QreditError(f"{folder} is a file; give a folder")
    probe = folder / f".writable-{os.getpid()}"  # of each rank its own: they come here at the same time
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise QreditError(f"cannot write to {folder}: {error.strerror}") from None
    return folder


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    config.yaml: its options, to be run again. record.json: seed, versions, objective in full, data, machine.
    metrics.jsonl, samples.jsonl, credit.jsonl, validation.jsonl, decisions.jsonl, rollouts.jsonl: one line per entry.
    pairs.jsonl: the preference pairs that it learns from.
    checkpoint-*: to resume from.
    final: the model.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def credit(self) -> Path:
        return self.path / "credit.jsonl"

    @property
    def validation(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def decisions(self) -> Path:
        return self.path / "decisions.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts.jsonl"

    @property
    def pairs(self) -> Path:
        return self.path / "pairs.jsonl"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files that grow while the run goes on."""
        return (self.metrics, self.samples, self.credit, self.validation, self.decisions, self.rollouts)

    @property
    def final(self) -> Path:
        return self.path / "final"

    def create_folder(self) -> list[Path]:
        """Make the folder, which must be new or empty; returns the folders that had to be made, outermost last.

        Raises:
            QreditError: it is in use, or it cannot be written.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise QreditError(f"{self.path} is a file; give a folder for the run")
            if self.path.is_dir() and any(self.path.iterdir()):
                raise QreditError(
                    f"run folder {self.path} is already used; add --resume to go on, or give another --output"
                )
            made = list(itertools.takewhile(lambda folder: not folder.exists(), (self.path, *self.path.parents)))
        except OSError as error:
            raise QreditError(f"cannot write to {self.path}: {error.strerror}") from None
        ensure_writable(self.path)
        return made

    def require_existing(self, command: Command | None = None) -> None:
        """Find the run in the folder that is to be resumed.

        Args:
            command: the one whose run it must be; None where that is known.

        Raises:
            QreditError: there is none, it is another command's, or the folder cannot be written.
        """
        if not self.config.is_file():
            raise QreditError(f"nothing to resume in {self.path}: there is no {self.config.name}")
        kept = None
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):  # said where the options are read
            kept = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        its_own = _find_command(kept)
        if command not in (its_own, None):
            raise QreditError(
                f"the run in {self.path} is one of `qredit {its_own}`; go on with it: "
                f"qredit {its_own} --resume --output {self.path}"
            )
        ensure_writable(self.path)

    def write_config(self, options: Mapping[str, Any]) -> None:
        """Write the options, complete, so that `--config` repeats the run, whatever folder it is called from.

        Args:
            options: the run's, by name; those that were not chosen are left out.
        """
        places = {name: _absolute(options[name]) for name in ("model", "data", "few_shot", "run") if name in options}
        write_text_atomic(self.config, _as_yaml({**options, **places}))

    def check_same_options(self, options: Mapping[str, Any]) -> None:
        """Refuse to resume a run as another one.

        Args:
            options: as in `write_config`.

        Raises:
            QreditError: an option differs from the run's own, and is none of those that may.
        """
        asked = yaml.safe_load(_as_yaml(options))
        former = {name: value for name, value in FORMER_BEHAVIOUR.items() if name in asked}  # fine-tuning has not all
        kept = former | yaml.safe_load(self.config.read_text(encoding="utf-8"))
        for name in sorted({*kept, *asked} - set(RESUMABLE_CHANGES)):
            if kept.get(name) != asked.get(name):
                raise QreditError(
                    f"the run in {self.path} has {name}={kept.get(name)!r}, not {asked.get(name)!r}; a resumed run may "
                    f"change {', '.join(RESUMABLE_CHANGES)} only"
                )

    def write_record(self, objective: str, expansion: str, seed: int, facts: Mapping[str, Any]) -> None:
        """Write what is needed to know what the run was.

        Args:
            objective: what was learned, in words.
            expansion: the same in full, in lines.
            seed: of the run.
            facts: further values by name.
        """
        record = {
            "objective": objective,
            "expansion": expansion.splitlines(),
            "seed": seed,
            "versions": {
                **{name: get_installed_version(name) for name in RECORDED_PACKAGES},
                "python": platform.python_version(),
            },
            "machine": describe_machine(),
            "commands": [*self._commands(), sys.argv],
            **facts,
        }
        write_text_atomic(self.record, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _commands(self) -> list[list[str]]:
        """The commands that the run was trained by so far, the first one first."""
        try:
            kept = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return list(kept.get("commands", [kept["command"]] if "command" in kept else []))


def _find_command(config: Any) -> str:
    """The command whose run has this config."""
    return next((name for mark, name in MARKS.items() if isinstance(config, dict) and mark in config), "train")


def _absolute(text: str) -> str:
    """A path that exists, as seen from anywhere; other texts, such as ids on the Hub, as they are."""
    path = Path(text).expanduser()
    return str(path.resolve()) if path.exists() else text


def _as_yaml(options: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)


def describe_machine() -> dict[str, Any]:
    """What the numbers were made on."""
    import torch  # here, for commands that only ask where a folder lies do not compute

    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }
