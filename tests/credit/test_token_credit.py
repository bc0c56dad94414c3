"""Credit that differs between tokens: worked numbers, traps and groups that have nothing to compare."""

import itertools
import math
import statistics
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qredit import QreditError
from qredit.core.batch import concatenate
from qredit.core.chain import Coefficient, Scope, When, chain, on_span
from qredit.core.schedule import linear
from qredit.core.surrogate import clipped_ratio, gradient_keeping_clip
from qredit.credit.attention_role import amplify_anchors, amplify_coupled_anchors, amplify_preplans
from qredit.credit.contrast import contrastive_reward
from qredit.credit.down_sample import (
    keep_top_entropy,
    keep_top_weighted_entropy,
    keep_widest_of_batch,
    keep_widest_of_group,
    select_max_variance,
)
from qredit.credit.entropy_change import (
    entropy_change,
    scale_by_entropy_change,
    scale_by_entropy_change_linearly,
)
from qredit.credit.entropy_weight import scale_by_entropy_score
from qredit.credit.gradient_side import side_scale, side_shares, weigh_by_gradient_side
from qredit.credit.group import center_by_group
from qredit.credit.planning import amplify_planning
from qredit.credit.prefix_tree import add_tree_difference
from qredit.credit.reward import reward
from qredit.credit.token_gradient import TokenGradients
from qredit.credit.token_influence import soften_by_influence, tilt_by_influence
from qredit.objectives import (
    agentic_aepo,
    attention_credit,
    d3s,
    dapo,
    delta,
    grpo,
    hicra,
    nthr,
    steer,
    tempo,
    thr,
    top_entropy,
)
from qredit.rollouts.ngrams import find_strategic_grams, mark_grams
from tests.support.batches import reward_batch
from tests.support.rounding import same


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def row(*values):
    """(1, T)"""
    return f64(values)


def tokens_batch(advantage, **fields):
    """Rollouts of sampled tokens and a coefficient (B, 1) or (B, T) for them."""
    value = torch.as_tensor(advantage, dtype=torch.float64)
    rows, width = next(iter(fields.values())).shape[:2]
    extra = {name: fields.pop(name) for name in list(fields) if name in EXTRA}
    batch = reward_batch([0.0] * rows, lengths=[width] * rows, extra=extra, **fields)
    return Coefficient(value if value.dim() == 2 else value[:, None]), batch


INFLUENCE = "attention_influence@100"
EXTRA = ("planning", "attention_locality", INFLUENCE, "prediction_error", "hidden")


# --- STEER

STEERED = {"logp": row(0.9, 0.3, 0.05).log(), "entropy": row(0.35, 1.2, 2.5)}


def test_entropy_change_and_its_weights_are_the_worked_ones():
    coefficient, batch = tokens_batch(row(1, 1, -1), **STEERED)
    change = entropy_change(coefficient.value, batch.logp, batch.logp, batch.entropy)
    assert change[0].tolist() == pytest.approx([0.0245, -0.0028, 0.4709], abs=6e-5)
    weighted = scale_by_entropy_change()(coefficient, batch).value
    assert weighted[0].tolist() == pytest.approx([0.988, 0.999, -0.800], abs=6e-4)


def test_the_linear_map_runs_from_most_to_least():
    coefficient, batch = tokens_batch(row(1, 1, -1), **STEERED)
    weighted = scale_by_entropy_change_linearly()(coefficient, batch).value[0].tolist()
    assert weighted[1:] == pytest.approx([1.2, -0.8])
    assert weighted[0] == pytest.approx(1.2 - 0.4 * (0.02446 - 0.00279) / (0.47093 - 0.00279), abs=1e-4)


def test_entropy_change_of_the_code_has_no_factor_p_on_policy():
    p, entropy = f64([0.05, 0.7]), f64([2.0, 0.8])
    change = entropy_change(torch.ones_like(p), p.log(), p.log(), entropy)
    assert torch.allclose(change, (1 - p) * (p.log() + entropy))


def test_the_ratio_stands_in_the_entropy_change():
    p, old = f64([0.2]), f64([0.1])
    change = entropy_change(f64([1.0]), p.log(), old.log(), f64([1.0]))
    assert torch.allclose(change, 2 * 0.8 * (p.log() + 1))


def test_a_change_that_is_not_finite_counts_as_none():
    coefficient, batch = tokens_batch(row(1, 1), logp=row(-1, -2), entropy=row(math.nan, 2.5))
    assert scale_by_entropy_change()(coefficient, batch).value[0].tolist() == pytest.approx([1.0, 0.8])


def test_a_step_that_hardly_moves_the_entropy_is_not_stretched():
    coefficient, batch = tokens_batch(row(0.001, 0.001), **{name: value[:, :2] for name, value in STEERED.items()})
    factor = scale_by_entropy_change()(coefficient, batch).value / 0.001
    assert factor[0].tolist() == pytest.approx([0.8 ** (2.446e-5 / 0.02), 0.8 ** (2.79e-6 / 0.02)], rel=1e-5)


def test_equal_changes_get_the_middle_of_the_linear_map():
    coefficient, batch = tokens_batch(row(1, 1), logp=row(-1, -1), entropy=row(0.3, 0.3))
    assert scale_by_entropy_change_linearly(0.8, 1.4)(coefficient, batch).value[0].tolist() == pytest.approx([1.1, 1.1])


