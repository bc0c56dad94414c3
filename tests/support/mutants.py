"""Estimators, stages and reductions that are one mistake away from right, under the law that must catch each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from qredit.core.chain import Coefficient, Credit, Scope, Source, When, chain, on_span, per_span, tempered
from qredit.core.importance import mixture_weight
from qredit.core.objective import Credited, Objective
from qredit.core.reduce import mean_per_rollout, mean_per_token, sum_per_rollout
from qredit.core.surrogate import clipped_ratio, clipped_sequence_ratio, log_likelihood, score_function
from qredit.credit.answer_gain import answer_gain
from qredit.credit.answer_probability import answer_probability_gain
from qredit.credit.attention_role import amplify_anchors
from qredit.credit.clip_scale import scale_clip
from qredit.credit.gradient_side import weigh_by_gradient_side
from qredit.credit.group import center_by_group, scale_by_group_std, subtract_mean_of_others
from qredit.credit.likelihood import (
    amplified_likelihood,
    attenuated_likelihood,
    log_importance_weight,
    log_weight,
    resample_by_likelihood,
    subtract_likelihood_baseline,
    subtract_mixture_baseline,
)
from qredit.credit.log_likelihood import (
    answer_log_likelihood,
    log_mean_gain,
    subtract_reference_log_ratio,
    supervised_answer,
    weigh_by_ratio,
)
from qredit.credit.perplexity_rank import perplexity_rank
from qredit.credit.reward import reward
from qredit.credit.turn import (
    at_last_turn,
    center_by_pool,
    get_turn_values,
    scale_by_pool_std,
    set_turn_values,
    skip_last_turn,
    sum_turns_to_come,
    turn_reward,
)
from qredit.credit.turn_entropy import scale_by_turn_entropy
from qredit.objectives import (
    a2tgpo,
    attention_credit,
    dr_grpo,
    empg,
    garl,
    geometric_mean,
    grpo,
    igpo,
    jepo,
    logprob,
    maxrl,
    opsd,
    paft,
    rft,
    rloo,
    spine,
    star,
)
from qredit.penalties.entropy import entropy_bonus
from qredit.stats.segment import Segments
from qredit.testing.laws import MixtureClaims, StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, NO_LIKELIHOOD
from tests.support.battery import (
    centred,
    garl_weights,
    less_the_others,
    one,
    over_the_mean,
    plug_in,
    power,
    standardised,
)
from tests.support.claims import likelihood as likelihood_claims
from tests.support.claims import mixture as mixture_claims
from tests.support.claims import penalty as penalty_claims
from tests.support.claims import reward as reward_claims
from tests.support.claims import token as token_claims
from tests.support.claims import turn as turn_claims

# --- likelihood: GARL and PAFT gone wrong


@dataclass(frozen=True)
class _plus_baseline(subtract_likelihood_baseline):
    """The baseline added."""

    def __call__(self, coefficient, batch):
        right = super().__call__(coefficient, batch)
        return replace(right, value=2 * coefficient.value - right.value)


@dataclass(frozen=True)
class _own_included(subtract_likelihood_baseline):
    """The baseline taken over the whole group, own row included."""

    def __call__(self, coefficient, batch):
        log_w, keep = log_weight(batch, "mutant")
        baseline = ((1 - self.q) * batch.groups.log_mean_exp(log_w, keep)).exp()
        return coefficient.with_row(coefficient.per_rollout(self)[0] - baseline)


@dataclass(frozen=True)
class _ratio_twice(amplified_likelihood):
    """ρ in the weights, and rows not marked as holding it: a surrogate's ratio per token comes on top."""

    def __call__(self, batch):
        return replace(super().__call__(batch), holds_ratio=None)


@dataclass(frozen=True)
class _without_ratio(amplified_likelihood):
    """w in place of ρw, the ratio left to the surrogate: what a token ratio alone would do."""

    def __call__(self, batch):
        return super().__call__(replace(batch, sampler_logp=None))


@dataclass(frozen=True)
class _baseline_without_ratio(subtract_likelihood_baseline):
    """w̄_¬m^{1-q} in place of ρ_m·w̄_¬m^{1-q}."""

    def __call__(self, coefficient, batch):
        right = super().__call__(coefficient, batch)
        ratio = self.ratio.log(batch, "mutant").exp()[:, None]
        return replace(right, value=coefficient.value - (coefficient.value - right.value) / ratio)


@dataclass(frozen=True)
class _without_the_drop(subtract_mixture_baseline):
    """b_m = [(1-λ)·mean of the other plain rows + λ·mean of the other hinted rows]^{1-q}: no row j left out."""

    def _log_mean_of_pairs(self, log_w, kept, hinted):
        m, share, w = log_w.shape[1], hinted.double().mean(1, keepdim=True), log_w.exp()
        total = torch.zeros_like(w)
        for source, part in ((hinted, share), (~hinted, 1 - share)):
            others = source[:, None, :] & ~torch.eye(m, dtype=torch.bool)
            total += part * (w[:, None, :] * others).sum(2) / others.sum(2)
        return self.raise_to_power(total.log())


