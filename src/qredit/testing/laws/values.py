"""Laws of the numbers: exact where the formula is worked out, 0 where claimed, finite on whatever groups there are."""

from dataclasses import replace

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.testing.batches import make_batch_for, random_batch, set_likelihood
from qredit.testing.laws.assertions import assert_each_close, assert_finite, assert_zero
from qredit.testing.laws.subject import Condition, Subject
from qredit.utils.errors import QreditError

EXTREMES = (
    (0.0, -69.0, -69.0),  # one row dominates: the mean of the others must not cancel
    (-800.0, -799.0, -801.5),  # an ordinary cold start: every likelihood underflows
    (-50.0, -400.0, -51.0),
    (-1e-9, -2e-9, -1e-3),
    (-torch.inf, -3.0, -700.0),
    (-torch.inf, -torch.inf, -20.0),
)


def float32_keeps_what_float64_says(subject: Subject) -> None:
    """The coefficients of groups with extreme likelihoods are the exact ones, rounded to float32."""
    assert subject.weights is not None
    for log_w in EXTREMES:
        on_policy = replace(random_batch(0, gold=True, said=False, sizes=(3,)), sampler_logp=None)
        batch = set_likelihood(on_policy, torch.tensor(log_w, dtype=torch.float64))
        rationale, answer = (torch.tensor(part, dtype=torch.float64)[:, None] for part in subject.weights(log_w))
        expected = torch.where(batch.answer, answer, torch.where(batch.rationale & batch.sampled, rationale, 0.0))
        assert_each_close(subject.objective.credit(batch), expected)


def advantages_are_those_of_the_formula(subject: Subject) -> None:
    """With 0/1 rewards the coefficient of every sampled token is the advantage worked out by hand."""
    assert subject.advantage is not None
    for successes in range(6):
        correct = torch.arange(5) < successes
        batch = replace(random_batch(successes, gold=False, said=True, sizes=(5,)), reward=correct.double())
        right, wrong = subject.advantage(successes, 5)
        expected = torch.where(correct, right, wrong)[:, None].double() * batch.sampled
        assert_each_close(subject.objective.credit(batch), expected, 1e-5)


def equals_its_reference(subject: Subject) -> None:
    """The coefficient is the one that the formula gives when it is written plainly, on random batches.

    Where rewards are read, every second batch has a rollout that was not scored.
    """
    assert subject.reference is not None
    for seed in range(3):
        batch = make_batch_for(subject.objective, seed)
        if batch.reward is not None and "reward" in subject.objective.needs and seed % 2:
            batch = replace(batch, reward=batch.reward.index_fill(0, torch.tensor([seed]), torch.nan))
        assert_each_close(subject.objective.credit(batch), subject.reference(batch), 1e-5, 1e-12)


def zero_where_it_is_said_to_be(subject: Subject) -> None:
    """Exactly 0, not a rounding residue, in every situation that the docstring names, and not everywhere else."""
    for condition in subject.zero:
        for seed in range(2):
            batch = condition.arrange(make_batch_for(subject.objective, seed))
            credit = subject.objective.credit(batch)
            assert_zero(credit[condition.rows(batch)], condition.name)
            if not bool(credit.any()):
                raise AssertionError(f"{condition.name}: the rest of the batch has no coefficient either")


def graded_rewards_are_refused(subject: Subject) -> None:
    """A reward between 0 and 1 is refused, and the message names it."""
    batch = make_batch_for(subject.objective, 0)
    try:
        subject.objective.credit(replace(batch, reward=torch.full((len(batch.group),), 0.25)))
    except QreditError as error:
        if "0.25" not in str(error):
            raise AssertionError(f"refused, but without naming the reward: {error}") from None
    else:
        raise AssertionError("a reward of 0.25 was taken")


def finite_on_degenerate_groups(subject: Subject) -> None:
    """No NaN and no infinity, in coefficient, loss or gradient, on groups that have nothing to compare."""
    for name, degenerate in make_degenerate_batches(make_batch_for(subject.objective, 0)).items():
        if subject.binary and name == "all equal":
            continue  # of a reward that it refuses
        logp = torch.where(degenerate.mask, -1.0, 0.0).double().requires_grad_()
        credited = subject.objective.evaluate(degenerate)
        assert_finite(credited.value, name)
        loss = subject.objective.loss(logp, degenerate, credited)
        assert_finite(loss.detach(), f"{name}: loss")
        assert_finite(torch.autograd.grad(loss, logp, allow_unused=True)[0], f"{name}: gradient")


def make_degenerate_batches(batch: RolloutBatch) -> dict[str, RolloutBatch]:
    """The batch with all its groups alike in one way."""
    changed: dict[str, RolloutBatch] = {
        "groups of one": replace(batch, group=torch.arange(len(batch.group))),
        "an empty row": _without_row(batch, 0),
    }
    if batch.reward is not None:
        for name, value in (("all right", 1.0), ("all wrong", 0.0), ("all equal", 0.1), ("none scored", torch.nan)):
            changed[name] = replace(batch, reward=torch.where(batch.reward.isnan(), torch.nan, value))
    if batch.answer_logp is not None:
        nothing = torch.full_like(batch.answer_logp, -torch.inf)
        changed["no likelihood"] = set_likelihood(batch, nothing)
        changed["likelihood in one row"] = set_likelihood(batch, nothing.index_fill(0, torch.tensor([1]), -1.0))
        changed["certain answers"] = set_likelihood(batch, torch.zeros_like(nothing))
    return changed


def _without_row(batch: RolloutBatch, row: int) -> RolloutBatch:
    spans = ("mask", "rationale", "answer", "close", "response", "sampled")
    cleared = {name: getattr(batch, name).clone() for name in spans if getattr(batch, name) is not None}
    for span in cleared.values():
        span[row] = False
    return replace(batch, **cleared)


def _second_group(batch: RolloutBatch) -> Tensor:
    """Three rows: the mean of three equal numbers is not always that number."""
    return batch.groups.index == 1


EQUAL_REWARDS = Condition(
    "rewards of a group are equal",
    lambda batch: replace(
        batch,
        reward=torch.where(_second_group(batch), 0.1, torch.arange(len(batch.group)).double() % 2),
    ),
    _second_group,
)
UNSCORED = Condition(
    "a row without a reward",
    lambda batch: replace(
        batch, reward=(torch.arange(len(batch.group)).double() % 2).index_fill(0, torch.tensor([0]), torch.nan)
    ),
    lambda batch: torch.arange(len(batch.group)) == 0,
)
NO_SUCCESS = Condition(
    "a group without a success",
    lambda batch: replace(
        batch, reward=torch.where(_second_group(batch), 0.0, torch.arange(len(batch.group)).double() % 2)
    ),
    _second_group,
)
NO_LIKELIHOOD = Condition(
    "every likelihood of a group is 0",
    lambda batch: set_likelihood(
        batch, torch.where(_second_group(batch), -torch.inf, -torch.arange(len(batch.group)).double())
    ),
    _second_group,
)
NO_ANSWER = Condition(
    "a row without a gold answer",
    lambda batch: set_likelihood(
        replace(batch, answer=batch.answer & (torch.arange(len(batch.group)) > 0)[:, None]),
        -torch.arange(len(batch.group)).double(),
    ),
    lambda batch: torch.arange(len(batch.group)) == 0,
)
