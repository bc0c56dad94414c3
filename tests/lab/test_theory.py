"""The theorems as measurements: instruments against worked values, verdicts that turn when a theorem is wrong."""

import csv
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from qredit import QreditError
from qredit.cli.lab_command import finding_to_dict
from qredit.cli.main import main
from qredit.core import tsallis
from qredit.core.batch import RolloutBatch
from qredit.lab import REGISTRY, best_of_n, bias, cliff, coverage, escape, escort, noise, optimum, saturation
from qredit.lab.bias import GRADED, SPARSE
from qredit.lab.cold_models import SigmoidModel, TabularModel
from qredit.lab.escape import Descent, Escape, measure_flow_escape, measure_sgd_escape
from qredit.lab.finding import Finding, make_claim, make_curve
from qredit.lab.flow import integrate_gradient_flow
from qredit.lab.minimize import minimize_expected_loss
from qredit.lab.policies import make_graded_policy, make_policy, make_sparse_policy
from qredit.objectives import garl, paft
from qredit.stats.line_fit import fit_line
from qredit.testing.moments import exact_moments
from tests.support import typecheck
from tests.support.marks import e2e
from tests.support.paths import ROOT

COLD = torch.tensor([1e-6, 1e-3], dtype=torch.float64)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- instruments


def test_a_flow_takes_the_time_of_its_closed_form():
    """θ̇ = θ from 1 and from 1/2: at e after 1 and 1 + log 2; a start that is there already takes no time."""
    path = integrate_gradient_flow(
        lambda theta: -theta[:, 0].square() / 2, lambda theta: theta[:, 0].log(), double(1, 0.5, 3)[:, None], math.e
    )
    assert path.first_time(math.e).tolist() == pytest.approx([1.0, 1 + math.log(2), 0.0], rel=1e-6)


def test_a_flow_that_falls_never_arrives():
    path = integrate_gradient_flow(
        lambda theta: theta[:, 0].square() / 2, lambda theta: theta[:, 0].log(), double(1.0)[:, None], math.e
    )
    assert path.first_time(math.e).tolist() == [math.inf]
    assert len(path.time) == 1


def test_a_line_through_points():
    line = fit_line(double(0, 1, 2), double(1, 3, 5))
    assert (line.slope, line.intercept, line.r2) == pytest.approx((2.0, 1.0, 1.0))
    bent = fit_line(double(0, 1, 2), double(0, 2, 1))  # mean 1, slope 1/2: residuals -1/2, 1, -1/2 of 1, 1, 0
    assert (bent.slope, bent.intercept, bent.r2) == pytest.approx((0.5, 0.5, 1 - 1.5 / 2))


@pytest.mark.parametrize("p", [1e-8, 1e-3, 0.3])
def test_policies_of_both_regimes_have_the_success_asked_for(p):
    assert make_graded_policy(p).success == pytest.approx(p, rel=1e-12)
    assert make_sparse_policy(p).success == pytest.approx(p, rel=1e-12)
    assert make_graded_policy(p).answer_logp[:, 0].exp().tolist() == pytest.approx([p / 2, p, 2.25 * p])
    assert make_sparse_policy(p).prior.tolist() == pytest.approx([p / 0.9, 1 - p / 0.9])


def test_a_success_probability_out_of_reach_is_refused():
    with pytest.raises(QreditError, match="graded policy needs a success probability between 0 and 0.444, got 0.5"):
        make_graded_policy(0.5)


