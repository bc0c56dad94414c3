"""A probe in words: two sentences of advice, and what else has to be said about what was measured."""

import math
from collections.abc import Iterator, Sequence

from qredit.probe.measure import Measurement, ProbeSetup
from qredit.probe.predict import Prediction
from qredit.probe.proposal import MIN_TAUGHT, ProposalVerdict
from qredit.probe.recommend import MIN_EXAMPLES, Advice, Case, is_graded
from qredit.rollouts.answer_end import describe_end_conflict, describe_unended_answers, get_eos_token_ids
from qredit.stats.interval import Interval
from qredit.utils.formatting import format_probability, format_share
from qredit.utils.sanitize import to_one_line

ASSUMPTIONS = (
    "P̂ and its interval hold for these examples and know only the rollouts that were drawn: success on rationales that "
    "none of them showed is missed. Escape times are those of gradient flow; Adam rescales small gradients, so that q "
    "changes them far less until a coefficient nears 1e-8."
)


def format_interval(of: Interval) -> str:
    """An estimate with its interval."""
    if of.value == -math.inf and of.high > -math.inf:
        return f"0, at most {format_probability(of.high)}"
    return of.format(format_probability)


def describe_advice(predicted: Prediction, given: Advice) -> tuple[str, str]:
    """Two sentences: what is seen, and what follows."""
    return _seen(predicted, given.case), _follows(predicted, given)


def _seen(predicted: Prediction, case: Case) -> str:
    mixed = f"{format_share(predicted.mixed)} of groups of {predicted.m} hold both right and wrong answers"
    if case is Case.UNREAD:
        return (
            f"The likelihood of your gold answers is high ({format_interval(predicted.p_hat)}), but your reward "
            f"accepts none of the {predicted.examples * predicted.rollouts} sampled ones: format or parser is at fault."
        )
    if case is Case.WARM:
        return f"This model is warm enough for GRPO: {mixed}, and it learns from every one of them."
    if case is Case.GRADED:
        return (
            f"GRPO learns from partial rewards here: the reward differs within {format_share(predicted.differing)} of "
            f"groups of {predicted.m}, though only {mixed}."
        )
    if case is Case.CUT:
        return f"This model is warm ({mixed}), but most of its rationales are closed by force."
    if case is Case.SOLVED:
        rate = format_probability(predicted.log10_success)
        return f"This model answers nearly all of it already (success {rate}): {mixed}."
    if case in (Case.UNREACHABLE, Case.HINTED):
        told = format_share(max(one.rationale_signal for one in predicted.of))
        return (
            f"No q will help at m = {predicted.m}: {mixed}, and likelihood tells rationales apart in {told} of groups."
        )
    means = "amplification is real" if case is Case.COLD else "amplification saturates near m^q and more rollouts help"
    return (
        f"This model is too cold for GRPO: {mixed}; but the median example gives its gold answer "
        f"{format_probability(predicted.levels[1])}, which rests on {predicted.ess:.1f} of {predicted.m} rationales, "
        f"so that {means}."
    )


def _follows(predicted: Prediction, given: Advice) -> str:
    train = f"Train with {given.objective} and m = {given.m}"
    if given.case is Case.UNREAD:
        return (
            "Compare the sampled answers with the gold ones: the end of an answer, the seam, or what the reward takes "
            "out of the text. No objective of rewards learns before that is mended."
        )
    if given.case is Case.WARM:
        return f"{train}: the reward is followed as it is, and wrong gold answers are not memorised as at large q."
    if given.case is Case.GRADED:
        return f"{train}. If partial rewards rise and right answers do not follow, train with garl(q=auto())."
    if given.case is Case.CUT:
        return f"{train}: PAFT imitates only rationales that lead to the answer; look at the thinking budget first."
    if given.case is Case.SOLVED:
        return f"{train} for what is left; harder questions would teach more."
    if given.case is Case.HINTED:
        return (
            f"{train}: rationales drawn with the gold answer in the prompt, weighed by how probable they are without "
            "it, tell what plain ones do not."
        )
    if given.case is Case.UNREACHABLE:
        return (
            "Warm the model up first (a prompt that shows the answer's form, worked examples, SFT) or look for success "
            "with many more rollouts; q = 1 would teach answers without their rationales."
        )
    return (
        f"{train}: it begins near q = {given.start:g}, the smallest at which the median group is loud enough, and "
        "lowers q as answers become likely, so that wrong gold answers are not memorised as at a large q."
    )


WORKED_EXAMPLES = (
    "a prompt with worked examples (--few-shot FILE) may be warm enough for grpo(): write two or three, and probe again"
)
"""What a user of a chat model may try before any method for cold ones (docs/choosing.md)."""
FINE_TUNING = "if answers need no rationale, `qredit sft` on the answers may be all that is needed"
"""What a user may try before any method for cold models (docs/choosing.md)."""


