"""The options of a training run: what recipes hold and what `qredit train` takes."""

import ast
import contextlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any, Literal

from qredit import tasks
from qredit.catalog import objective_names
from qredit.environments.budget import EpisodeBudget
from qredit.environments.names import check_names
from qredit.rewards.reward_spec import ENVIRONMENT, check_one_turn, parse_reward_names
from qredit.rollouts.answer_budget import DEFAULT_ANSWER_BUDGET, cap_answer_budget
from qredit.rollouts.sampling_params import TokenBudget
from qredit.runs.example_filter import ExampleFilter
from qredit.tasks.alias_use import AliasUse
from qredit.tasks.normal_forms import find_unreadable
from qredit.utils.device import select_device
from qredit.utils.errors import QreditError, unknown_name_error

if TYPE_CHECKING:
    import torch

    from qredit.core.objective import Objective
    from qredit.curricula.protocol import Curriculum
    from qredit.rollouts.field_functions import FieldFunction
    from qredit.rollouts.field_maker import FieldMaker

__all__ = ["TrainOptions"]

OWN_COLUMNS = ("prompt_column", "answer_column", "aliases_column")
OWN_WORDING = ("system_prompt", "instruction", "few_shot")
EPISODE_OPTIONS = ("max_turns", "observation_budget", "episode_budget", "tool_seconds", "branching")
POCKET = "pocket"
AUTO = "auto"
POCKET_BUDGET = (40, 8)
POCKET_OBSERVATION = 40
"""Three facts, and room for four turns in a context of 512 tokens."""
POCKET_TOOLS = {"turns": 2, "observation": 64}
"""One call, and the answer. Its tags alone take a pocket model 43 tokens, and the tools stand in the prompt, too."""
BUDGET = (2048, DEFAULT_ANSWER_BUDGET)
ROLLOUTS_PER_PROMPT = 16
"""Of training and of the probe alike: what the probe advises holds for groups of this size."""
SEEDS = 2**32
RENAMED_OPTIONS = {
    "num_generations": "m",
    "max_steps": "steps",
    "num_train_epochs": "steps",
    "learning_rate": "lr",
    "warmup_steps": "warmup",
    "logging_steps": "log_every",
    "save_steps": "save_every",
}
_LEAST = {
    **dict.fromkeys(("prompts_per_step", "prompts_per_forward", "rows_per_forward", "steps", "lora_r", "log_every"), 1),
    **dict.fromkeys(("max_completion_length", "answer_budget", "eval_questions", "eval_k", "hold_out"), 1),
    **dict.fromkeys(("warmup", "eval_every", "save_every", "seed"), 0),
}