def test_the_largest_change_is_that_of_the_whole_step():
    stage = scale_by_entropy_change()
    assert stage.scope is Scope.BATCH
    _, batch = tokens_batch([1, 1], logp=f64([-0.1, -0.4], [-3.0, -2.0]), entropy=f64([0.5, 1.0], [2.5, 2.5]))
    batch = replace(batch, group=torch.arange(2))
    whole = stage(Coefficient(f64([1], [1])), batch).value
    alone = stage(Coefficient(f64([1])), batch.select(slice(1))).value
    assert whole.min() == pytest.approx(0.8)
    assert float(whole[0].min()) > float(alone.min()) == pytest.approx(0.8)


def test_steer_gives_nothing_to_padding_and_reads_nothing_there():
    batch = reward_batch([1, 0], lengths=[2, 4], logp=-torch.rand(2, 4), entropy=torch.rand(2, 4))
    dirty = replace(batch, **{name: torch.where(batch.mask, getattr(batch, name), 1e9) for name in ("logp", "entropy")})
    assert torch.equal(steer().credit(dirty), steer().credit(batch))
    assert not steer().credit(dirty)[~batch.mask].any()


# --- HICRA


@pytest.mark.parametrize(("advantage", "raised"), [(1.0, 1.2), (-1.0, -0.8), (0.0, 0.0)])
def test_planning_tokens_are_raised_by_a_fifth_of_their_size(advantage, raised):
    coefficient, batch = tokens_batch([advantage], planning=torch.tensor([[True, False]]))
    assert amplify_planning()(coefficient, batch).value[0].tolist() == pytest.approx([raised, advantage])


def test_hicra_without_planning_tokens_is_the_centred_reward():
    batch = reward_batch([1, 0, 0, 1, 1], extra={"planning": torch.zeros(5, 3, dtype=torch.bool)})
    assert torch.allclose(hicra().credit(batch)[:, 0], f64(0.4, -0.6, -0.6, 0.4, 0.4).float())


# --- the shared kernel