@pytest.mark.parametrize("model", [SigmoidModel(), TabularModel()], ids=lambda model: model.name)
def test_a_cold_model_starts_where_it_should(model):
    assert model.log_success(model.start(COLD)).exp().tolist() == pytest.approx(COLD.tolist(), rel=1e-9)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_the_tabular_estimate_has_the_mean_of_garl(q):
    """Over 20 000 groups, within five standard errors in every parameter."""
    groups, policy = 20_000, make_graded_policy(0.2)
    theta = policy.theta.expand(groups, -1)
    drawn = TabularModel(rollouts=4).garl_gradient(theta, q, torch.Generator().manual_seed(1))
    expected = exact_moments(garl(q, normalize=False), policy, 4).mean
    error = drawn.std(0) / math.sqrt(groups)
    assert bool(((drawn.mean(0) - expected).abs() <= 5 * error + 1e-9).all())


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_the_sigmoid_estimate_is_garl_on_fixed_rationales(q):
    model, theta = SigmoidModel(rollouts=8), double(-3.0)[:, None]
    p = float(theta.sigmoid())
    v = 2 * torch.rand(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    answer = torch.ones(8, 1, dtype=torch.bool)
    batch = RolloutBatch(
        mask=answer,
        rationale=~answer,
        answer=answer,
        group=torch.zeros(8, dtype=torch.long),
        answer_logp=(p * v[0]).log(),
    )
    coefficient = garl(q, normalize=False).credit(batch)[:, 0].double()
    estimate = model.garl_gradient(theta, q, torch.Generator().manual_seed(3))
    assert float(estimate) == pytest.approx(-float(coefficient.mean()) * (1 - p), rel=1e-6)


@pytest.mark.parametrize(
    ("q", "expected"), [(1.0, (0.5, 0.3, 0.2)), (0.5, (25 / 38, 9 / 38, 4 / 38)), (0.0, (1, 0, 0))]
)
def test_the_minimiser_finds_worked_minima(q, expected):
    """α² = 0.25, 0.09, 0.04 at q = 1/2."""
    assert minimize_expected_loss(double(0.5, 0.3, 0.2), q).tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("q", [0.25, 1.0])
def test_pafts_variance_from_one_draw_is_that_from_all(q):
    policy = make_graded_policy(0.2)
    whole = exact_moments(paft(q, normalize=False), policy, 3)
    found = bias.paft_moments(policy, q, 3)
    assert torch.allclose(found.mean, whole.mean, rtol=1e-6)
    assert found.variance == pytest.approx(whole.variance, rel=1e-6)


def test_the_excess_of_two_examples_is_worked_by_hand():
    p = double(0.1, 0.5)
    assert coverage.excess(p, 1.0) == pytest.approx(-(math.log(0.1) + math.log(0.5)) / 2 + math.log(0.3))
    assert coverage.second_order(p, 1.0) == pytest.approx(0.04 / (2 * 0.09))


# --- the theorems


@pytest.mark.parametrize(("regime", "p"), [(GRADED, 1e-4), (SPARSE, 0.3)], ids=["graded", "sparse"])
@pytest.mark.parametrize("q", [0.25, 0.75])
def test_the_measured_bias_is_the_formula(regime, p, q):
    row = bias.coefficient(regime, q, p)
    assert row.coefficient == pytest.approx(row.formula, rel=0.01)
    assert row.error < 0.01


def test_amplification_saturates_where_success_is_never_sampled():
    """E[w̄^{1-q}]/P with w̄ = 0.9 k/M, k binomial: 14.6 at q = 0.75, M = 32, P = 1e-5, where P^{-q} is 5623."""
    p, q, m = 1e-5, 0.75, 32
    hit = p / 0.9
    expected = sum(math.comb(m, k) * hit**k * (1 - hit) ** (m - k) * (0.9 * k / m) ** (1 - q) for k in range(1, m + 1))
    found = saturation.expected_amplification(make_sparse_policy(p), q, m)
    assert found == pytest.approx(expected / p, rel=1e-4)
    assert found == pytest.approx(14.56, abs=0.005)
    assert saturation.expected_amplification(make_graded_policy(p), q, m) == pytest.approx(5623, rel=0.02)


def test_tied_optima_flip_and_entropy_holds_them():
    """Rewards 1 ± .001: all or nothing. With τ = .1 and 1.05, .95, .5: e^0, e^-1, e^-5.5 over their sum 1.3720."""
    for ahead in (0, 1):
        reward = double(*([1.001, 0.999, 0.5], [0.999, 1.001, 0.5])[ahead])
        assert cliff.find_best_policy(reward, 0.0)[ahead] > 1 - 1e-6
    smooth = cliff.find_best_policy(double(1.05, 0.95, 0.5), 0.1)
    assert smooth.tolist() == pytest.approx([0.7289, 0.2681, 0.0030], abs=1e-4)
    assert cliff.share_of_first(0.1, 0.1) == pytest.approx(0.7311, abs=1e-4)
    assert cliff.price(0.1) == pytest.approx(0.5 * math.exp(-5) / (2 + math.exp(-5)))


COIN = best_of_n.Outcomes("coin", double(0.5, 0.5), double(0, 1))
DIE = best_of_n.Outcomes("die", double(0.5, 0.25, 0.25), double(1, 0, 1))


def test_best_of_two_by_hand():
    """A coin: 1/4 and 3/4, KL 3/4 log 3/2 + 1/4 log 1/2. A tie: 0 wins 1/16, the rest is shared as 2 to 1."""
    assert best_of_n.best_of(COIN, 2).tolist() == pytest.approx([0.25, 0.75])
    kl = best_of_n.divergence(best_of_n.best_of(COIN, 2), COIN.p)
    assert kl == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))
    assert kl < best_of_n.bound(2) == pytest.approx(math.log(2) - 0.5)
    assert best_of_n.best_of(DIE, 2).tolist() == pytest.approx([0.625, 0.0625, 0.3125])


