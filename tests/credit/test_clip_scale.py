"""A trust region that is wider where a signal is large: worked numbers, sums and spans, and who refuses it."""

from dataclasses import dataclass, replace

import pytest
import torch

from qredit.core.chain import Coefficient, Credit, on_span, per_span
from qredit.core.objective import Objective
from qredit.core.surrogate import clipped_ratio, clipped_turn_ratio, gradient_keeping_clip
from qredit.credit.clip_scale import scale_clip
from qredit.credit.reward import reward
from qredit.objectives import a2tgpo
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from qredit.verl.settings import VerlSettings
from tests.credit.test_turn_credit import believed, turned


def scaled_by(x, strength=0.3):
    return 1 + strength * (2 * torch.sigmoid(torch.tensor(float(x), dtype=torch.float64)) - 1)


def test_a2tgpo_widens_by_the_worked_numbers():
    """Gains of the sheet: z is 1.225 and 1 in the first rollout; its last turn, which answers, keeps the width."""
    batch = believed([[0.2, 0.5, 0.6], [0.2, 0.3, 0.2], [0.2, 0.1]], [1.0, 0.0, 0.0])
    scale = a2tgpo().evaluate(batch).clip_scale
    assert scale is not None
    assert scale[0].numpy() == pytest.approx([1.164, 1.139, 1.0], abs=5e-4)
    assert scale[1].numpy() == pytest.approx([1.0, 0.861, 1.0], abs=5e-4)
    assert scale[2, :2].numpy() == pytest.approx([0.836, 1.0], abs=5e-4)


@pytest.mark.parametrize("make", [clipped_ratio, clipped_turn_ratio, gradient_keeping_clip])
@pytest.mark.parametrize(("advantage", "ratio", "loss"), [(1.0, 1.5, -1.2), (-1.0, 0.5, 0.9), (1.0, 1.1, -1.1)])
def test_a_scale_multiplies_both_half_widths(make, advantage, ratio, loss):
    """min(ratio · A, clip(ratio) · A) by hand; a scale of one half halves what the clip lets through."""
    batch, surrogate = turned([advantage], [1]), make(0.1, 0.2)
    batch = replace(batch, sampler_logp=torch.full_like(batch.mask, -1.0, dtype=torch.float64))
    logp = -1.0 + torch.tensor([[ratio]], dtype=torch.float64).log()
    coefficient = torch.tensor([[advantage]], dtype=torch.float64)
    assert float(surrogate(coefficient, logp, batch)) == pytest.approx(loss)
    half = surrogate.clip(coefficient, logp, batch, torch.full_like(logp, 0.5))
    width = 0.1 if advantage > 0 else -0.05
    bounded = min(ratio, 1 + width) if advantage > 0 else max(ratio, 1 + width)
    assert float(half) == pytest.approx(-bounded * advantage)


def test_scales_of_a_sum_are_multiplied():
    batch = turned([1.0, -2.0], [2, 2])
    once = reward() | scale_clip(0.3)
    value = Objective(once + reward(), clipped_ratio()).evaluate(batch)
    assert value.clip_scale is not None
    assert value.clip_scale[:, 0].numpy() == pytest.approx([float(scaled_by(1.0)), float(scaled_by(-2.0))])
    assert value.value[:, 0].tolist() == [2.0, -4.0]
    for source in (once + (reward() | scale_clip(0.5)), once | scale_clip(0.5)):
        both = Objective(source, clipped_ratio()).evaluate(batch).clip_scale
        assert both is not None
        assert float(both[0, 0]) == pytest.approx(float(scaled_by(1.0) * scaled_by(1.0, 0.5)))


def test_a_scale_on_a_span_leaves_the_rest_alone():
    batch = turned([1.0], [3])
    batch = replace(batch, rationale=torch.tensor([[True, True, False]]), response=torch.tensor([[False, False, True]]))
    for source in (
        reward() | on_span("rationale", scale_clip(0.3)),
        on_span("rationale", reward() | scale_clip(0.3)) + on_span("response", reward()),
        per_span(rationale=reward() | scale_clip(0.3), response=reward()),
        per_span(response=reward(), rationale=reward() | scale_clip(0.3)),
    ):
        scale = Objective(source, clipped_ratio()).evaluate(batch).clip_scale
        assert scale is not None
        assert scale[0].numpy() == pytest.approx([float(scaled_by(1.0))] * 2 + [1.0])


def test_what_does_not_count_keeps_the_width():
    value, keep = torch.tensor([[2.0, 2.0]]), torch.tensor([[True, False]])
    scale = scale_clip(0.3)(Coefficient(value, keep=keep), turned([1.0], [2])).clip_scale
    assert scale is not None
    assert scale[0].tolist() == pytest.approx([float(scaled_by(2.0)), 1.0])


def test_rows_without_a_reward_keep_the_width():
    scale = (
        Objective(reward() | scale_clip(0.3), clipped_ratio()).evaluate(turned([float("nan"), 1.0], [1, 1])).clip_scale
    )
    assert scale is not None
    assert float(scale[0, 0]) == 1.0
    assert float(scale[1, 0]) > 1.0


def test_a_part_of_the_rows_keeps_its_scale():
    credited = a2tgpo().evaluate(believed([[0.2, 0.5, 0.6], [0.2, 0.3, 0.2]], [1.0, 0.0]))
    part = credited.select(slice(1, 2)).narrow(2).clip_scale
    assert credited.clip_scale is not None
    assert part is not None
    assert torch.equal(part, credited.clip_scale[1:2, :2])


def test_an_objective_without_a_trust_region_refuses_a_scale():
    with pytest.raises(QreditError, match="scales a trust region, and log_likelihood"):
        TrainOptions(objective="garl(q=0.75) | scale_clip(0.3)").make_objective()
    with pytest.raises(QreditError, match="scales a trust region"):
        VerlSettings.read({"objective": "garl(q=0.75) | scale_clip(0.3)"}).make_objective()
    with pytest.raises(QreditError, match="scales a trust region, and score_function"):
        Objective(reward() | scale_clip(0.3)).evaluate(turned([1.0], [1]))
    with pytest.raises(QreditError, match="strength of scale_clip"):
        scale_clip(1.5)


@dataclass(frozen=True)
class Unsaid(Credit):
    """A stage of the user's that scales and does not say so."""

    def __call__(self, coefficient, batch):
        return replace(coefficient, clip_scale=torch.ones_like(coefficient.value))


def test_a_scale_that_nobody_reads_is_refused():
    batch = turned([1.0], [1])
    objective = Objective(reward() | Unsaid())
    with pytest.raises(QreditError, match="scales a trust region, and score_function"):
        objective.numerators(torch.zeros(1, 1), batch, objective.evaluate(batch))
