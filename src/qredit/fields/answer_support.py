"""`support@before` and `support@after`: what each turn did for the answer that its rollout came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from qredit.engine.answer_at_turns import score_each_answer_at_turns
from qredit.engine.teacher import Forward
from qredit.fields._clusters import list_groups
from qredit.fields._turns import place_on_turns
from qredit.fields.same_answers import same_answers
from qredit.rollouts.field_maker import FieldTools, RolloutMaker
from qredit.rollouts.trajectory import FieldValues, Trajectory
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import enable_token_scoring
from qredit.shared_prefix.share import share_prefix
from qredit.utils.errors import QreditError, check_count
from qredit.utils.extras import require_extras
from qredit.utils.sanitize import summarize_error


@dataclass(frozen=True)
class answer_support(RolloutMaker):
    """`support@before`, `support@after` (B, T): on the tokens of turn k log s_{k-1} and log s_k, in nats.

        s_k = mean over references y of exp( (1/|y|) Σ_t log p_S(y_t | prompt, turns up to k, closing, y_<t) )

    References are the first different answers of the rollout's cluster in its group, as sampled ids. The closing is
    the forced one. s_K of the last turn K stands behind its thinking and its own closing. NaN for a rollout without
    an answer, or not played to its end. Also `cluster` (B,), by the maker `alike`. It is given once, for one of the
    first two.

    p_S is a model that is not trained, at temperature 1. It is loaded when the first rollouts are there, and stays in
    memory. It reads a group in one pass, in which every rollout stands once. Logged: `support/first` and
    `support/last`, means over rollouts of log s before the first and after the last turn.

    Args:
        path: folder or id of the model p_S, whose token ids are the policy's, such as the model that the run begins
            with.
        references: of a cluster, at most.
        alike: the maker of `cluster`, such as judge_same_answers(…).
        device: where the model runs.

    Raises:
        QreditError: an argument that cannot be used; later a model that cannot be loaded, or has other token ids.

    Source: arXiv 2605.04984 (SIOP) and its official code: a scorer of its own, 3 references, equal weights. Difference:
    the place of the answer is the run's own closing, there a text. Clusters are there by two-way entailment.
    """

    path: str
    references: int = 3
    alike: RolloutMaker = field(default_factory=same_answers)
    device: str = "cpu"
    fills: ClassVar[tuple[str, ...]] = ("support",)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise QreditError(f"path of answer_support must be the folder or id of a model, got {self.path!r}")
        check_count("references", self.references, 1)
        if not (isinstance(self.alike, RolloutMaker) and "cluster" in self.alike.fills):
            raise QreditError(
                f"alike of answer_support must be a maker of cluster, such as same_answers(), got {self.alike!r}"
            )
        try:
            torch.device(self.device)
        except RuntimeError:
            raise QreditError(
                f"device of answer_support must be one such as cpu or cuda:0, got {self.device!r}"
            ) from None

    def list_fields(self, name: str) -> frozenset[str]:
        return frozenset({"support@before", "support@after", "cluster"})

    def make(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> Mapping[str, Sequence[FieldValues]]:
        clusters: Any = self.alike.make(trajectories, tools)["cluster"]
        told: list[list[float]] = [[] for _ in trajectories]
        for places in list_groups(trajectories):
            wanted = [
                replace(trajectories[place], golds=self._list_references(trajectories, clusters, places, place))
                for place in places
            ]
            answered = [place for place, one in zip(places, wanted, strict=True) if one.golds and one.is_whole]
            rows = [one for one in wanted if one.golds and one.is_whole]
            for place, support in zip(answered, self._score(rows, tools) if rows else (), strict=True):
                told[place] = support
        for name, at in (("first", 0), ("last", -1)):
            if known := [support[at] for support in told if support]:
                tools.log_metric(f"support/{name}", math.fsum(known) / len(known))
        return {
            "support@before": [_spread(one, support[:-1]) for one, support in zip(trajectories, told, strict=True)],
            "support@after": [_spread(one, support[1:]) for one, support in zip(trajectories, told, strict=True)],
            "cluster": clusters,
        }

    def _list_references(
        self, trajectories: Sequence[Trajectory], clusters: Sequence[int], places: Sequence[int], place: int
    ) -> tuple[tuple[int, ...], ...]:
        """The first different answers that mean what a rollout's does, its own among them or not.

        Args:
            trajectories: of a call.
            clusters: their clusters.
            places: of the rollout's group.
            place: of the rollout.
        """
        if clusters[place] < 0:
            return ()
        alike = [trajectories[other] for other in places if clusters[other] == clusters[place]]
        said = dict.fromkeys(one.answer_ids for one in alike if one.is_whole and one.answer_ids)
        return tuple(said)[: self.references]

    def _score(self, trajectories: Sequence[Trajectory], tools: FieldTools) -> list[list[float]]:
        """log s_0 … log s_K of each rollout of a group."""
        model, shares = self._loaded
        self._check_ids(tools.tokenizer)
        layout = pack if shares else pad_rows
        forward = Forward(model, model, layout, lambda rows: [torch.arange(len(rows.batch.mask))], 1.0)
        each = score_each_answer_at_turns(trajectories, tools.close_ids, 0, forward, torch.device(self.device))
        return [(one.logsumexp(1) - math.log(one.shape[1])).tolist() for one in each]

    @cached_property
    def _loaded(self) -> tuple[Any, bool]:
        """The model, and whether a prompt is computed once for all that stands behind it."""
        require_extras("answer_support", "trl")
        import transformers  # here: whoever reads the names of makers needs none of it

        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            raise QreditError(f"answer_support: no model at '{self.path}': {summarize_error(error)}") from None
        model.requires_grad_(False).eval().to(self.device)
        shares = share_prefix(model) is None
        if not enable_token_scoring(model):
            raise QreditError(f"answer_support: the head of the model at '{self.path}' cannot score tokens")
        return model, shares

    @cached_property
    def _vocabulary(self) -> Mapping[str, int]:
        """The ids of the model's tokens."""
        import transformers  # here, as above

        try:
            found: dict[str, int] = transformers.AutoTokenizer.from_pretrained(self.path).get_vocab()
        except (OSError, ValueError) as error:
            raise QreditError(f"answer_support: no tokenizer at '{self.path}': {summarize_error(error)}") from None
        return found

    def _check_ids(self, tokenizer: Any) -> None:
        own = self._vocabulary
        other = sorted(token for token, number in tokenizer.get_vocab().items() if own.get(token) != number)
        if other:
            raise QreditError(
                f"answer_support: {len(other)} tokens of the run have another id or none in '{self.path}', first "
                f"{other[0]!r}"
            )


def _spread(one: Trajectory, told: Sequence[float]) -> list[float]:
    """A number of each turn on its tokens; NaN everywhere where nothing was told."""
    if not told:
        return [math.nan] * len(one.ids)
    return place_on_turns(one, told)
