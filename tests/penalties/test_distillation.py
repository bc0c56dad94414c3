"""Distillation: divergences as means over sampled tokens, what sampled estimators share with them, AdaKD's choices."""

from dataclasses import replace

import pytest
import torch

from qredit.objectives.parsing import parse
from qredit.penalties.distillation import adaptive_kl, forward_kl, reverse_kl
from qredit.penalties.reference import kl_to_reference, kl_to_reference_k2
from qredit.utils.errors import QreditError
from tests.penalties.test_penalties import batch_of, near, slopes

TOOL = torch.tensor([[True, False, True, True]])


def seen(**fields):
    """Four tokens, the second written by a tool."""
    values = {name: torch.tensor([row], dtype=torch.float64) for name, row in fields.items()}
    return replace(
        batch_of([-1.0] * 4), sampled=TOOL, extra={name.replace("_at_", "@"): v for name, v in values.items()}
    )


@pytest.mark.parametrize(("penalty", "name"), [(reverse_kl, "kl@coach"), (forward_kl, "forward_kl@coach")])
def test_a_divergence_is_a_mean_over_sampled_tokens(penalty, name):
    batch = seen(**{name.replace("@", "_at_"): [0.3, 9.0, 0.6, 0.9]})
    value, slope = slopes(penalty(0.5, "coach"), batch, wrt=name)
    assert value == pytest.approx(0.5 * 0.6)
    assert slope[0].tolist() == near(1 / 6, 0, 1 / 6, 1 / 6)


@pytest.mark.parametrize(
    ("estimator", "exact"),
    [
        (kl_to_reference_k2, lambda p, t: (p * (p / t).log()).sum()),
        (kl_to_reference, lambda p, t: (t * (t / p).log()).sum()),
    ],
    ids=["reverse", "forward"],
)
def test_sampled_estimators_have_the_gradient_in_the_mean(estimator, exact):
    """Every token of a vocabulary of three, weighted by its probability; the policy's logits moved by differences."""
    logits, teacher = torch.tensor([0.2, -0.4, 1.0]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    share = logits.softmax(0)

    def slope(token):
        at = logits.clone().requires_grad_()
        batch = replace(batch_of([float(share[token].log())]), extra={"logp@coach": teacher[token].log().view(1, 1)})
        logp = at.log_softmax(0)[token].view(1, 1)
        penalty = estimator(1.0, teacher="coach")
        weight = penalty.weight(torch.ones(1, 1), batch)
        return torch.autograd.grad(penalty.numerator(logp, batch, weight), at)[0]

    mean = sum(share[token] * slope(token) for token in range(3))
    step = 1e-5 * torch.eye(3).double()
    moved = [[exact((logits + sign * each).softmax(0), teacher) for sign in (1, -1)] for each in step]
    assert mean.tolist() == near(*[float(up - down) / 2e-5 for up, down in moved], abs=1e-8)


# --- AdaKD (arXiv 2510.11615)

ADAKD = adaptive_kl(0.5, "coach", warmup=2)
FIELDS = {"hellinger_at_coach": [0.1, 0.9, 0.4, 0.2], "tempered_kl_at_coach@0.5": [1.0, 9.0, 2.0, 4.0]}


@pytest.mark.parametrize(
    ("share", "weights"), [(1.0, [0.5, 0, 0.5, 0.5]), (0.7, [0, 0, 0.75, 0.75]), (0.1, [0, 0, 1.5, 0])], ids=str
)
def test_farthest_tokens_are_kept_and_averaged(share, weights):
    """⌊share · 3⌋ of the sampled tokens, at least one; a sum of weights of .5 · 3, divided by 3 tokens."""
    batch = seen(**FIELDS)
    state = {**ADAKD.init(), "share": share}
    assert ADAKD.weight_from(torch.ones(1, 4), batch, state)[0].tolist() == near(*weights)
    assert ADAKD.denominator(batch) == 3
    value, _ = slopes(ADAKD, batch, state=state, wrt="tempered_kl@coach@0.5")
    assert value == pytest.approx(sum(w * d for w, d in zip(weights, (1, 9, 2, 4), strict=True)) / 3)


def test_the_share_follows_the_average_of_the_divergence():
    """Two steps of warm-up, the third sets the mark; then average .99 · old + .01 · new against 5 % of the mark."""
    state, seen_shares = ADAKD.init(), []
    for far in (1.0, 1.0, 1.0, 2.0, 7.0, 1.0, -19.0, 1.0):
        state = ADAKD.update(state, {"sum": 3 * far, "tokens": 3.0})
        seen_shares.append((round(state["average"], 4), round(state["share"], 6), round(state["mark"], 4)))
    assert seen_shares[1][2] == 0, "no mark while it warms up"
    assert seen_shares[2] == (1.0, 1.0, 1.0)
    assert seen_shares[3:5] == [(1.01, 1.0, 1.0), (1.0699, 1.0, 1.0699)], "it may not rise above 1"
    assert seen_shares[6] == (0.8685, 0.95, 0.8685)
    risen = ADAKD.update({**state, "share": 0.5}, {"sum": 60.0, "tokens": 3.0})
    assert (risen["share"], risen["mark"]) == (0.525, risen["average"])
    floor = ADAKD.update({**state, "share": 0.1, "mark": 99.0}, {"sum": 1.0, "tokens": 1.0})
    assert floor["share"] == 0.1
    assert ADAKD.update(state, {"sum": 0.0, "tokens": 0.0}) == state


def test_the_average_counts_sampled_tokens_alone():
    assert ADAKD.statistics(torch.ones(1, 4), seen(**FIELDS)) == {"sum": pytest.approx(7.0), "tokens": 3.0}


def test_penalties_parse_back_and_name_their_fields():
    for penalty in (reverse_kl(0.1, "coach"), forward_kl(0.1, "coach"), ADAKD):
        assert parse(f"grpo() | {penalty}").penalties == (penalty,)
    assert ADAKD.needs == {"tempered_kl@coach@0.5", "hellinger@coach"}


@pytest.mark.parametrize("given", [{"hardness": -1.0}, {"warmup": -1}, {"move": 2.0}], ids=str)
def test_what_cannot_be_is_refused(given):
    with pytest.raises(QreditError, match=next(iter(given))):
        adaptive_kl(0.1, "coach", **{"warmup": 0} | given)