@dataclass(frozen=True)
class _plus_mixture_baseline(subtract_mixture_baseline):
    """The baseline added: of the same mean, and another variance."""

    def __call__(self, coefficient, batch):
        right = super().__call__(coefficient, batch)
        return replace(right, value=2 * coefficient.value - right.value)


@dataclass(frozen=True)
class _baseline_without_u(subtract_mixture_baseline):
    """b_m in place of u_m·b_m."""

    def __call__(self, coefficient, batch):
        right = super().__call__(coefficient, batch)
        u = self.ratio.log(batch, "mutant").exp()[:, None]
        return replace(right, value=coefficient.value - (coefficient.value - right.value) / u)


@dataclass(frozen=True)
class _hinted_rows_as_drawn(mixture_weight):
    """u = ρ: hinted rows counted as if the plain prompt had drawn them."""

    def log(self, batch, wanted_by):
        return self.ratio.log(batch, wanted_by)


@dataclass(frozen=True)
class _ratio_to_the_hint(mixture_weight):
    """p/r in place of the balance heuristic's weight, for hinted rows; 1 for the others."""

    def log(self, batch, wanted_by):
        change = torch.where(batch.rationale, batch.logp - batch.extra["logp@hint"], 0.0).sum(1)
        return torch.where(batch.proposal, change, 0.0)


def _mixed_garl(baseline, q, weight=None):
    """GARL with a proposal, built on these."""
    weight = mixture_weight() if weight is None else weight
    amplified = amplified_likelihood(q, False, weight)
    return Objective(
        per_span(rationale=amplified | baseline(q, False, weight), answer=amplified), proposal=mixture_claims.HALF
    )


def _unbiased(objective):
    return Subject(objective, mixture=MixtureClaims(0.0))


def _plain_of(baseline, q):
    return Subject(_mixed_garl(baseline, q), mixture=MixtureClaims(plain=mixture_claims.mixture_plug_in(q)))


@dataclass(frozen=True)
class _amplified_by_the_others(Source):
    """w_m / w̄_¬m^q: the amplification taken from the other rows."""

    q: float
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        log_w, keep = log_weight(batch, "mutant")
        return Coefficient((log_w - self.q * batch.groups.log_mean_exp_of_others(log_w, keep)).exp()[:, None])


@dataclass(frozen=True)
class _total_less_own(Source):
    """GARL's rationale part with the leave-one-out mean taken as Σ - w_m: it cancels where one row dominates."""

    q: float
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        log_w, keep = log_weight(batch, "mutant")
        w, size = log_w.exp(), batch.groups.count(keep)
        others = (batch.groups.total(w, keep) - w) / (size - 1)
        amplified = w / batch.groups.mean(w, keep) ** self.q
        return Coefficient((amplified - others.clamp(min=0) ** (1 - self.q))[:, None])


@dataclass(frozen=True)
class _exponentiated_early(Source):
    """w_m / w̄^q from w instead of log w."""

    q: float
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        w = batch.answer_logp.exp()
        return Coefficient((w / batch.groups.mean(w, batch.has_answer) ** self.q)[:, None])


@dataclass(frozen=True)
class _less_one(Credit):
    """q = 1's baseline of one, also where no row has a likelihood."""

    def __call__(self, coefficient, batch):
        return replace(coefficient, value=coefficient.value - 1, keep=None)


@dataclass(frozen=True)
class _leaky(Source):
    """A source given as it is, where the span operator ignores its span."""

    inner: Source
    needs = frozenset({"answer_logp"})

    def __call__(self, batch):
        return self.inner(batch)


def _garl_with(baseline, q):
    amplified = amplified_likelihood(q, normalize=False)
    return Objective(per_span(rationale=amplified | baseline, answer=amplified))


def _garl_of(amplified):
    """GARL at this stage's q, built on it."""
    centred = amplified | subtract_likelihood_baseline(amplified.q, normalize=False)
    return Objective(per_span(rationale=centred, answer=amplified))


def _both(source):
    return Objective(per_span(rationale=source, answer=source))


def _baseline_on_the_answer_too(q):
    return _both(amplified_likelihood(q, normalize=False) | subtract_likelihood_baseline(q, normalize=False))


def _baseline_everywhere(q):
    centred = amplified_likelihood(q, normalize=False) | subtract_likelihood_baseline(q, normalize=False)
    return Objective(_leaky(centred))


# --- log-probability as reward, and JEPO, gone wrong


@dataclass(frozen=True)
class _gain_of_one_row(log_mean_gain):
    """log w̄ - log w̄_¬m without the factor M."""

    def __call__(self, batch):
        right = super().__call__(batch)
        return replace(right, value=right.value / batch.groups.count(batch.has_answer)[:, None])


@dataclass(frozen=True)
class _own_ratio_in_the_mean(log_mean_gain):
    """M·(log mean(ρw) - log w̄_¬m): the ratio inside the logarithm, none before it."""

    def __call__(self, batch):
        log_w, keep = log_importance_weight(batch, self.ratio, "mutant")
        groups = batch.groups
        gain = groups.count(keep) * (groups.log_mean_exp(log_w, keep) - groups.log_mean_exp_of_others(log_w, keep))
        return Coefficient(gain[:, None], keep=keep[:, None])


