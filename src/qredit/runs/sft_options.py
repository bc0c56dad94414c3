"""The options of supervised fine-tuning: those that it shares with training, what is shown, and what of it counts."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from qredit.runs.options import TrainOptions, option
from qredit.utils.errors import QreditError

if TYPE_CHECKING:
    from qredit.data.token_rules.protocol import TokenRule

SHARED_WITH_TRAIN = (
    *(
        "task",
        "data",
        "style",
        "passages",
        "prompt_column",
        "answer_column",
        "aliases_column",
        "system_prompt",
        "instruction",
        "few_shot",
    ),
    *("subset", "hold_out", "reward", "model", "coldness", "chat", "prompts_per_step", "prompts_per_forward", "steps"),
    *(
        "lr",
        "optimizer",
        "lr_schedule",
        "warmup",
        "max_completion_length",
        "answer_budget",
        "thinking_opening",
        "thinking_closing",
        "answer_seam",
    ),
    *(
        "answer_end",
        "skip_long",
        "lora",
        "lora_r",
        "merge_lora",
        "load_in_4bit",
        "bnb_4bit_quant_type",
        "use_bnb_nested_quant",
        "dtype",
        "cpu",
        "seed",
        "eval_every",
    ),
    *("eval_questions", "eval_k", "save_every", "log_every"),
    *("load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"),
)
"""Options of training that fine-tuning has, too, with the same meaning."""
SHOWN = "supervised fine-tuning shows it"
"""Why data must have reference answers there."""
DEFAULT_RATES = {"pocket": 3e-4, "lora": 1e-4, "full": 1e-5}


@dataclass(frozen=True)
class ShownOptions:
    """What is shown, and which of its tokens count. Without any of these all tokens of answers alone."""

    rationales: bool = option(False, "show the task's own rationales, too (the pocket tasks have some)")
    rationale_column: str | None = option(
        None, "column that holds a rationale (task jsonl), a.b for b inside a; rows without one show the answer alone"
    )
    completions: str | None = option(
        None,
        "file of prompts and completions as token ids, such as `qredit intervene` writes, to be shown in the place of "
        "the data's answers",
    )
    keep_tokens: str | None = option(
        None,
        "the rule by which a step leaves tokens out, such as 'entropy_sft(keep=0.8, gamma=0.8)'; default: all count",
    )


@dataclass(frozen=True)
class SftOptions:
    """Everything a run of supervised fine-tuning is made of.

    Attributes:
        run: model, data, format, sizes, steps and validation, as in training; of its fields only `SHARED_WITH_TRAIN`
            and `training`, here further fields of TRL's SFTConfig, are read.
        shown: where rationales come from, and which tokens count.
    """

    run: TrainOptions = field(default_factory=TrainOptions)
    shown: ShownOptions = field(default_factory=ShownOptions)

    def __post_init__(self) -> None:
        task = self.run.task
        if self.shown.rationale_column is not None and task != "jsonl":
            raise QreditError(f"rationale_column names a column of task jsonl, not of {task}; see rationales")
        if self.shown.rationales and task == "jsonl":
            raise QreditError("rationales are those that a task has; for task jsonl name a column: rationale_column")
        if self.shown.completions is not None and self.shows_rationales:
            raise QreditError("completions says all that is shown; leave rationales and rationale_column out")
        if self.shown.completions is not None and self.run.subset is not None:
            raise QreditError("completions says all that is shown; leave subset out, which is of the data's rows")
        _ = self.token_rule  # refuses a text that cannot be read

    @property
    def shows_rationales(self) -> bool:
        """Whether any rationale is asked for."""
        return self.shown.rationales or self.shown.rationale_column is not None

    @property
    def token_rule(self) -> "TokenRule | None":
        """Which tokens count; None is all."""
        if self.shown.keep_tokens is None:
            return None
        from qredit.data.token_rules.parsing import parse_token_rule  # here, as for objectives

        return parse_token_rule(self.shown.keep_tokens)

    @property
    def label(self) -> str:
        """What is learned, in words."""
        shown = "sft with rationales" if self.shows_rationales else "sft"
        if self.shown.completions is not None:
            shown = "sft on given completions"
        return shown if self.token_rule is None else f"{shown}, tokens kept by {self.token_rule}"

    @property
    def learning_rate(self) -> float:
        """`lr`, or the default for this kind of fine-tuning."""
        if self.run.lr is not None:
            return self.run.lr
        return DEFAULT_RATES["pocket" if self.run.is_pocket else "lora" if self.run.lora else "full"]

    def as_dict(self) -> dict[str, Any]:
        """The options that have a value, complete, by name: what config.yaml holds."""
        shared = {name: getattr(self.run, name) for name in SHARED_WITH_TRAIN}
        chosen = {**shared, **asdict(self.shown), **self.run.training}
        return {name: value for name, value in chosen.items() if value is not None}

    def changed(self) -> Mapping[str, Any]:
        """The options that are not at their default: what tells runs apart."""
        own = {f.name: getattr(self.shown, f.name) for f in fields(self.shown) if f.default is not MISSING}
        default = ShownOptions()
        mine = {name: value for name, value in own.items() if value != getattr(default, name)}
        told = {name: value for name, value in self.run.changed().items() if name in (*SHARED_WITH_TRAIN, "training")}
        return {**told, **mine}
