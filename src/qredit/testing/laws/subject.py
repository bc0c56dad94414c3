"""What a law is about: an objective with the claims made of it, or a stage with its own; and what a law is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Bool
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Credit
from qredit.core.objective import Objective
from qredit.testing.policy import EnumerablePolicy

Advantage = Callable[[int, int], tuple[float, float]]
MixtureWeights = Callable[
    [Sequence[float], Sequence[float], Sequence[float], Sequence[bool]], tuple[Sequence[float], Sequence[float]]
]
Weights = Callable[[Sequence[float]], tuple[Sequence[float], Sequence[float]]]
Target = Callable[[EnumerablePolicy, int], Tensor]


@dataclass(frozen=True)
class Condition:
    """A situation in which a coefficient is claimed to be exactly 0.

    Attributes:
        name: the situation in words.
        arrange: changes a batch so that some of its rows are in it.
        rows: (B,) those rows.
    """

    name: str
    arrange: Callable[[RolloutBatch], RolloutBatch]
    rows: Callable[[RolloutBatch], Bool[Tensor, " B"]]


@dataclass(frozen=True, eq=False)
class MixtureClaims:
    """What is claimed of an objective whose rationales come from two sources, on groups of four, two of each.

    Attributes:
        commitment: q, where the mean is ∇ℓ_0 at q = 0.
        plain: the same without its baseline: of the same mean.
        plug_in: the objective that is its mean over its own draws.
        weights: the coefficients of a group, worked out from the formula and not from its stages: (likelihood w of each
            row, its density p behind the plain prompt and r behind the hint, whether it came from the hint) →
            coefficients of the rationales and of the answers.
    """

    commitment: float | None = None
    plain: Objective | None = None
    plug_in: Objective | None = None
    weights: MixtureWeights | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """An objective and what is claimed of it. A claim left out is not made, and the laws about it do not apply.

    Attributes:
        objective: with every schedule resolved.
        advantage: (successes k, group size M) → coefficient of a right and of a wrong rollout, for 0/1 rewards, worked
            out from the method's formula and not from its stages.
        loss_scale: what the reduction makes of a plain sum over tokens divided by rows, for rows of that many tokens.
        weights: log-likelihoods of a group → exact coefficients of its rationales and of its answers.
        commitment: q, where the expectation is ∇ℓ_q up to the leading bias of the estimator.
        target: (policy, group size M) → the exact gradient (D,) that the expectation is, at every M of at least 2.
        target_off_policy: the expectation is `target` off policy too.
        limit: policy → the gradient (D,) that the expectation tends to with M, off policy too.
        plain: the same without its baseline.
        plug_in: the objective that is its mean over its own draws.
        equals: other objectives and the factor, a function of the group size, by which it is that multiple of them.
        zero: where the coefficient is exactly 0.
        reference: batch → coefficients (B, T), the method's formula written a second time, plainly, row by row.
        binary: rewards other than 0 and 1 are refused.
        unused: fields that it needs and whose values do not matter to it: they only ask for a tail, or another
            hyper-parameter silences them.
        loss: (log p, batch) → the whole loss as a scalar, the method's formula written a second time; its slopes in
            log p and in the entropies of the batch are the objective's.
        mixture: claims about groups that are drawn from a proposal, too.
    """

    objective: Objective
    advantage: Advantage | None = None
    loss_scale: Callable[[int], float] = lambda tokens: 1.0
    weights: Weights | None = None
    commitment: float | None = None
    target: Target | None = None
    target_off_policy: bool = False
    limit: Callable[[EnumerablePolicy], Tensor] | None = None
    plain: Objective | None = None
    plug_in: Objective | None = None
    equals: tuple[tuple[Objective, Callable[[int], float]], ...] = ()
    zero: tuple[Condition, ...] = ()
    unused: frozenset[str] = frozenset()
    reference: Callable[[RolloutBatch], Tensor] | None = None
    loss: Callable[[Tensor, RolloutBatch], Tensor] | None = None
    binary: bool = False
    mixture: MixtureClaims | None = None

    @property
    def draws(self) -> bool:
        """Whether the objective draws numbers of its own."""
        return "seed" in self.objective.needs

    def __str__(self) -> str:
        return str(self.objective)


@dataclass(frozen=True)
class StageSubject:
    """A credit stage and what is claimed of it.

    Attributes:
        stage: the credit.
        linear: c ↦ stage(c) is homogeneous: stage(λ·c) = λ·stage(c).
        span: the span outside which it changes nothing; None is everywhere.
    """

    stage: Credit
    linear: bool = False
    span: str | None = None

    def __str__(self) -> str:
        return str(self.stage)


S = TypeVar("S", Subject, StageSubject)


@dataclass(frozen=True)
class Law(Generic[S]):
    """A statement that every subject it applies to must pass.

    Attributes:
        name: as it is listed.
        applies: whether a subject makes the claim.
        check: raises AssertionError where the subject breaks it.
    """

    name: str
    applies: Callable[[S], bool]
    check: Callable[[S], None]

    def __str__(self) -> str:
        return self.name


def applies_to_all(subject: object) -> bool:
    """A law for every subject."""
    return True