@dataclass(frozen=True)
class _forgets_what_it_holds(Credit):
    """The marks of rows whose coefficient holds its ratio are lost: a surrogate's ratio per token comes on top."""

    def __call__(self, coefficient, batch):
        return replace(coefficient, holds_ratio=None)


@dataclass(frozen=True)
class _gain_of_likelihoods(log_mean_gain):
    """M·log(w̄ / w̄_¬m) from w instead of log w."""

    def __call__(self, batch):
        w, keep = batch.answer_logp.exp(), batch.has_answer
        groups = batch.groups
        gain = groups.count(keep) * (groups.mean(w, keep) / groups.mean_of_others(w, keep)).log()
        return Coefficient(torch.where(gain.isfinite() & keep, gain, 0.0)[:, None])


def _logprob_of(*credits, answer=None):
    source = answer_log_likelihood()
    for credit in credits:
        source = source | credit
    answer = supervised_answer() | weigh_by_ratio() if answer is None else answer
    return Objective(per_span(rationale=source, answer=answer), log_likelihood())


def _jepo_of(gain, answer=None):
    answer = amplified_likelihood(1.0, normalize=False) if answer is None else answer
    return Objective(per_span(rationale=gain, answer=answer), log_likelihood())


def _tempered(q, power, factor):
    """Tempered GARL whose answer's coefficient is that of the rationale times `factor`."""
    amplified = tempered(power, amplified_likelihood(q, normalize=False))
    return Objective(per_span(rationale=amplified, answer=factor * amplified), log_likelihood())


_LOGPROB, _JEPO = likelihood_claims.mean_log_likelihood, likelihood_claims.mean_log_of_the_mean


# --- rewards: GRPO and its kin gone wrong


@dataclass(frozen=True)
class _population_std(Credit):
    """Scaled by the standard deviation with n in place of n - 1."""

    def __call__(self, coefficient, batch):
        value, keep = coefficient.per_rollout(self)
        size = batch.groups.count(keep)
        std = batch.groups.std(value, keep) * ((size - 1) / size).sqrt()
        return coefficient.with_row(value / (std + 1e-4))


@dataclass(frozen=True)
class _centred_with_a_residue(Credit):
    """c - mean, whose rounding residue is left where all are equal."""

    def __call__(self, coefficient, batch):
        value, keep = coefficient.per_rollout(self)
        return coefficient.with_row(value - batch.groups.mean(value, keep))


@dataclass(frozen=True)
class _less_the_first(Credit):
    """c - c of the group's first row: as if rows stood in a known order."""

    def __call__(self, coefficient, batch):
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(value - batch.groups.rows(batch.groups.dense(value, 0.0)[:, :1]))


@dataclass(frozen=True)
class _times_the_group_number(Credit):
    """c times the group's number, which is a name."""

    def __call__(self, coefficient, batch):
        return coefficient.with_row(coefficient.per_rollout(self)[0] * (batch.group + 2))


@dataclass(frozen=True)
class _batch_mean_called_group(Credit):
    """c - mean over the whole batch, said to need the group only."""

    scope = Scope.GROUP

    def __call__(self, coefficient, batch):
        value, _ = coefficient.per_rollout(self)
        return coefficient.with_row(value - value.mean())


@dataclass(frozen=True)
class _reads_in_secret(Credit):
    """c scaled by an entropy that it does not say it needs."""

    def __call__(self, coefficient, batch):
        scale = 1.0 if batch.entropy is None else batch.entropy
        return replace(coefficient, value=coefficient.value * scale)


@dataclass(frozen=True)
class _wants_what_it_leaves(Credit):
    """Says that it needs an entropy, and never looks at it."""

    needs = frozenset({"entropy"})

    def __call__(self, coefficient, batch):
        return coefficient


@dataclass(frozen=True)
class _fixes_entropy_early(Credit):
    """Reads the entropy of a forward pass, and is said to be fixed before there is one."""

    needs = frozenset({"entropy"})
    when = When.ROLLOUT

    def __call__(self, coefficient, batch):
        return replace(coefficient, value=coefficient.value * batch.entropy)


@dataclass(frozen=True)
class _forgets_its_parts(Source):
    """A combinator that does not pass on what its parts need."""

    inner: Source
    needs = frozenset()

    def children(self):
        yield "0.", self.inner

    def __call__(self, batch):
        return self.inner(batch)


# --- published token weights gone wrong


@dataclass(frozen=True)
class _centres_of_signs(weigh_by_gradient_side):
    """DelTA's centres weighted by the sign of the advantage alone."""

    def __call__(self, coefficient, batch):
        signs = super().__call__(replace(coefficient, value=coefficient.value.sign()), batch)
        return replace(signs, value=signs.value * coefficient.value.abs())


