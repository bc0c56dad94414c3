"""Off-policy likelihood: the importance ratio of a rationale stands in the weights and nowhere else."""

import math
from dataclasses import replace

import pytest
import torch

from qredit.core.batch import RolloutBatch, concatenate
from qredit.core.chain import on_span, per_span
from qredit.core.importance import sequence_mask, sequence_truncate, token_mask, token_truncate
from qredit.core.objective import Objective
from qredit.core.surrogate import clipped_ratio, score_function
from qredit.credit.likelihood import amplified_likelihood
from qredit.credit.log_likelihood import weigh_by_ratio
from qredit.credit.reward import reward
from qredit.objectives import garl, paft, rloo
from qredit.objectives.parsing import parse
from qredit.testing.laws.estimator import TABLE, perturb_policy
from qredit.testing.moments import exact_moments
from qredit.utils.errors import QreditError
from tests.support.batches import likelihood_batch, reward_batch


def two_rationales(copies: int = 5) -> RolloutBatch:
    """z is one of two, drawn alike (.5, .5); now p(z) = (.7, .3) and w = (.9, .1)."""
    kind = torch.tensor([0] * copies + [1] * copies)
    now, w = (torch.tensor(pair, dtype=torch.float64).log()[kind] for pair in ((0.7, 0.3), (0.9, 0.1)))
    batch = likelihood_batch(w, rationale=1, forced=0, answer=1)
    half = torch.full(batch.mask.shape, math.log(0.5), dtype=torch.float64)
    return replace(batch, logp=torch.stack([now, w], 1), sampler_logp=half)


@pytest.mark.parametrize(
    ("q", "off_policy", "ignoring"), [(0.0, (0.63, 0.03), (0.45, 0.05)), (0.75, (0.860, 0.041), (0.757, 0.084))]
)
def test_the_answers_weight_is_that_of_the_current_policy(q, off_policy, ignoring):
    """P = .7·.9 + .3·.1 = .66; rationale z should carry p(z) w(z) / P^q on its answer."""
    batch = two_rationales()
    for given, expected in ((batch, off_policy), (replace(batch, sampler_logp=None), ignoring)):
        answer = garl(q, normalize=False).credit(given)[:, 1] / len(batch.mask)
        assert (answer[:5].sum().item(), answer[5:].sum().item()) == pytest.approx(expected, abs=5e-4)


def test_the_baseline_carries_the_ratio():
    batch = two_rationales(copies=1)
    first, second = garl(0.0).credit(batch)[:, 0].tolist()
    assert first == pytest.approx(1.4 * 0.9 - 1.4 * 0.06)
    assert second == pytest.approx(0.6 * 0.1 - 0.6 * 1.26)


def test_sequences_and_tokens_are_truncated_as_named():
    batch = likelihood_batch([-1.0, -1.0], rationale=2, forced=1)
    now = torch.tensor([[2.0, 2.0, 9.0, 9.0, 9.0], [4.0, 0.5, 9.0, 9.0, 9.0]]).log()
    batch = replace(batch, logp=now, sampler_logp=torch.zeros_like(now))
    assert sequence_truncate(3.0).log(batch, "test").exp().tolist() == pytest.approx([3.0, 2.0])
    assert token_truncate(3.0).log(batch, "test").exp().tolist() == pytest.approx([4.0, 1.5])
    assert sequence_truncate(math.inf).log(batch, "test").exp().tolist() == pytest.approx([4.0, 2.0])
    assert sequence_mask(3.0).log(batch, "test").exp().tolist() == pytest.approx([0.0, 2.0])
    assert token_mask(3.0).log(batch, "test").exp().tolist() == pytest.approx([4.0, 0.5])


def test_a_ratio_can_be_chosen_in_the_text_of_an_objective():
    objective = parse("garl(q=0.5, ratio=token_truncate(limit=2.0))")
    assert objective == garl(0.5, ratio=token_truncate(2.0))
    assert parse(str(objective)) == objective
    with pytest.raises(QreditError, match="limit"):
        parse("garl(q=0.5, ratio=sequence_truncate(limit=0.5))")


