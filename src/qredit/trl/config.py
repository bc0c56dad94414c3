"""QreditConfig: GRPOConfig, with the layout of answers beside it and what the objective owns taken out of it."""

import dataclasses
from dataclasses import dataclass, field

from trl import GRPOConfig

from qredit.drawing.parsing import parse_drawing
from qredit.drawing.protocol import Drawing
from qredit.engine.replay.parsing import parse_replay
from qredit.engine.replay.protocol import ReplayRule
from qredit.environments.branching.parsing import parse_branching
from qredit.environments.branching.protocol import Branching
from qredit.environments.budget import EpisodeBudget
from qredit.environments.tool_worker import SECONDS
from qredit.rollouts.answer_budget import DEFAULT_ANSWER_BUDGET, cap_answer_budget
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.samplers.vllm.settings import VllmSettings, refuse_unused
from qredit.tasks.alias_use import AliasUse
from qredit.trl.refused_settings import OWNED, UNCHANGED, UNSUPPORTED
from qredit.utils.device import select_device
from qredit.utils.errors import QreditError

MAX_TURNS, OBSERVATION_BUDGET = 4, 256
EPISODE_OPTIONS = {
    "max_turns": MAX_TURNS,
    "observation_budget": OBSERVATION_BUDGET,
    "episode_budget": None,
    "tool_seconds": SECONDS,
    "branching": None,
}
"""Fields that are read where there are tools or an environment, with their defaults."""
DEFAULTS = {
    f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
    for f in dataclasses.fields(GRPOConfig)
}