@dataclass(frozen=True)
class _weights_of_learning_rows(weigh_by_gradient_side):
    """DelTA's weights brought to a mean of one over the tokens that have an advantage."""

    def __call__(self, coefficient, batch):
        learning = batch.sampled & (coefficient.spread(batch) != 0)
        return super().__call__(coefficient, replace(batch, sampled=learning))


@dataclass(frozen=True)
class _gain_below_zero(answer_probability_gain):
    """RLPR's gain over the base without its clip at 0."""

    def __call__(self, batch):
        base = batch.extra["base_probability"]
        bare = super().__call__(replace(batch, extra={**batch.extra, "base_probability": torch.zeros_like(base)}))
        return replace(bare, value=bare.value - 0.9 * base[:, None])


@dataclass(frozen=True)
class _no_base(answer_probability_gain):
    """RLPR's reward with nothing subtracted."""

    def __call__(self, batch):
        nothing = torch.zeros_like(batch.extra["base_probability"])
        return super().__call__(replace(batch, extra={**batch.extra, "base_probability": nothing}))


@dataclass(frozen=True)
class _perplexity_of_any_length(perplexity_rank):
    """NOVER's perplexity without the factor of the rationale's length."""

    def _surprise(self, batch):
        softened = (1 + batch.rationale.sum(1).double().log10()).clamp(min=1)
        found, known = super()._surprise(batch)
        return found * softened, known


@dataclass(frozen=True)
class _ranks_of_all(perplexity_rank):
    """NOVER's rank among all rollouts, those of the wrong form too."""

    def __call__(self, batch):
        ranked = super().__call__(replace(batch, reward=torch.where(batch.reward.isnan(), torch.nan, 1.0)))
        return replace(ranked, value=ranked.value - 1 + batch.reward.nan_to_num()[:, None])


# --- objectives and reductions gone wrong


class _unmasked(Objective):
    """The chain's value spread over every token that exists, forced ones included."""

    def evaluate(self, batch, state=None):
        return Credited(self.source(batch).value.expand(batch.mask.shape).float())


class _trains_observations(Objective):
    """Takes what an environment wrote for tokens of the policy."""

    def evaluate(self, batch, state=None):
        return super().evaluate(_as_sampled(batch), state)

    def numerators(self, logp, batch, credited):
        return super().numerators(logp, _as_sampled(batch), credited)


def _as_sampled(batch):
    if batch.observation is None:
        return batch
    seen = batch.observation
    return replace(batch, rationale=batch.rationale | seen, sampled=batch.sampled | seen, observation=None)


@dataclass(frozen=True)
class _times_mean_entropy(Credit):
    """Times the mean entropy of all tokens of the row, those of observations included."""

    needs = frozenset({"entropy"})

    def __call__(self, coefficient, batch):
        value, _ = coefficient.per_rollout(self)
        entropy = torch.where(batch.mask, batch.entropy, 0.0).sum(1) / batch.mask.sum(1)
        return coefficient.with_row(value * entropy)


@dataclass(frozen=True)
class _divided_by_the_width(sum_per_rollout):
    """Each row's sum divided by the number of columns."""

    def numerator(self, loss, batch, weight=None):
        return super().numerator(loss, batch, weight) / batch.mask.shape[1]


@dataclass(frozen=True)
class _mean_of_means(mean_per_token):
    """The mean over the tokens of each part, averaged over parts."""

    def numerator(self, loss, batch, weight=None):
        return super().numerator(loss, batch, weight) / super().denominator(batch, weight)

    def denominator(self, batch, weight=None):
        return 1.0


def _rewarded(*credits):
    source = reward()
    for credit in credits:
        source = source | credit
    return Objective(on_span("sampled", source))


# --- stages gone wrong


@dataclass(frozen=True)
class _scales_by_bare_std(Credit):
    """c / std over the group: 0/0 in a group of one or of equal values."""

    scope = Scope.GROUP

    def __call__(self, coefficient, batch):
        value, keep = coefficient.per_rollout(self)
        return coefficient.with_row(value / batch.groups.std(value, keep))


@dataclass(frozen=True)
class _unscored_is_wrong(Source):
    """The reward, and 0 where there is none, which counts in its group's statistics."""

    needs = frozenset({"reward"})

    def __call__(self, batch):
        return Coefficient(batch.require("reward", "mutant").nan_to_num(0.0)[:, None])


@dataclass(frozen=True)
class _turns_in_secret(scale_by_turn_entropy):
    """Says that it reads entropies alone."""

    needs = frozenset({"sampler_entropy"})

    def __call__(self, coefficient, batch):
        return coefficient if batch.turn is None else super().__call__(coefficient, batch)


@dataclass(frozen=True)
class _clipped_by_turn(scale_by_turn_entropy):
    """The factors of turns, then c clipped to [-1, 1], called linear."""

    def __call__(self, coefficient, batch):
        scaled = super().__call__(coefficient, batch)
        return replace(scaled, value=scaled.value.clamp(-1, 1))


@dataclass(frozen=True)
class _reads_observations(turn_reward):
    """The reward of a turn read on its last token, be that an observation."""

    def __call__(self, batch):
        turns = Segments.of(batch.turn, batch.mask)
        value = turns.at_last(batch.extra["turn_reward"].double())
        return set_turn_values(Coefficient(value), turns, value, turns.exists)


