"""qredit probe: what is predicted agrees with closed forms, what is advised with what was seen."""

import json
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from qredit.cli.main import main
from qredit.cli.probe_command import ProbeOptions
from qredit.core import tsallis
from qredit.lab.policies import GRADED_MULTIPLES, HIT_LIKELIHOOD, MISS_LOG_LIKELIHOOD, PRIOR
from qredit.objectives import REGISTRY
from qredit.objectives.parsing import parse
from qredit.probe import predict, recommend, summary
from qredit.probe.predict import (
    Q_VALUES,
    effective_rewards,
    log_escape_time,
    mixed_expected,
    mixed_seen,
)
from qredit.probe.recommend import Case, is_graded
from qredit.runs.options import TrainOptions
from qredit.stats.interval import bootstrap_mean, clopper_pearson
from qredit.stats.weights import effective_size
from qredit.utils.errors import QreditError
from qredit.utils.formatting import format_multiple, format_probability, format_share
from tests.support.folders import data_file, model_folder, rows

M, N = 32, 64


def none_right(log_w):
    return torch.zeros(log_w.shape, dtype=torch.bool)


def constant(p, examples=N, m=M):
    return torch.full((examples, m), math.log(p), dtype=torch.float64)


def graded(p, examples=N, m=M):
    """Draws from the lab's graded policy."""
    drawn = torch.multinomial(torch.tensor(PRIOR), examples * m, replacement=True).view(examples, m)
    return torch.tensor(GRADED_MULTIPLES, dtype=torch.float64).log()[drawn] + math.log(p)


def sparse(p, examples=N, m=M):
    """Draws from the lab's sparse policy."""
    hit = torch.rand(examples, m) < p / HIT_LIKELIHOOD
    return torch.where(hit, math.log(HIT_LIKELIHOOD), MISS_LOG_LIKELIHOOD).double()


def wide(middle, deviation, examples=N, m=M):
    return torch.randn(examples, m, dtype=torch.float64) * deviation + middle


def at(predicted, q):
    return predicted.of[Q_VALUES.index(q)]


# Intervals


def test_clopper_pearson_has_its_textbook_values():
    found = clopper_pearson(3, 20)
    assert 10**found.value == pytest.approx(0.15)
    assert 10**found.low == pytest.approx(0.032071, abs=1e-6)
    assert 10**found.high == pytest.approx(0.378927, abs=1e-6)


def test_without_a_success_the_bound_is_the_rule_of_three():
    found = clopper_pearson(0, 2048)
    assert found.value == found.low == -math.inf
    assert 10**found.high == pytest.approx(1 - 0.05 ** (1 / 2048), rel=1e-12)
    assert 10**found.high == pytest.approx(3 / 2048, rel=3e-3)


def test_with_nothing_but_successes_the_bound_is_mirrored():
    found = clopper_pearson(100, 100)
    assert (found.value, found.high) == (0.0, 0.0)
    assert 10**found.low == pytest.approx(0.05 ** (1 / 100), rel=1e-12)


TRIALS = 60


@cache
def exact_intervals():
    return [clopper_pearson(k, TRIALS) for k in range(TRIALS + 1)]


@pytest.mark.parametrize("p", [0.004, 0.1, 0.6])
def test_the_exact_interval_covers_at_least_as_often_as_it_says(p):
    chance = torch.distributions.Binomial(TRIALS, torch.tensor(p, dtype=torch.float64)).log_prob
    inside = [k for k, found in enumerate(exact_intervals()) if found.low <= math.log10(p) <= found.high]
    covered = float(chance(torch.tensor(inside, dtype=torch.float64)).exp().sum())
    assert 0.949 < covered < 0.995


def test_the_bootstrap_covers_the_mean_of_graded_weights():
    """Exact value e^{σ²/2} above the middle; 100 data sets of 16 examples × 32 rollouts, seeded."""
    truth = (-30 + 0.5) / math.log(10)
    found = [bootstrap_mean(wide(-30, 1.0, 16), resamples=300, seed=n) for n in range(100)]
    covered = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert 0.88 <= covered <= 0.99


def test_the_bootstrap_stays_in_logs():
    found = bootstrap_mean(wide(-2000, 1.0))
    assert -880 < found.low < found.value < found.high < -860
    assert bootstrap_mean(torch.full((2, 4), -math.inf)).high == -math.inf


# Signal