def random_tokens(seed, rows=3, width=4, ids=5, states=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(rows, width, ids, dtype=torch.float64, generator=generator)
    hidden = torch.randn(rows, width, states, dtype=torch.float64, generator=generator)
    return {"prediction_error": error.to(dtype), "hidden": hidden.to(dtype)}


@given(st.integers(0, 10**6))
def test_inner_products_are_those_of_the_outer_products(seed):
    fields = random_tokens(seed)
    _, batch = tokens_batch([0] * 3, **fields)
    tokens = TokenGradients.of(batch, batch.mask, "test")
    formed = torch.stack([torch.kron(e, h) for e, h in zip(tokens.error, tokens.hidden, strict=True)])
    weight = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    bank = tokens.bank(weight)
    explicit = weight @ formed
    assert torch.allclose(bank.flatten(), explicit)
    assert torch.allclose(tokens.inner(bank), formed @ explicit)


def test_half_precision_states_are_accumulated_in_float32():
    fields = random_tokens(0, dtype=torch.bfloat16)
    _, batch = tokens_batch([0] * 3, **fields)
    tokens = TokenGradients.of(batch, batch.mask, "test")
    assert tokens.bank(torch.ones(12)).dtype == torch.float32
    exact = TokenGradients(tokens.error.double(), tokens.hidden.double())
    ones = torch.ones(12, dtype=torch.float64)
    assert torch.allclose(tokens.inner(tokens.bank(ones)), exact.inner(exact.bank(ones)), rtol=1e-5, atol=1e-4)


# --- THR and NTHR


def one_right_one_wrong(reward=(1.0, 0.0)):
    _, batch = tokens_batch(
        [0, 0],
        prediction_error=f64([[0.6, -0.4, -0.2]], [[-0.5, 0.7, -0.2]]),
        hidden=f64([[1.0, 0.0]], [[0.5, 1.0]]),
    )
    return replace(batch, reward=torch.tensor(reward, dtype=torch.float64))


def test_scores_against_the_right_rollout_are_the_worked_ones():
    batch = one_right_one_wrong()
    tokens = TokenGradients.of(batch, batch.mask, "test")
    assert tokens.inner(tokens.bank(f64(1, 0))).tolist() == pytest.approx([0.56, -0.27])


@pytest.mark.parametrize(("tilt", "right", "wrong"), [(0.1, 1.1, -1.1), (-0.1, 0.9, -0.9), (0.0, 1.0, -1.0)])
def test_lowering_a_wrong_token_that_opposes_right_ones_helps(tilt, right, wrong):
    """Its inner product with the right token is -0.27, so its THR is +0.27: it is tilted as the right token is."""
    tilted = tilt_by_influence(0.4, tilt)(Coefficient(f64([1], [-1])), one_right_one_wrong()).value
    assert tilted.flatten().tolist() == pytest.approx([right, wrong])


def test_only_tokens_above_the_threshold_are_dominant():
    tilted = tilt_by_influence(0.9)(Coefficient(f64([1], [-1])), one_right_one_wrong()).value
    assert tilted.flatten().tolist() == pytest.approx([1.0, 0.0])
    none = tilt_by_influence(1.0)(Coefficient(f64([1], [-1])), one_right_one_wrong()).value
    assert not none.any()


@pytest.mark.parametrize("rewards", [(1.0, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("stage", [tilt_by_influence(1.0, 0.5), soften_by_influence(0.0)], ids=str)
def test_a_group_of_one_kind_keeps_its_coefficient(stage, rewards):
    kept = stage(Coefficient(f64([2], [-3])), one_right_one_wrong(rewards)).value
    assert kept.flatten().tolist() == [2, -3]


def test_right_tokens_are_averaged_in_thr_and_summed_in_nthr():
    fields = random_tokens(3, rows=2)
    _, batch = tokens_batch([0, 0], **fields)
    counts = batch.mask
    assert tilt_by_influence().row_weight(counts).tolist() == [0.25, 0.25]
    assert soften_by_influence().row_weight(counts).tolist() == [1.0, 1.0]


def resembling(wrong):
    """One right rollout, `wrong` wrong ones whose only token is the right one's, doubled."""
    rows = 1 + wrong
    error, hidden = f64([[0.5, -0.5]]).repeat(rows, 1, 1), f64([[1.0, 1.0]]).repeat(rows, 1, 1)
    error[1:] *= 2
    _, batch = tokens_batch([0] * rows, prediction_error=error, hidden=hidden)
    return replace(batch, reward=f64(1, *[0] * wrong))


def test_what_a_softened_token_keeps_may_be_said():
    """2|p̂ - ½| as in the source's main runs by default, 0 as in its section 5.3 on request."""
    value, batch = -torch.ones(4, 1, dtype=torch.float64), resembling(3)
    kept = {made: soften_by_influence(kept=made)(Coefficient(value), batch).value[1] for made in (None, 0.0, 0.3)}
    assert kept == {None: -0.5, 0.0: 0.0, 0.3: pytest.approx(-0.3)}
    assert nthr(kept=0.0).credit(batch)[1:].abs().sum() == 0
    assert nthr().credit(batch)[1:].abs().sum() > 0
    with pytest.raises(QreditError, match="kept"):
        nthr(kept=2.0)


@pytest.mark.parametrize("made", [thr(0.0, strictness=0.0), nthr(strictness=9.0)], ids=str)
def test_thr_and_nthr_take_one_mean_over_a_groups_tokens(made):
    """Lengths 1 and 3 and advantages ±a: a(1/4 - 3/4); the mean of rollouts' means would be 0."""
    rows = {"prediction_error": torch.ones(2, 3, 2).double(), "hidden": torch.ones(2, 3, 2).double()}
    batch = reward_batch([1.0, 0.0], lengths=[1, 3], extra=rows)
    logp = torch.zeros(2, 3, dtype=torch.float64)
    advantage = 0.5 / (0.5**0.5 + 1e-4)
    assert float(made.loss(logp, batch)) == pytest.approx(-advantage * (1 - 3) / 4, rel=1e-5)
    both = replace(concatenate([batch, batch]), group=torch.tensor([0, 0, 1, 1]))
    assert float(made.loss(logp.repeat(2, 1), both)) == pytest.approx(-advantage * (1 - 3) / 4, rel=1e-5)


def test_agentic_aepo_takes_one_mean_over_all_tokens():
    batch = reward_batch([1.0, 0.0], lengths=[1, 3], entropy=torch.ones(2, 3))
    advantage = 0.5 / (0.5**0.5 + 1e-4)
    loss = agentic_aepo().loss(torch.zeros(2, 3, dtype=torch.float64), batch)
    assert float(loss) == pytest.approx(-advantage * (1 - 3) / 4, rel=1e-5)


@pytest.mark.parametrize(("wrong", "factor"), [(1, 0.0), (3, 0.5)])
def test_wrong_tokens_like_right_ones_are_softened(wrong, factor):
    value = -torch.ones(1 + wrong, 1, dtype=torch.float64)
    softened = soften_by_influence()(Coefficient(value), resembling(wrong)).value
    assert softened.flatten().tolist() == pytest.approx([-1.0] + [-factor] * wrong)


def test_influence_and_threshold_are_those_of_the_group():
    batch = one_right_one_wrong()
    louder = replace(batch, group=batch.group + 1, extra={**batch.extra, "hidden": 2 * batch.extra["hidden"]})
    tilted = tilt_by_influence(0.9)(Coefficient(f64([1], [-1], [1], [-1])), concatenate([batch, louder])).value
    assert tilted.flatten().tolist() == [1, 0, 1, 0]


# --- DelTA


def proxies(*rows, p=0.0):
    """Rows of tokens whose (1 - p) h are these vectors."""
    hidden = torch.tensor(rows, dtype=torch.float64) / (1 - p)
    return {"hidden": hidden, "logp": torch.full(hidden.shape[:2], p, dtype=torch.float64).log()}


def weighed(values, stage=None, **fields):
    """λ · N / Σ λ of each token: what the stage makes of advantages, divided by them."""
    coefficient, batch = tokens_batch(values, **fields)
    return (stage or weigh_by_gradient_side())(coefficient, batch).value / coefficient.value


def test_the_worked_weights_of_delta():
    hidden = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    logp = f64([0.5, 0.9], [0.5, 0.1]).log()  # the first row drew token 0 twice, the second token 1
    found = weighed([1.0, -1.0], hidden=hidden, logp=logp)
    assert found.flatten().tolist() == pytest.approx([1.082, 1.080, 0.803, 1.035], abs=6e-4)


def official(advantage, proxy, refinements, least=0.8, most=1.2):
    """DelTA's weights from the text of its algorithm, per token (advantage, v), in plain loops."""
    sides = {s: [n for n, a in enumerate(advantage) if s * a > 0] for s in (1, -1)}
    share = [1.0] * len(advantage)

    def margins():
        centre = {}
        for s, side in sides.items():
            total = sum(abs(advantage[n]) * share[n] for n in side)
            centre[s] = [
                sum(abs(advantage[n]) * share[n] * proxy[n][d] for n in side) / total for d in range(len(proxy[0]))
            ]
        off = lambda n, s: sum((x - y) ** 2 for x, y in zip(proxy[n], centre[s], strict=True))  # noqa: E731
        return {n: off(n, -s) - off(n, s) for s, side in sides.items() for n in side}

    def scales(margin):
        spread = lambda side: max(statistics.pvariance([margin[n] for n in side]), 1e-8) ** 0.5  # noqa: E731
        return {n: spread(side) for side in sides.values() for n in side}

    margin = margins()
    scale = scales(margin)
    for _ in range(refinements):
        for n in margin:
            share[n] = 1 / (1 + math.exp(-margin[n] / scale[n]))
        scale, margin = scales(margin), margins()
    weight = [least] * len(advantage)
    for n in margin:
        weight[n] += (most - least) / (1 + math.exp(-margin[n] / scale[n]))
    return [w * len(weight) / sum(weight) for w in weight]


@pytest.mark.parametrize("refinements", [0, 1, 2, 3])
@given(st.integers(0, 10**6))
def test_the_weights_are_those_of_the_algorithm_written_plainly(refinements, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 3, 5, dtype=torch.float64, generator=generator)
    logp = -torch.rand(4, 3, dtype=torch.float64, generator=generator)
    advantage = f64(1.5, -0.5, -1.0, 0.0)
    coefficient, batch = tokens_batch(advantage, hidden=hidden, logp=logp)
    found = weigh_by_gradient_side(refinements=refinements)(coefficient, batch).value
    proxy = ((1 - logp.exp())[..., None] * hidden).flatten(0, 1).tolist()
    per_token = advantage[:, None].expand(4, 3).flatten()
    expected = f64(*official(per_token.tolist(), proxy, refinements)) * per_token
    assert torch.allclose(found.expand(4, 3).flatten(), expected, rtol=1e-9)


def test_the_scale_of_margins_is_their_deviation_on_each_side():
    found = side_scale(f64(1.0, 3.0, -10.0), torch.tensor([True, True, False]))
    assert found.tolist() == pytest.approx([1.0, 1.0, 1e-4])


def test_which_token_was_drawn_does_not_matter_to_delta():
    fields = random_tokens(2)
    _, batch = tokens_batch([0] * 3, hidden=fields["hidden"], logp=torch.full((3, 4), -1.0))
    extra = {**batch.extra, "prediction_error": fields["prediction_error"]}
    other = replace(batch, extra=extra, ids=torch.ones(3, 4).long())
    coefficient = Coefficient(f64([1], [-1], [2]))
    assert torch.equal(*(weigh_by_gradient_side()(coefficient, one).value for one in (batch, other)))
    assert "prediction_error" not in delta().needs


def test_weights_average_one_and_rows_without_advantage_least():
    fields = {"hidden": random_tokens(5)["hidden"], "logp": torch.full((3, 4), -1.0, dtype=torch.float64)}
    coefficient, batch = tokens_batch([1.0, -1.0, 0.0], **fields)
    found = weigh_by_gradient_side()(coefficient, batch)
    without = weigh_by_gradient_side()(Coefficient(coefficient.value[:2]), batch.select(slice(2)))
    assert found.weight is None
    assert not found.value[2].any()
    assert float(without.value.abs().mean()) == pytest.approx(1)
    proxy = batch.extra["hidden"][:2].flatten(0, 1) * (1 - math.exp(-1))
    weight = 0.8 + 0.4 * side_shares(proxy, torch.ones(8).double(), torch.arange(8) < 4, 1)
    expected = weight * 12 / (weight.sum() + 4 * 0.8)
    assert torch.allclose(found.value[:2].abs().flatten(), expected)


def test_a_side_without_tokens_has_its_centre_at_zero():
    fields = proxies([[1.0], [3.0]], [[2.0], [2.0]])
    found = weighed([1.0, 1.0], **fields)
    margin = [v**2 - (v - 2) ** 2 for v in (1.0, 3.0, 2.0, 2.0)]
    scale = statistics.pstdev(margin)
    share = [1 / (1 + math.exp(-m / scale)) for m in margin]
    moved = sum(s * v for s, v in zip(share, (1.0, 3.0, 2.0, 2.0), strict=True)) / sum(share)
    weight = [0.8 + 0.4 / (1 + math.exp(-(v**2 - (v - moved) ** 2) / scale)) for v in (1.0, 3.0, 2.0, 2.0)]
    assert found.flatten().tolist() == pytest.approx([4 * w / sum(weight) for w in weight])


def test_deltas_weights_are_the_generations_own():
    _, batch = tokens_batch([0] * 3, hidden=random_tokens(5)["hidden"], logp=torch.full((3, 4), -1.0))
    batch = replace(batch, reward=f64(1, 0, 0))
    credited = delta().evaluate(batch)
    assert delta().scope is Scope.GENERATION
    assert delta().denominators(batch, credited)["policy"] == 12


# --- TEMPO


def tree_batch(ids, rewards, **fields):
    """Rows of ids, ragged; 0 fills them up."""
    lengths = [len(walk) for walk in ids]
    padded = torch.tensor([[*walk, *[0] * (max(lengths) - len(walk))] for walk in ids])
    return reward_batch(rewards, lengths=lengths, ids=padded, **fields)


def test_tempo_is_worked_out():
    batch = tree_batch([[1, 2, 3], [1, 2, 4], [1, 5, 6], [7, 8, 9]], [1, 0, 0, 1])
    expected = [[0.577, 1.155, 1.732], [-1.155, -0.577, -1.732], [-1.155, -1.443, -0.866], [1.732, 0.866, 0.866]]
    assert torch.allclose(tempo().credit(batch), torch.tensor(expected), atol=6e-4)
    assert torch.allclose(grpo().credit(batch).abs(), torch.tensor(0.866), atol=6e-4)


def naive_difference(value, keep, walks, group):
    """Every prefix compared with every other: O(G² T²)."""
    rows = range(len(walks))

    def outlook(i, t):
        alike = [j for j in rows if group[j] == group[i] and keep[j] and walks[j][:t] == walks[i][:t]]
        alike = [j for j in alike if len(walks[j]) >= t]
        return sum(value[j] for j in alike) / len(alike)

    return [[outlook(i, t + 1) - outlook(i, t) if keep[i] else 0.0 for t in range(len(walks[i]))] for i in rows]


@given(st.integers(0, 10**6))
def test_the_tree_is_that_of_comparing_every_prefix(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 7, (9,), generator=generator).tolist()
    lengths[0] = 6
    walks = [torch.randint(2, (n,), generator=generator).tolist() for n in lengths]
    group = torch.randint(2, (9,), generator=generator)
    batch = tree_batch(walks, [0.0] * 9, group=group)
    value = torch.randn(9, dtype=torch.float64, generator=generator)
    keep = torch.rand(9, generator=generator) < 0.8
    found = add_tree_difference()(Coefficient(value[:, None], keep=keep[:, None]), batch).value - value[:, None]
    expected = naive_difference(value.tolist(), keep.tolist(), walks, group.tolist())
    for i in range(9):
        if keep[i]:
            assert found[i, : lengths[i]].tolist() == pytest.approx(expected[i], abs=1e-12)
        assert not found[i, lengths[i] :].any()


def test_differences_of_row_sum_to_what_it_gained_on_its_group():
    batch = tree_batch([[1, 2, 3], [1, 2, 4], [1, 5, 6], [7, 8, 9]], [1, 0, 0, 1])
    gained = add_tree_difference()(Coefficient(f64([4], [1], [2], [0])), batch).value - f64([4], [1], [2], [0])
    assert gained.sum(1).tolist() == pytest.approx([4 - 1.75, 1 - 1.75, 2 - 1.75, 0 - 1.75])


@pytest.mark.parametrize(("rewards", "group"), [([0.1] * 3, [0] * 3), ([1, 0, 1], [0, 1, 2])])
def test_groups_without_a_difference_get_nothing(rewards, group):
    batch = tree_batch([[1, 2], [1, 3], [1, 2]], rewards, group=group)
    assert not tempo().credit(batch).any()


def test_once_alone_a_row_has_the_plain_advantage():
    batch = tree_batch([[1, 2, 3], [1, 4, 3], [5, 2, 3]], [1, 0, 0.3])
    assert same(tempo(epsilon_std=1e-4).credit(batch)[:, 2], grpo().credit(batch)[:, 2])
    assert not same(tempo(epsilon_std=1e-4).credit(batch)[:, 1], grpo().credit(batch)[:, 1])


def test_the_walk_stops_at_the_first_token_that_was_not_sampled():
    batch = tree_batch([[1, 9, 2], [1, 9, 3]], [1, 0])
    sampled = torch.tensor([[True, False, True]] * 2)
    batch = replace(batch, sampled=sampled, rationale=sampled)
    difference = tempo(epsilon_std=1e-4).credit(batch) - grpo().credit(batch)
    assert not difference.any()


def test_a_rollout_shares_the_prefix_it_ends_with():
    batch = tree_batch([[1, 2], [1, 2, 3]], [1, 0])
    value = add_tree_difference()(Coefficient(f64([1], [0])), batch).value
    assert value[:, :2].tolist() == [[1, 1], [0, 0]]
    assert float(value[1, 2]) == -0.5


def test_rows_of_different_groups_share_nothing():
    walks, rewards = [[1, 2], [1, 3], [1, 2], [1, 3]], [1.0, 0.0, 0.0, 0.0]
    apart = tree_batch(walks, rewards, group=[0, 0, 1, 1])
    assert same(tempo().credit(apart)[:2], tempo().credit(apart.select(slice(2))))


# --- attention


def test_a_dominated_anchor_hands_half_its_bonus_on():
    role = amplify_coupled_anchors(share=0.2, handed_back=0.5, locality_quantile=0.5, jump_quantile=0.5, window=3)
    coefficient, batch = tokens_batch([1], **{INFLUENCE: row(0, 0, 0, 9, 0)}, attention_locality=row(1, 1, 8, 0, 5))
    assert role(coefficient, batch).value[0].tolist() == pytest.approx([1, 1, 1.25, 1.25, 1])


def test_an_introducer_that_is_an_anchor_collects_both():
    role = amplify_coupled_anchors(share=0.4, handed_back=0.5, locality_quantile=0.5, jump_quantile=0.5, window=1)
    coefficient, batch = tokens_batch([1], **{INFLUENCE: row(0, 0, 8, 9, 0)}, attention_locality=row(7, 7, 8, 0, 5))
    assert role(coefficient, batch).value[0].tolist() == pytest.approx([1, 1, 1.75, 1.25, 1])


def test_an_anchor_far_from_the_local_chunk_keeps_its_bonus():
    role = amplify_coupled_anchors(share=0.2, handed_back=0.5, locality_quantile=0.5, jump_quantile=0.5, window=2)
    coefficient, batch = tokens_batch([1], **{INFLUENCE: row(0, 0, 0, 9, 0)}, attention_locality=row(1, 1, 0, 8, 5))
    assert role(coefficient, batch).value[0].tolist() == pytest.approx([1, 1, 1, 1.5, 1])


ROLES = {
    "attention_locality": row(9, 0, 0, 0, 0),
    INFLUENCE: row(5, 4, 3, 2, 1),
    "attention_influence@50": row(5, 4, 3, 2, 1),
}
EARLY = (amplify_preplans(both_signs=False), amplify_anchors(both_signs=False, horizon=50))


def roles_of(batch):
    return replace(batch, extra={name: value.expand(batch.mask.shape) for name, value in ROLES.items()})


@pytest.mark.parametrize("role", [amplify_preplans(), amplify_anchors(), *EARLY], ids=str)
def test_both_signs_are_amplified_but_in_the_first_version(role):
    batch = roles_of(reward_batch([0], lengths=[5]))
    amplified = [1, 1, 1, 1.5, 1.5]
    assert sorted(role(Coefficient(f64([1])), batch).value[0].tolist()) == amplified
    assert role(Coefficient(f64([0])), batch).value.tolist() == [[0] * 5]
    lowered = sorted((-role(Coefficient(f64([-1])), batch).value[0]).tolist())
    assert lowered == ([1] * 5 if role in EARLY else amplified)


@pytest.mark.parametrize(("role", "of_the_wrong"), [(amplify_anchors(), -1.061), (EARLY[1], -0.707)], ids=str)
def test_the_worked_anchor_of_a_wrong_row(role, of_the_wrong):
    credit = attention_credit(role).credit(roles_of(reward_batch([1, 0], lengths=[5, 5])))
    assert credit[:, 0].tolist() == pytest.approx([1.061, of_the_wrong], abs=6e-4)
    assert credit[:, 4].tolist() == pytest.approx([0.707, -0.707], abs=6e-4)


def test_anchors_read_the_influence_of_their_own_horizon():
    assert amplify_anchors(horizon=30).needs == {"attention_influence@30"}
    batch = reward_batch(
        [0], lengths=[5], extra={INFLUENCE: row(5, 4, 3, 2, 1), "attention_influence@50": row(1, 2, 3, 4, 5)}
    )
    found = [
        amplify_anchors(share=0.2, horizon=far)(Coefficient(f64([1])), batch).value[0].argmax() for far in (50, 100)
    ]
    assert found == [4, 0]
    with pytest.raises(QreditError, match="horizon"):
        amplify_anchors(horizon=9)


def test_a_jump_is_between_a_token_and_the_next_one():
    coefficient, batch = tokens_batch([1], attention_locality=row(3, 3, 9, 9, 9))
    assert amplify_preplans(share=0.2)(coefficient, batch).value[0].tolist() == [1, 1.5, 1, 1, 1]


def test_the_last_token_of_a_row_has_no_jump():
    batch = reward_batch([1, 1], lengths=[2, 3], extra={"attention_locality": f64([3, 9, 0], [3, 3, 4])})
    amplified = amplify_preplans(share=0.01)(Coefficient(f64([1], [1])), batch).value
    assert amplified.tolist() == [[1.5, 1, 1], [1, 1.5, 1]]


def test_a_coupled_role_says_what_it_does_not_know():
    with pytest.raises(TypeError):
        amplify_coupled_anchors()
    with pytest.raises(QreditError, match="window"):
        amplify_coupled_anchors(handed_back=0.5, locality_quantile=0.5, jump_quantile=0.5, window=0)


# --- T-REG


def test_a_contrast_of_three_to_one_gives_a_quarter():
    fields = {"logp@better": f64([math.log(0.3)]), "logp@worse": f64([math.log(0.1)])}
    batch = reward_batch([1.0], lengths=[1], extra=fields)
    assert float(contrastive_reward()(batch).value) == pytest.approx(0.25)


# --- D3S


def test_tokens_are_ordered_by_advantage_times_entropy():
    stage = keep_top_weighted_entropy(1 / 3)
    coefficient, batch = tokens_batch(row(-0.8, -0.3, 1.2), entropy=row(1, 2, 0.4))
    assert stage.key(coefficient, batch.entropy)[0].tolist() == pytest.approx([0.8, 0.6, 0.48])
    assert stage(coefficient, batch).value[0].tolist() == [-0.8, 0, 0]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.integers(1, 8))
def test_the_widest_subset_is_the_best_of_all_subsets(values, count):
    value = f64(*values)
    chosen = select_max_variance(value, torch.zeros_like(value), count)
    assert int(chosen.sum()) == min(count, len(values))
    best = max(
        torch.tensor(subset).double().var(correction=0)
        for subset in itertools.combinations(values, min(count, len(values)))
    )
    assert float(value[chosen].var(correction=0)) == pytest.approx(float(best))


def test_equal_numbers_are_chosen_by_preference_and_by_size():
    value, prefer = f64(1, 1, 0, 0), f64(0.2, 0.9, 0.9, 0.2)
    assert select_max_variance(value, prefer, 2).tolist() == [False, True, True, False]
    assert select_max_variance(value, prefer, 3).tolist() == [True, True, True, False]
    assert select_max_variance(f64(0.3, 0.3, 0.3), f64(1, 3, 2), 2).tolist() == [False, True, True]


def d3s_batch():
    entropy = torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return reward_batch([1, 0, 0, 0, 1, 1, 1, 0], group=[0] * 4 + [1] * 4, entropy=entropy)


def test_advantages_are_normalised_before_rollouts_are_left_out():
    batch = d3s_batch()
    credit = d3s(of_group=2, of_batch=8, tokens=1.0).credit(batch)
    kept = (credit != 0).any(1)
    assert kept.tolist()[0] is True
    assert [int(kept[:4].sum()), int(kept[4:].sum())] == [2, 2]
    assert same(credit[kept], dapo().credit(batch)[kept])


def test_rollouts_left_out_leave_denominator_and_tokens_do_not():
    batch = d3s_batch()
    objective = d3s(of_group=2, of_batch=3, tokens=0.5)
    credited = objective.evaluate(batch)
    assert objective.denominators(batch, credited)["policy"] == 3 * 3
    assert int((credited.value != 0).sum()) == 5  # of 9: the median counts


def test_how_much_is_kept_follows_a_schedule():
    batch = d3s_batch()
    objective = d3s(of_group=4, of_batch=linear(8, 2), tokens=linear(1.0, 0.5))
    kept = [int((objective.at(progress).credit(batch) != 0).sum()) for progress in (0.0, 0.5, 1.0)]
    assert [int((objective.at(p).credit(batch) != 0).any(1).sum()) for p in (0.0, 0.5)] == [8, 5]
    assert kept[0] == 24
    assert kept == sorted(kept, reverse=True)
    assert kept[2] == 3
    with pytest.raises(QreditError, match="schedule"):
        objective.credit(batch)


def test_down_sampling_without_anything_to_sample_is_silent():
    batch = replace(d3s_batch(), reward=torch.full((8,), torch.nan))
    objective = d3s(of_group=2, of_batch=3, tokens=0.5)
    assert not objective.credit(batch).any()
    assert float(objective.loss(torch.zeros(8, 3), batch)) == 0.0


@pytest.mark.parametrize("stage", [keep_widest_of_group(2), keep_widest_of_batch(2)], ids=str)
def test_rows_are_chosen_whatever_their_order(stage):
    batch, value = d3s_batch(), f64([1], [-1], [-1], [-1], [1], [1], [1], [-1])
    order = torch.tensor([7, 2, 5, 0, 1, 6, 3, 4])
    kept = stage(Coefficient(value), batch).keep
    assert torch.equal(stage(Coefficient(value[order]), batch.select(order)).keep, kept[order])


# --- the 80/20 rule


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_the_tokens_of_highest_entropy_are_those_of_trl(seed, share):
    from trl import GRPOTrainer  # here, for importing it takes longer than all the other tests

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (5,), generator=generator)
    lengths[0] = 8
    entropy = (torch.rand(5, 8, generator=generator) * 20).round() / 10  # with ties
    batch = reward_batch([0] * 5, lengths=lengths, entropy=entropy)
    alone = SimpleNamespace(accelerator=SimpleNamespace(pad_across_processes=lambda x, **_: x, gather=lambda x: x))
    wanted = GRPOTrainer.get_high_entropy_mask(alone, entropy, batch.mask.int(), 1 - share)
    ones = Coefficient(torch.ones(5, 1, dtype=torch.float64))
    assert torch.equal((keep_top_entropy(share)(ones, batch).value != 0) & batch.mask, wanted)


def test_the_denominator_counts_the_tokens_that_do_not_learn():
    batch = reward_batch([1, 0], entropy=f64([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    credited = top_entropy().evaluate(batch)
    assert (credited.value != 0).tolist() == [[False, False, False], [False, True, True]]  # 0.5 is the quantile
    assert top_entropy().denominators(batch, credited)["policy"] == 6


def test_a_quantile_over_the_step_is_no_quantile_of_each_row():
    batch = reward_batch([1, 0], entropy=f64([0.1, 0.2, 0.3], [4, 5, 6]))
    assert top_entropy(share=0.5).credit(batch)[0].tolist() == [0, 0, 0]


# --- AEPO for agents


def test_the_entropy_score_is_worked_out():
    coefficient, batch = tokens_batch([2.0], entropy=row(1, 2, 3))
    assert scale_by_entropy_score()(coefficient, batch).value[0].tolist() == pytest.approx([1.6, 2.0, 2.4])
    spread = row(*[0.0] * 4, 5.0)
    coefficient, batch = tokens_batch([1.0], entropy=spread)
    z = (spread - spread.mean()) / spread.std()
    assert torch.allclose(scale_by_entropy_score()(coefficient, batch).value, 1 + 0.2 * z)


@pytest.mark.parametrize(("score", "factor"), [(1.5, 1.3), (-1.0, 0.8)])
def test_a_score_is_worth_a_fifth_of_it(score, factor):
    spare = (3 - score**2) ** 0.5
    entropy = 7 + row(score, -score, spare, -spare, 0, 0, 0)
    assert float(entropy.std()) == pytest.approx(1.0)
    coefficient, batch = tokens_batch([1.0], entropy=entropy)
    assert float(scale_by_entropy_score()(coefficient, batch).value[0, 0]) == pytest.approx(factor)


@pytest.mark.parametrize(("tokens", "flips"), [(26, False), (30, True)])
def test_only_a_score_below_minus_five_turns_the_sign(tokens, flips):
    entropy = torch.ones(1, tokens, dtype=torch.float64)
    entropy[0, 0] = 0.0
    lowest = (entropy - entropy.mean()) / entropy.std()
    assert (float(lowest.min()) < -5) is flips
    coefficient, batch = tokens_batch([1.0], entropy=entropy)
    assert (float(scale_by_entropy_score()(coefficient, batch).value.min()) < 0) is flips


def test_equal_entropies_leave_the_advantage_alone():
    coefficient, batch = tokens_batch([0.7], entropy=torch.full((1, 3), 0.1, dtype=torch.float64))
    assert scale_by_entropy_score()(coefficient, batch).value.tolist() == [[0.7] * 3]


def clip_slope(surrogate, coefficient, ratio):
    batch = reward_batch([1.0], lengths=[1], sampler_logp=row(-1.0))
    logp = (row(-1.0) + math.log(ratio)).requires_grad_()
    loss = surrogate(row(coefficient), logp, batch)
    return float(loss.detach()), float(torch.autograd.grad(loss.sum(), logp)[0])


@pytest.mark.parametrize(
    ("coefficient", "ratio", "slope"),
    [
        (2.0, 1.5, -2 * 1.28),  # PPO's is 0
        (2.0, 1.1, -2 * 1.1),
        (2.0, 0.5, -2 * 0.5),
        (-2.0, 0.5, 0.0),
        (-2.0, 0.9, 2 * 0.9),
        (-2.0, 1.5, 2 * 1.5),
    ],
)
def test_the_upper_clip_keeps_its_gradient_and_its_value(coefficient, ratio, slope):
    value, found = clip_slope(gradient_keeping_clip(0.2, 0.28), coefficient, ratio)
    assert found == pytest.approx(slope, abs=1e-12)
    assert value == pytest.approx(clip_slope(clipped_ratio(0.2, 0.28), coefficient, ratio)[0])
    if (coefficient, ratio) == (2.0, 1.5):
        assert clip_slope(clipped_ratio(0.2, 0.28), coefficient, ratio)[1] == 0


def test_a_token_without_a_coefficient_has_no_gradient():
    batch = reward_batch([1.0], lengths=[2], sampler_logp=row(-1.0, -1.0))
    logp = row(-math.inf, -1.0).requires_grad_()
    loss = gradient_keeping_clip()(row(0.0, 1.0), logp, batch)
    assert torch.autograd.grad(loss.sum(), logp)[0].tolist() == [[0, -1]]


# --- what all of them share

TOKEN_STAGES = (
    *(scale_by_entropy_change(), scale_by_entropy_change_linearly(), scale_by_entropy_score(), keep_top_entropy()),
    *(keep_top_weighted_entropy(0.2), keep_widest_of_group(2), keep_widest_of_batch(2)),
    *(tilt_by_influence(), soften_by_influence(), weigh_by_gradient_side()),
)


@pytest.mark.parametrize("stage", TOKEN_STAGES, ids=str)
def test_what_a_forward_pass_tells_is_read_anew_at_every_update(stage):
    assert stage.when is When.UPDATE


@pytest.mark.parametrize("stage", [add_tree_difference(), amplify_planning(), amplify_anchors()], ids=str)
def test_what_ids_and_marks_tell_is_fixed_with_the_rollouts(stage):
    assert stage.when is When.ROLLOUT


def test_a_row_that_is_not_kept_moves_no_statistic_of_others():
    batch = reward_batch([1, 0, math.nan], logp=-torch.rand(3, 3), entropy=torch.rand(3, 3))
    for stage in (scale_by_entropy_change(), scale_by_entropy_score(), keep_top_entropy(0.5)):
        source = on_span("sampled", chain(reward(), center_by_group(), stage))
        wild = replace(batch, entropy=torch.where(batch.reward.isnan()[:, None], 1e6, batch.entropy))
        assert torch.equal(source(wild).spread(wild), source(batch).spread(batch))


def test_steps_of_several_widths_are_weighed_together():
    parts = [
        reward_batch([1, 0], lengths=[2, 2], group=[n, n], logp=-torch.rand(2, 2), entropy=torch.rand(2, 2))
        for n in range(2)
    ]
    assert steer().credit(concatenate(parts)).shape == (4, 2)


# --- strategic n-grams


def test_grams_of_many_rollouts_are_strategic():
    rollouts = [[5, 1, 2, 3, 9], [1, 2, 3, 8], [7, 1, 2, 3], [4, 4, 4, 4]]
    assert find_strategic_grams(rollouts, shortest=2, longest=3, least_rollouts=3) == {(1, 2, 3)}


def test_a_shorter_gram_stays_if_more_rollouts_hold_it():
    rollouts = [[1, 2, 3], [1, 2, 3], [1, 2, 4]]
    assert find_strategic_grams(rollouts, shortest=2, longest=3, least_rollouts=2) == {(1, 2, 3), (1, 2)}


def test_a_rollout_that_repeats_itself_counts_once():
    assert find_strategic_grams([[1, 2, 1, 2, 1, 2], [3]], shortest=2, longest=2, least_rollouts=2) == frozenset()


def test_every_occurrence_of_a_gram_is_marked():
    marked = mark_grams([1, 2, 1, 2, 3, 9, 1], {(1, 2), (2, 3)})
    assert marked == [True, True, True, True, True, False, False]
    assert mark_grams([], {(1, 2)}) == []
    assert mark_grams([1, 2], frozenset()) == [False, False]


@pytest.mark.parametrize("numbers", [(0, 3, 1), (4, 3, 1), (2, 3, 0)])
def test_impossible_thresholds_are_refused(numbers):
    with pytest.raises(QreditError):
        find_strategic_grams([[1]], *numbers)
