"""Penalties, Clip-Cov and the majority vote: worked numbers, the traps of each source, state, degenerate rows."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Coefficient, on_span
from qredit.core.objective import Objective
from qredit.core.surrogate import plain_ratio
from qredit.credit.covariance import drop_covariance_band
from qredit.credit.fork import apply_otsu_threshold, keep_forks, keep_otsu_forks
from qredit.credit.reward import reward
from qredit.credit.vote import majority_vote
from qredit.objectives import clip_cov, dapo, epo, grpo, kl_cov, llds, one_shot_entropy, siren, spine, spine_v1, tea_rl
from qredit.objectives.parsing import parse
from qredit.penalties.covariance import covariance_entropy_bonus, kl_covariance
from qredit.penalties.entropy import adaptive_entropy, entropy_bonus
from qredit.penalties.fork import fork_entropy_band, fork_kl_to_reference
from qredit.penalties.likelihood import keep_likelihood, keep_likelihood_of_responses, keep_likelihood_of_tokens
from qredit.penalties.nucleus import nucleus_entropy, nucleus_entropy_anchor
from qredit.penalties.otsu_fork import entropy_band, otsu_fork_entropy_band, otsu_fork_kl_to_reference
from qredit.penalties.reference import kl_to_reference, kl_to_reference_k1, kl_to_reference_k2
from qredit.penalties.smoothing import entropy_smoothing
from qredit.stats.masked import covariance
from qredit.utils.errors import QreditError
from tests.support.batches import reward_batch
from tests.support.rounding import same


def batch_of(*rows, **fields):
    """One row per list of log-probabilities, one group."""
    lengths = [len(row) for row in rows]
    logp = torch.zeros(len(rows), max(lengths), dtype=torch.float64)
    for number, row in enumerate(rows):
        logp[number, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return reward_batch([0.0] * len(rows), lengths=lengths, logp=logp, **fields)


def entropies(*rows, **fields):
    """One row per list of entropies; log-probabilities are -1."""
    batch = batch_of(*([-1.0] * len(row) for row in rows), **fields)
    entropy = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for number, row in enumerate(rows):
        entropy[number, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return replace(batch, entropy=entropy)


def slopes(penalty, batch, coefficient=None, state=None, wrt="logp"):
    """Value and slope of a penalty's own term, divided by its denominator."""
    coefficient = torch.ones(batch.mask.shape) if coefficient is None else coefficient
    weight = penalty.weight(coefficient, batch) if state is None else penalty.weight_from(coefficient, batch, state)
    at = batch.require(wrt, "test").clone().requires_grad_()
    if wrt == "logp":
        logp, live = at, batch
    else:
        own = {wrt: at} if wrt == "entropy" else {}
        extra = {**batch.extra, wrt: at} if wrt != "entropy" else batch.extra
        logp, live = batch.logp, replace(batch, **own, extra=extra)
    value = penalty.numerator(logp, live, weight) / penalty.denominator(batch, coefficient)
    return float(value.detach()), torch.autograd.grad(value, at, materialize_grads=True, allow_unused=True)[0]


def near(*values, **how):
    return pytest.approx(list(values), **how)


# --- covariance: KL-Cov and Clip-Cov (arXiv 2505.22617)

