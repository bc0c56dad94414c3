"""The model card of a run: what it was made from, on what, how, how well it does, and how its answers end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qredit.trl.usage import Usage, render_usage, to_code
from qredit.utils.extras import get_installed_version
from qredit.utils.sanitize import escape_control_chars

_PACKAGES = ("qredit", "trl", "transformers", "torch")
PAPER = (
    "[How Fast Should a Model Commit to Supervision? Training Reasoning Models on the Tsallis Loss "
    "Continuum](https://arxiv.org/abs/2604.25907)"
)


@dataclass(frozen=True)
class ModelCard:
    """What a card tells; what is not known is left out of it.

    Attributes:
        base: the model that training began with: an id on the Hub, or a folder; None for one made in a script.
        data: what the prompts and answers came from.
        usage: how it is asked.
        scores: a sentence or number by name.
        settings: further facts by name, such as steps and learning rate.
    """

    name: str
    base: str | None
    objective: str
    usage: Usage
    data: str | None = None
    scores: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()


def render_card(card: ModelCard) -> str:
    """The card as Markdown, with the front matter that the Hub reads."""
    head: dict[str, Any] = {"library_name": "transformers", "tags": sorted({*card.tags, "qredit", "trl"})}
    folder = None if card.base is None else Path(card.base)
    if folder is not None and not folder.is_absolute() and not folder.exists():
        head["base_model"] = card.base
    license = None if folder is None else _license(folder)
    if license is not None:
        head["license"] = license
    facts = {"base model": card.base and to_code(card.base), "data": card.data, "objective": to_code(card.objective)}
    facts |= card.settings or {}
    rows = [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    scores = [f"- {name}: {value}" for name, value in (card.scores or {}).items()]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {escape_control_chars(card.name)}",
        "Trained from questions and answers with [TRL](https://github.com/huggingface/trl) and qredit.",
        "\n".join(rows),
        *(["## Scores", "\n".join(scores)] if scores else []),
        "## How it is asked",
        render_usage(card.usage),
        "## Made with",
        "\n".join(f"- {name} {get_installed_version(name)}" for name in _PACKAGES),
        f"The loss continuum: {PAPER}.",
    ]
    return "\n\n".join(parts) + "\n"


def _license(base: Path) -> str | None:
    """The licence that a model folder's own card names; None where there is none."""
    card = base / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").split("---")
    try:
        told = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return None
    found = told.get("license") if isinstance(told, dict) else None
    return found if isinstance(found, str) and found != "license" else None
