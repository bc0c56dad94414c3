"""The options of training on preferences: those that it shares with training, where pairs come from, and the loss."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from qredit.runs.options import EPISODE_OPTIONS, TrainOptions, check_minimums, option
from qredit.runs.sft_options import SHARED_WITH_TRAIN as SHARED_WITH_SFT
from qredit.utils.errors import QreditError, unknown_name_error

SHARED_WITH_TRAIN = (
    *(name for name in SHARED_WITH_SFT if name != "coldness"),  # the model is a run's, and none of those of pocket-dial
    *("aliases", "env", "tools", *(name for name in EPISODE_OPTIONS if name != "branching")),  # fresh ones are whole
)
"""Options of training that training on preferences has, too, with the same meaning."""
SAMPLING_OPTIONS = ("reward", "subset")
"""Those of them that say what fresh rollouts are drawn for and scored by: kept ones were when the run drew them."""
LOSS_TYPES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
"""The losses of TRL's DPOTrainer, by its names."""
DEFAULT_RATES = {"pocket": 1e-4, "lora": 1e-5, "full": 1e-6}


@dataclass(frozen=True)
class PairOptions:
    """Where the pairs come from, and what is learned from them."""

    run: str | None = option(None, "run folder whose rollouts are paired, and whose final model is trained")
    rollouts: int | None = option(
        None, "rollouts to sample for each training question with the model; default: those that the run kept"
    )
    pairs_per_prompt: int = option(1, "pairs of one prompt, at most; those with the widest margin first")
    margin: float = option(0.5, "least difference of the two rewards of a pair, or of the two scores")
    by: str | None = option(
        None,
        "who says which rollout is better, judge('URL', 'MODEL'), which scores each from 0 to 1; default: the reward",
    )
    beta: float = option(0.1, "beta of the loss: how much leaving the reference costs")
    loss_type: str = field(
        default="sigmoid",
        metadata={
            "help": f"TRL's loss, or several as 'sigmoid, sft', weighted by loss_weights: {', '.join(LOSS_TYPES)}",
            "joined_by": ", ",
        },
    )

    def __post_init__(self) -> None:
        check_minimums(self, {"rollouts": 2, "pairs_per_prompt": 1})
        for name in ("margin", "beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise QreditError(f"{name} must be more than 0, got {getattr(self, name)}")
        if self.by is not None:
            from qredit.runs.pair_judge import (
                parse_by,
            )  # here, for it loads torch, which a misspelt option does not need

            parse_by(self.by)
        for name in self.loss_types:
            if name not in LOSS_TYPES:
                raise unknown_name_error("loss_type", name, LOSS_TYPES)

    @property
    def loss_types(self) -> list[str]:
        """Each loss of `loss_type`."""
        return [name.strip() for name in self.loss_type.split(",")]


@dataclass(frozen=True)
class DpoOptions:
    """Everything a run of training on preferences is made of.

    Attributes:
        run: model, data, format, sizes, steps and validation, as in training; of its fields only `SHARED_WITH_TRAIN`
            and `training`, here further fields of TRL's DPOConfig, are read.
        pairs: where pairs come from, and the loss.
    """

    run: TrainOptions = field(default_factory=TrainOptions)
    pairs: PairOptions = field(default_factory=PairOptions)

    @property
    def label(self) -> str:
        """What is learned, in words."""
        loss = "" if self.pairs.loss_type == "sigmoid" else f", loss_type='{self.pairs.loss_type}'"
        return f"dpo(beta={self.pairs.beta:g}{loss})"

    @property
    def learning_rate(self) -> float:
        """`lr`, or the default for this kind of training."""
        return DEFAULT_RATES["lora" if self.run.lora else "full"] if self.run.lr is None else self.run.lr

    def as_dict(self) -> dict[str, Any]:
        """The options that have a value, complete, by name: what config.yaml holds."""
        shared = {name: getattr(self.run, name) for name in SHARED_WITH_TRAIN}
        chosen = {**shared, **asdict(self.pairs), **self.run.training}
        return {name: value for name, value in chosen.items() if value is not None}
