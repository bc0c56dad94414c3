"""Laws of what is read: the fields that an objective or a stage says it needs are the fields it reads."""

from collections.abc import Callable

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Stage, When, infer_recompute, named_stages
from qredit.core.objective import Objective
from qredit.testing.batches import make_batch_for, replace_fields
from qredit.testing.laws.assertions import assert_each_close
from qredit.testing.laws.subject import Subject
from qredit.utils.errors import QreditError

ALWAYS_PRESENT = frozenset({"mask", "rationale", "answer", "group", "close", "response", "sampled", "rollout"}) | {
    "sampler_logp"  # that it is None says something: on-policy
}


def needs_are_what_is_read(subject: Subject) -> None:
    """Without the fields it does not need nothing changes; without one that it needs it is refused by name."""
    check_reads(subject.objective, subject.objective.credit)


def check_reads(part: Objective | Stage, credit: Callable[[RolloutBatch], Tensor]) -> None:
    """What `credit` reads of a batch is what the objective or stage behind it says, on and off policy.

    Raises:
        AssertionError: it reads another field, or does without one that is among the needs.
    """
    off_policy = make_batch_for(part, 0)
    on_policy = _without(off_policy, frozenset({"sampler_logp"}))
    _check_reads(credit, off_policy, part.needs | part.needs_off_policy)
    _check_reads(credit, on_policy, part.needs)


def _check_reads(credit: Callable[[RolloutBatch], Tensor], batch: RolloutBatch, needs: frozenset[str]) -> None:
    bare = _without(batch, frozenset(batch.present) - ALWAYS_PRESENT - needs)
    assert_each_close(credit(bare), credit(batch))
    for name in needs - ALWAYS_PRESENT:
        try:
            credit(_without(batch, frozenset({name})))
        except QreditError as error:
            if name not in str(error):
                raise AssertionError(f"refused without {name}, but not by its name: {error}") from None
        else:
            raise AssertionError(f"credit was given without {name}, which is among the needs")


def needs_are_used(subject: Subject) -> None:
    """Other values in any field that it needs make another coefficient, weight or loss on some random batch."""
    objective = subject.objective
    for name in sorted(objective.needs - ALWAYS_PRESENT - subject.unused):
        if not any(_differs(objective, name, seed) for seed in range(6)):
            raise AssertionError(f"{name} is among the needs, but its values change nothing")


def _differs(objective: Objective, name: str, seed: int) -> bool:
    batch = make_batch_for(objective, seed)
    other = make_batch_for(objective, seed + 100).require(name, "law")
    changed = replace_fields(batch, {name: other if other.dim() else other + 1})
    before, after = (_collect_outputs(objective, one) for one in (batch, changed))
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def _collect_outputs(objective: Objective, batch: RolloutBatch) -> list[Tensor]:
    credited = objective.evaluate(batch)
    logp = torch.where(batch.mask, -1.0, 0.0).double()
    terms = objective.numerators(logp, batch, credited)
    return [credited.value, *credited.penalties, *terms.values()]


def what_a_pass_tells_is_recomputed(subject: Subject) -> None:
    """An objective that reads what a forward pass tells is evaluated after one, at every update."""
    objective = subject.objective
    read = sorted(name for name in objective.needs if infer_recompute({name}) is When.UPDATE)
    if read and objective.when is not When.UPDATE:
        raise AssertionError(f"{', '.join(read)} change with the parameters, but the result is fixed with the rollouts")


def needs_are_the_union(subject: Subject) -> None:
    """What an objective needs is what its stages and penalties need, no more and no less."""
    leaves = [stage.needs for _, stage in named_stages(subject.objective.source)]
    wanted = frozenset[str]().union(*leaves, *(penalty.needs for penalty in subject.objective.penalties))
    if subject.objective.needs != wanted:
        raise AssertionError(f"needs {sorted(subject.objective.needs)}, its stages need {sorted(wanted)}")


def _without(batch: RolloutBatch, names: frozenset[str]) -> RolloutBatch:
    return replace_fields(batch, dict.fromkeys(names))