@pytest.mark.parametrize("p", [1e-12, 1e-3, 0.3, 0.999])
def test_the_expected_share_of_mixed_groups_is_the_closed_form(p):
    assert mixed_expected(constant(p)) == pytest.approx(1 - (1 - p) ** M - p**M, rel=1e-3 if p < 1e-9 else 1e-9)


def test_the_expected_share_is_unbiased_for_weights_that_differ():
    """Two rationales, w = 0.9 and 0.1, each with chance 1/2; groups of 2 listed by hand: P = 0.5."""
    high, low = math.log(0.9), math.log(0.1)
    groups = torch.tensor([[high, high], [high, low], [low, high], [low, low]], dtype=torch.float64)
    assert mixed_expected(groups) == pytest.approx(1 - 0.5**2 - 0.5**2)


def test_the_seen_share_of_mixed_groups_is_that_of_all_subsets():
    right = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    assert mixed_seen(right, 4) == pytest.approx(1 / 3)
    assert mixed_seen(right, 2) == pytest.approx((3 / 6) / 3)


def test_a_reward_that_takes_other_answers_counts_for_grpo():
    right = none_right(constant(1e-9))
    right[:, :8] = True
    predicted = predict(constant(1e-9), right)
    assert predicted.mixed == predicted.mixed_seen == 1.0
    assert predicted.mixed_expected < 1e-6
    assert recommend(predicted).objective == "grpo()"


def test_samples_that_contradict_the_likelihood_count_alone():
    """w = 0.5, so by likelihood every group is mixed; a lenient reward takes all answers but six, a strict one six."""
    few = none_right(constant(0.5))
    few[0, :6] = True
    for right in (~few, few):
        predicted = predict(constant(0.5), right)
        assert predicted.mixed_expected > 0.99
        assert predicted.mixed == predicted.mixed_seen == pytest.approx(1 / N)
        assert [size.mixed < 0.05 for size in predicted.sizes] == [True] * len(predicted.sizes)
    assert recommend(predict(constant(0.5), ~few)).case is Case.SOLVED


def test_samples_that_agree_leave_the_likelihood_its_say():
    """Success of one rollout in 2048 beside P̂ = 1e-3: the intervals overlap."""
    right = none_right(constant(1e-3))
    right[0, 0] = True
    predicted = predict(constant(1e-3), right)
    assert predicted.mixed == predicted.mixed_expected > predicted.mixed_seen


def test_a_graded_reward_that_differs_counts_for_grpo():
    """F1 of a half in every fourth answer, and never 1; where thinking is cut off nothing is to be learned from it."""
    log_w, score = graded(1e-9), torch.zeros(N, M)
    score[: N // 2, ::4] = 0.5
    predicted = predict(log_w, none_right(log_w), score=score)
    assert (predicted.mixed < 1e-3, predicted.differing, predicted.differing_total) == (True, 0.5, 0.5)
    advised = recommend(predicted)
    assert (advised.case, advised.objective, advised.m) == (Case.GRADED, "grpo()", M)
    seen, follows = summary.describe_advice(predicted, advised)
    assert "differs within 50 % of groups of 32, though only" in seen
    assert "right answers do not follow, train with garl(q=auto())" in follows
    assert recommend(predicted, forced=0.5).case is Case.COLD
    assert recommend(predict(log_w, none_right(log_w), score=torch.zeros(N, M), total=score)).case is Case.COLD


def test_the_share_of_differing_groups_is_that_of_all_subsets():
    score = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.5, 0.5]])
    assert predict(constant(0.1, 2, 4), score == 1, 2, score).differing == pytest.approx((5 / 6) / 2)


def test_effective_rewards_are_those_of_the_objective():
    log_w = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    log_a, c = effective_rewards(log_w, 0.5)
    assert log_a.exp().tolist()[0] == pytest.approx([w / 0.25**0.5 / 4**0.5 for w in (0.5, 0.25, 0.125, 0.125)])
    others = [(1 - w) / 3 for w in (0.5, 0.25, 0.125, 0.125)]
    by_hand = [(w / 0.5 - o**0.5) / 2 for w, o in zip((0.5, 0.25, 0.125, 0.125), others, strict=True)]
    assert c.tolist()[0] == pytest.approx(by_hand)


@pytest.mark.parametrize(("q", "heard"), [(0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.75, 1.0), (1.0, 1.0)])
def test_groups_are_heard_above_adams_epsilon(q, heard):
    """All weights 1e-24: a/M^q = w^{1-q}/M^q, 1e-12 at q = 0.5 and 7e-8 at q = 0.75."""
    predicted = predict(constant(1e-24), none_right(constant(1e-24)))
    assert at(predicted, q).signal == heard
    assert at(predicted, q).reward == pytest.approx(-24 * (1 - q) - q * math.log10(M))


