"""What a model is shown before a training run begins: `sft(steps=40) then grpo()` as an arm of a comparison."""

import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from qredit.runs.load import is_single_file
from qredit.runs.options import TrainOptions, check_minimums
from qredit.runs.sft_options import SftOptions, ShownOptions
from qredit.utils.errors import QreditError, unknown_name_error

THEN = " then "
_NAME = "sft"


@dataclass(frozen=True)
class WarmStart:
    """Supervised fine-tuning on the run's own training questions, before the run.

    Attributes:
        steps: optimiser steps, of as many prompts as the run's.
        lr: learning rate; None is the default of `qredit sft`.
        rationales: show the task's own rationales, too.
    """

    steps: int
    lr: float | None = None
    rationales: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise QreditError(f"steps of sft must be a whole number, got {self.steps!r}")
        check_minimums(self, {"steps": 1})

    def __str__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value not in (None, False)]
        return f"{_NAME}({', '.join(shown)})"

    def as_dict(self) -> dict[str, Any]:
        """For the facts that a result is known by."""
        return asdict(self)

    def make_options(self, options: TrainOptions) -> SftOptions:
        """The fine-tuning before a run: its model, data, format and seed.

        Args:
            options: the run's. Adapters are merged, since a run begins with whole weights.
        """
        shared = replace(
            options,
            objective=TrainOptions.objective,
            q=None,
            steps=self.steps,
            lr=self.lr,
            warmup=None,
            merge_lora=options.lora,
            save_every=0,
            eval_every=0,
            hold_out=options.held_out or None if is_single_file(options) else None,
            training={name: value for name, value in options.training.items() if name == "chat_template_kwargs"},
        )
        return SftOptions(shared, ShownOptions(rationales=self.rationales))


def start_from(options: TrainOptions, model: Path) -> TrainOptions:
    """The options of a run that begins with another model, and is in all else as it would have been.

    Args:
        options: the run's; what its model decides of sizes and rates is kept.
        model: a folder with whole weights.
    """
    total, answer = options.budget
    rate = options.learning_rate
    return replace(options, model=str(model), coldness=None, lr=rate, max_completion_length=total, answer_budget=answer)


def split_arm(text: str) -> tuple[WarmStart | None, str]:
    """An arm of a comparison as what comes before the run, if anything does, and the objective.

    >>> split_arm("sft(steps=40) then grpo()")
    (WarmStart(steps=40, lr=None, rationales=False), 'grpo()')

    Raises:
        QreditError: something else than `sft(…)` before `then`, arguments that it does not have, or no objective.
    """
    before, then, objective = text.partition(THEN)
    if not then:
        if text.strip().startswith(f"{_NAME}("):
            raise QreditError(f"'{text}' says what comes before a run, but not which: '{text.strip()}{THEN}grpo()'")
        return None, text
    return _parse(before.strip()), objective.strip()


def _parse(text: str) -> WarmStart:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(text)
        arguments = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise QreditError(f"what comes before '{THEN.strip()}' must be such as sft(steps=40), got '{text}'") from None
    if call.func.id != _NAME:
        raise unknown_name_error(f"stage before '{THEN.strip()}'", call.func.id, (_NAME,))
    return _make(arguments)


def _make(arguments: Mapping[str, Any]) -> WarmStart:
    known = [f.name for f in fields(WarmStart)]
    for name in arguments:
        if name not in known:
            raise unknown_name_error(f"argument of {_NAME}", name, known)
    if "steps" not in arguments:
        raise QreditError(f"{_NAME} needs steps: {_NAME}(steps=40)")
    return WarmStart(**arguments)