ADVANTAGE = torch.tensor([[1.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
WORKED = batch_of([-0.1, -0.2, -3.0, -0.5], seed=0)


def test_worked_covariances_choose_for_kl_cov_and_clip_cov():
    varying = covariance(ADVANTAGE, WORKED.logp, WORKED.sampled)
    assert varying[0].tolist() == near(0.425, 0.375, -1.025, -0.675)
    assert kl_covariance(strength=2.0).weight(ADVANTAGE, WORKED)[0].tolist() == [2.0, 0.0, 0.0, 0.0]
    kept = drop_covariance_band(share=1.0)(Coefficient(ADVANTAGE), WORKED)
    assert torch.equal(kept.value, ADVANTAGE)
    dropped = drop_covariance_band(share=1.0, low=0.4)(Coefficient(ADVANTAGE), WORKED)
    assert dropped.value[0].tolist() == [0.0, 1.0, 1.0, -1.0]


def test_the_band_is_open_and_has_an_upper_end():
    def left(**band):
        return drop_covariance_band(share=1.0, **band)(Coefficient(ADVANTAGE), WORKED).value[0].tolist()

    largest, second = covariance(ADVANTAGE, WORKED.logp, WORKED.sampled)[0, :2].tolist()
    assert left(low=0.0, high=0.4) == [1.0, 0.0, 1.0, -1.0]
    assert left(low=second, high=largest) == [1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize(("share", "count"), [(2e-4, 4), (2e-3, 40), (0.0, 1), (1e-5, 1)])
def test_share_is_a_fraction_and_at_least_one_token_is_taken(share, count):
    """Read as a percentage, 2e-4 of 20 000 tokens would be none but the one that is always taken."""
    generator = torch.Generator().manual_seed(0)
    logp = -torch.rand(20, 1000, dtype=torch.float64, generator=generator)
    batch = replace(batch_of(*[[-1.0] * 1000] * 20, seed=0), logp=logp)
    coefficient = torch.randn(20, 1, dtype=torch.float64, generator=generator).expand(20, 1000)
    assert int((kl_covariance(share=share).weight(coefficient, batch) != 0).sum()) == count
    stage = drop_covariance_band(share=share, low=0.0)
    assert int((stage(Coefficient(coefficient), batch).value == 0).sum()) == count


def test_kl_cov_has_no_slope_on_policy_and_either_off_it():
    penalty = kl_covariance(share=1.0)
    for sampler in (None, WORKED.logp):
        on_policy = replace(WORKED, sampler_logp=sampler)
        value, slope = slopes(penalty, on_policy, ADVANTAGE)
        assert value == 0.0
        assert not slope.any()
    moved = replace(WORKED, sampler_logp=WORKED.logp + torch.tensor([[0.1, -0.1, 0.2, 0.0]]))
    value, slope = slopes(penalty, moved, ADVANTAGE)
    assert value == pytest.approx(0.1)
    assert slope[0].tolist() == near(-0.25, 0.25, -0.25, 0.0)


def test_kl_cov_does_not_clip_the_ratio():
    batch = replace(reward_batch([1.0, 0.0], lengths=[1, 1]), sampler_logp=torch.zeros(2, 1))
    logp = torch.tensor([[3.0], [0.2]]).log().requires_grad_()
    coefficient = torch.tensor([[1.0], [-1.0]])
    slope = torch.autograd.grad(plain_ratio()(coefficient, logp, batch).sum(), logp)[0]
    assert slope[:, 0].tolist() == near(-3.0, 0.2)
    clipped = torch.autograd.grad(dapo().surrogate(coefficient, logp, batch).sum(), logp)[0]
    assert not clipped.any()
    assert kl_cov().surrogate == plain_ratio()


def test_clip_cov_spends_no_draw_on_a_clipped_token():
    """Token 0 has the largest covariance, but its ratio is beyond the clip and its advantage positive."""
    moved = replace(WORKED, sampler_logp=WORKED.logp - torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
    stage = drop_covariance_band(share=1.0, low=0.0, clip_low=0.2, clip_high=0.2)
    assert stage(Coefficient(ADVANTAGE), moved).value[0].tolist() == [1.0, 0.0, 1.0, -1.0]
    wide = replace(stage, clip_high=1.0)
    assert wide(Coefficient(ADVANTAGE), moved).value[0].tolist() == [0.0, 0.0, 1.0, -1.0]


def test_clip_cov_draws_by_seed_alone_and_leaves_denominator():
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(*(-torch.rand(10, 40, dtype=torch.float64, generator=generator)).tolist(), seed=5)
    batch = replace(batch, reward=torch.arange(10) % 2.0)
    objective = clip_cov(share=0.05, low=0.0)
    credited = objective.evaluate(batch)
    gone = (credited.value == 0) & batch.sampled
    assert int(gone.sum()) == 20
    assert objective.denominators(batch, credited) == {"policy": 400.0}
    order = torch.randperm(10, generator=generator)
    assert same(objective.credit(batch.select(order)), credited.value[order])
    assert torch.equal(objective.credit(batch), credited.value)
    others = [(objective.credit(replace(batch, seed=seed)) == 0) & batch.sampled for seed in range(20)]
    assert len({tuple(other.flatten().tolist()) for other in others}) > 10
    largest = covariance(credited.value.double(), batch.logp, batch.sampled).flatten().topk(20).indices
    assert any(not other.flatten()[largest].all() for other in others)


def test_clip_cov_leaves_unscored_rows_out_of_its_means():
    batch = batch_of([-0.1, -0.2, -3.0, -0.5], [-9.0] * 4, seed=0)
    alone = drop_covariance_band(share=1.0, low=0.4)(Coefficient(ADVANTAGE), WORKED)
    keep = torch.tensor([[True], [False]])
    both = torch.cat([ADVANTAGE, 7 * ADVANTAGE])
    assert torch.equal(
        drop_covariance_band(share=1.0, low=0.4)(Coefficient(both, keep=keep), batch).value[:1], alone.value
    )


# --- TEA-RL (arXiv 2508.03178)


def test_the_worked_weights_of_tea_rl():
    """A - mean A = 1, so C is (2, 0, -1) less the mean log p, a constant that softmax drops."""
    batch = replace(batch_of([2.0, 0.0, -1.0], [0.0] * 3), entropy=torch.ones(2, 3, dtype=torch.float64))
    coefficient = torch.tensor([[2.0] * 3, [0.0] * 3])
    weight = covariance_entropy_bonus().weight(coefficient, batch)
    assert (-weight[0]).tolist() == near(5.0, 1.142, 0.420, abs=5e-4)
    value, slope = slopes(covariance_entropy_bonus(), batch, coefficient, wrt="entropy")
    assert value == pytest.approx(float(weight.sum()) / 6)
    assert torch.allclose(slope, weight / 6)


def test_weights_of_tea_rl_are_constants_and_empty_row_has_none():
    batch = replace(batch_of([-2.0, 0.0, -1.0], [-1.0] * 3), entropy=torch.ones(2, 3, dtype=torch.float64))
    batch = replace(batch, reward=torch.tensor([1.0, 0.0]), extra={"logp@reference": batch.logp})
    bonus_only = Objective(on_span("sampled", reward()), penalties=(covariance_entropy_bonus(),))
    logp = batch.logp.clone().requires_grad_()
    bonus = bonus_only.numerators(logp, batch, bonus_only.evaluate(batch))["covariance_entropy_bonus"]
    assert not bonus.requires_grad
    nothing = batch.sampled & torch.tensor([[True], [False]])
    weight = covariance_entropy_bonus().weight(torch.ones(2, 3), replace(batch, sampled=nothing))
    assert bool(weight.isfinite().all())
    assert not weight[1].any()


# --- SIREN (arXiv 2509.25133)

SHARES = torch.tensor([0.5, 0.25, 0.15, 0.06, 0.04], dtype=torch.float64)


def test_the_nucleus_leaves_out_the_token_that_crosses():
    logits = SHARES.log()
    full = float(-(SHARES * logits).sum())
    usual = SHARES[:3] / SHARES[:3].sum()
    assert full == pytest.approx(1.275, abs=5e-4)
    assert float(-(usual * usual.log()).sum()) == pytest.approx(0.981, abs=5e-4)
    assert float(nucleus_entropy(logits, 0.8)) == pytest.approx(0.637, abs=5e-4)
    assert float(nucleus_entropy(logits + 3.0, 0.8)) == pytest.approx(0.637, abs=5e-4)
    assert float(nucleus_entropy(logits.flip(0), 0.8)) == pytest.approx(0.637, abs=5e-4)
    assert float(nucleus_entropy(logits, 1.1)) == pytest.approx(full)


def test_a_token_with_all_the_mass_leaves_no_entropy():
    for shares in (SHARES, torch.tensor([0.9, 0.1], dtype=torch.float64)):
        logits = shares.log().requires_grad_()
        entropy = nucleus_entropy(logits, 0.5)
        assert float(entropy.detach()) == 0.0
        assert not torch.autograd.grad(entropy, logits)[0].any()


def test_slope_of_the_nucleus_entropy_holds_membership_fixed():
    logits = SHARES.log().requires_grad_()
    slope = torch.autograd.grad(nucleus_entropy(logits, 0.8), logits)[0]
    inside = SHARES.log()[:2].clone().requires_grad_()
    share = inside.softmax(0)
    expected = torch.autograd.grad(-(share * share.log()).sum(), inside)[0]
    assert slope[:2].tolist() == near(*expected.tolist())
    assert not slope[2:].any()


def nucleus_rows(*rows, **fields):
    batch = entropies(*rows, **fields)
    return replace(batch, entropy=None, extra={"nucleus_entropy@0.8": batch.entropy})


def squared_distance(batch, anchor, strength=0.5, level=0.5):
    """The loss itself, differentiable in the field."""
    field = batch.extra["nucleus_entropy@0.8"].clone().requires_grad_()
    rows = []
    for row, counts in zip(field, batch.sampled, strict=True):
        own = row[counts]
        peaks = own[own > torch.quantile(own.detach(), level)] if len(own) else own
        rows.append(peaks.mean() if len(peaks) else torch.zeros((), dtype=torch.float64))
    return torch.autograd.grad(strength * (torch.stack(rows).mean() - anchor) ** 2, field)[0]


def test_siren_has_the_slope_of_its_squared_distance():
    batch = nucleus_rows([0.1, 0.9, 0.5, 1.5], [0.3, 0.2], [0.4, 0.4, 0.4])
    penalty = nucleus_entropy_anchor(strength=0.5, level=0.5, anchor=0.2)
    _, slope = slopes(penalty, batch, wrt="nucleus_entropy@0.8")
    assert torch.allclose(slope, squared_distance(batch, 0.2))
    assert slope.any(1).tolist() == [True, True, False], "strictly above the quantile: equal tokens have no peak"


def test_a_row_without_a_peak_counts_as_zero_in_mean_over_rows():
    """Peaks (1.2) and none: the mean is 0.6; were the row left out it would be 1.2."""
    batch = nucleus_rows([0.1, 0.9, 0.5, 1.5], [0.4, 0.4])
    penalty = nucleus_entropy_anchor(strength=0.5, level=0.5)
    assert penalty.statistics(torch.zeros(2, 4), batch) == {"sum": pytest.approx(1.2), "rows": 2.0}


def test_siren_selects_sampled_tokens_alone():
    batch = nucleus_rows([0.1, 0.9, 0.5, 9.0])
    forced = replace(batch, sampled=batch.mask & (torch.arange(4) < 3))
    weight = nucleus_entropy_anchor(level=0.5, anchor=0.0).weight(torch.zeros(1, 4), forced)
    assert weight.ne(0).tolist() == [[False, True, False, False]]


def test_sirens_anchor_is_that_of_first_step_however_it_was_cut():
    batch = nucleus_rows([0.1, 0.9, 0.5, 1.5], [0.3, 0.2], [0.4, 0.4, 0.4])
    objective = siren(length=4, strength=0.5, level=0.5)
    state = objective.init_state()
    assert not objective.evaluate(batch, state).penalties[0].any(), "the first step is at its own anchor"
    whole = objective.statistics(batch, state)
    place = "penalty nucleus_entropy_anchor"
    parts = [objective.statistics(batch.select(torch.tensor([row])), state)[place] for row in range(3)]
    assert whole[place] == {name: pytest.approx(sum(part[name] for part in parts)) for name in parts[0]}
    first = objective.update_state(state, whole)
    assert first[place]["anchor"] == pytest.approx((1.2 + 0.3) / 3)
    later = nucleus_rows([1.1, 1.9, 1.5, 2.5], [1.3, 1.2], [1.4, 1.4, 1.4])
    _, slope = slopes(objective.penalties[0], later, state=first[place], wrt="nucleus_entropy@0.8")
    assert torch.allclose(slope, squared_distance(later, first[place]["anchor"]))
    assert slope.any()
    assert objective.update_state(first, objective.statistics(later, first)) == first, "constant afterwards"


# --- EPO (arXiv 2509.22576)

BAND = entropy_smoothing(strength=1.0, low=0.8, high=1.2, height=0.1, decay=1.0, progress=0.0)
HISTORY = {"sum": 3.0, "steps": 3}


def smoothing(entropy, usual=1.0):
    """a · (relu(kl·H̄ - H) + relu(H - kr·H̄)), averaged."""
    return 0.1 * ((0.8 * usual - entropy).relu() + (entropy - 1.2 * usual).relu()).mean()


def test_the_worked_hinge_of_epo_and_its_slope():
    """H = (.5, .9, 1.5), H̄ = 1: hinge (.3, 0, .3), L_smooth .02; the released code's constant has no slope at all."""
    batch = entropies([0.5, 0.9, 1.5])
    entropy = batch.entropy.clone().requires_grad_()
    loss = smoothing(entropy)
    assert float(loss.detach()) == pytest.approx(0.02)
    _, slope = slopes(BAND, batch, state=HISTORY, wrt="entropy")
    assert torch.allclose(slope, 2 * torch.autograd.grad(loss, entropy)[0]), "β is 2 at the start"
    assert slope[0].tolist() == near(-0.2 / 3, 0.0, 0.2 / 3)


@pytest.mark.parametrize(("progress", "phase"), [(0.0, 2.0), (0.5, 1.368), (1.0, 1.135)])
def test_the_phase_of_epo(progress, phase):
    assert replace(BAND, progress=progress).phase == pytest.approx(phase, abs=5e-4)
    resolved = epo(0.8, 1.2, 0.1, 1.0).at(progress)
    assert resolved.penalties[1].phase == pytest.approx(phase, abs=5e-4)


def test_epo_is_the_bonus_alone_until_there_is_history():
    batch = entropies([0.5, 0.9, 1.5], [1.0])
    objective = epo(0.8, 1.2, 0.1, 1.0).at(0.0)
    state = objective.init_state()
    assert not objective.evaluate(batch, state).penalties[1].any()
    once = objective.update_state(state, objective.statistics(batch, state))
    twice = objective.update_state(once, objective.statistics(entropies([2.0]), once))
    assert twice["penalty entropy_smoothing"] == {"sum": pytest.approx(3.9 / 4 + 2.0), "steps": 2}
    assert objective.evaluate(batch, twice).penalties[1].any()
    no_tokens = {"penalty entropy_smoothing": {"entropy": 0.0, "tokens": 0.0}}
    assert objective.update_state(twice, no_tokens) == twice


def test_the_slope_of_epo_is_the_papers_whole_loss():
    batch = replace(entropies([0.5, 0.9, 1.5], [1.0, 3.0]), reward=torch.tensor([1.0, 0.0]))
    objective = epo(0.8, 1.2, 0.1, 1.0, strength=0.3).at(0.5)
    entropy = batch.entropy.clone().requires_grad_()
    state = {"penalty entropy_smoothing": {"sum": 2.6, "steps": 2}}
    live = replace(batch, entropy=entropy)
    slope = torch.autograd.grad(objective.loss(batch.logp, live, objective.evaluate(batch, state)), entropy)[0]
    drawn = entropy[batch.sampled]
    papers = -0.3 * (drawn.mean() - (1 + math.exp(-1)) * smoothing(drawn, 1.3))
    assert torch.allclose(slope, torch.autograd.grad(papers, entropy)[0])


def test_an_unresolved_phase_and_an_empty_band_are_refused():
    with pytest.raises(QreditError, match="objective.at"):
        epo(0.8, 1.2, 0.1, 1.0).credit(entropies([1.0]))
    with pytest.raises(QreditError, match="low ≤ high"):
        entropy_smoothing(1.0, low=1.2, high=0.8, height=0.1, decay=1.0)


# --- SPINE (arXiv 2511.17938)

FORKS = entropies([1.0, 1.5, 2.0, 3.0, 4.0])


def test_the_worked_hinges_of_spine():
    """q10 = 1.2, q50 = 2: below (.2, 0, 0, 0, 0), above (0, 0, 0, 1, 2); the quantiles have no gradient."""
    above, below = fork_entropy_band(1.0, 0.0, share=1.0), fork_entropy_band(0.0, 1.0, share=1.0)
    logp = FORKS.logp
    assert above.term(logp, FORKS)[0].tolist() == near(0.0, 0.0, 0.0, 1.0, 2.0)
    assert below.term(logp, FORKS)[0].tolist() == near(0.2, 0.0, 0.0, 0.0, 0.0)
    value, slope = slopes(fork_entropy_band(3.0, 5.0, share=1.0), FORKS, wrt="entropy")
    assert value == pytest.approx((3 * 3 + 5 * 0.2) / 5)
    assert slope[0].tolist() == near(-1.0, 0.0, 0.0, 0.6, 0.6), "the median fork itself is not pushed"


def test_forks_are_the_upper_fifth_and_one_fork_pays_nothing():
    batch = entropies([0.1, 0.5, 0.3, 0.2, 0.4], [0.9] * 6)
    band = fork_entropy_band(1.0, 1.0)
    assert band.weight(torch.ones(2, 6), batch).nonzero().tolist() == [[0, 1], [1, 0], [1, 1]]
    value, slope = slopes(band, batch, wrt="entropy")
    assert value == 0.0
    assert not slope.any()
    kept = Objective(on_span("sampled", reward() | keep_forks())).credit(replace(batch, reward=torch.ones(2)))
    assert kept.nonzero().tolist() == [[0, 1], [1, 0], [1, 1]]


def test_how_many_forks_there_are_is_known_before_entropies():
    batch = replace(entropies([0.1] * 5, [0.9] * 6), entropy=None)
    assert fork_entropy_band(1.0, 1.0).denominator(batch) == 3.0
    assert fork_kl_to_reference(1.0).denominator(batch) == 3.0


def test_the_divergence_of_spine_is_taken_on_forks():
    batch = entropies([0.1, 0.5, 0.3, 0.2, 0.4])
    batch = replace(batch, extra={"logp@reference": batch.logp + math.log(2)})
    value, slope = slopes(fork_kl_to_reference(1.0), batch)
    assert value == pytest.approx(2 - math.log(2) - 1)
    assert slope[0].tolist() == near(0.0, 1 - 2.0, 0.0, 0.0, 0.0)


def votes(cluster, group=None, **how):
    cluster = torch.tensor(cluster)
    batch = replace(reward_batch([0.0] * len(cluster), group), extra={"cluster": cluster})
    return majority_vote(**how)(batch).value[:, 0].tolist()


def test_the_majority_answer_is_rewarded():
    assert votes([4, 2, 2, 7]) == [0, 1, 1, 0]
    assert votes([5, 3, 3, 5]) == [0, 1, 1, 0], "of equals the smallest number wins"
    assert votes([-1, -1, -1, 6]) == [0, 0, 0, 1], "empty answers have no vote"
    assert votes([-1, -1]) == [0, 0]
    assert votes([3]) == [1]
    assert votes([1, 2, 2, 1, 1, 9], group=[0, 0, 1, 1, 0, 1]) == [1, 0, 0, 1, 1, 0]


def test_leaving_oneself_out_can_turn_the_vote():
    assert votes([1, 1, 2], leave_one_out=True) == [1, 1, 0]
    assert votes([1, 2], leave_one_out=True) == [0, 0]
    assert votes([2, 1, 1, 2], leave_one_out=True) == [0, 0, 0, 0], "without itself each is in the minority"
    assert votes([3], leave_one_out=True) == [0], "nobody to agree with"
    assert votes([3, -1], leave_one_out=True) == [0, 0]


def test_a_group_that_agrees_teaches_spine_nothing():
    batch = replace(FORKS, extra={"cluster": torch.tensor([0]), "logp@reference": FORKS.logp})
    assert not spine(kl=0.0, above=0.0, below=0.0).credit(batch).any()
    assert not spine_v1(kl=0.0, above=0.0, below=0.0).credit(batch).any()


def test_forks_of_version_two_are_above_the_gap():
    batch = entropies([0.0, 0.1, 0.05, 3.0, 2.9], [0.0, 2.0, 2.1, 1.9, 2.0], [0.7] * 5)
    found = apply_otsu_threshold(batch.entropy, batch.sampled, 100)
    assert found.tolist() == [[False, False, False, True, True], [False, True, True, True, True], [True] * 5]


@given(st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=40), min_size=1, max_size=3))
def test_otsus_threshold_is_the_best_of_all_cuts_tried(rows):
    batch = entropies(*rows)
    found = apply_otsu_threshold(batch.entropy, batch.sampled, 100)
    for row in range(len(rows)):
        drawn = batch.entropy[row][batch.sampled[row]].tolist()
        assert bool(found[row].any())
        assert between_classes(drawn, found[row], 100) == pytest.approx(best_between(drawn, 100), rel=1e-9)


def binned(drawn, bins):
    low, high = min(drawn), max(drawn)
    width = (high - low) or 1.0
    return [min(int((value - low) / width * bins), bins - 1) for value in drawn]


def variance_between(below, above):
    if not below or not above:
        return 0.0
    return len(below) * len(above) * (sum(below) / len(below) - sum(above) / len(above)) ** 2


def best_between(drawn, bins):
    """The largest variance between the bins up to a cut and those above it."""
    held = binned(drawn, bins)
    return max(variance_between([b for b in held if b <= cut], [b for b in held if b > cut]) for cut in range(bins - 1))


def between_classes(drawn, chosen, bins):
    """That of the cut which the chosen tokens say: their lowest bin, or the one before, ends the lower class."""
    held = binned(drawn, bins)
    lowest = min(b for b, one in zip(held, chosen.tolist(), strict=False) if one)
    return max(
        variance_between([b for b in held if b <= cut], [b for b in held if b > cut]) for cut in (lowest - 1, lowest)
    )


def test_band_lies_below_median_of_the_forks_by_their_spread():
    """Forks 3, 4, 4.5, 5, 7: median 4.5, deviations 1.5, .5, 0, .5, 2.5, their median .5."""
    batch = entropies([0.0, 0.1, 0.15, 3.0, 4.0, 4.5, 5.0, 7.0, 0.0, 0.1])
    chosen = apply_otsu_threshold(batch.entropy, batch.sampled, 100)
    assert chosen.sum() == 5
    low, high = entropy_band(batch.entropy, chosen)
    assert (low.item(), high.item()) == near(4.5 - 1.4826 * 0.5, 4.5)
    value, slope = slopes(otsu_fork_entropy_band(above=2.0, below=3.0), batch, wrt="entropy")
    assert value == pytest.approx((2 * (0.5 + 2.5) + 3 * (4.5 - 0.7413 - 3.0)) / 10), "over all sampled tokens"
    assert slope[0].tolist() == near(0, 0, 0, -0.3, 0, 0, 0.2, 0.2, 0, 0)


def test_the_band_ends_at_zero():
    batch = entropies([0.1, 1.0])
    low, high = entropy_band(batch.entropy, batch.sampled)
    assert (low.item(), high.item()) == near(0.0, 0.55)


def test_the_divergence_of_version_two_is_a_mean_over_forks():
    batch = entropies([0.0, 3.0, 2.9], [0.0, 0.1, 2.0])
    kl = torch.tensor([[9.0, 0.5, 0.25], [9.0, 9.0, 1.25]], dtype=torch.float64)
    value, slope = slopes(
        otsu_fork_kl_to_reference(0.6), replace(batch, extra={"kl@reference": kl}), wrt="kl@reference"
    )
    assert value == pytest.approx(0.6 * 2 / 3)
    assert slope.flatten().tolist() == near(0, 0.2, 0.2, 0, 0, 0.2)


@pytest.mark.parametrize(
    "make", [lambda: keep_otsu_forks(bins=1), lambda: otsu_fork_entropy_band(1.0, 1.0, bins=0)], ids=["1", "0"]
)
def test_a_histogram_needs_two_bins(make):
    with pytest.raises(QreditError, match="bins"):
        make()


# --- LLDS (arXiv 2512.04220)


def lost(*rows, turn=None, sampled=None, **fields):
    """A batch whose tokens have lost this much log-likelihood since they were sampled."""
    batch = batch_of(*([-2.0] * len(row) for row in rows), **fields)
    change = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for number, row in enumerate(rows):
        change[number, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return replace(
        batch,
        sampler_logp=batch.logp + change,
        turn=torch.zeros(batch.mask.shape, dtype=torch.long) if turn is None else torch.tensor(turn),
        sampled=batch.sampled if sampled is None else torch.tensor(sampled),
    )


TOOL = {"turn": [[0, 0, 1, 2]], "sampled": [[True, True, False, True]]}


def test_the_worked_price_of_llds():
    """Δ = (.3, -.1, tool, -.1): the first turn lost .2 and pays .3; mean over 3 tokens .1, times .2 is .02."""
    batch = lost([0.3, -0.1, 5.0, -0.1], **TOOL)
    value, slope = slopes(keep_likelihood(strength=0.2), batch)
    assert value == pytest.approx(0.02)
    assert slope[0].tolist() == near(-0.2 / 3, 0.0, 0.0, 0.0)


def test_the_three_gates_differ():
    """The first turn gains on the whole, the second loses; the rollout gains."""
    batch = lost([0.3, -0.6, 0.1], turn=[[4, 4, 9]])
    prices = [keep_likelihood_of_tokens(1.0), keep_likelihood(1.0), keep_likelihood_of_responses(1.0)]
    assert [slopes(price, batch)[0] for price in prices] == near(0.4 / 3, 0.1 / 3, 0.0)
    assert slopes(keep_likelihood_of_responses(1.0), lost([0.3, -0.1, 0.1]))[0] == pytest.approx(0.4 / 3)
    assert slopes(keep_likelihood(1.0), lost([0.25, -0.25]))[0] == 0.0, "a turn that lost nothing on the whole"


def test_llds_does_nothing_on_the_policy_that_sampled():
    for batch in (lost([0.0, 0.0]), replace(lost([0.0, 0.0]), sampler_logp=None)):
        for penalty in (keep_likelihood(), keep_likelihood_of_tokens(), keep_likelihood_of_responses()):
            value, slope = slopes(penalty, batch)
            assert value == 0.0
            assert not slope.any()
    partly = lost([0.5, 0.0])
    assert slopes(keep_likelihood(1.0), partly)[1][0].tolist() == near(-0.5, 0.0), "a token that kept its own"


def test_only_rows_of_no_negative_coefficient_pay_and_count():
    batch = lost([0.2, 0.2], [0.4], [0.6])
    coefficient = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 0.0]])
    penalty = keep_likelihood(1.0)
    assert penalty.denominator(batch, coefficient) == 2.0
    value, slope = slopes(penalty, batch, coefficient)
    assert value == pytest.approx((0.2 + 0.4) / 2), "zero counts as good, and its length is its own"
    assert slope.tolist() == [near(-0.25, -0.25), near(-0.5, 0.0), near(0.0, 0.0)]
    objective = llds(kl=0.0)
    batch = replace(batch, reward=torch.tensor([1.0, 0.0, 0.0]))
    assert objective.denominators(batch)["keep_likelihood"] == 0.0, "unknown before the coefficients"
    assert objective.denominators(batch, objective.evaluate(batch))["keep_likelihood"] == 1.0


def test_an_empty_row_is_no_good_rollout():
    batch = lost([0.2, 0.2], [0.4, 0.4], sampled=[[True, True], [False, False]])
    assert keep_likelihood(1.0).denominator(batch, torch.zeros(2, 2)) == 1.0
    nobody = slopes(keep_likelihood(1.0), lost([0.2]), torch.tensor([[1.0]]))
    assert nobody[0] == pytest.approx(0.2)


@pytest.mark.parametrize(("turns", "factor"), [([0, 0, 0], 0.0), ([0, 1, 1], 0.5), ([0, 1, 2], 1.0)])
def test_answer_is_held_by_as_much_as_was_searched_before_it(turns, factor):
    batch = lost([0.3, 0.3, 0.3], turn=[turns], response=torch.tensor([[False, False, True]]))
    _, slope = slopes(keep_likelihood(1.0, searches=2), batch)
    assert slope[0].tolist() == near(-1 / 3, -1 / 3, -factor / 3)
    assert "response" in keep_likelihood(searches=2).needs
    assert "response" not in keep_likelihood().needs
    with pytest.raises(QreditError, match="searches"):
        keep_likelihood(searches=0)


# --- entropy with an adapted strength (arXiv 2505.22312)


def test_strength_rises_below_the_target_and_acts_there_alone():
    objective = grpo() | adaptive_entropy(target=0.2, step=0.1, most=0.25)
    place, state = "penalty adaptive_entropy", objective.init_state()
    low, high = entropies([0.1, 0.1], [0.2]), entropies([0.1, 0.4])
    seen = []
    for batch in (low, low, low, high, high, low):
        seen.append(-float(objective.evaluate(batch, state).penalties[0][0, 0]))
        state = objective.update_state(state, objective.statistics(batch, state))
    assert seen == near(0.0, 0.1, 0.2, 0.25, 0.0, 0.0)
    assert state[place] == {"strength": pytest.approx(0.15), "active": 1}
    at_target = objective.update_state(state, {place: {"entropy": 0.2, "tokens": 1.0}})
    assert at_target[place]["active"] == 0, "at the target itself it does not act"
    assert objective.update_state(state, {place: {"entropy": 0.0, "tokens": 0.0}}) == state


def test_the_adapted_bonus_has_the_slope_of_the_plain_one():
    batch = entropies([0.1, 0.4], [0.3])
    adapted = slopes(adaptive_entropy(start=0.3), batch, wrt="entropy")
    plain = slopes(entropy_bonus(0.3), batch, wrt="entropy")
    assert adapted[0] == pytest.approx(plain[0])
    assert torch.allclose(adapted[1], plain[1])


# --- divergence from a reference


def test_the_three_estimators():
    """log reference - log policy = log 2 on both tokens of a row."""
    batch = batch_of([-1.0, -1.0])
    batch = replace(batch, extra={"logp@reference": batch.logp + math.log(2)})
    expected = {
        kl_to_reference(0.5): (0.5 * (1 - math.log(2)), 0.5 * (1 - 2)),
        kl_to_reference_k1(0.5): (-0.5 * math.log(2), 0.5),
        kl_to_reference_k2(0.5): (0.25 * math.log(2) ** 2, -0.5 * math.log(2)),
    }
    for penalty, (value, slope) in expected.items():
        found, slopes_found = slopes(penalty, batch)
        assert found == pytest.approx(value)
        assert slopes_found[0].tolist() == near(slope / 2, slope / 2)


def test_the_mean_of_each_estimator_over_the_policy():
    """k1 and k3 have mean KL(policy ‖ reference); the slope of k1 has mean 0, that of k2 is the divergence's own."""
    logits, other = torch.tensor([0.3, -1.0, 0.5, 0.0]), torch.tensor([0.1, 0.4, -0.7, 0.2]).log_softmax(0)
    theta = logits.double().requires_grad_()
    policy = theta.log_softmax(0)
    exact = (policy.exp() * (policy - other)).sum()
    wanted = torch.autograd.grad(exact, theta, retain_graph=True)[0]
    batch = batch_of([0.0])
    means = {}
    for penalty in (kl_to_reference(1.0), kl_to_reference_k1(1.0), kl_to_reference_k2(1.0)):
        value, slope = 0.0, torch.zeros(4, dtype=torch.float64)
        for token in range(4):
            here = replace(batch, extra={"logp@reference": other[token].double()[None, None]})
            term = penalty.term(policy[token][None, None], here).sum()
            chance = float(policy[token].detach().exp())
            value += chance * float(term.detach())
            slope += chance * torch.autograd.grad(term, theta, retain_graph=True)[0]
        means[type(penalty).__name__] = (value, slope)
    assert means["kl_to_reference"][0] == pytest.approx(float(exact.detach()))
    assert means["kl_to_reference_k1"][0] == pytest.approx(float(exact.detach()))
    assert float(means["kl_to_reference_k1"][1].abs().max()) < 1e-15
    assert torch.allclose(means["kl_to_reference_k2"][1], wanted)


def test_whatever_stands_outside_the_sampled_tokens_has_no_part():
    batch = batch_of([-1.0, -1.0], [-1.0])
    wild = torch.where(batch.sampled, batch.logp, torch.nan)
    wild[1, 1] = -torch.inf
    batch = replace(batch, logp=wild, sampler_logp=wild, extra={"logp@reference": wild + 0.1})
    for penalty in (
        kl_to_reference(1.0),
        kl_to_reference_k1(1.0),
        kl_to_reference_k2(1.0),
        keep_likelihood_of_tokens(),
    ):
        _, slope = slopes(penalty, batch)
        assert bool(slope.isfinite().all())
        assert bool(penalty.term(wild, batch).isfinite().all())


# --- 1-shot RLVR (arXiv 2504.20571) and the text form


def test_a_run_on_entropy_alone_needs_no_reference():
    batch = replace(entropies([0.5, 0.2], [0.3, 0.1]), reward=torch.tensor([1.0, 0.0]))
    alone = one_shot_entropy(policy=0.0, kl=0.0)
    assert not alone.credit(batch).any()
    assert "logp@reference" not in alone.needs
    assert "logp@reference" in one_shot_entropy().needs
    equal = replace(batch, reward=torch.ones(2), extra={"logp@reference": batch.logp})
    credited = one_shot_entropy().evaluate(equal)
    assert not credited.value.any()
    assert bool(credited.learning.all()), "equal rewards still learn from the bonus"


@pytest.mark.parametrize(
    "text",
    [
        "grpo() | kl_to_reference(strength=0.1) | keep_likelihood(strength=0.2, searches=2)",
        "grpo() | adaptive_entropy(target=0.3) | nucleus_entropy_anchor(strength=0.1)",
        "dapo() | entropy_smoothing(0.1, 0.8, 1.2, 0.1, 1.0)",
        "Objective(on_span('sampled', majority_vote() | keep_forks(0.2)), plain_ratio())",
    ],
)
def test_penalties_are_written_in_the_text_form(text):
    objective = parse(text)
    assert objective.expansion == parse(str(objective)).expansion


@pytest.mark.parametrize("kl", [0.0, 0.001])
def test_a_reference_is_asked_for_only_where_it_counts(kl):
    for objective in (tea_rl(kl=kl), llds(kl=kl), one_shot_entropy(kl=kl)):
        assert ("logp@reference" in objective.needs) == (kl > 0)


def test_a_token_that_stands_in_two_rows_counts_once():
    """Two rationale tokens of entropy 1, before the gold answer and again before the sampled one, whose two have 0."""
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    rationale = torch.tensor([[True, True, False, False]] * 2)
    batch = RolloutBatch(
        mask=mask,
        rationale=rationale,
        answer=torch.tensor([[False, False, True, False], [False] * 4]),
        response=torch.tensor([[False] * 4, [False, False, True, True]]),
        group=torch.zeros(2, dtype=torch.long),
        rollout=torch.zeros(2, dtype=torch.long),
        reward=torch.tensor([torch.nan, 1.0]),
        answer_logp=torch.tensor([-1.0, 0.0]),
        entropy=rationale.double(),
    )
    bonus = entropy_bonus(1.0)
    weight = bonus.weight(torch.zeros(2, 4), batch)
    assert batch.drawn_once.tolist() == [[False] * 4, [True] * 4]
    assert float(bonus.numerator(torch.zeros(2, 4), batch, weight)) / bonus.denominator(batch) == pytest.approx(-0.5)
