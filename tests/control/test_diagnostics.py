"""What the logged numbers say of a batch, worked by hand."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.control.diagnostics import (
    collect_likelihood_stats,
    compute_likelihood_metrics,
    effective_sample_size,
    get_q,
    group_p_hat,
    no_success,
)
from qredit.core.importance import sequence_truncate
from qredit.objectives import garl, grpo, jepo, logprob, paft
from qredit.stats.groups import Groups
from qredit.stats.nearest_rank import lower_median, nearest_rank
from qredit.stats.weights import effective_size, log_mean_exp
from tests.support.batches import likelihood_batch, reward_batch


def metrics(objective, *batches):
    parts = [collect_likelihood_stats(objective, batch) for batch in batches]
    return compute_likelihood_metrics(
        get_q(objective), {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    )


def groups(*log10_p, m=2):
    """Groups of m rows, each row with that likelihood."""
    values = [p * math.log(10) for p in log10_p for _ in range(m)]
    return likelihood_batch(values, group=[g for g in range(len(log10_p)) for _ in range(m)])


def test_p_hat_is_the_mean_likelihood_of_a_group():
    batch = likelihood_batch(torch.tensor([0.3, 0.1, 0.02, 0.0]).log(), group=[0, 0, 1, 1])
    assert group_p_hat(batch).exp().tolist() == pytest.approx([0.2, 0.01])


def test_off_policy_objectives_own_cut_of_the_ratio_is_logged():
    """log ρ = (log 4, 0), log w = log(.1) both: P̂ is (.4 + .1)/2 = .25 uncut, and (.2 + .1)/2 cut at 2."""
    batch = likelihood_batch(torch.tensor([0.1, 0.1]).log())
    then = torch.zeros(batch.mask.shape)
    now = then.clone()
    now[0, int((batch.rationale & batch.sampled)[0].nonzero()[0])] = math.log(4.0)
    batch = replace(batch, logp=now, sampler_logp=then)
    for limit, p_hat in ((math.inf, 0.25), (2.0, 0.15)):
        facts = collect_likelihood_stats(garl(0.5, ratio=sequence_truncate(limit)), batch)
        assert facts["p_hat"].tolist() == pytest.approx([math.log10(p_hat)])
        # a_m/M^q of the larger: ρw / (P̂ · M)^½
        assert facts["effective"].tolist() == pytest.approx([min(4.0, limit) * 0.1 / math.sqrt(2 * p_hat)])


@pytest.mark.parametrize(("count", "ranks"), [(2, (1, 1, 2)), (8, (1, 4, 8)), (10, (1, 5, 9))])
def test_quantiles_are_of_the_nearest_rank(count, ranks):
    found = metrics(garl(0.75), groups(*range(-count, 0)))
    values = sorted(range(-count, 0))
    shown = [found[f"p_hat/log10_q{level}"] for level in (10, 50, 90)]
    assert shown == pytest.approx([values[rank - 1] for rank in ranks])


def test_a_hopeless_group_is_a_quantile_of_minus_infinity():
    assert metrics(garl(0.75), groups(-torch.inf, -1.0, -2.0))["p_hat/log10_q10"] == -math.inf


def test_what_is_logged_does_not_depend_on_how_groups_are_cut():
    together = metrics(garl(0.5), groups(-3.0, -1.0, -7.0, -2.0))
    assert metrics(garl(0.5), groups(-3.0), groups(-1.0, -7.0), groups(-2.0)) == pytest.approx(together)


def test_reward_and_weight_are_the_papers_however_normalised():
    """One row with w = 1, three with 0: a/M^q = 1/(1/4)^q/4^q = 1, c the same since the others have nothing."""
    batch = likelihood_batch([0.0, -torch.inf, -torch.inf, -torch.inf])
    for objective in (garl(0.5), garl(0.5, normalize=False), paft(0.5)):
        found = metrics(objective, batch)
        assert (found["effective_reward/max"], found["centred_weight/max"]) == pytest.approx((1.0, 1.0))


def test_underflow_counts_groups_and_not_single_rows():
    uneven = likelihood_batch([-60.0, -200.0, -300.0, -400.0])
    for objective in (garl(1.0), paft(1.0)):
        found = metrics(objective, uneven)
        assert (found["coefficient/underflow"], found["groups/underflow"]) == (0.75, 0.0)
    lost = groups(-100.0, -1.0)  # (1 - q)·230 nats is far below the least float32 at q = 0, and not at q = 0.75
    for name in ("coefficient/underflow", "groups/underflow"):
        assert metrics(garl(0.0), lost)[name] == 0.5
        assert metrics(garl(0.75), lost)[name] == 0.0


def test_groups_with_all_coefficients_below_adams_epsilon_count():
    faint = groups(-9.0, -7.0)
    assert metrics(garl(0.0), faint)["groups/below_adam_epsilon"] == 0.5
    assert metrics(garl(0.75), faint)["groups/below_adam_epsilon"] == 0.0


def test_the_effective_sample_size_lies_between_one_and_all():
    even, single = [-5.0] * 4, [-5.0, -500.0, -500.0, -500.0]
    batch = likelihood_batch(even + single, group=[0] * 4 + [1] * 4)
    assert effective_sample_size(batch).tolist() == pytest.approx([4.0, 1.0])


def test_nats_per_token_of_the_answer():
    assert metrics(garl(0.75), likelihood_batch([-4.0, -2.0], answer=2))["answer/nll_per_token"] == pytest.approx(1.5)


def test_groups_without_success_are_some_of_those_with_a_reward():
    batch = reward_batch([0.0, 0.0, 1.0, 0.0, torch.nan, torch.nan], group=[0, 0, 1, 1, 2, 2])
    assert no_success(batch).tolist() == [1.0, 0.0]


def test_an_objective_without_a_likelihood_has_no_such_metrics():
    assert get_q(grpo()) is None
    assert collect_likelihood_stats(grpo(), reward_batch([1.0, 0.0])) == {}


@pytest.mark.parametrize("objective", [logprob(), jepo()], ids=str)
def test_every_objective_over_the_likelihood_logs_it(objective):
    """w = (.3, .1): P̂ = .2, Σw² = .1 and ESS = 1.6, two tokens in the answer."""
    found = metrics(objective, likelihood_batch(torch.tensor([0.3, 0.1]).log()))
    assert found["p_hat/log10_q50"] == pytest.approx(math.log10(0.2))
    assert found["weights/ess"] == pytest.approx(1.6)
    assert found["answer/nll_per_token"] == pytest.approx(-math.log(0.03) / 4)
    assert ("q" in found) == (objective == jepo())  # its answers carry w/w̄, the amplification of q = 1


def test_a_tempered_likelihood_keeps_p_hat_and_its_underflow():
    """log10 p = -60: at q = 0 the coefficient 1e-60 is 0 in float32, and 1e-6 after the power 0.1."""
    cold = groups(-60.0, -60.0)
    for objective, lost in ((garl(0.0), 1.0), (garl(0.0, temper=0.1), 0.0)):
        found = metrics(objective, cold)
        assert (found["groups/underflow"], found["p_hat/log10_q50"]) == (lost, pytest.approx(-60.0))


@pytest.mark.parametrize(
    ("level", "found"), [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.51, 3.0), (1.0, 4.0)]
)
def test_a_nearest_rank_quantile_is_one_of_the_values(level, found):
    assert nearest_rank([3.0, 1.0, 4.0, 2.0], level) == found
    assert nearest_rank(torch.tensor([3.0, 1.0, 4.0, 2.0]), level) == found


def test_the_lower_median_stays_minus_infinity():
    assert lower_median([-math.inf, -math.inf, 0.0, 1.0]) == -math.inf
    assert math.isnan(lower_median([]))
    assert lower_median([], empty=0.0) == 0.0


def test_groups_of_any_size_have_their_own_log_mean_and_size():
    log_w = torch.tensor([0.0, -1.0, -math.inf, -3.0, -500.0, -2.0], dtype=torch.float64)
    group, keep = torch.tensor([7, 2, 7, 2, 2, 7]), torch.tensor([True, True, True, True, True, False])
    found = Groups.of(group)
    for row, mine in ((0, [0, 2]), (1, [1, 3, 4])):
        w = log_w[mine].exp()
        assert float(found.log_mean_exp(log_w, keep)[row]) == pytest.approx(float(w.mean().log()))
        assert float(found.effective_size(log_w, keep)[row]) == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
        assert float(log_mean_exp(log_w[mine][None])) == float(found.log_mean_exp(log_w, keep)[row])
        assert float(effective_size(log_w[mine][None])) == float(found.effective_size(log_w, keep)[row])