def option(default: Any, help: str, *choices: str) -> Any:
    """A dataclass field with a help text, and the values it may take if they are few."""
    return dataclass_field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class TrainOptions:
    """Everything a run is made of. None means: chosen from the task and the model."""

    task: str = option("pocket-hotpot", "task to learn; see `qredit tasks`")
    data: str | None = option(None, "file, folder or data set id to read it from")
    style: Literal["cold", "warm"] = option("cold", "prompt style", "cold", "warm")
    passages: Literal["all", "supporting", "none"] = option(
        "all",
        "passages in the prompts of hotpotqa and musique: all as published, the supporting ones, or none",
        *("all", "supporting", "none"),
    )
    prompt_column: str | None = option(None, "column that holds the prompt (task jsonl); default: by usual names")
    answer_column: str | None = option(
        None, "column that holds the gold answer (task jsonl), a.b for b inside a; default: by usual names"
    )
    aliases_column: str | None = option(None, "column of other right answers (task jsonl); default: aliases, if there")
    aliases: Literal["reward", "likelihood", "both"] = option(
        "both",
        "what other right answers count for: the reward, the likelihood (then that of any right answer), or both",
        *("reward", "likelihood", "both"),
    )
    system_prompt: str | None = option(None, "system message put before every prompt")
    instruction: str | None = option(None, "text put after every prompt, or its last user message")
    few_shot: str | None = option(
        None, "JSON file of worked examples put before every prompt: messages of user and assistant in turn"
    )
    subset: str | None = option(None, "train on that many examples, in hash order; 'paper' takes the published size")
    hold_out: int | None = option(
        None, "rows of a single file (task jsonl) that are not trained on; default: eval_questions, with eval_every"
    )
    keep: str | None = option(
        None, "train on the examples of --probe that this accepts, such as 'success < 0.9 and log10_p_hat > -12'"
    )
    probe: str | None = option(None, "file of `qredit probe --per-prompt` that keep, or curriculum, reads")
    curriculum: str | None = option(
        None,
        "rule by which prompts are chosen, such as 'success_band(0.2, 0.8)' or \"mix_easier(0.5, by='difficulty')\"; "
        "default: all in each epoch (docs/data.md)",
    )
    reward: str | None = dataclass_field(
        default=None,
        metadata={
            "help": "scorer, or function of yours as package.module:name; several with weights: 'math_equal, 0.1 * "
            "format'; of episodes also environment and tool_use(steps=N); in YAML also a list. Default: the task's",
            "joined_by": ", ",
        },
    )
    model: str = option(
        POCKET, "model folder or id; 'pocket' is the task's own small model, 'smollm2' SmolLM2-135M-Instruct"
    )
    shrink: float | None = option(
        None, "multiply all weights by that before the first step (shrink and perturb); needs perturb"
    )
    perturb: float | None = option(None, "standard deviation of what is then added to every weight; needs shrink")
    coldness: int | None = option(None, "which pocket-dial model: -log10 of its success probability")
    chat: bool | None = option(None, "put prompts into the chat template; default: if there is one")
    objective: str = dataclass_field(
        default="garl",
        metadata={
            "help": "objective by name or in full, such as 'garl(q=0.75)'; in YAML also a list of parts; "
            "see `qredit objectives`",
            "joined_by": " | ",
        },
    )
    field: tuple[str, ...] = dataclass_field(
        default=(),
        metadata={
            "help": "batch field that the objective reads and what makes it, as NAME=maker(…) or "
            "NAME=package.module:function, once for each; in YAML a list, or NAME: maker(…) (docs/fields.md)",
            "repeats": True,
        },
    )
    q: float | str | None = dataclass_field(
        default=None,
        metadata={
            "help": "commitment, 0 to 1, of an objective given by name, or 'auto': chosen before the first step and "
            "lowered as the answers become likely; default 0.75",
            "words": (AUTO,),
        },
    )
    m: int = option(ROLLOUTS_PER_PROMPT, "rollouts per prompt")
    prompts_per_step: int = option(8, "prompts per optimiser step, over all processes")
    prompts_per_forward: int | None = option(None, "prompts per forward pass; default: all of a process's")
    rows_per_forward: int | None = option(None, "rollouts per forward pass; default: as many as fit, measured")
    steps: int = option(100, "optimiser steps")
    lr: float | None = option(None, "learning rate; default 3e-4 (pocket), 1e-5 (--lora), 1e-6 (full fine-tuning)")
    optimizer: str | None = option(
        None, "an optimiser that optim has no name for, such as 'muon()'; default: what optim says, AdamW"
    )
    lr_schedule: str | None = option(
        None,
        "how the learning rate moves after its warmup, where lr_scheduler_type has no name for it, such as 'rex()' or "
        "\"refined('RUN', power=1)\"; default: what lr_scheduler_type says, constant",
    )
    warmup: int | None = option(
        None, "steps over which the learning rate rises; constant afterwards. Default: 5, at most a tenth of all"
    )
    max_completion_length: int | None = option(
        None, "tokens for rationale and answer together; default: 40 (pocket) or 2048, at least twice answer_budget"
    )
    answer_budget: int | None = option(
        None, "tokens of these kept for the answer; default: 8 (pocket) or 128, at most half of them"
    )
    thinking_opening: str | None = option(None, "text that opens thinking; default: by tokenizer")
    thinking_closing: str | None = option(None, "text that ends thinking; default: by tokenizer")
    answer_seam: str | None = option(
        None,
        "text that the model writes between closing and answer: scored, trained, never forced; default: by tokenizer",
    )
    answer_end: str | None = option(
        None, "text that ends an answer; default: as a turn of the chat template ends, without one end-of-text"
    )
    env: str | None = option(
        None,
        "environment that rollouts are episodes of, as module:Class, pocket-search, or one of another package, such as "
        "textworld:GAME.z8; its own rewards are then the default reward",
    )
    tools: str | None = dataclass_field(
        default=None,
        metadata={
            "help": "functions that the model may call, as module:function, …, or calculator, sql; a rollout is then "
            "an episode of turns",
            "joined_by": ", ",
        },
    )
    max_turns: int | None = option(
        None, "with env or tools: the most turns of an episode; default: 4 (pocket, tools: 2)"
    )
    observation_budget: int | None = option(
        None,
        "with env or tools: tokens of one observation, beside max_completion_length; default: 256 (pocket: 40, with "
        "tools 64)",
    )
    episode_budget: int | None = option(
        None, "with env or tools: tokens sampled in all turns together; default: max_turns whole turns"
    )
    tool_seconds: float | None = option(None, "with tools: the most seconds that one call may take; default: 10")
    branching: str | None = option(
        None,
        "with env or tools: the rule by which the episodes of a prompt branch, such as 'trees(roots=2, nodes=2)'; "
        "default: all begin at the prompt",
    )
    drawing: str | None = option(
        None,
        "the rule by which rollouts of one turn are drawn, such as 'hold_entropy(target=0.5)'; default: all behind the "
        "prompt, by the policy itself (docs/drawing.md)",
    )
    replay: str | None = option(
        None,
        "the rule by which rollouts of earlier generations are learned from again, in optimiser steps of their own, "
        "such as 'spear(buffer=32, baseline=32, steps=300, low=1, high=40)'; default: none are (docs/replay.md)",
    )
    skip_long: bool = option(False, "drop prompts that do not fit the context, with a count")
    lora: bool = option(False, "train LoRA adapters instead of all weights")
    lora_r: int = option(16, "rank of the adapters")
    merge_lora: bool = option(False, "merge the adapters into the final model")
    load_in_4bit: bool = option(False, "hold the weights under the adapters in four bits (QLoRA, by bitsandbytes)")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = option("nf4", "type of these four bits", "nf4", "fp4")
    use_bnb_nested_quant: bool = option(False, "quantise the scales of these, too")
    dtype: Literal["float32", "bfloat16"] | None = option(
        None,
        "type of the computation; weights stay float32. Default: bfloat16 with an accelerator",
        "float32",
        "bfloat16",
    )
    cpu: bool = option(False, "use the CPU, also where there is an accelerator")
    seed: int = option(0, "seed of everything")
    eval_every: int = option(0, "steps between validations; the final model is then the best one by m@k; 0: never")
    eval_questions: int = option(64, "questions of a validation")
    eval_k: int = option(16, "samples per question of a validation")
    guard: Literal["stop", "roll_back", "paft"] | None = option(
        None,
        "on a collapse restore the best checkpoint, then stop, go on at half the learning rate, or with PAFT",
        *("stop", "roll_back", "paft"),
    )
    save_every: int = option(50, "steps between checkpoints, the last 3 of which are kept; 0: only at validations")
    log_every: int = option(1, "steps between entries of metrics.jsonl")
    keep_rollouts: bool = option(
        False, "write the token ids of every rollout to rollouts.jsonl, for `qredit dpo` and `qredit intervene`"
    )
    training: Mapping[str, Any] = dataclass_field(
        default_factory=dict, metadata={"help": "further fields of QreditConfig"}
    )

    def __post_init__(self) -> None:
        tasks.get(self.task).show_passages(self.passages)
        if self.m < 2:
            raise QreditError(f"m, the rollouts per prompt, must be at least 2, got {self.m}")
        check_minimums(self, _LEAST)
        if self.seed >= SEEDS:
            raise QreditError(f"seed must be less than {SEEDS}, got {self.seed}")
        if self.lr is not None and not 0 < self.lr < 1:
            raise QreditError(f"lr must lie between 0 and 1, got {self.lr}")
        for name in ("merge_lora", "lora_r"):
            if name in self.changed() and not self.lora:
                raise QreditError(f"{name} needs lora")
        if self.coldness is not None and (self.model != POCKET or self.task != "pocket-dial"):
            raise QreditError(f"coldness chooses a pocket-dial model; task is {self.task}, model is {self.model}")
        AliasUse.parse(self.aliases)
        self._check_optimizer()
        self._check_lr_schedule()
        self._check_perturbation()
        self._check_episodes()
        self._check_columns()
        self._check_wording()
        if self.reward is not None:
            parse_reward_names(self.reward)
        if "reward_weights" in self.training:
            raise QreditError("reward_weights are given with the rewards: reward 'math_equal, 0.1 * format'")
        for name in self.training:
            if name in RENAMED_OPTIONS:
                raise QreditError(f"{name} is called {RENAMED_OPTIONS[name]} here; give it by that name")
        self._check_probe()
        total, answer = self.budget
        if total < answer:
            raise QreditError(
                f"max_completion_length={total} is less than answer_budget={answer}; it holds the rationale and the "
                "answer"
            )
        if self.guard in ("roll_back", "paft") and not (self.save_every or self.eval_every):
            raise QreditError(f"guard={self.guard} needs checkpoints to return to; give save_every or eval_every")
        self._check_fields()
        if self.branching is not None:
            from qredit.environments.branching.parsing import parse_branching  # here, as for objectives

            parse_branching(self.branching).check_size(self.m)
        if self.drawing is not None:
            from qredit.drawing.parsing import parse_drawing  # here, as for objectives

            if self.env or self.tools:
                raise QreditError("drawing is of rollouts of one turn; leave env and tools out")
            parse_drawing(self.drawing).check_size(self.m)
        if self.replay is not None:
            from qredit.engine.replay.parsing import parse_replay  # here, as for objectives

            parse_replay(self.replay)

    def _check_probe(self) -> None:
        """Refuse a curriculum or a filter that cannot be read, and a probe's file that neither of them reads."""
        rule = self.make_curriculum()
        if self.keep is not None:
            ExampleFilter(self.keep)
            if self.probe is None:
                raise QreditError("keep needs probe: it reads what `qredit probe --per-prompt FILE` wrote")
        elif self.probe is not None and (rule is None or not list_probed(rule)):
            raise QreditError("probe needs keep, or a curriculum that reads probe.NAME; nothing else reads the file")

    def _check_optimizer(self) -> None:
        if self.optimizer is None:
            return
        if "optim" in self.training:
            raise QreditError(f"give optim or optimizer: optim={self.training['optim']} names another one")
        from qredit.engine.optimizers.parsing import parse_optimizer  # here, as for objectives

        parse_optimizer(self.optimizer)

    def _check_lr_schedule(self) -> None:
        if self.lr_schedule is None:
            return
        for name in ("lr_scheduler_type", "lr_scheduler_kwargs"):
            if name in self.training:
                given = f"{name}={self.training[name]}"
                raise QreditError(f"give lr_schedule or lr_scheduler_type: {given} is of another schedule")
        from qredit.engine.lr_schedules.parsing import parse_lr_schedule  # here, as for objectives

        parse_lr_schedule(self.lr_schedule)

    def _check_perturbation(self) -> None:
        if self.shrink is None or self.perturb is None:
            if self.shrink is not None or self.perturb is not None:
                given, other = ("shrink", "perturb") if self.perturb is None else ("perturb", "shrink")
                raise QreditError(f"{given} needs {other}: weights become shrink · weight + perturb · noise")
            return
        if not 0 < self.shrink <= 1:
            raise QreditError(f"shrink must be above 0 and at most 1, got {self.shrink}")
        if not 0 <= self.perturb < math.inf:
            raise QreditError(f"perturb must be 0 or more, got {self.perturb}")
        if self.lora:
            raise QreditError("shrink changes the weights that adapters lie on, which are not saved; leave lora out")

    def _check_fields(self) -> None:
        """Refuse an objective that cannot be read or shared among so few rollouts, and makers of unread fields."""
        objective, makers = self.make_objective(), self.make_fields()
        if objective.proposal is not None:
            objective.proposal.count(self.m)
        for name, maker in makers.items():
            check_read(name, maker, objective, makers)
            if (self.env or self.tools) and getattr(maker, "one_turn", False):
                raise QreditError(
                    f"field {name}: {type(maker).__name__} takes rollouts of one turn; leave env and tools out"
                )

    def _check_episodes(self) -> None:
        if self.env is not None and self.tools is not None:
            raise QreditError("give env or tools: an environment with tools of its own calls them itself")
        if self.env is None and self.tools is None:
            for name in EPISODE_OPTIONS:
                if getattr(self, name) is not None:
                    raise QreditError(f"{name} needs env or tools")
            check_one_turn(self.reward)
            return
        check_names(self.env, self.tools, self.task)
        if self.env is not None and self.tool_seconds is not None:
            raise QreditError("tool_seconds needs tools; an environment runs what it calls itself")
        if self.tool_seconds is not None and not self.tool_seconds > 0:
            raise QreditError(f"tool_seconds must be more than 0, got {self.tool_seconds}")
        _ = self.episodes  # refuses budgets that no turn fits

    def _check_columns(self) -> None:
        if self.task != "jsonl":
            for name in OWN_COLUMNS:
                if getattr(self, name) not in (None, "answer"):  # which older run folders hold as the default
                    raise QreditError(f"{name} names a column of task jsonl; {self.task} has its own")

    def _check_wording(self) -> None:
        for name in OWN_WORDING:
            if getattr(self, name) is not None and self.task.startswith("pocket-"):
                raise QreditError(f"{name}: {self.task} knows a few words only; its own wording is style=warm")
        if self.instruction is not None and self.style == "warm" and self.task != "jsonl":
            raise QreditError(f"instruction and style=warm both say how to answer {self.task}; give one of them")
        for name in ("system_prompt", "few_shot"):
            if getattr(self, name) is not None and self.chat is False:
                raise QreditError(f"{name} needs the chat template, but chat is off")
        for name in OWN_WORDING:
            if bad := find_unreadable(getattr(self, name)):
                raise QreditError(f"{name} holds {bad}")

    @property
    def held_out(self) -> int:
        """How many rows of a single file are kept from training."""
        return self.hold_out or (self.eval_questions if self.eval_every else 0)

    @property
    def alias_use(self) -> AliasUse:
        """What `aliases` says."""
        return AliasUse.parse(self.aliases)

    @property
    def rewards(self) -> str:
        """What `reward` says, or the task's own."""
        return self.reward or (tasks.get(self.task).reward if self.env is None else ENVIRONMENT)

    def changed(self) -> dict[str, Any]:
        """The options that are not at their default: what tells runs apart, also when options have been added since."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != _default(f)}

    def as_dict(self) -> dict[str, Any]:
        """The options that have a value, complete, by name: what config.yaml holds."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        return chosen | dict(chosen.pop("training", {}))

    @property
    def template(self) -> "Mapping[str, Any]":
        """Arguments of the chat template beside the messages."""
        return self.training.get("chat_template_kwargs") or {}

    @property
    def is_pocket(self) -> bool:
        """Whether the model is the task's own pocket model."""
        return self.model == POCKET

    @property
    def device(self) -> "torch.device":
        """Where the run computes."""
        return select_device(self.cpu)

    @property
    def half(self) -> bool:
        """Whether it computes in bf16."""
        return self.device.type != "cpu" if self.dtype is None else self.dtype == "bfloat16"

    @property
    def learning_rate(self) -> float:
        """`lr`, or the default for this kind of training."""
        if self.lr is not None:
            return self.lr
        return 3e-4 if self.is_pocket else 1e-5 if self.lora else 1e-6

    @property
    def budget(self) -> tuple[int, int]:
        """Tokens of a completion, and those of them kept for the answer; what nobody gave makes room for what was."""
        total, answer = POCKET_BUDGET if self.is_pocket else BUDGET
        total = self.max_completion_length or max(total, 2 * (self.answer_budget or 0))
        return total, self.answer_budget or cap_answer_budget(answer, total)

    @property
    def sampling_budget(self) -> TokenBudget:
        """Tokens that may be sampled for the rationale and for the answer."""
        total, answer = self.budget
        return TokenBudget(thinking=total - answer, answer=answer)

    @property
    def episodes(self) -> EpisodeBudget:
        """The most that an episode may take, with env or tools."""
        chosen = {"turns": self.max_turns, "observation": self.observation_budget, "sampled": self.episode_budget}
        given = {name: value for name, value in chosen.items() if value is not None}
        short = {} if not self.is_pocket else POCKET_TOOLS if self.tools else {"observation": POCKET_OBSERVATION}
        return EpisodeBudget(self.sampling_budget, **{**short, **given})

    def make_objective(self) -> "Objective":
        """The objective that `objective` and `q` stand for.

        Raises:
            QreditError: an unknown name, a q beside one inside the text, a q for an objective that takes none, parts
                that do not go together (`Objective.check`).
        """
        text = self.objective.strip()
        if text.isidentifier() and text not in objective_names():
            raise unknown_name_error("objective", text, objective_names())
        from qredit.objectives.parsing import parse  # here, for it loads torch, which a misspelt name does not need

        if not text.isidentifier():
            if self.q is not None:
                raise QreditError(
                    f"q={self.q} stands beside the q inside the objective's text '{text}'; give one of them"
                )
        else:
            arguments = _arguments(text, self.q, self.budget[0])
            text = f"{text}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
        objective = parse(text)
        objective.check()
        return objective

    def make_fields(self) -> "Mapping[str, FieldMaker | FieldFunction]":
        """What makes each batch field that `field` names.

        Raises:
            QreditError: as `qredit.fields.parsing.parse_fields`.
        """
        if not self.field:
            return {}
        from qredit.fields.parsing import parse_fields  # here, as for objectives

        return parse_fields(self.field)

    def make_curriculum(self) -> "Curriculum | None":
        """The rule that `curriculum` stands for; None is the plain order.

        Raises:
            QreditError: as `qredit.curricula.parsing.parse_curriculum`.
        """
        if self.curriculum is None:
            return None
        from qredit.curricula.parsing import parse_curriculum  # here, as for objectives

        return parse_curriculum(self.curriculum)

    def get_subset_size(self) -> int | None:
        """How many training examples are used; None is all.

        Raises:
            QreditError: neither a number nor 'paper', or a task without published sizes.
        """
        if self.subset is None:
            return None
        if self.subset == "paper":
            sizes = tasks.get(self.task).sizes
            if "train" not in sizes:
                raise QreditError(f"subset 'paper': no published size for task {self.task}; give a number")
            return sizes["train"]
        if not self.subset.isdecimal() or int(self.subset) < 1:
            raise QreditError(f"subset must be a number of examples, at least 1, or 'paper', got {self.subset!r}")
        return int(self.subset)