def test_a_coin_tilted_to_a_divergence_has_it():
    """e^s/(1 + e^s) = 3/4 at s = log 3."""
    assert best_of_n.tilt(COIN, math.log(3)).tolist() == pytest.approx([0.25, 0.75])
    kl = best_of_n.divergence(double(0.25, 0.75), COIN.p)
    assert best_of_n.tilt_to(COIN, kl).tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("part", "wrong", "claim"),
    [
        ("best_of", lambda right: lambda o, n: right(o, n + 1), "distribution with ties"),
        ("enumerate_best_of", lambda right: lambda o, n: right(o, n).flip(0), "distribution with ties"),
        ("bound", lambda right: lambda n: math.log(n) - 1, "KL above the bound"),
        ("bound", lambda right: lambda n: 1.01 * right(n), "equally likely outcomes"),
        ("tilt_to", lambda right: lambda o, kl: right(o, 0.9 * kl), "reward above the tilted"),
        ("tilt_to", lambda right: lambda o, kl: right(o, 1.01 * kl), "with two rewards"),
    ],
)  # fmt: skip
def test_each_claim_about_best_of_n_can_fail(part, wrong, claim, monkeypatch):
    monkeypatch.setattr(best_of_n, part, wrong(getattr(best_of_n, part)))
    failed = [one.text for one in quick("best_of_n").claims if not one.holds]
    assert any(claim in text for text in failed)


def quick(name, budget=3000) -> Finding:
    """The measurement of a theorem, with fewer commitments and starts; `budget` is of steps of SGD."""
    with typecheck.unchecked():
        return measurements(budget)[name]()


