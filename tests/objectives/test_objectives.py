"""The reward objectives on worked groups, their surrogates and reductions, and how a step may be cut up."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import Objective
from qredit.core.objective import sum_terms
from qredit.core.reduce import mean_per_rollout, mean_per_token, sum_per_length, sum_per_rollout
from qredit.core.surrogate import (
    clipped_ratio,
    clipped_sequence_ratio,
    clipped_turn_ratio,
    gradient_keeping_clip,
    log_likelihood,
    score_function,
)
from qredit.credit.group import center_by_group, scale_by_batch_std
from qredit.credit.reward import reward
from qredit.objectives import REGISTRY, dapo, dr_grpo, garl, grpo, maxrl, paft, rloo
from qredit.objectives.parsing import example
from qredit.penalties.entropy import entropy_bonus
from qredit.utils.errors import QreditError
from tests.support.batches import likelihood_batch, reward_batch


def test_worked_advantages_of_one_success_in_four():
    """r = (1, 0, 0, 0): mean 1/4, std (n-1) 1/2."""
    batch = reward_batch([1.0, 0.0, 0.0, 0.0])
    scale = 0.5 + 1e-4
    assert grpo().credit(batch)[:, 0].tolist() == pytest.approx([0.75 / scale, *[-0.25 / scale] * 3])
    assert dapo().credit(batch)[:, 0].tolist() == pytest.approx([0.75 / scale, *[-0.25 / scale] * 3])
    assert dr_grpo(length=8).credit(batch)[:, 0].tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert rloo().credit(batch)[:, 0].tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert maxrl().credit(batch)[:, 0].tolist() == pytest.approx([3.0, -1.0, -1.0, -1.0], rel=1e-5)


@pytest.mark.parametrize("objective", [grpo(), dapo(), dr_grpo(length=8), rloo(), maxrl()], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_equal_rewards_give_exactly_nothing(objective, value):
    credit = objective.credit(reward_batch([value] * 3 + [1.0, 0.0], group=[0, 0, 0, 1, 1]))
    if objective == rloo():
        assert float(credit[:3].abs().max()) < 1e-15
    else:
        assert float(credit[:3].abs().max()) == 0.0
    assert float(credit[3:].abs().min()) > 0.0


def test_a_group_of_one_gives_nothing_but_keeps_no_nan():
    for objective in (grpo(), dapo(), dr_grpo(length=8), maxrl()):
        assert objective.credit(reward_batch([1.0])).tolist() == [[0.0] * 3]
    assert rloo().credit(reward_batch([1.0])).tolist() == [[1.0] * 3]


@given(st.permutations(range(6)), st.integers(-3, 3))
def test_rows_may_be_permuted_padded_and_groups_renamed(order, shift):
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    batch = reward_batch([1.0, 0.0, 0.5, 0.0, 0.0, 1.0], group=group)
    order = torch.tensor(order)
    moved = reward_batch(batch.reward[order], group=group[order] * 5 + shift)
    for objective in (grpo(), rloo(), maxrl()):
        assert torch.allclose(objective.credit(moved), objective.credit(batch)[order])
    likely = likelihood_batch([-1.0, -2.0, -0.5, -9.0, -8.0, -30.0], group=group)
    moved = likelihood_batch(likely.answer_logp[order], group=group[order] * 5 + shift)
    assert torch.allclose(garl(0.75).credit(moved), garl(0.75).credit(likely)[order])


def test_batch_std_runs_over_all_rows():
    batch = reward_batch([1.0, 0.0, 3.0, 3.0], group=[0, 0, 1, 1])
    credit = Objective(reward() | center_by_group() | scale_by_batch_std(epsilon=0.0)).credit(batch)
    std = float(torch.tensor([0.5, -0.5, 0.0, 0.0]).std())
    assert credit[:, 0].tolist() == pytest.approx([0.5 / std, -0.5 / std, 0.0, 0.0])


# --- surrogates


def slope(surrogate, coefficient, logp, batch):
    logp = logp.clone().requires_grad_()
    return torch.autograd.grad(surrogate(coefficient, logp, batch).sum(), logp)[0]


@pytest.mark.parametrize("surrogate", [score_function(), clipped_ratio()])
def test_on_policy_the_slope_is_minus_the_coefficient(surrogate):
    batch = reward_batch([1.0, 0.0])
    coefficient = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]])
    logp = torch.full((2, 3), -1.5)
    assert torch.allclose(slope(surrogate, coefficient, logp, batch), -coefficient)
    synced = replace(batch, sampler_logp=logp)
    assert torch.allclose(slope(surrogate, coefficient, logp, synced), -coefficient)


def test_the_clipped_ratio_on_each_side():
    """Ratio 1.5 and 0.5, A = ±1, clip 0.2/0.28: only moves that leave the region further are stopped."""
    batch = replace(reward_batch([0.0] * 4, lengths=[1] * 4), sampler_logp=torch.zeros(4, 1))
    logp = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()[:, None]
    coefficient = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    loss = clipped_ratio(0.2, 0.28)(coefficient, logp, batch)
    assert loss[:, 0].tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8])
    assert slope(clipped_ratio(0.2, 0.28), coefficient, logp, batch)[:, 0].tolist() == pytest.approx(
        [0.0, 1.5, -0.5, 0.0]
    )


OFFICIAL_DUAL_CLIP = {
    **dict.fromkeys(("canon", "siren", "tempo", "epo", "agentic_aepo", "dapo", "dapo_overlong", "aepo"), 3.0),
    **dict.fromkeys(("gigpo", "igpo", "matchtir", "siop", "istar", "vpr", "bi_level_gae"), 3.0),
    **dict.fromkeys(("empg", "mica", "arpo"), 3.0),  # without official code of the loss: verl's, our choice
    **dict.fromkeys(("delta", "steer", "tea_rl"), 10.0),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_a_far_token_of_a_bad_rollout_learns_as_officially(name):
    """A = -2: beyond the second clip the gradient is 0 and the loss -c·A; without one it is -A·ratio in both."""
    surrogate, cap = example(name).surrogate, OFFICIAL_DUAL_CLIP.get(name)
    if isinstance(surrogate, score_function | log_likelihood | clipped_sequence_ratio | clipped_turn_ratio):
        assert cap is None  # no ratio per token that is clipped
        return
    batch = replace(reward_batch([0.0] * 3, lengths=[1] * 3), sampler_logp=torch.zeros(3, 1))
    logp, coefficient = torch.tensor([2.9, 4.0, 12.0]).log()[:, None], torch.full((3, 1), -2.0)
    learns = [cap is None or ratio < cap for ratio in (2.9, 4.0, 12.0)]
    sizes = [2 * ratio for ratio in (2.9, 4.0, 12.0)]
    losses = [size if near else 2 * cap for size, near in zip(sizes, learns, strict=True)]
    assert surrogate(coefficient, logp, batch)[:, 0].tolist() == pytest.approx(losses)
    slopes = [size * near for size, near in zip(sizes, learns, strict=True)]
    assert slope(surrogate, coefficient, logp, batch)[:, 0].tolist() == pytest.approx(slopes)


@pytest.mark.parametrize("made", [clipped_ratio, gradient_keeping_clip])
def test_second_clip_leaves_good_rollouts_and_near_tokens_alone(made):
    ratios = torch.tensor([0.1, 0.9, 1.1, 2.9, 5.0, 9.0]).log()
    batch = replace(reward_batch([0.0] * 12, lengths=[1] * 12), sampler_logp=torch.zeros(12, 1))
    logp, coefficient = torch.cat([ratios, ratios])[:, None], torch.tensor([1.5] * 6 + [-1.5] * 6)[:, None]
    plain, capped = slope(made(), coefficient, logp, batch), slope(made(dual_clip=3.0), coefficient, logp, batch)
    assert torch.equal(plain[:10], capped[:10])
    assert plain[10:].min() > 5
    assert not capped[10:].any()


def test_a_second_clip_below_one_is_refused():
    with pytest.raises(QreditError, match="dual clip"):
        clipped_ratio(dual_clip=0.5)


def test_off_policy_only_sampled_tokens_carry_a_truncated_ratio():
    batch = likelihood_batch([-1.0, -1.0], rationale=1, forced=0, answer=1)
    logp = torch.tensor([[0.5, 9.0], [5.0, 9.0]]).log()
    off = replace(batch, sampler_logp=torch.tensor([[0.25, 1.0], [1.0, 1.0]]).log())
    coefficient = torch.ones(2, 2)
    ratios = -slope(score_function(ratio_max=3.0), coefficient, logp, off)
    assert ratios.tolist() == [[pytest.approx(2.0), 1.0], [pytest.approx(3.0), 1.0]]


# --- reductions


def test_reductions_on_worked_lengths():
    batch = reward_batch([0.0, 0.0], lengths=[1, 3])
    loss = torch.tensor([[4.0, 99.0, 99.0], [1.0, 2.0, 3.0]])

    def value(reduction):
        return float(reduction.numerator(loss, batch)) / reduction.denominator(batch)

    assert value(sum_per_rollout()) == pytest.approx((4 + 6) / 2)
    assert value(mean_per_rollout()) == pytest.approx((4 + 2) / 2)
    assert value(mean_per_token()) == pytest.approx(10 / 4)
    assert value(sum_per_length(5)) == pytest.approx(10 / (2 * 5))


OBJECTIVES = [grpo(), dapo(), dr_grpo(length=8), rloo(), maxrl(), garl(0.75), paft(0.5)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_gradient_is_the_same_however_a_step_is_cut(objective):
    group = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    rows = len(group)
    mask = torch.arange(6) < torch.tensor([6, 5, 6, 4, 6, 5, 5, 6])[:, None]
    answer = mask & (torch.arange(6) >= 3)
    whole = likelihood_batch(torch.linspace(-0.1, -6, rows), group, rationale=3, forced=0, answer=3)
    whole = replace(
        whole, mask=mask, rationale=whole.rationale & mask, answer=answer, reward=torch.arange(rows) % 3 / 2.0
    )
    logp = torch.randn(rows, 6, dtype=torch.float64).clamp(max=0)

    def gradient(parts):
        leaf = logp.clone().requires_grad_()
        batches = [_rows(whole, part) for part in parts]
        counts = [objective.denominators(batch) for batch in batches]
        total = {name: sum(count[name] for count in counts) for name in counts[0]}
        for batch, part in zip(batches, parts, strict=True):
            credited = objective.evaluate(batch)
            sum_terms(objective.numerators(leaf[part], batch, credited), total).backward()
        return leaf.grad

    at_once = gradient([torch.arange(rows)])
    assert float(at_once.abs().max()) > 0
    assert torch.allclose(gradient([torch.arange(3), torch.arange(3, 8)]), at_once)
    assert torch.allclose(gradient([torch.arange(3), torch.arange(3, 5), torch.arange(5, 8)]), at_once)
    leaf = logp.clone().requires_grad_()
    objective.loss(leaf, whole).backward()
    assert torch.allclose(leaf.grad, at_once)


def _rows(batch, index):
    names = ("mask", "rationale", "answer", "group", "close", "sampled", "reward", "answer_logp")
    return replace(batch, **{name: getattr(batch, name)[index] for name in names})


def test_the_entropy_bonus_is_a_mean_over_sampled_tokens():
    entropy = torch.tensor([[1.0, 2.0, 5.0], [3.0, 4.0, 5.0]], requires_grad=True)
    batch = replace(
        reward_batch([0.0, 0.0]), sampled=torch.tensor([[True, True, False], [True, True, False]]), entropy=entropy
    )
    objective = Objective(reward(), penalties=(entropy_bonus(0.1),))
    loss = objective.loss(torch.zeros(2, 3), batch)
    assert loss.item() == pytest.approx(-0.1 * 2.5)
    loss.backward()
    assert entropy.grad.tolist() == [[pytest.approx(-0.025), pytest.approx(-0.025), 0.0]] * 2
    assert objective.needs == {"reward", "entropy"}


@pytest.mark.parametrize("objective", [garl(0.75), paft(0.75), garl(1.0)], ids=str)
@pytest.mark.parametrize("log_w", [[-torch.inf] * 4, [-torch.inf, -1.0, -2.0, -3.0]])
@pytest.mark.parametrize("off_policy", [False, True])
def test_a_likelihood_of_zero_gives_no_nan_in_loss_or_gradient(objective, log_w, off_policy):
    batch = likelihood_batch(log_w)
    logp = torch.full(batch.mask.shape, -1.0)
    logp[torch.tensor(log_w) == -torch.inf, -1] = -torch.inf
    logp.requires_grad_()
    if off_policy:
        batch = replace(batch, sampler_logp=torch.full(batch.mask.shape, -200.0), logp=logp.detach())
    loss = objective.loss(logp, batch)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logp.grad.isfinite().all())


def test_a_weight_counts_alike_whatever_padding_and_the_tails():
    batch = reward_batch([1.0, 0.0], lengths=[2, 2])
    wide = reward_batch([1.0, 0.0], lengths=[2, 2])
    wide = replace(
        wide,
        **{
            name: torch.nn.functional.pad(getattr(wide, name), (0, 4))
            for name in ("mask", "rationale", "answer", "sampled")
        },
    )
    half = sum_per_rollout().denominator(batch, torch.full(batch.mask.shape, 0.5))
    assert half == sum_per_rollout().denominator(wide, torch.full(wide.mask.shape, 0.5)) == 1.0
    tails = replace(batch, rollout=torch.tensor([0, 0]))
    assert sum_per_rollout().denominator(tails, torch.ones(tails.mask.shape)) == 1.0
    loss = torch.ones(batch.mask.shape)
    assert float(mean_per_rollout().numerator(loss, batch, torch.full(batch.mask.shape, 0.1))) == pytest.approx(20.0)