@dataclass
class QreditConfig(GRPOConfig):  # type: ignore[misc]
    """TRL's GRPOConfig, plus the fields below; every training argument of TRL and transformers keeps its meaning.

    `num_generations` is M, the rollouts per prompt. `max_completion_length` holds the rationale and `answer_budget`
    tokens for the answer; the closing string is not counted. `per_device_train_batch_size` counts rollouts, and must be
    a multiple of M: a group is never split. bf16 and gradient checkpointing default to on with an accelerator and to
    off on the CPU.

    Raises:
        QreditError: a field that the objective owns is set, naming the stage to use instead; a field that nothing here
            reads (`qredit.trl.refused_settings`); sizes that split a group, with those that fit; M < 2; a combination
            of accumulation and generation steps that does not line up; an unknown value of `aliases`.
    """

    answer_column: str = field(default="answer", metadata={"help": "Data set column that holds the gold answer."})
    aliases: str = field(
        default="both",
        metadata={
            "help": "What other right answers (column `aliases`) count for: reward, likelihood or both. In the "
            "likelihood w is the probability of any right answer."
        },
    )
    answer_budget: int = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Tokens kept for the sampled answer. Default: 128, at most half of max_completion_length."},
    )
    thinking_opening: str | None = field(
        default=None,
        metadata={"help": "Text that opens thinking, put at the end of the prompt. Default: by tokenizer."},
    )
    thinking_closing: str | None = field(
        default=None, metadata={"help": "Text that ends thinking, forced when the budget ends. Default: by tokenizer."}
    )
    answer_seam: str | None = field(
        default=None,
        metadata={
            "help": "Text that the model writes between the closing and the answer: its tokens are scored and "
            "trained as part of the answer, and never forced when sampling. Default: by tokenizer."
        },
    )
    answer_end: str | None = field(
        default=None,
        metadata={
            "help": "Text that ends an answer. Default: what ends a turn in the chat template; for prompts that are "
            "plain texts, the tokenizer's end-of-text token."
        },
    )
    rows_per_forward: int | None = field(
        default=None,
        metadata={
            "help": "Rows per forward and backward pass; fewer need less memory. Default: as many as fit, measured."
        },
    )
    shared_prefix: bool = field(
        default=True,
        metadata={"help": "Compute each prompt once for its group, where the model allows it: same gradient, faster."},
    )
    verify_prefix: bool = field(
        default=False,
        metadata={"help": "Before the first update, hold the shared prefix's gradient against the ordinary one."},
    )
    dynamic_sampling: int = field(
        default=0,
        metadata={
            "help": "Rounds in which groups of equal rewards make room for groups of further prompts; for objectives "
            "of rewards alone."
        },
    )
    hint_failed: str | None = field(
        default=None,
        metadata={
            "help": "Sample a group without a success again behind a prompt with a hint: 'gold' shows the answer, "
            "'self' a hint that the model writes from it. For objectives of rewards; see qredit.engine.hinted_retry."
        },
    )
    hint_template: str | None = field(
        default=None,
        metadata={
            "help": "The prompt with the hint, with {prompt} and {answer} (hint_failed 'gold') or {prompt} and {hint} "
            "('self'). Default: a wording of ours."
        },
    )
    biased_sampling: bool = field(
        default=False,
        metadata={
            "help": "Allow GARL and PAFT to learn from rationales of a changed distribution (temperature, top-p …)"
        },
    )
    max_turns: int = field(
        default=MAX_TURNS,
        metadata={"help": "With tools or an environment: the most turns of an episode, the answer's among them."},
    )
    observation_budget: int = field(
        default=OBSERVATION_BUDGET,
        metadata={
            "help": "Tokens of one observation, such as a tool's result, with what the chat template puts around it. "
            "They are no part of max_completion_length, which is that of one turn."
        },
    )
    episode_budget: int | None = field(
        default=None,
        metadata={"help": "Tokens sampled in all turns of an episode together. Default: max_turns whole turns."},
    )
    tool_seconds: float = field(
        default=SECONDS, metadata={"help": "The most seconds that one call of a tool may take."}
    )
    branching: str | None = field(
        default=None,
        metadata={
            "help": "With tools or an environment: the rule by which the episodes of a prompt branch in training, such "
            "as trees(roots=2, nodes=2). Default: all begin at the prompt."
        },
    )
    drawing: str | None = field(
        default=None,
        metadata={
            "help": "The rule by which rollouts of one turn are drawn in training, such as hold_entropy(target=0.5). "
            "Default: all behind the prompt, by the policy itself."
        },
    )
    replay: str | None = field(
        default=None,
        metadata={
            "help": "The rule by which rollouts of earlier generations are learned from again, in optimiser steps "
            "of their own, such as spear(buffer=32, baseline=32, steps=300, low=1, high=40). For objectives of rewards "
            "and one process. Default: none are."
        },
    )
    skip_long: bool = field(
        default=False, metadata={"help": "Drop prompts that are too long for the context, with a count."}
    )
    bf16: bool | None = field(default=None, metadata={"help": "bf16 autocast. Default: on with an accelerator."})
    gradient_checkpointing: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Trade compute for memory. Default: on with an accelerator."}
    )

    def __post_init__(self) -> None:
        accelerated = select_device(self.use_cpu).type != "cpu"  # type: ignore[has-type]
        self.use_cpu = not accelerated
        if self.bf16 is None:
            self.bf16 = accelerated and not self.fp16
        if self.gradient_checkpointing is None:
            self.gradient_checkpointing = accelerated
        if self.answer_budget is None:
            self.answer_budget = cap_answer_budget(DEFAULT_ANSWER_BUDGET, int(self.max_completion_length))
        AliasUse.parse(self.aliases)
        self._refuse_owned()
        self._check_vllm()
        self._refuse_split_groups()
        super().__post_init__()
        self._refuse_misaligned_steps()

    @property
    def budget(self) -> TokenBudget:
        """Tokens that may be sampled for the rationale and for the answer."""
        return TokenBudget(thinking=int(self.max_completion_length) - self.answer_budget, answer=self.answer_budget)

    @property
    def episode_budget_of_run(self) -> EpisodeBudget:
        """The most that an episode may take, where there are tools or an environment."""
        return EpisodeBudget(self.budget, self.max_turns, self.observation_budget, self.episode_budget)

    @property
    def branching_of_run(self) -> Branching | None:
        """The rule by which episodes branch.

        Raises:
            QreditError: as `parse_branching`; groups of a size that the rule cannot fill.
        """
        if self.branching is None:
            return None
        rule = parse_branching(self.branching)
        rule.check_size(self.num_generations)
        return rule

    @property
    def drawing_of_run(self) -> Drawing | None:
        """The rule by which rollouts are drawn.

        Raises:
            QreditError: as `parse_drawing`; groups of a size that the rule cannot fill.
        """
        if self.drawing is None:
            return None
        rule = parse_drawing(self.drawing)
        rule.check_size(self.num_generations)
        return rule

    @property
    def replay_of_run(self) -> ReplayRule | None:
        """The rule by which rollouts are learned from again.

        Raises:
            QreditError: as `parse_replay`.
        """
        return None if self.replay is None else parse_replay(self.replay)

    @property
    def draw(self) -> SamplingParams:
        """The distribution that tokens are drawn from."""
        return SamplingParams(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty)

    @property
    def vllm(self) -> VllmSettings | None:
        """How vLLM samples; None where transformers does."""
        return VllmSettings.parse(vars(self)) if self.use_vllm else None

    @property
    def corrects_sampler(self) -> bool:
        """Whether rollouts are learned from as draws of a policy that differs from the one that learns."""
        return bool(self.use_vllm and self.vllm_importance_sampling_correction)

    def _check_vllm(self) -> None:
        if self.use_vllm:
            VllmSettings.parse(vars(self))
            return
        refuse_unused({name: getattr(self, name) for name in DEFAULTS if getattr(self, name) != DEFAULTS[name]})

    def _refuse_owned(self) -> None:
        for name, instead in {**OWNED, **UNSUPPORTED}.items():
            value = getattr(self, name)
            if value not in (DEFAULTS[name], *UNCHANGED.get(name, ())):
                owner = "belongs to the objective" if name in OWNED else "is not supported"
                raise QreditError(f"{name}={value!r} {owner}: {instead}")

    def _refuse_split_groups(self) -> None:
        m, rows = self.num_generations, self.per_device_train_batch_size
        if m < 2:
            raise QreditError(f"num_generations is M, the rollouts per prompt, and must be at least 2, got {m}")
        if rows % m:
            fits = sorted({max(rows // m, 1) * m, (rows // m + 1) * m})
            raise QreditError(
                f"per_device_train_batch_size={rows} would split a group of num_generations={m} rollouts; "
                f"it must be a multiple of {m}, such as {' or '.join(map(str, fits))}"
            )
        if self.answer_budget < 1:
            raise QreditError(f"answer_budget must be at least 1 token, got {self.answer_budget}")
        if self.max_completion_length < self.answer_budget:
            raise QreditError(
                f"max_completion_length={self.max_completion_length} is less than answer_budget={self.answer_budget}; "
                "it holds the rationale and the answer"
            )
        if self.rows_per_forward is not None and self.rows_per_forward < 1:
            raise QreditError(f"rows_per_forward must be at least 1, got {self.rows_per_forward}")
        if self.dynamic_sampling < 0:
            raise QreditError(f"dynamic_sampling is a number of rounds, at least 0, got {self.dynamic_sampling}")
        evaluated = self.num_generations_eval or m
        if self.eval_strategy != "no" and self.per_device_eval_batch_size % evaluated:
            raise QreditError(
                f"per_device_eval_batch_size={self.per_device_eval_batch_size} would split a group of {evaluated} "
                f"rollouts; it must be a multiple of {evaluated}"
            )

    def _refuse_misaligned_steps(self) -> None:
        accumulated, made = self.gradient_accumulation_steps, self.steps_per_generation * self.num_iterations
        if made % accumulated and accumulated % made:
            raise QreditError(
                f"gradient_accumulation_steps={accumulated} and the {made} micro-batches of a generation "
                f"(steps_per_generation={self.steps_per_generation} × num_iterations={self.num_iterations}) "
                "do not line up; one must be a multiple of the other"
            )
