"""What a step's log makes of micro-batches."""

from dataclasses import replace

import pytest
import torch

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Credited
from qredit.engine.collective import SingleProcess
from qredit.engine.mismatch import collect_mismatch_stats, compute_mismatch_metrics
from qredit.engine.step_log import StepLog, collect_covariance, compute_metrics
from qredit.objectives import aepo
from qredit.objectives.parsing import parse


def rows(logp, sampled):
    mask = torch.ones_like(logp, dtype=torch.bool)
    return RolloutBatch(
        mask=mask, rationale=mask, answer=~mask, sampled=sampled, group=torch.zeros(len(logp), dtype=torch.long),
        reward=torch.ones(len(logp)), logp=logp, entropy=torch.ones_like(logp),
    )  # fmt: skip


def test_the_covariance_is_over_all_sampled_tokens_of_a_step():
    """In two micro-batches of different lengths; the token that was not sampled is far off."""
    first = rows(torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[True, True, False]]))
    second = rows(torch.tensor([[-0.5, -3.0, -0.1]]), torch.ones(1, 3, dtype=torch.bool))
    credits = [torch.tensor([[1.0, 1.0, 77.0]]), torch.tensor([[-1.0, -1.0, 0.5]])]
    log = StepLog(SingleProcess())
    for batch, credit in zip((first, second), credits, strict=True):
        log.add(parse("grpo()"), batch, collect_covariance(Credited(credit), batch))
    found = compute_metrics(parse("grpo()"), log.take())["coefficient/covariance"]
    both = torch.tensor([[1.0, 1.0, -1.0, -1.0, 0.5], [-1.0, -2.0, -0.5, -3.0, -0.1]], dtype=torch.float64)
    assert found == pytest.approx(float(torch.cov(both, correction=0)[0, 1]), rel=1e-6)


def test_unknown_coefficients_have_no_covariance():
    batch = rows(torch.tensor([[-1.0]]), torch.ones(1, 1, dtype=torch.bool))
    assert collect_covariance(None, batch) == {}
    log = StepLog(SingleProcess())
    log.add(parse("grpo()"), batch, collect_covariance(None, batch))
    assert "coefficient/covariance" not in compute_metrics(parse("grpo()"), log.take())


def test_rollouts_without_a_known_draw_are_no_mismatch():
    """Two equal rows: the first one's sampler told its densities, nothing is known of the second one's."""
    logp = torch.tensor([[-1.0, -2.0]]).repeat(2, 1)
    spans = torch.ones(2, 2, dtype=torch.bool)
    drawn = RolloutBatch(
        mask=spans, rationale=spans, answer=~spans, sampled=spans, group=torch.tensor([0, 0]),
        sampler_logp=torch.tensor([[-1.0, -2.0], [0.0, 0.0]]), extra={"reinforced": torch.tensor([False, True])},
    )  # fmt: skip
    told = compute_mismatch_metrics(
        collect_mismatch_stats(aepo(), drawn, replace(drawn, logp=logp, entropy=torch.ones(2, 2)))
    )
    ratio = "sampling/importance_sampling_ratio"
    assert told["sampling/sampling_logp_difference/max"] == 0.0
    assert [told[f"{ratio}/{name}"] for name in ("min", "mean", "max", "ess")] == [1.0] * 4