@dataclass(frozen=True)
class _counts_unscored_turns(turn_reward):
    """The turns of rollouts that were not scored count."""

    def __call__(self, batch):
        return super().__call__(replace(batch, reward=torch.zeros_like(batch.reward)))


@dataclass(frozen=True)
class _states_in_secret(center_by_pool):
    """Says that it reads turns alone."""

    needs = frozenset({"turn"})

    def __call__(self, coefficient, batch):
        return super().__call__(coefficient, batch) if "state" in batch.extra else coefficient


@dataclass(frozen=True)
class _batch_pool_called_group(center_by_pool):
    """The mean over all turns of the step, called a group's."""

    scope = Scope.GROUP


@dataclass(frozen=True)
class _sums_turns_so_far(sum_turns_to_come):
    """The sum over this and all earlier turns."""

    def __call__(self, coefficient, batch):
        turns = Segments.of(batch.turn, batch.sampled)
        value, keep = get_turn_values(coefficient, turns, batch)
        return set_turn_values(coefficient, turns, value.cumsum(1), keep)


@dataclass(frozen=True)
class _divided_by_its_spread(center_by_pool):
    """A pool's numbers over their std without an epsilon: NaN in a pool of one."""

    def __call__(self, coefficient, batch):
        centred = super().__call__(coefficient, batch)
        scaled = scale_by_pool_std(self.pool, 0.0)(centred, batch)
        return replace(scaled, value=scaled.value / (scaled.value != 0))


@dataclass(frozen=True)
class _clipped(Credit):
    """c clipped to [-1, 1], called linear."""

    def __call__(self, coefficient, batch):
        return replace(coefficient, value=coefficient.value.clamp(-1, 1))


@dataclass(frozen=True)
class _on_every_span(Credit):
    """on_span that forgets its span."""

    span: str
    inner: Credit
    needs = frozenset({"answer_logp", "seed"})

    def __call__(self, coefficient, batch):
        return self.inner(coefficient, batch)


def _rewarded_turns(*credits):
    """GRPO's advantage and that of turns."""
    turns = chain(turn_reward(), *credits)
    return Objective(
        on_span("sampled", reward() | center_by_group() | scale_by_group_std()) + on_span("sampled", turns)
    )


def _standardised_turns(correction):
    return center_by_pool("prompt"), scale_by_pool_std("prompt", 1e-6, correction)


def _widened_by_the_sum():
    """A2TGPO whose trust region follows the advantage, not the gain."""
    narrow = a2tgpo(epsilon_low=0.05, epsilon_high=0.08, widening=0.0)
    return replace(narrow, source=chain(narrow.source, scale_clip(0.9)))


def _igpo_of(*credits):
    """Gains and outcome, then these."""
    return Objective(on_span("sampled", chain(answer_gain() + (reward() | at_last_turn()), *credits)))