def test_equal_likelihoods_are_heard_but_tell_nothing_apart():
    predicted = predict(constant(1e-4), none_right(constant(1e-4)))
    assert all(one.signal == 1 and one.rationale_signal == 0 for one in predicted.of)


# Escape, bias, noise


@pytest.mark.parametrize("q", Q_VALUES)
@pytest.mark.parametrize("p", [1e-9, 1e-3, 0.2, 0.4])
def test_the_escape_time_is_the_integral(p, q):
    log_p = torch.tensor([math.log(p)], dtype=torch.float64)
    assert float(log_escape_time(log_p, q).exp()) == pytest.approx(tsallis.escape_time(p, 0.5, q, 20_000), rel=1e-5)


@pytest.mark.parametrize("q", Q_VALUES)
def test_escape_time_of_what_no_float_holds_is_its_asymptote(q):
    found = float(log_escape_time(torch.tensor([-2000.0], dtype=torch.float64), q))
    assert found == pytest.approx(math.log(2000) if q == 1 else 2000 * (1 - q) - math.log(1 - q), rel=1e-3)


def test_escape_is_averaged_over_examples():
    log_w = torch.cat([constant(1e-2, 1), constant(1e-8, 1)])
    predicted = predict(log_w, none_right(log_w))
    times = {q: sum(tsallis.escape_time(p, 0.5, q, 20_000) for p in (1e-2, 1e-8)) for q in (0.5, 1.0)}
    assert at(predicted, 0.5).escape == pytest.approx(math.log10(times[0.5] / times[1.0]), abs=1e-4)
    mean = (1e-2 + 1e-8) / 2
    at_mean = tsallis.escape_time(mean, 0.5, 0.5) / tsallis.escape_time(mean, 0.5, 1.0)
    assert at(predicted, 0.5).escape > math.log10(at_mean) + 1


def test_nothing_is_left_to_escape_above_one_half():
    predicted = predict(constant(0.9), none_right(constant(0.9)))
    assert [one.escape for one in predicted.of] == [None] * 5


@pytest.mark.parametrize("q", Q_VALUES)
def test_bias_and_deviation_are_those_of_length_of_the_gradient(q):
    """E[w̄^{1-q}] and its deviation, by many groups drawn from one example's weights."""
    pool = torch.tensor([0.5, 1.0, 2.25, 0.25], dtype=torch.float64).log() - 20
    predicted = predict(pool.repeat(3, 8), none_right(pool.repeat(3, 8)))
    drawn = pool[torch.randint(4, (200_000, 32))]
    length = ((1 - q) * (drawn.logsumexp(1) - pool.logsumexp(0) + math.log(4 / 32))).exp()
    assert at(predicted, q).bias == pytest.approx(float(length.mean()) - 1, abs=1e-3)
    assert at(predicted, q).deviation == pytest.approx(float(length.std()), abs=2e-3)


def test_noise_of_paft_is_that_of_its_resampling():
    log_w = torch.tensor([[0.6, 0.3, 0.1, 0.0]], dtype=torch.float64).log()
    predicted = predict(log_w, none_right(log_w))
    share = log_w.exp()
    counts = torch.distributions.Multinomial(4, share[0]).sample((100_000,))
    assert at(predicted, 1.0).noise_paft == pytest.approx(float((counts / 4).square().sum(1).mean()), rel=0.01)
    assert float(effective_size(log_w)) == pytest.approx(1 / 0.46)


def test_smaller_groups_are_cut_from_the_rollouts():
    predicted = predict(graded(1e-5), none_right(graded(1e-5)), m=8)
    assert (predicted.m, predicted.rollouts) == (8, M)
    assert 4 < predicted.ess < 7


# Graded or sparse


@pytest.mark.parametrize("p", [1e-3, 1e-5, 1e-30])
def test_the_graded_policy_is_told_from_its_weights(p):
    predicted = predict(graded(p), none_right(graded(p)))
    assert is_graded(predicted)
    assert max(one.rationale_signal for one in predicted.of) == 1


def test_weights_that_rest_on_single_rationales_are_sparse():
    predicted = predict(wide(-60, 12.0), none_right(constant(0.5)))
    assert not is_graded(predicted)
    assert recommend(predicted).case is Case.SINGLE


