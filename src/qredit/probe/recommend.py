"""What a prediction advises: an objective and a group size; or that no q will help, or that the reward is at fault."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from qredit.core.hint import hint
from qredit.probe.predict import GROUP_SIZES, GroupSizePrediction, Prediction

GRPO_MIN_MIXED = 0.25
"""Share of mixed groups from which GRPO is advised: two of the eight groups of a step; nothing is faster than reward
itself there, and q = 0 is what label noise cannot contaminate."""
SOLVED_SUCCESS = 0.9
"""Success, sampled or by likelihood, from which rewards are mute because nearly all are 1: no coldness, no cure."""
MIN_RATIONALE_SIGNAL = 0.05
"""Share of groups in which some rationale must be told from the others; below it fewer than one group in two steps of
eight says anything of rationales, whatever q."""
GRADED_MIN_ESS = 2.0
"""Effective number of rationales below which w̄ is one draw: the sample does not see P, and amplification saturates."""
TARGET_ESS = 4.0
"""Effective number of rationales that a group should hold: the noise of its direction, 1/ESS, is then a quarter."""
TARGET_MIXED = 0.5
"""Share of mixed groups that a GRPO run is sized for: twice that is all there is."""
PAFT_MIN_FORCED = 0.5
"""Share of rationales closed by force from which only drawn rationales are imitated (PAFT): the others are torsos."""
UNREAD_MAX_CHANCE = 1e-3
"""Chance of seeing no success, were gold answers rewarded as often as they are likely, below which it is no chance: the
reward does not read what is sampled."""
MIN_EXAMPLES = 16
"""Examples from which a verdict is firm: a share of a quarter is then known to about a tenth, one standard error."""
PAFT_Q = 0.75
"""q of PAFT at a warm start, where the method's authors advise 0.75 or more."""


class Case(Enum):
    """Why something is advised."""

    UNREAD = "the gold answers are likely, and the reward accepts none of the sampled ones"
    WARM = "rewards are mixed within groups already"
    GRADED = "the graded reward differs within groups, though few hold both right and wrong answers"
    CUT = "rewards are mixed, but most rationales are closed by force"
    SOLVED = "nearly every answer is right"
    COLD = "rewards are mute, likelihood speaks and is graded"
    SINGLE = "rewards are mute, likelihood speaks through single rationales"
    UNREACHABLE = "neither rewards nor likelihoods tell rationales apart"
    HINTED = "plain rationales say nothing, those drawn with the gold answer in the prompt do"


@dataclass(frozen=True)
class Advice:
    """What to train with.

    Attributes:
        objective: in the text form that `qredit train --objective` takes; None where no q will help.
        start: q at the start of the run, or q itself; None for GRPO and where none will help.
        m: rollouts per prompt.
        firm: whether it rests on enough examples.
    """

    case: Case
    objective: str | None
    start: float | None
    m: int
    firm: bool = True

    @property
    def estimator(self) -> str | None:
        """grpo, garl or paft."""
        return None if self.objective is None else self.objective.split("(")[0]


def recommend(predicted: Prediction, forced: float = 0.0) -> Advice:
    """The advice, by thresholds that stand above with their reasons.

    0. No sampled answer is rewarded, though by their likelihoods many should be: mend the format or the reward first.
    1. Groups with mixed rewards are common: GRPO, or PAFT if most rationales are closed by force.
       Likewise where a graded reward differs, if rationales are not closed by force.
    2. Else, if nearly every answer is right: GRPO, for what is left.
    3. Else, at some q, likelihood tells rationales apart: GARL with `q: auto`, which begins at the smallest q that is
       loud enough and lowers it as answers become likely: where reward alone is loud, wrong labels would be learned.
    4. Else nothing that is sampled at this m says which rationale is better. Rationales drawn with the gold answer in
       the prompt may: `advise_proposal`, where they were measured (`probe/proposal.py`).

    Args:
        forced: share of rationales closed by force.
    """
    return replace(_advice(predicted, forced), firm=predicted.examples >= MIN_EXAMPLES)


def _advice(predicted: Prediction, forced: float) -> Advice:
    if predicted.success.value == -math.inf and predicted.silence < math.log(UNREAD_MAX_CHANCE):
        return Advice(Case.UNREAD, None, None, predicted.m)
    if predicted.mixed >= GRPO_MIN_MIXED:
        if forced >= PAFT_MIN_FORCED:
            return Advice(Case.CUT, f"paft(q={PAFT_Q})", PAFT_Q, _choose_group_size(predicted, _several))
        return Advice(Case.WARM, "grpo()", None, _choose_group_size(predicted, _half_mixed))
    if predicted.differing >= GRPO_MIN_MIXED and forced < PAFT_MIN_FORCED:
        return Advice(Case.GRADED, "grpo()", None, predicted.m)
    if predicted.log10_success >= math.log10(SOLVED_SUCCESS):
        return Advice(Case.SOLVED, "grpo()", None, predicted.m)
    if max(one.rationale_signal for one in predicted.of) < MIN_RATIONALE_SIGNAL:
        return Advice(Case.UNREACHABLE, None, None, GROUP_SIZES[-1])
    case = Case.COLD if is_graded(predicted) else Case.SINGLE
    return Advice(case, "garl(q=auto())", predicted.loud, _choose_group_size(predicted, _several))


def advise_proposal(given: Advice, q: float, m: int, template: str) -> Advice:
    """The advice where rationales drawn behind a hint teach what plain ones do not.

    Args:
        given: that for plain rationales: no q helps.
        q: at which hinted rationales are loud enough.
        m: rollouts per prompt that were measured.
        template: of the hint.
    """
    proposal = hint(0.5, template)
    return replace(given, case=Case.HINTED, objective=f"garl(q={q:g}, proposal={proposal})", start=q, m=m)


def is_graded(predicted: Prediction) -> bool:
    """Whether the weights of a group do not rest on one of its rationales, so that w̄ is more than a single draw."""
    return predicted.ess >= GRADED_MIN_ESS


def _choose_group_size(predicted: Prediction, enough: Callable[[GroupSizePrediction], bool]) -> int:
    return next((size.m for size in predicted.sizes if enough(size)), GROUP_SIZES[-1])


def _several(size: GroupSizePrediction) -> bool:
    return math.isnan(size.ess) or size.ess >= TARGET_ESS


def _half_mixed(size: GroupSizePrediction) -> bool:
    return size.mixed >= TARGET_MIXED