MUTANTS: Mapping[str, tuple[Subject, ...]] = {
    "climbs its slope": (
        Subject(_rewarded(center_by_group()), advantage=less_the_others),
        Subject(grpo(), advantage=centred, loss_scale=lambda tokens: 1 / tokens),
        Subject(maxrl(epsilon=0.1), advantage=over_the_mean),
        Subject(replace(rloo(), reduction=dr_grpo(length=8).reduction), advantage=less_the_others),
        Subject(_trains_observations(rloo().source, rloo().surrogate), advantage=less_the_others),
    ),
    "gradient of its target": (
        Subject(_logprob_of(center_by_group()), target=_LOGPROB),
        Subject(
            _logprob_of(subtract_mean_of_others(), answer=answer_log_likelihood() | subtract_mean_of_others()),
            target=_LOGPROB,
        ),
        Subject(garl(1.0, normalize=False), target=_LOGPROB),
        Subject(_trains_observations(logprob().source, log_likelihood()), target=_LOGPROB),
        Subject(garl(1.0, normalize=False), target=_JEPO),
        Subject(_jepo_of(_gain_of_one_row()), target=_JEPO),
        Subject(_jepo_of(log_mean_gain(), answer=supervised_answer()), target=_JEPO),
        Subject(_jepo_of(log_mean_gain(floor=0.1)), target=_JEPO),
        Subject(logprob(), target=likelihood_claims.mean_log_likelihood_of_fixed_rationales),
        Subject(_tempered(0.0, 0.5, 1.0), target=likelihood_claims.tempered_loss(0.0, 0.5)),
        Subject(garl(0.0, temper=0.5), target=likelihood_claims.tempered_loss(0.0, 1.0)),
    ),
    "gradient of its target off policy": (
        Subject(_logprob_of(subtract_mean_of_others()), target=_LOGPROB, target_off_policy=True),
        Subject(_logprob_of(weigh_by_ratio(), subtract_mean_of_others()), target=_LOGPROB, target_off_policy=True),
        Subject(
            _logprob_of(subtract_mean_of_others(), weigh_by_ratio(), answer=supervised_answer()),
            target=_LOGPROB,
            target_off_policy=True,
        ),
    ),
    "its limit off policy": (
        Subject(_jepo_of(_own_ratio_in_the_mean()), limit=lambda policy: policy.loss_gradient(1.0)),
        Subject(
            replace(jepo(), surrogate=score_function()) | _forgets_what_it_holds(),
            limit=lambda policy: policy.loss_gradient(1.0),
        ),
        Subject(_tempered(0.75, 0.25, 1.0), limit=likelihood_claims.tempered_loss(0.75, 0.25)),
    ),
    "unbiased at q = 0": (
        Subject(_garl_with(_own_included(0.0, normalize=False), 0.0), commitment=0.0),
        Subject(_baseline_on_the_answer_too(0.0), commitment=0.0),
        Subject(_trains_observations(garl(0.0).source, log_likelihood()), commitment=0.0),
    ),
    "leading bias": (
        Subject(_baseline_on_the_answer_too(0.5), commitment=0.5),
        Subject(_both(_amplified_by_the_others(0.5)), commitment=0.5),
        Subject(garl(0.5, normalize=False), commitment=0.75),
    ),
    "baseline changes no mean": (
        Subject(_garl_with(_own_included(0.5, normalize=False), 0.5), plain=plug_in(0.5, normalize=False)),
        Subject(_baseline_on_the_answer_too(1.0), plain=plug_in(1.0, normalize=False)),
        Subject(_baseline_everywhere(0.5), plain=plug_in(0.5, normalize=False)),
    ),
    "baseline lowers variance": (
        Subject(_garl_with(_plus_baseline(0.0, normalize=False), 0.0), commitment=0.0, plain=plug_in(0.0)),
    ),
    "mean over draws": (
        Subject(_both(attenuated_likelihood(1.0) | resample_by_likelihood()), plug_in=plug_in(0.5)),
        Subject(_both(amplified_likelihood(0.5) | resample_by_likelihood()), plug_in=plug_in(0.5)),
    ),
    "unbiased at q = 0 off policy": (
        Subject(_garl_of(_ratio_twice(0.0)), commitment=0.0),
        Subject(_garl_of(_without_ratio(0.0)), commitment=0.0),
        Subject(_garl_with(_baseline_without_ratio(0.0), 0.0), commitment=0.0),
    ),
    "consistent off policy": (
        Subject(_both(_without_ratio(0.75, normalize=False)), commitment=0.75),
        Subject(_both(_ratio_twice(0.75, normalize=False)), commitment=0.75),
    ),
    "baseline changes no mean off policy": (
        Subject(
            _garl_with(_baseline_without_ratio(0.5, normalize=False), 0.5),
            plain=plug_in(0.5, normalize=False),
            commitment=0.5,
        ),
        Subject(
            _logprob_of(weigh_by_ratio(), subtract_mean_of_others()),
            plain=likelihood_claims.LOGPROB_PLAIN,
            limit=lambda policy: _LOGPROB(policy, 0),
        ),
    ),
    "mean over draws off policy": (
        Subject(_both(attenuated_likelihood(1.0) | resample_by_likelihood()), plug_in=plug_in(0.5)),
        Subject(_both(_without_ratio(0.5) | resample_by_likelihood()), plug_in=plug_in(0.5)),
    ),
    "unbiased at q = 0 with a proposal": (
        _unbiased(_mixed_garl(subtract_likelihood_baseline, 0.0)),
        _unbiased(_mixed_garl(_baseline_without_u, 0.0)),
        _unbiased(_mixed_garl(subtract_mixture_baseline, 0.0, _hinted_rows_as_drawn())),
    ),
    "baseline changes no mean with a proposal": (
        _plain_of(subtract_likelihood_baseline, 0.75),
        _plain_of(_without_the_drop, 0.75),
        _plain_of(_without_the_drop, 0.5),
        _plain_of(_baseline_without_u, 0.75),
    ),
    "mean over draws with a proposal": (
        Subject(
            _both(attenuated_likelihood(0.75, False, mixture_weight()) | resample_by_likelihood()),
            mixture=MixtureClaims(plug_in=mixture_claims.mixture_plug_in(0.5)),
        ),
        Subject(
            _both(attenuated_likelihood(0.75, False) | resample_by_likelihood(ratio=mixture_weight())),
            mixture=MixtureClaims(plug_in=mixture_claims.mixture_plug_in(0.75)),
        ),
    ),
    "moments of the formula with a proposal": tuple(
        Subject(mutant, mixture=MixtureClaims(weights=mixture_claims.mixture_weights(0.75)))
        for mutant in (
            _mixed_garl(_plus_mixture_baseline, 0.75),
            _mixed_garl(_without_the_drop, 0.75),
            _mixed_garl(subtract_mixture_baseline, 0.75, _ratio_to_the_hint()),
        )
    ),
    "identities": (
        Subject(garl(0.5, normalize=False), equals=((garl(0.5), one),)),
        Subject(garl(0.5), equals=((garl(0.5, normalize=False), power(1.0)),)),
    ),
    "nothing on forced tokens": (Subject(_unmasked(reward() | center_by_group())),),
    "nothing on observations": (
        Subject(_unmasked(reward() | center_by_group())),
        Subject(_rewarded(_times_mean_entropy())),
        Subject(Objective(on_span("sampled", _reads_observations()))),
    ),
    "rows may be permuted": (Subject(_rewarded(_less_the_first())),),
    "padding changes nothing": (Subject(replace(rloo(), reduction=_divided_by_the_width())),),
    "group numbers are names": (Subject(_rewarded(_times_the_group_number())),),
    "micro-batches": (
        Subject(_rewarded(_batch_mean_called_group())),
        Subject(Objective(on_span("sampled", turn_reward() | _batch_pool_called_group("batch")))),
        Subject(replace(rloo(), reduction=_mean_of_means())),
    ),
    "row chunks": (Subject(replace(rloo(), reduction=_mean_of_means())),),
    "advantages of the formula": (
        Subject(_rewarded(center_by_group(), _population_std()), advantage=standardised),
        Subject(rloo(), advantage=centred),
    ),
    "float32 at extreme likelihoods": (
        Subject(
            Objective(per_span(rationale=_total_less_own(0.95), answer=amplified_likelihood(0.95, normalize=False))),
            weights=garl_weights(0.95, normalize=False),
        ),
        Subject(
            Objective(per_span(answer=_exponentiated_early(0.5))),
            weights=lambda log_w: ([0.0] * len(log_w), garl_weights(0.5, normalize=False)(log_w)[1]),
        ),
        Subject(_jepo_of(_gain_of_likelihoods()), weights=likelihood_claims.jepo_weights),
        Subject(jepo(floor=90.0), weights=likelihood_claims.jepo_weights),
        Subject(_tempered(0.5, 0.1, 0.1), weights=likelihood_claims.tempered_weights(0.5, 0.1)),
        Subject(logprob(sft=0.5), weights=likelihood_claims.logprob_weights),
    ),
    "the formula written plainly": (
        Subject(rloo(), reference=lambda batch: grpo().credit(batch)),
        Subject(
            Objective(on_span("sampled", _unscored_is_wrong() | center_by_group() | scale_by_group_std())),
            reference=lambda batch: grpo().credit(batch),
        ),
        *(
            Subject(_rewarded(center_by_group(), scale_by_group_std(), weigh), reference=token_claims.delta_credit)
            for weigh in (
                _centres_of_signs(),
                _weights_of_learning_rows(),
                weigh_by_gradient_side(refinements=0),
                weigh_by_gradient_side(refinements=2),
            )
        ),
        Subject(attention_credit(amplify_anchors(both_signs=False)), reference=token_claims.anchor_credit),
        Subject(geometric_mean(pathwise=True), reference=lambda batch: likelihood_claims.geometric_credit(batch, 0.0)),
        Subject(
            geometric_mean(epsilon_std=0.1), reference=lambda batch: likelihood_claims.geometric_credit(batch, 0.0)
        ),
        Subject(rft(), reference=likelihood_claims.star_credit),
        Subject(paft(0.75, temper=0.1), reference=lambda batch: paft(0.75).credit(batch)),
        *(
            Subject(_logprob_of(*credits), reference=lambda batch: likelihood_claims.latro_credit(batch, 0.05, 1.0))
            for credits in (
                (subtract_reference_log_ratio(0.1), subtract_mean_of_others(), weigh_by_ratio()),
                (subtract_mean_of_others(), subtract_reference_log_ratio(0.05), weigh_by_ratio()),
            )
        ),
        *(
            Subject(turn_claims.credit_over_outcome(*credits), reference=turn_claims.gigpo_reference(epsilon=None))
            for credits in (
                (center_by_pool("state"), sum_turns_to_come(0.95)),
                (sum_turns_to_come(1.0), center_by_pool("state")),
                (_sums_turns_so_far(0.95), center_by_pool("state")),
                (sum_turns_to_come(0.95), center_by_pool("state@1")),
            )
        ),
        Subject(
            turn_claims.credit_over_outcome(
                sum_turns_to_come(0.95), center_by_pool("state"), source=_counts_unscored_turns()
            ),
            reference=turn_claims.gigpo_reference(epsilon=None),
        ),
        *(
            Subject(turn_claims.credit_turns(*credits), reference=turn_claims.matched_returns)
            for credits in (
                (sum_turns_to_come(0.9), center_by_pool("prompt"), scale_by_pool_std("prompt", 1e-6)),
                (sum_turns_to_come(0.9), center_by_pool("turn"), scale_by_pool_std("prompt", 1e-6)),
                (center_by_pool("turn"), scale_by_pool_std("turn", 1e-6), sum_turns_to_come(0.9)),
            )
        ),
        *(
            Subject(_rewarded_turns(*credits), reference=turn_claims.mt_grpo_reference())
            for credits in (
                (center_by_pool("turn"), scale_by_pool_std("turn")),
                (skip_last_turn(), center_by_pool("turn"), scale_by_pool_std("turn", correction=0)),
                (at_last_turn(), center_by_pool("turn"), scale_by_pool_std("turn")),
            )
        ),
        Subject(igpo(joint=False), reference=turn_claims.igpo_reference()),
        Subject(igpo(), reference=turn_claims.a2tgpo_reference()),
        Subject(empg(bonus=0.0), reference=turn_claims.empg_reference(0.05)),
        Subject(empg(bonus=0.05, strength=0.0), reference=turn_claims.empg_reference(0.05)),
        Subject(empg(bonus=0.05, bonus_strength=0.0), reference=turn_claims.empg_reference(0.05)),
        Subject(igpo(logarithm=True), reference=turn_claims.igpo_reference()),
        Subject(_igpo_of(sum_turns_to_come(), *_standardised_turns(1)), reference=turn_claims.igpo_reference()),
        Subject(_igpo_of(*_standardised_turns(1), sum_turns_to_come()), reference=turn_claims.igpo_reference()),
        *(
            Subject(
                Objective(on_span("sampled", gain | center_by_group() | scale_by_group_std(1e-6))),
                reference=reward_claims.rlpr_credit,
            )
            for gain in (_gain_below_zero(), _no_base(), answer_probability_gain(format=0.0))
        ),
        *(
            Subject(
                Objective(on_span("sampled", ranked | center_by_group() | scale_by_group_std())),
                reference=reward_claims.nover_credit,
            )
            for ranked in (
                _perplexity_of_any_length(),
                _ranks_of_all(),
                perplexity_rank(efficiency=0.0),
                perplexity_rank(rank=0.0),
            )
        ),
    ),
    "slopes of the loss": (
        Subject(replace(a2tgpo(), surrogate=clipped_sequence_ratio(3e-3, 4e-3)), loss=turn_claims.a2tgpo_loss),
        Subject(replace(a2tgpo(), surrogate=clipped_ratio(3e-3, 4e-3)), loss=turn_claims.a2tgpo_loss),
        *(
            Subject(one, loss=partial(turn_claims.a2tgpo_loss, low=0.05, high=0.08, widening=0.9))
            for one in (a2tgpo(epsilon_low=0.05, epsilon_high=0.08, widening=0.0), _widened_by_the_sum())
        ),
        Subject(rloo() | entropy_bonus(0.1), loss=lambda logp, batch: rloo().loss(logp, batch)),
        Subject(replace(spine(0.3, 0.2, 0.4, bins=10), reduction=mean_per_rollout()), loss=penalty_claims.spine_loss),
        Subject(spine(0.3, 0.2, 0.4, bins=2), loss=penalty_claims.spine_loss),
        Subject(replace(opsd(), reduction=mean_per_rollout()), loss=likelihood_claims.opsd_loss),
        Subject(replace(opsd(), surrogate=log_likelihood()), loss=likelihood_claims.opsd_loss),
        Subject(replace(rft(), proposal=star().proposal), loss=likelihood_claims.star_loss),
        Subject(replace(rft(), reduction=mean_per_rollout()), loss=likelihood_claims.rft_loss),
        Subject(replace(rft(), surrogate=score_function()), loss=likelihood_claims.rft_loss),
    ),
    "zero where said": (
        Subject(_rewarded(_centred_with_a_residue()), zero=(EQUAL_REWARDS,)),
        Subject(_both(amplified_likelihood(1.0) | _less_one()), zero=(NO_LIKELIHOOD,)),
        Subject(_rewarded(center_by_group(), scale_by_group_std(1e300)), zero=(EQUAL_REWARDS,)),
    ),
    "graded rewards are refused": (Subject(rloo(), binary=True),),
    "finite on degenerate groups": (
        Subject(_rewarded(center_by_group(), _scales_by_bare_std())),
        Subject(_both(_exponentiated_early(1.0))),
    ),
    "needs are read": (Subject(_rewarded(_reads_in_secret())),),
    "needs are used": (Subject(_rewarded(_wants_what_it_leaves())),),
    "what a pass tells is recomputed": (Subject(_rewarded(_fixes_entropy_early())),),
    "needs are the union": (Subject(Objective(_forgets_its_parts(reward()))),),
}
STAGE_MUTANTS: Mapping[str, tuple[StageSubject, ...]] = {
    "stages read what they need": (
        StageSubject(_reads_in_secret()),
        StageSubject(_wants_what_it_leaves()),
        StageSubject(_turns_in_secret()),
        StageSubject(_states_in_secret("state")),
    ),
    "stages are finite": (StageSubject(_scales_by_bare_std()), StageSubject(_divided_by_its_spread("state"))),
    "linear stages are homogeneous": (
        StageSubject(_clipped(), linear=True),
        StageSubject(scale_by_group_std(), linear=True),
        StageSubject(_clipped_by_turn(), linear=True),
        StageSubject(scale_by_pool_std("prompt"), linear=True),
    ),
    "a span keeps to itself": (
        StageSubject(_on_every_span("rationale", resample_by_likelihood()), span="rationale"),
        StageSubject(on_span("answer", resample_by_likelihood()), span="rationale"),
    ),
}