def test_a_success_that_never_showed_is_out_of_reach_of_q():
    log_w = sparse(1e-5)
    assert float(log_w.max()) == MISS_LOG_LIKELIHOOD
    advised = recommend(predict(log_w, none_right(log_w)))
    assert (advised.case, advised.objective, advised.estimator) == (Case.UNREACHABLE, None, None)


def test_where_every_likelihood_is_zero_nothing_is_nan():
    log_w = torch.full((4, 8), -math.inf, dtype=torch.float64)
    predicted = predict(log_w, none_right(log_w))
    advised = recommend(predicted)
    assert predicted.impossible == 1
    assert predicted.mixed == 0
    assert advised.objective is None
    assert summary.describe_advice(predicted, advised)[0].startswith("No q will help at m = 8")
    assert "likelihood is 0" in summary.describe_regime(predicted)


# Advice


@pytest.mark.parametrize("forced", [0.0, 0.9])
def test_a_warm_model_is_trained_by_grpo_unless_cut(forced):
    log_w = constant(0.3)
    advised = recommend(predict(log_w, torch.rand(log_w.shape) < 0.3), forced)
    assert advised.objective == ("grpo()" if forced == 0 else "paft(q=0.75)")


def test_a_model_that_is_right_everywhere_is_not_called_cold():
    log_w = constant(0.9999)
    advised = recommend(predict(log_w, ~none_right(log_w)))
    assert (advised.case, advised.objective) == (Case.SOLVED, "grpo()")


@pytest.mark.parametrize("p", [3e-3, 1e-4, 1e-8, 1e-14, 1e-60])
def test_a_cold_model_starts_at_the_smallest_loud_q(p):
    advised = recommend(predict(graded(p), none_right(graded(p))))

    def median(q):
        return float(effective_rewards(graded(p), q)[0].amax(1).exp().median())

    assert advised.case is Case.COLD
    assert advised.objective == "garl(q=auto())"
    assert median(advised.start) >= 0.01 > median(advised.start - 0.05)


def test_the_colder_a_model_the_larger_the_q_it_starts_from():
    starts = [predict(graded(p), none_right(graded(p))).loud for p in (0.3, 3e-3, 1e-4, 1e-8, 1e-14, 1e-60)]
    assert starts == sorted(starts)
    assert starts[0] == 0.0


def test_more_rollouts_are_advised_where_weights_rest_on_few():
    few, many = (predict(w, none_right(w)) for w in (wide(-40, 2.0), graded(1e-6)))
    assert recommend(few).m > recommend(many).m == 8


def test_every_advice_can_be_trained_and_its_name_is_registered():
    for log_w in (constant(0.3), graded(1e-3), graded(1e-12), wide(-60, 12.0)):
        for forced in (0.0, 1.0):
            advised = recommend(predict(log_w, torch.rand(log_w.shape, dtype=log_w.dtype).log() < log_w), forced)
            assert str(parse(advised.objective)) == advised.objective
            assert advised.estimator in REGISTRY


def test_the_words_hold_the_numbers():
    predicted = predict(graded(1e-5), none_right(graded(1e-5)))
    advised = recommend(predicted)
    seen, follows = summary.describe_advice(predicted, advised)
    for number in (
        format_share(predicted.mixed),
        format_probability(predicted.levels[1]),
        f"{predicted.ess:.1f} of 32",
    ):
        assert number in seen
    for number in (advised.objective, f"m = {advised.m}", f"q = {advised.start:g}"):
        assert number in follows


@pytest.mark.parametrize(
    ("log10", "text"),
    [(-math.inf, "0"), (math.log10(0.125), "0.125"), (-304.5, "3.2e-305"), (-7.00001, "1.0e-7"), (5.0, "1.0e5")],
)
def test_probabilities_are_written_from_their_logarithm(log10, text):
    assert format_probability(log10) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (-0.0, "0 %"), (0.125, "12.5 %"), (1e-4, "0.01 %"), (3.4e-9, "3.4e-9")]
)
def test_shares_are_in_per_cent_unless_they_are_too_small(share, text):
    assert format_share(share) == text


@pytest.mark.parametrize(("log10", "text"), [(None, "–"), (0.0, "1.0"), (2.38, "240"), (5.415, "2.6e5")])
def test_multiples_are_written_from_their_logarithm(log10, text):
    assert format_multiple(log10) == text