def describe_proposal(found: ProposalVerdict) -> str:
    """What rationales drawn with the gold answer in the prompt were seen to be worth, and why."""
    seen = (
        f"{found.hinted} of {found.m} rationales of {found.examples} examples were drawn with the gold answer in the "
        f"prompt. Their best u·w is at least twice the best plain one in {format_share(found.taught)} of groups, and "
        f"they carry {format_share(found.share)} of Σ u·w. Half of them weigh u = {format_probability(found.log10_u)} "
        "or less"
    )
    if found.helps:
        return f"{seen}. So u·w carries signal: p̂ of the median group is {format_probability(found.log10_p_hat)}"
    if found.likelier < MIN_TAUGHT:
        return f"{seen}. Proposals will not help either: hinted rationales make the answer no likelier than plain ones"
    return (
        f"{seen}. Proposals will not help either: hinted rationales make the answer likelier in "
        f"{format_share(found.likelier)} of groups, but the plain prompt would hardly ever draw them. Another "
        "template, or shorter thinking, may bring them closer"
    )


def describe_reward_check(predicted: Prediction, given: Advice) -> str:
    """Whether the reward reads what is sampled, which comes before every other question."""
    rollouts = predicted.examples * predicted.rollouts
    if given.case is Case.UNREAD:
        return "the reward reads nothing of what was sampled"
    if predicted.success.value > -math.inf:
        return f"the reward reads answers: it accepted some of the {rollouts} sampled ones"
    return (
        f"the reward accepted none of the {rollouts} sampled answers, and the likelihood of the gold ones is low: that "
        "agrees"
    )


def warn_too_few(predicted: Prediction, given: Advice) -> str:
    """That a verdict rests on too few examples; nothing where it does not."""
    if given.firm:
        return ""
    count = f"{predicted.examples} example{'s' if predicted.examples > 1 else ''}"
    return f"Too few examples for a verdict ({count}; {MIN_EXAMPLES} are the least): what follows may be chance."


def format_rejected(
    golds: Sequence[str], said: Sequence[Sequence[str]], right: Sequence[Sequence[bool]], most: int = 3
) -> list[str]:
    """Some examples' gold answers beside a sampled answer that was not accepted, each on one line and made safe.

    Args:
        golds: reference answers.
        said: sampled answers of each example.
        right: whether each was accepted.
        most: examples that are shown.
    """
    pairs = [
        (gold, next(text for text, good in zip(texts, goods, strict=True) if not good))
        for gold, texts, goods in zip(golds, said, right, strict=True)
        if not all(goods)
    ]
    return [f"gold {_short(gold)}, sampled {_short(text)}" for gold, text in pairs[:most]]


def _short(text: str) -> str:
    line = to_one_line(text)
    return f"'{line}'" if len(line) <= 80 else f"'{line[:79]}…'"


def describe_regime(predicted: Prediction) -> str:
    """Graded or sparse, with the numbers that say so."""
    if math.isnan(predicted.ess):
        return "likelihood is 0 after every rationale"
    kind = "graded" if is_graded(predicted) else "sparse: it rests on single rationales"
    return (
        f"likelihood is {kind} (effective rationales {predicted.ess:.1f} of {predicted.m}, spread of log w within a "
        f"group {predicted.spread:.2g} nats)"
    )


def list_probe_notices(subject: ProbeSetup, measured: Measurement, predicted: Prediction) -> Iterator[str]:
    """What was left out, and what is odd: one line each, nothing where all is well.

    Args:
        subject: model, format and examples.
        measured: what was sampled and scored.
        predicted: what follows from it.
    """
    forced, ended = float(measured.forced.double().mean()), float(measured.ended.double().mean())
    yield from subject.data_notes
    if subject.misaligned:
        names = ", ".join(name for name, _ in subject.misaligned[:5]) + (", …" if len(subject.misaligned) > 5 else "")
        left_out = f"{len(subject.misaligned)} answers do not join at the seam and are left out"
        yield f"{left_out} ({names}): {subject.misaligned[0][1]}"
    if subject.long:
        yield f"{subject.long} prompts do not fit the context and are left out"
    if subject.unparseable:
        yield (
            f"{subject.unparseable} gold answers cannot be read by {subject.reward.name}; GRPO can never be rewarded "
            "there"
        )
    if forced > 0:
        yield f"{format_share(forced)} of rationales were closed by force"
    notice = describe_end_conflict(subject.tokens, get_eos_token_ids(subject.network), subject.template)
    if notice is not None:
        yield notice
    unended = describe_unended_answers(1 - ended, subject.tokens.format.end)
    if unended is not None:
        yield unended
    elif ended < 1:
        yield f"{format_share(1 - ended)} of sampled answers did not end by themselves"
    if predicted.impossible:
        share = format_share(predicted.impossible)
        yield f"{share} of examples have likelihood 0 after every rationale; no q moves them"
    if subject.others:
        yield (
            f"the sum of all rewards differs within {format_share(predicted.differing_total)} of groups, "
            f"{subject.reward.name} alone within {format_share(predicted.differing)}: GRPO learns from the former, the "
            "advice counts the latter"
        )
    if predicted.success.is_above(predicted.p_hat):
        yield (
            f"answers succeed more often ({format_interval(predicted.success)}) than the gold string is likely "
            f"({format_interval(predicted.p_hat)}): {subject.reward.name} takes other answers too, and likelihood "
            "undervalues them"
        )
    if predicted.p_hat.is_above(predicted.success):
        yield (
            f"answers succeed less often ({format_interval(predicted.success)}) than the gold string is likely "
            f"({format_interval(predicted.p_hat)}): {subject.reward.name} rejects gold answers that the model writes"
        )