def test_log_probabilities_are_asked_for_where_samplers_differ():
    batch = replace(two_rationales(), logp=None)
    with pytest.raises(QreditError, match="logp"):
        garl(0.5).credit(batch)
    assert garl(0.5).needs == {"answer_logp"}
    assert garl(0.5).needs_off_policy == paft(0.5).needs_off_policy == {"logp"}
    assert parse("grpo()").needs_off_policy == frozenset()


@pytest.mark.parametrize("surrogate", [score_function(), clipped_ratio(0.1, 0.1)])
@pytest.mark.parametrize("objective", [garl(0.5), paft(0.5)], ids=str)
def test_no_surrogate_counts_the_ratio_a_second_time(objective, surrogate):
    batch = two_rationales()
    logp = batch.logp.clone().requires_grad_()

    def slope(made: Objective) -> torch.Tensor:
        return torch.autograd.grad(made.loss(logp, batch), logp)[0]

    assert torch.allclose(slope(replace(objective, surrogate=surrogate)), slope(objective))
    assert torch.allclose(slope(objective), -objective.credit(batch).double() / len(batch.mask))


def test_in_a_sum_with_rewards_each_row_carries_its_ratio_once():
    gold = replace(two_rationales(1), reward=torch.full((2,), torch.nan, dtype=torch.float64))
    said = reward_batch([1.0, 0.0], lengths=[2, 2])
    said = replace(said, logp=gold.logp, sampler_logp=gold.sampler_logp, answer_logp=torch.zeros(2).double())
    batch = concatenate([gold, replace(said, seed=0)])
    parts = (
        per_span(answer=amplified_likelihood(0.0), rationale=amplified_likelihood(0.0)),
        on_span("sampled", reward()),
    )
    both = Objective(parts[0] + parts[1], score_function(ratio_max=9.0))
    logp = batch.logp.clone().requires_grad_()
    slope = -4 * torch.autograd.grad(both.loss(logp, batch), logp)[0]
    assert slope[:2].tolist() == [pytest.approx([1.4 * 0.9] * 2), pytest.approx([0.6 * 0.1] * 2)]
    assert slope[2].tolist() == pytest.approx([1.4, 1.8])  # p/μ of each token of the rewarded row
    assert both.evaluate(batch).holds_ratio[:, 0].tolist() == [True, True, False, False]


def test_on_policy_nothing_is_marked_and_nothing_changes():
    batch = replace(two_rationales(), sampler_logp=None)
    for objective in (garl(0.75), paft(0.75)):
        credited = objective.evaluate(batch)
        assert credited.holds_ratio is None
        synced = objective.evaluate(replace(batch, sampler_logp=batch.logp))
        assert torch.equal(credited.value, synced.value)


def test_a_reward_is_weighed_by_the_ratio_of_all_tokens():
    """The exact mean over rollouts of another policy is the gradient, with a ratio of the whole rollout alone."""
    far = replace(TABLE, theta=TABLE.theta + 4 * (perturb_policy(TABLE).theta - TABLE.theta))
    gradient = TABLE.loss_gradient(0.0)

    def error(objective: Objective) -> float:
        return float((exact_moments(objective, TABLE, 3, far).mean - gradient).norm() / gradient.norm())

    for ratio in (sequence_truncate(math.inf), sequence_mask(math.inf)):
        assert error(rloo() | weigh_by_ratio(ratio)) < 1e-5
    assert error(rloo()) > 0.3
    assert error(rloo() | weigh_by_ratio(sequence_mask(1.2))) > 0.02


def test_truncation_that_is_reached_costs_bias_and_other_none():
    far = replace(TABLE, theta=TABLE.theta + 4 * (perturb_policy(TABLE).theta - TABLE.theta))

    def error(ratio) -> float:
        mean = exact_moments(garl(0.0, ratio=ratio), TABLE, 3, far).mean
        return float((mean - TABLE.loss_gradient(0.0)).norm() / TABLE.loss_gradient(0.0).norm())

    for unbounded in (sequence_truncate, token_truncate, sequence_mask, token_mask):
        assert error(unbounded(math.inf)) < 1e-5
        assert error(unbounded(1.2)) > 0.02
