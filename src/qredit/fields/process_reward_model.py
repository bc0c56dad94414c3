"""`step_score`: a process reward model on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from qredit.rewards.judge.endpoint import show_prompt
from qredit.rewards.judge.model import ProcessRewardModel
from qredit.rollouts.field_functions import make_step_scorer
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.utils.errors import QreditError, check_count


@dataclass(frozen=True)
class process_reward_model(RolloutMaker):
    """`step_score` (B, T): P(good) - P(bad) of step n at its last token, in [-1, 1], 0 elsewhere.

    A step ends at a blank line. The model reads the question and the steps as text, one rollout at a time, on the CPU,
    and stays in memory. It is loaded when the first rollouts are judged.

    Args:
        path: folder or id of a token classifier with the labels 0 bad and 1 good; with `good` and `bad` of a causal
            model that says one of the two words after a step.
        good, bad: those words.
        separator: what it was trained to see at the end of each step.
        most_tokens: longest input; a step that ends beyond it has 0.

    Source: arXiv 2504.15275 (PURE), the scores of its process reward model.
    """

    path: str
    good: str | None = None
    bad: str | None = None
    separator: str = "\n\n"
    most_tokens: int = 8192
    fills: ClassVar[tuple[str, ...]] = ("step_score",)
    one_turn: ClassVar[bool] = True  # results of tools stand between the tokens of a longer episode

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise QreditError(f"path of process_reward_model must be a folder or an id, got {self.path!r}")
        if (self.good is None) != (self.bad is None):
            raise QreditError("good and bad are the two words of a causal model; give both or neither")
        check_count("most_tokens", self.most_tokens, 1)

    @cached_property
    def _model(self) -> ProcessRewardModel:
        """The model, loaded.

        Raises:
            QreditError: as `ProcessRewardModel.load`.
        """
        if self.good is None or self.bad is None:
            return ProcessRewardModel.load(self.path, self.separator, self.most_tokens)
        return ProcessRewardModel.load_causal(self.path, self.good, self.bad, self.separator, self.most_tokens)

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        score = make_step_scorer(lambda *given: self._model.score(*given), show_prompt)
        return {"step_score": score(trajectories, tools.tokenizer)}