def list_probed(rule: "Curriculum") -> list[str]:
    """The numbers of a probe's file that a curriculum reads, as names of its columns."""
    from qredit.curricula.protocol import PROBE_PREFIX  # here, as for objectives

    return [name for name in rule.columns if name.startswith(PROBE_PREFIX)]


def check_read(
    name: str,
    maker: "FieldMaker | FieldFunction",
    objective: "Objective",
    makers: "Mapping[str, FieldMaker | FieldFunction]",
) -> None:
    """Refuse a maker of fields that neither an objective nor another maker reads.

    Args:
        name: of the field that it was given for.
        maker: of that field, and of others where it makes several.
        objective: of the run.
        makers: all that are given.

    Raises:
        QreditError: names the field, and what is read.
    """
    from qredit.rollouts.field_maker import RolloutMaker, find_read

    read = find_read(objective.needs, makers)
    made = maker.list_fields(name) if isinstance(maker, RolloutMaker) else {name}
    for one in sorted(made - read):
        by = "" if read == objective.needs else " and makers"
        verb = "read" if by else "reads"
        raise QreditError(
            f"field {name}: nothing reads '{one}'; {objective}{by} {verb} {', '.join(sorted(read)) or 'nothing'}"
        )


def _arguments(name: str, q: float | str | None, length: int) -> dict[str, str]:
    """The arguments of an objective that is given by name alone, as text."""
    takes_q = name in ("garl", "paft")
    if q is not None and not takes_q:
        raise QreditError(f"objective {name} takes no q, got q={q}; garl and paft do")
    if q == AUTO:
        return {"q": "auto()"}
    if q is not None and (isinstance(q, str) or not 0 <= q <= 1):
        raise QreditError(f"q must be a number between 0 and 1, or auto, got {q}")
    if takes_q:
        return {"q": repr(0.75 if q is None else q)}
    from qredit.objectives import REGISTRY

    required = inspect.signature(REGISTRY[name]).parameters.get("length")
    return {} if required is None else {"length": repr(length)}


def _default(declared: "Field[Any]") -> Any:
    return declared.default if declared.default_factory is MISSING else declared.default_factory()


def check_minimums(options: Any, least: Mapping[str, int]) -> None:
    """Refuse numbers that are too small; None, a number not given, passes.

    Raises:
        QreditError: names the option, the least it may be and its value.
    """
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise QreditError(f"{name} must be at least {smallest}, got {value}")


def parse_literal(text: str) -> Any:
    """A value as it stands on a command line: a Python constant where it reads as one, else the text itself."""
    if text.startswith(("{", "[")):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "null": None, "none": None}.get(text.lower(), text)
