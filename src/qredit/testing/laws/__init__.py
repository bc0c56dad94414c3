"""The laws that every objective and every stage must pass; tests/support/battery.py holds what is claimed of each.

To put a method of your own to them:

    subject = Subject(my_objective(), zero=(EQUAL_REWARDS,))
    for law in LAWS:
        if law.applies(subject):
            law.check(subject)  # AssertionError where it is broken
"""

from qredit.testing.laws import estimator, mixture, needs, spans, stage, values
from qredit.testing.laws.subject import Condition, Law, MixtureClaims, StageSubject, Subject, applies_to_all

LAWS: tuple[Law[Subject], ...] = (
    Law("climbs its slope", lambda s: s.advantage is not None, estimator.climbs_its_slope),
    Law("gradient of its target", lambda s: s.target is not None, estimator.is_the_gradient_of_its_target),
    Law(
        "gradient of its target off policy",
        lambda s: s.target_off_policy,
        estimator.is_the_gradient_of_its_target_off_policy,
    ),
    Law("its limit off policy", lambda s: s.limit is not None, estimator.tends_to_its_limit_off_policy),
    Law("unbiased at q = 0", lambda s: s.commitment == 0.0, estimator.unbiased_at_q_zero),
    Law("leading bias", lambda s: bool(s.commitment), estimator.leading_bias),
    Law("baseline changes no mean", lambda s: s.plain is not None, estimator.baseline_changes_no_mean),
    Law(
        "baseline lowers variance",
        lambda s: s.plain is not None and s.commitment == 0.0,
        estimator.baseline_lowers_variance,
    ),
    Law("mean over draws", lambda s: s.plug_in is not None, estimator.mean_over_draws_is_the_plug_in),
    Law(
        "unbiased at q = 0 off policy",
        lambda s: s.commitment == 0.0,
        estimator.unbiased_at_q_zero_off_policy,
    ),
    Law("consistent off policy", lambda s: s.commitment is not None, estimator.consistent_off_policy),
    Law(
        "baseline changes no mean off policy",
        lambda s: s.plain is not None and (s.commitment is not None or s.limit is not None),
        estimator.baseline_changes_no_mean_off_policy,
    ),
    Law(
        "mean over draws off policy",
        lambda s: s.plug_in is not None,
        estimator.mean_over_draws_is_the_plug_in_off_policy,
    ),
    Law(
        "unbiased at q = 0 with a proposal",
        lambda s: s.mixture is not None and s.mixture.commitment == 0.0,
        mixture.unbiased_at_q_zero,
    ),
    Law(
        "baseline changes no mean with a proposal",
        lambda s: s.mixture is not None and s.mixture.plain is not None,
        mixture.baseline_changes_no_mean,
    ),
    Law(
        "mean over draws with a proposal",
        lambda s: s.mixture is not None and s.mixture.plug_in is not None,
        mixture.mean_over_draws_is_the_plug_in,
    ),
    Law(
        "moments of the formula with a proposal",
        lambda s: s.mixture is not None and s.mixture.weights is not None,
        mixture.moments_are_those_of_the_formula,
    ),
    Law("identities", lambda s: bool(s.equals), estimator.equals_what_it_is_said_to_equal),
    Law("nothing on forced tokens", applies_to_all, spans.nothing_on_forced_tokens),
    Law("nothing on observations", applies_to_all, spans.nothing_on_observations),
    Law("rows may be permuted", applies_to_all, spans.rows_may_be_permuted),
    Law("padding changes nothing", applies_to_all, spans.padding_changes_nothing),
    Law("group numbers are names", lambda s: not s.draws, spans.group_numbers_are_names),
    Law("micro-batches", applies_to_all, spans.gradient_is_the_same_in_micro_batches),
    Law("row chunks", applies_to_all, spans.gradient_is_the_same_in_row_chunks),
    Law("advantages of the formula", lambda s: s.advantage is not None, values.advantages_are_those_of_the_formula),
    Law("float32 at extreme likelihoods", lambda s: s.weights is not None, values.float32_keeps_what_float64_says),
    Law("the formula written plainly", lambda s: s.reference is not None, values.equals_its_reference),
    Law("slopes of the loss", lambda s: s.loss is not None, spans.has_the_slopes_of_its_loss),
    Law("zero where said", lambda s: bool(s.zero), values.zero_where_it_is_said_to_be),
    Law("graded rewards are refused", lambda s: s.binary, values.graded_rewards_are_refused),
    Law("finite on degenerate groups", applies_to_all, values.finite_on_degenerate_groups),
    Law("needs are read", applies_to_all, needs.needs_are_what_is_read),
    Law("needs are used", applies_to_all, needs.needs_are_used),
    Law("what a pass tells is recomputed", applies_to_all, needs.what_a_pass_tells_is_recomputed),
    Law("needs are the union", applies_to_all, needs.needs_are_the_union),
)
STAGE_LAWS: tuple[Law[StageSubject], ...] = (
    Law("stages read what they need", applies_to_all, stage.stages_read_what_they_need),
    Law("stages are finite", applies_to_all, stage.stages_are_finite),
    Law("linear stages are homogeneous", lambda s: s.linear, stage.linear_stages_are_homogeneous),
    Law("a span keeps to itself", lambda s: s.span is not None, stage.a_span_keeps_to_itself),
)

__all__ = ["LAWS", "STAGE_LAWS", "Condition", "Law", "MixtureClaims", "StageSubject", "Subject"]
