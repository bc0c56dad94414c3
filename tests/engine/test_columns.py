"""Rows as columns and back: however the sequences are cut, losses and gradients add up to those of the rows."""

import math
import random
from dataclasses import replace

import pytest
import torch

from qredit.core.objective import sum_terms
from qredit.core.reduce import mean_per_rollout
from qredit.core.right_answers import join_answers
from qredit.engine.columns import fill_up, find_places, gather_tokens, make_columns, read_columns
from qredit.engine.rollout_bytes import from_bytes, to_bytes
from qredit.engine.sequences import list_sequences
from qredit.objectives import REGISTRY
from qredit.objectives.parsing import example, parse
from qredit.rollouts.collate import choose_tails, collate
from qredit.rollouts.trajectory import make_one_turn
from qredit.testing.batches import make_batch_for
from qredit.utils.errors import QreditError
from qredit.verl.settings import VerlSettings

COMPOSED = (
    "grpo() | entropy_bonus(0.01)",
    "garl(q=0.5) | kl_covariance(share=0.3)",
    "grpo() | weigh_by_ratio(ratio=sequence_mask(limit=3))",
)


def cut(keys, seed):
    """Some numbers in random order, cut into pieces at random places."""
    rng = random.Random(seed)
    keys = rng.sample(keys, len(keys))
    ends = sorted({*rng.sample(range(1, len(keys)), min(3, len(keys) - 1)), len(keys)})
    return [keys[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def whole_and_cut(objective, batch, logp, entropy, seed):
    """Loss and gradients of the rows at once, and summed over pieces of their sequences as columns."""
    credited = objective.evaluate(batch, objective.init_state())
    denominators = objective.denominators(batch, credited)
    told = replace(batch, entropy=entropy, logp=logp.detach())
    whole = objective.loss(logp, told, credited)
    places = find_places(batch)
    needs = objective.surrogate.needs.union(*(penalty.needs for penalty in objective.penalties))
    columns = make_columns(batch, credited, places, needs)
    parts = []
    for piece in cut(list(range(len(places))), seed):
        padded = {
            name: torch.nn.utils.rnn.pad_sequence([values[one] for one in piece], batch_first=True)
            for name, values in columns.items()
        }
        own, lively = (
            torch.nn.utils.rnn.pad_sequence([places[one].read(value) for one in piece], batch_first=True)
            for value in (logp, entropy)
        )
        rebuilt, coefficients = read_columns(padded, own, lively)
        parts.append(sum_terms(objective.numerators(own, rebuilt, coefficients), denominators))
    return whole, torch.stack(parts).sum()


def check(objective, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch.mask.shape, dtype=torch.float64, generator=generator)
    before = torch.zeros_like(noise) if batch.logp is None else batch.logp.double()
    logp = (before + 0.1 * noise).requires_grad_()
    entropy = torch.rand(batch.mask.shape, dtype=torch.float64, generator=generator).requires_grad_()
    whole, parts = whole_and_cut(objective, batch, logp, entropy, seed)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)
    wanted, found = (
        torch.autograd.grad(loss, (logp, entropy), retain_graph=True, allow_unused=True) for loss in (whole, parts)
    )
    for want, got in zip(wanted, found, strict=True):
        zero = torch.zeros(batch.mask.shape, dtype=torch.float64)
        torch.testing.assert_close(zero if got is None else got, zero if want is None else want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [*sorted(REGISTRY), *COMPOSED])
def test_pieces_of_columns_add_up_to_the_loss_of_the_rows(name):
    """For every objective that there is, though verl itself does not fill what some of them read."""
    objective = (example(name) if name in REGISTRY else parse(name)).at(0.5)
    for seed in range(2):
        check(objective, make_batch_for(objective, seed), seed)


def runs_on_verl(objective):
    try:
        VerlSettings(objective=str(objective)).make_objective()
    except QreditError:
        return False
    return True


def test_most_objectives_run_on_verl():
    found = {name for name in REGISTRY if runs_on_verl(example(name))}
    assert len(found) > 25
    assert {"garl", "paft", "grpo"} <= found


def rollouts(aliases):
    """Two groups of three rollouts; every second one has `aliases` right answers beside the gold one."""
    found = []
    for number in range(6):
        thought, said = number % 3 + 1, 2
        one = make_one_turn(
            (1, 2), range(10, 10 + thought + 1 + said), [-0.5] * (thought + 1 + said), thought, thought + 1,
            forced=number % 2 == 0, ended=True,
        )  # fmt: skip
        golds = [(30, 31), *((40 + n, 41 + n, 42) for n in range(aliases * (number % 2)))]
        found.append(replace(one, golds=tuple(golds), group=number // 3, reward=float(number % 2)))
    return found


def aliased_batch(objective, aliases=2):
    """Rows with several right answers, scored at random."""
    rows = collate(rollouts(aliases), choose_tails(objective.needs), 0, 7, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    logp = -1 - torch.rand(rows.batch.mask.shape, dtype=torch.float64, generator=generator)
    log_w, share = join_answers(logp, rows.batch.answer, rows.batch.alias)
    told = {"logp": logp, "entropy": logp.abs(), "answer_logp": log_w, "answer_share": share}
    return rows, replace(rows.batch, **told, sampler_logp=None)


@pytest.mark.parametrize(
    "text", ["garl(q=0.75)", "paft(q=0.5)", "logprob()", "garl(q=0.5) | entropy_bonus(0.01)", "geometric_mean()"]
)
def test_a_row_of_several_answers_is_a_sequence_for_each(text):
    plain = parse(text).at(0.0)
    _, batch = aliased_batch(plain)
    assert len(find_places(batch)) > len(batch.mask)
    for objective in (plain, replace(plain, reduction=mean_per_rollout())):  # which divides by a row's tokens
        for seed in range(3):
            check(objective, batch, seed)


def test_scores_of_sequences_find_their_tokens():
    """Each token of a row is read from the sequence that it was appended in; the rationale from the first."""
    objective = parse("garl(q=0.75)")
    rows, batch = aliased_batch(objective)
    places = find_places(batch)
    told = [place.read(batch.ids).float() for place in places]
    for place, values in zip(places, told, strict=True):
        values[: place.fork] = -1.0
    torch.testing.assert_close(gather_tokens(places, told, rows), torch.where(batch.mask, batch.ids, 0).float())


@pytest.mark.parametrize("tails", [("answer",), ("response",), ("answer", "response")])
def test_sequences_of_a_rollout_are_those_of_its_rows(tails):
    one = rollouts(2)[1]
    rows = collate([one], tails, 0, 0, torch.device("cpu"))
    places = find_places(rows.batch)
    sequences = list_sequences(one, tails)
    assert [tuple(p.read(rows.batch.ids).tolist()) for p in places] == [s.ids for s in sequences]
    assert [tuple(p.read(rows.batch.sampled).tolist()) for p in places] == [s.sampled for s in sequences]


@pytest.mark.parametrize("reward", [0.5, math.nan])
def test_a_rollout_survives_its_way_to_the_driver(reward):
    one = replace(rollouts(2)[1], reward=reward)
    index, back = from_bytes(to_bytes(one, 17))
    assert index == 17
    assert math.isnan(back.reward) if math.isnan(reward) else back.reward == reward
    as_tuples = tuple(
        replace(part, ids=tuple(part.ids), logp=None if part.logp is None else tuple(part.logp))
        for part in back.segments
    )
    assert replace(back, segments=as_tuples, group=one.group, reward=0.0) == replace(one, reward=0.0)
    told, was = (collate([of], ("answer", "response"), 0, 0, torch.device("cpu")).batch for of in (back, one))
    assert torch.equal(told.ids, was.ids)
    assert torch.equal(told.sampler_logp, was.sampler_logp)


def test_columns_are_put_in_another_order_and_filled_up():
    columns = {"a": [torch.tensor([1, 2]), torch.tensor([3])]}
    filled = fill_up(columns, ["x", "y"], ["y", "padding", "x"], [1, 3, 2])["a"]
    assert [one.tolist() for one in filled] == [[3], [0, 0, 0], [1, 2]]
    assert {one.dtype for one in filled} == {torch.long}


def test_columns_travel_in_few_bytes():
    """A step's columns pass through one process."""
    batch = make_batch_for(parse("grpo()"), 0)
    credited = parse("grpo()").evaluate(batch)
    columns = make_columns(batch, credited, find_places(batch))
    whole = {name: values[0] for name, values in columns.items() if not values[0].is_floating_point()}
    assert "qredit_batch_group" in whole
    assert max(value.element_size() for value in whole.values()) <= 4