def test_the_former_name_of_an_estimate_in_logs_leads_on():
    with pytest.warns(DeprecationWarning, match=r"Interval\.value"):
        assert clopper_pearson(3, 20).log10 == clopper_pearson(3, 20).value


# What is refused


@pytest.mark.parametrize(
    ("log_w", "right", "m", "says"),
    [
        (constant(0.5, 2, 1), torch.zeros(2, 1, dtype=torch.bool), None, "two rollouts at least"),
        (constant(0.5, 2, 4), torch.zeros(2, 3, dtype=torch.bool), None, "got (2, 4) and (2, 3)"),
        (constant(0.5, 2, 4), torch.zeros(2, 4, dtype=torch.bool), 8, "m=8 cannot be cut from 4"),
        (constant(1.5, 2, 4), torch.zeros(2, 4, dtype=torch.bool), None, "at most 0"),
    ],
)
def test_arrays_that_cannot_be_read_are_refused(log_w, right, m, says):
    with pytest.raises(QreditError, match=says.replace("(", r"\(").replace(")", r"\)")):
        predict(log_w, right, m)


# The command


def probed(capsys, *more):
    argv = ["probe", "--task", "pocket-dial", "--m", "4", "--examples", "6", "--cpu", "--quiet"]
    status = main([*argv, *more])
    return status, capsys.readouterr()


def test_a_cold_pocket_model_is_probed(capsys):
    status, said = probed(capsys, "--coldness", "6", "--json")
    assert status == 0
    found = json.loads(said.out)
    assert (len(found["log_w"]), len(found["log_w"][0])) == (6, 4)
    assert found["advice"]["estimator"] == "garl"
    assert -8.5 < found["predicted"]["levels"][1] < -5.5
    assert found["predicted"]["success"].keys() == found["predicted"]["p_hat"].keys() == {"log10", "low", "high"}
    again = json.loads(probed(capsys, "--coldness", "6", "--json")[1].out)
    assert again == found


def is_odd(completion_ids, **columns):
    return [float(sum(ids) % 2) for ids in completion_ids]


def test_what_further_rewards_add_is_shown_and_not_counted(capsys):
    rewards = ("--reward", f"exact_match, 0.1 * {__name__}:is_odd")
    status, said = probed(capsys, "--coldness", "6", "--json", *rewards)
    assert status == 0
    found = json.loads(said.out)
    assert found["predicted"]["differing"] == 0 < found["predicted"]["differing_total"]
    assert found["advice"]["estimator"] == "garl"
    assert any(line.startswith("the sum of all rewards differs within") for line in found["notices"])


@pytest.mark.e2e
def test_a_recipe_can_be_probed_and_flags_win_over_it(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: pocket-dial\ncoldness: 6\nobjective: grpo()\nm: 4\nseed: 3\nsteps: 7\nmax_grad_norm: 0.5\n"
    )
    plain = json.loads(probed(capsys, "--coldness", "6", "--seed", "3", "--json")[1].out)
    argv = ["probe", "--config", str(recipe), "--examples", "6", "--cpu", "--quiet", "--json"]
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out) == plain
    assert main([*argv, "--style", "warm"]) == 0
    assert json.loads(capsys.readouterr().out)["advice"]["objective"] == "grpo()"


def test_the_probe_takes_the_group_size_of_train():
    assert ProbeOptions().m == TrainOptions().m == 16


def test_a_warm_pocket_model_is_advised_grpo_in_words(capsys):
    status, said = probed(capsys, "--coldness", "6", "--style", "warm", "--steps", "sentences")
    assert status == 0
    words = " ".join(said.out.split())
    assert "Train with grpo()" in words
    assert "entropy of the first token of step 1, 2, …" in words


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--m", "1"], "m must be at least 2, got 1"),
        (["--examples", "0"], "examples must be at least 1"),
        (["--colness", "2"], "did you mean '--coldness'"),
        (["--model", "./nowhere"], "no model folder nowhere"),
        (["--steps", "lines"], "steps must be blank_lines or sentences, got 'lines'"),
        (["--steps", "sentences", "--tools", "calculator"], "leave them out with env or tools"),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_line(more, says, capsys):
    status, said = probed(capsys, *more)
    assert status == 2
    assert says in said.err
    assert said.err.count("\n") == 1


