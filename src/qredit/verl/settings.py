"""What a run on verl is told beside verl's own options: the keys of `qredit` in its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qredit.control.auto_objective import find_auto
from qredit.core.chain import field_kinds
from qredit.core.objective import Objective
from qredit.engine.scorer import SAMPLER_ENTROPY
from qredit.objectives.parsing import parse
from qredit.rollouts.answer_budget import DEFAULT_ANSWER_BUDGET, cap_answer_budget
from qredit.rollouts.format import Format, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.tasks.alias_use import AliasUse
from qredit.utils.errors import QreditError, unknown_name_error

FILLED = frozenset(
    {"ids", "group", "turn", "rollout", "seed", "reward", "logp", "entropy", "answer_logp", "sampler_logp"}
    | {"mask", "rationale", "close", "response", "answer", "sampled", SAMPLER_ENTROPY}
)
"""Batch fields that a run on verl fills."""


@dataclass(frozen=True)
class FormatSettings:
    """The strings around rationale and answer; None is chosen by the tokenizer.

    Attributes:
        chat: whether prompts go through the chat template; None if there is one.
    """

    opening: str | None = None
    closing: str | None = None
    seam: str | None = None
    end: str | None = None
    chat: bool | None = None


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
    format: FormatSettings = field(default_factory=FormatSettings)

    def __post_init__(self) -> None:
        if (self.objective is None) == (self.objective_file is None):
            raise QreditError("give qredit.objective or qredit.objective_file, and not both")
        if self.answer_budget is not None and self.answer_budget < 1:
            raise QreditError(f"qredit.answer_budget must be at least 1, got {self.answer_budget}")
        AliasUse.parse(self.aliases)

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> "VerlSettings":
        """The settings that a mapping holds.

        Raises:
            QreditError: an unknown key, with the nearest; as at construction.
        """
        own, strings = dict(given or {}), dict((given or {}).get("format") or {})
        _check_keys("key of qredit", own, cls)
        _check_keys("key of qredit.format", strings, FormatSettings)
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
            QreditError: an unknown one; a field that nobody fills; a proposal, which nobody draws from.
        """
        objective = parse(self.text)
        find_auto(objective)  # refuses an auto() that is no q
        missing = sorted(field_kinds(objective.needs | objective.needs_off_policy) - FILLED)
        if missing:
            raise QreditError(
                f"{objective} needs {', '.join(missing)}, which nothing fills on verl yet; train it on TRL"
            )
        if objective.proposal is not None:
            raise QreditError(f"{objective} draws from a proposal, which is not done on verl yet; train it on TRL")
        return objective

    def make_format(self, tokenizer: Any) -> TokenFormat:
        """The layout of completions, as ids of a tokenizer."""
        own = self.format
        strings = Format.of(tokenizer, own.opening, own.closing, own.seam, own.end, chat=self.uses_chat(tokenizer))
        return TokenFormat(strings, tokenizer)

    def uses_chat(self, tokenizer: Any) -> bool:
        """Whether prompts go through the chat template.

        Raises:
            QreditError: they are to, and there is none.
        """
        if self.format.chat and not tokenizer.chat_template:
            raise QreditError("qredit.format.chat is on, but the tokenizer has no chat template")
        return bool(tokenizer.chat_template) if self.format.chat is None else self.format.chat

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

    def prompt_of(self, messages: Any, tokenizer: Any) -> Any:
        """The prompt that a row's messages are: themselves, or, without a chat template, the text of the only one.

        Raises:
            QreditError: several messages, which nothing can put into one text.
        """
        if isinstance(messages, str) or self.uses_chat(tokenizer):
            return messages
        if len(messages) != 1:
            raise QreditError(f"a prompt of {len(messages)} messages needs a chat template")
        return messages[0]["content"]


def _check_keys(kind: str, given: Mapping[str, Any], known: type) -> None:
    names = [one.name for one in fields(known)]  # type: ignore[arg-type]
    for name in given:
        if name not in names:
            raise unknown_name_error(kind, str(name), names)