def measurements(budget):
    return {
        "escape": lambda: escape.measure((0.5, 1.0), 4, sigmoid=Descent(budget), tabular=Descent(budget // 6)),
        "optimum": lambda: optimum.measure((0.5, 1.0), 3),
        "noise": lambda: noise.measure((0.5,)),
        "bias": lambda: bias.measure((0.5,)),
        "saturation": lambda: saturation.measure((0.75,)),
        "escort": lambda: escort.measure(((0.5, 0.3, 0.2),), (0.0, 0.5, 1.0)),
        "coverage": lambda: coverage.measure((0.5,)),
        "cliff": lambda: cliff.measure((-0.01, 0.01), (0.1,)),
        "best_of_n": lambda: best_of_n.measure((2, 8), seeds=1),
    }


@functools.cache
def true(name) -> Finding:
    return quick(name)


@pytest.mark.e2e
@pytest.mark.slow
def test_escape_times_agree_within_the_budget():
    """At q = 1/2 the sigmoid model needs 2/√p0 steps: 20 000 from 1e-8, beyond the budget of 3000; 2900 from 4.6e-7."""
    escaped = true("escape")
    starts = {fit.model: (fit.starts, fit.coldest) for fit in escaped.tables["fits"]}
    assert starts["sigmoid"] == (4, pytest.approx(1e-8))
    assert starts["sigmoid-sgd"] == (3, pytest.approx(10 ** (-8 + 5 / 3)))
    assert "tabular-sgd" not in starts  # two starts are no fit
    censored = [c for c in escaped.panels[0].curves if c.kind == "SGD, right-censored" and c.x]
    assert [(c.label, c.x, c.y) for c in censored] == [("q = 0.5", (pytest.approx(1e-8),), (3000.0,))]


def test_sgd_is_not_begun_in_vain_and_ends_with_the_budget():
    @dataclass(frozen=True)
    class Counted(SigmoidModel):
        begun: list[int] = field(default_factory=list)

        def garl_gradient(self, theta, q, generator):
            self.begun.append(len(theta))
            return super().garl_gradient(theta, q, generator)

    model, p0 = Counted(), double(1e-8, 1e-6, 1e-3)
    flow = Escape(1.0, p0, double(15, 10, 10))  # 1e-6 takes 15: a flow that promised too much
    found = measure_sgd_escape(model, flow, Descent(budget=20, rate=0.5), delta=0.5)
    assert model.begun == [2] * 20
    assert found.time.tolist() == [math.inf, math.inf, pytest.approx(8, abs=1)]


@pytest.mark.e2e
@pytest.mark.slow
def test_escape_prints_fits_of_sigmoid_model_once_for_each_q():
    told = json.loads(json.dumps(finding_to_dict(true("escape"))))
    sigmoid = [fit for fit in told["fits"] if fit["model"] == "sigmoid"]
    assert [(fit["q"], fit["expected"]) for fit in sigmoid] == [(0.5, -0.5)]
    assert all(abs(fit["slope"] - fit["expected"]) < 0.05 for fit in told["fits"])
    assert told["q1"]["r2"] > 0.99


@pytest.mark.e2e
@pytest.mark.parametrize(("error", "agrees"), [(0.0, True), (0.1, False)])
def test_the_constants_of_escape_times_are_the_theorems(error, agrees, monkeypatch):
    """From 1e-8, without the power of p0, q = 1/2 takes half the time of q = 3/4: (1 - 3/4)/(1 - 1/2)."""
    right = tsallis.loss
    monkeypatch.setattr(tsallis, "loss", lambda p, q: right(p, q - error))
    flows = [measure_flow_escape(SigmoidModel(), q, double(1e-8), 0.5) for q in (0.5, 0.75)]
    found, wanted = escape.escape_constants(flows)
    assert wanted.tolist() == [0.5]
    assert make_claim("", found, wanted, escape.CONSTANT_TOLERANCE, relative=True).holds is agrees


@pytest.mark.e2e
@pytest.mark.slow
def test_bias_prints_a_coefficient_and_a_formula_for_each_row():
    told = json.loads(json.dumps(finding_to_dict(true("bias"))))
    assert len(told["rows"]) == 6
    for row in told["rows"]:
        assert {"q", "m", "p", "coefficient", "formula"} <= row.keys()
        assert row["coefficient"] == pytest.approx(row["formula"], rel=0.05)


LONGER = ("noise", "bias", "saturation")
"""What takes more than a second to measure."""
WRONG = {
    "escape": (tsallis, "loss", lambda right: lambda p, q: right(p, max(q - 0.1, 0.0))),
    "optimum": (tsallis, "loss", lambda right: lambda p, q: (1 + 0.01 * (1 - q)) * right(p, q)),
    "noise": (tsallis, "noise_equilibrium", lambda right: lambda eps, q: right(eps, 1.0)),
    "bias": (tsallis, "estimator_bias", lambda right: lambda *given: 1.1 * right(*given)),
    "saturation": (saturation, "amplification", lambda right: lambda p, q: right(p, q * 0.98)),
    "escort": (tsallis, "escort", lambda right: lambda alpha, q: right(alpha, 1.0)),
    "coverage": (coverage, "second_order", lambda right: lambda p, q: 2 * right(p, q)),
    "cliff": (cliff, "share_of_first", lambda right: lambda delta, tau: right(2 * delta, tau)),
    "best_of_n": (best_of_n, "bound", lambda right: lambda n: right(n) - 0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [e2e(name) if name in ("escape", *LONGER) else name for name in REGISTRY])
def test_the_verdict_is_that_they_agree(name):
    finding = true(name)
    assert finding.verdict.startswith("Measured numbers and theorem agree: ")
    assert "FAILS" not in finding.verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param("escape", marks=pytest.mark.long), *(e2e(n) if n in LONGER else n for n in list(WRONG)[1:])],
)
def test_the_verdict_says_so_when_a_theorem_is_wrong(name, monkeypatch):
    """Each formula replaced by a wrong one; for escape, the loss of another q; for optimum, one that is faster.

    For escape without SGD: the claim about gradient flow itself has to fail, which holds where the loss is right.
    """
    place, formula, wrong = WRONG[name]
    monkeypatch.setattr(place, formula, wrong(getattr(place, formula)))
    finding = quick(name, budget=0)
    assert not finding.agrees
    assert "DISAGREE" in finding.verdict
    assert ("by gradient flow: FAILS" if name == "escape" else "FAILS, off by") in finding.verdict


def test_a_claim_holds_within_its_tolerance_only():
    assert make_claim("", [1.04, 2.0], [1.0, 2.05], 0.05).holds
    assert not make_claim("", [1.06], 1.0, 0.05).holds
    assert make_claim("", [10.4], 10.0, 0.05, relative=True).deviation == pytest.approx(0.04)
    assert not make_claim("", [1.0, math.nan], 1.0, 0.05).holds
    assert not make_claim("", [], 1.0, 0.05).holds


def test_a_curve_leaves_out_what_was_not_reached():
    assert make_curve("", 0, "SGD", [1, 2, 3], [1.0, math.inf, 5.0]).x == (1.0, 3.0)


# --- the command


@pytest.mark.e2e
def test_the_command_writes_a_plot_and_its_points(tmp_path, capsys):
    assert main(["lab", "coverage", "--output", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["agrees"] is True
    assert told["verdict"].startswith("Measured numbers and theorem agree")
    assert Path(told["png"]).read_bytes().startswith(b"\x89PNG")
    with Path(told["csv"]).open(newline="") as file:
        points = list(csv.DictReader(file))
    curves = [c for panel in coverage.measure().panels for c in panel.curves]
    assert len(points) == sum(len(c.x) for c in curves)
    assert {point["kind"] for point in points} == {"second order", "measured"}
    assert float(points[0]["y"]) == pytest.approx(curves[0].y[0], rel=1e-5)


def test_the_command_prints_table_and_verdict(tmp_path, capsys):
    assert main(["lab", "coverage", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Measured numbers and theorem agree" in out
    assert "evenly spread" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["lab", "escpe"],
            "unknown theorem 'escpe'; did you mean 'escape'? Choices: all, best_of_n, bias, cliff, coverage,",
        ),
        (["lab"], "the following arguments are required: theorem"),
        (["lab", "coverage", "--output", "{file}/sub"], "cannot write to {file}/sub"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, message, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main([word.format(file=file) for word in words]) == 2
    assert capsys.readouterr().err.startswith(f"qredit: {message.format(file=file)}")


def test_the_page_shows_every_theorem_as_the_command_found_it():
    page = (ROOT / "docs" / "theory.md").read_text()
    for name in REGISTRY:
        assert f"`qredit lab {name}`: Measured numbers and theorem agree:\n\n- " in page
        assert f"(theory/{name}.png)" in page


def test_below_one_success_in_a_group_the_bias_is_no_small_part():
    """w in {0, 1}, q = 0.75, M = 8, P = 0.01: 85 % of the gradient, where q/M is 9 %; of that order at M·P = 40."""

    def bias(p, rollouts):
        prior = torch.tensor([p, 1 - p], dtype=torch.float64)
        policy = make_policy(prior, torch.tensor([-1e-12, -700.0], dtype=torch.float64))
        exact, found = policy.loss_gradient(0.75), exact_moments(garl(0.75, normalize=False), policy, rollouts).mean
        return float((found - exact).norm() / exact.norm())

    assert bias(0.01, 8) == pytest.approx(0.854, abs=5e-4)
    assert bias(0.5, 80) < 0.75 / 80