def test_answers_that_do_not_join_are_counted_and_named(tmp_path, monkeypatch, capsys):
    from qredit.rollouts.format import TokenFormat

    joins = TokenFormat.answer_ids

    def refusing(self, answer):
        if answer == "bad":
            raise QreditError("answer 'bad' does not join at the seam")
        return joins(self, answer)

    monkeypatch.setattr(TokenFormat, "answer_ids", refusing)
    rows = [{"id": f"row-{n}", "prompt": "Who?", "answer": "bad" if n == 1 else "ba"} for n in range(3)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    from qredit import pocket

    options = ["--task", "jsonl", "--data", str(tmp_path), "--model", str(pocket.get_model_path("dial-2"))]
    status, said = probed(capsys, *options, "--max-completion-length", "12", "--answer-budget", "4", "--json")
    assert status == 0
    found = json.loads(said.out)
    assert len(found["log_w"]) == 2
    assert any("1 answers do not join at the seam and are left out (row-1)" in notice for notice in found["notices"])


@pytest.mark.e2e
def test_a_cold_chat_model_is_to_be_shown_worked_examples(tmp_path, capsys):
    data, shots = data_file(tmp_path / "own.jsonl", rows(16)), tmp_path / "shots.json"
    shots.write_text('[{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]')
    own = ["--task", "jsonl", "--data", str(data), "--model", str(model_folder(tmp_path / "m", chat=True)), "--json"]
    sizes = ["--m", "2", "--max-completion-length", "6", "--answer-budget", "2"]
    for more, suggested in (((), True), (("--few-shot", str(shots)), False), (("--chat", "false"), False)):
        status, said = probed(capsys, *own, *sizes, *more)
        found = json.loads(said.out)
        assert (status, found["advice"]["case"] in ("cold", "single")) == (0, True)
        assert (summary.WORKED_EXAMPLES in found["notices"]) is suggested
        assert summary.FINE_TUNING in found["notices"]


def test_group_size_is_extrapolated_from_each_example():
    right = none_right(constant(0.01))
    right[:20, 0] = True  # 20 of 2048, as the likelihood says
    predicted = predict(constant(0.01), right)
    for size in predicted.sizes:
        assert size.mixed == pytest.approx(1 - 0.99**size.m - 0.01**size.m)
        assert size.ess == pytest.approx(size.m)
    seen = replace(predicted, mixed_seen=1.0)
    assert recommend(seen).m == 128


# What comes first


def test_a_reward_that_accepts_no_likely_answer_is_at_fault():
    """32 rollouts of p = 0.3 without one success: chance 1e-5 for an example, none for 64 of them."""
    predicted = predict(constant(0.3), none_right(constant(0.3)))
    advised = recommend(predicted)
    assert (advised.case, advised.objective) == (Case.UNREAD, None)
    seen, follows = summary.describe_advice(predicted, advised)
    assert "likelihood of your gold answers is high" in seen
    assert "accepts none of the 2048 sampled ones" in seen
    assert "No objective of rewards learns" in follows


def test_a_low_likelihood_without_a_success_agrees():
    predicted = predict(constant(1e-6), none_right(constant(1e-6)))
    advised = recommend(predicted)
    assert advised.case is not Case.UNREAD
    assert "likelihood of the gold ones is low: that agrees" in summary.describe_reward_check(predicted, advised)


@pytest.mark.parametrize(("examples", "firm"), [(1, False), (4, False), (15, False), (16, True), (64, True)])
def test_a_few_examples_give_no_firm_verdict(examples, firm):
    predicted = predict(constant(1e-6, examples), none_right(constant(1e-6, examples)))
    advised = recommend(predicted)
    assert advised.firm is firm
    assert ("Too few examples" in summary.warn_too_few(predicted, advised)) is not firm


def test_sampled_answers_are_shown_beside_gold_on_one_safe_line():
    said = [["right", "a\x1b[2J\nb" + "x" * 200], ["42", "42"], ["wrong", "wrong"]]
    found = summary.format_rejected(["g\ne", "42", "7"], said, [[True, False], [True, True], [False, False]])
    assert found[0].startswith("gold 'g e', sampled 'a\\x1b[2J bxxx")
    assert len(found[0]) < 120
    assert found[1:] == ["gold '7', sampled 'wrong'"]


def test_advice_comes_first_and_the_table_only_if_wanted(capsys):
    argv = ["probe", "--task", "pocket-dial", "--m", "2", "--examples", "2", "--cpu"]
    assert main(argv) == 0
    short = capsys.readouterr().out
    assert main([*argv, "--details"]) == 0
    long = capsys.readouterr().out
    assert short.index("Too few examples") < short.index("sampled success")
    assert "noise" not in short
    assert "noise" in long
