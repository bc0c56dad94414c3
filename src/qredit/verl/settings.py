"""What a run on verl is told beside verl's own options: the keys of `qredit` in its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from qredit.callbacks.collapse_response import Action, check_takes_over
from qredit.control.auto_objective import find_auto
from qredit.core.field_names import REFERENCE_LOGP
from qredit.core.objective import Objective
from qredit.engine.scorer import SAMPLER_ENTROPY
from qredit.engine.served_fields import check_served
from qredit.objectives.parsing import parse
from qredit.rewards.reward_spec import check_one_turn
from qredit.rollouts.answer_budget import DEFAULT_ANSWER_BUDGET, cap_answer_budget
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.format_settings import FormatSettings
from qredit.rollouts.sampling_params import TokenBudget
from qredit.tasks.alias_use import AliasUse
from qredit.utils.errors import QreditError, check_names

FILLED = frozenset(
    {"ids", "group", "turn", "rollout", "seed", "reward", "logp", "entropy", "answer_logp", "sampler_logp"}
    | {"mask", "rationale", "close", "response", "answer", "sampled", SAMPLER_ENTROPY}
)
"""Batch fields that a run on verl fills, beside the next."""


@dataclass(frozen=True)
class VerlSettings:
    """The keys of `qredit`.

    Attributes:
        objective: its text; or
        objective_file: a file that holds it, as quotes in a text get lost in Hydra's overrides.
        reward: as `--reward` of `qredit train`; None is that of the task that the data name.
        aliases: what aliases count for, as `--aliases`.
        answer_budget: tokens kept for the answer; None is 128, at most half of a completion.
        seed: of samples and of stages that draw.
        guard: what is done about a collapse, as `--guard`; None is nothing.
        format: the strings around rationale and answer.

    Raises:
        QreditError: no objective or two, an unknown one, a value that cannot be used.
    """

    objective: str | None = None
    objective_file: str | None = None
    reward: str | None = None
    aliases: str = "both"
    answer_budget: int | None = None
    seed: int = 0
    guard: Action | None = None
    format: FormatSettings = field(default_factory=FormatSettings)

    def __post_init__(self) -> None:
        if (self.objective is None) == (self.objective_file is None):
            raise QreditError("give qredit.objective or qredit.objective_file, and not both")
        if self.answer_budget is not None and self.answer_budget < 1:
            raise QreditError(f"qredit.answer_budget must be at least 1, got {self.answer_budget}")
        AliasUse.parse(self.aliases)
        check_one_turn(self.reward)
        check_names("value of qredit.guard", [] if self.guard is None else [self.guard], get_args(Action))

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> "VerlSettings":
        """The settings that a mapping holds.

        Raises:
            QreditError: an unknown key, with the nearest; as at construction.
        """
        own, strings = dict(given or {}), dict((given or {}).get("format") or {})
        check_names("key of qredit", own, [one.name for one in fields(cls)])
        check_names("key of qredit.format", strings, [one.name for one in fields(FormatSettings)])
        return cls(**{**own, "format": FormatSettings(**strings)})

    @property
    def text(self) -> str:
        """The objective's text.

        Raises:
            QreditError: the file cannot be read.
        """
        if self.objective is not None:
            return self.objective
        file = Path(str(self.objective_file)).expanduser()
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise QreditError(f"cannot read qredit.objective_file {file}: {error}") from None

    @property
    def alias_use(self) -> AliasUse:
        """What `aliases` says."""
        return AliasUse.parse(self.aliases)

    def make_objective(self) -> Objective:
        """The objective, if a run on verl can fill what it reads.

        Raises:
            QreditError: an unknown one; a teacher or a field that nobody fills; a proposal, which nobody draws from;
                a guard that cannot take over from it.
        """
        objective = parse(self.text)
        find_auto(objective)  # refuses an auto() that is no q
        check_served(objective, FILLED, {REFERENCE_LOGP}, "verl")
        if self.guard is not None:
            check_takes_over(self.guard, objective)
        return objective

    @property
    def needs_reference(self) -> bool:
        """Whether the objective compares with the model that the run began with."""
        objective = self.make_objective()
        return REFERENCE_LOGP in objective.needs | objective.needs_off_policy

    def make_budget(self, response_length: int, tokens: TokenFormat) -> TokenBudget:
        """What of verl's `data.max_response_length` is for the rationale, a forced closing counted off, and the answer.

        Raises:
            QreditError: nothing is left for the rationale.
        """
        total = response_length - len(tokens.close_ids)
        answer = self.answer_budget or cap_answer_budget(DEFAULT_ANSWER_BUDGET, total)
        if total < answer:
            raise QreditError(
                f"data.max_response_length={response_length} is less than the {len(tokens.close_ids)} tokens of the "
                f"closing and qredit.answer_budget={answer}"
            )
        return TokenBudget(thinking=total - answer, answer=answer)
