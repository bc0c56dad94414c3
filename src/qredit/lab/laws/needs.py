"""Laws of what is read: the fields that an objective or a stage says it needs are the fields it reads."""

from qredit.batch import RolloutBatch
from qredit.chain import stages
from qredit.errors import QreditError
from qredit.lab.batches import batch_for, replaced
from qredit.lab.laws.compare import check_each_close
from qredit.lab.laws.subject import Subject

ALWAYS = frozenset({"mask", "rationale", "answer", "group", "close", "response", "sampled", "rollout"}) | {
    "sampler_logp"  # that it is None says something: on-policy
}


def needs_are_what_is_read(subject: Subject) -> None:
    """Without the fields it does not need nothing changes; without one that it needs it is refused by name."""
    objective = subject.objective
    batch = batch_for(objective, 0)
    bare = _without(batch, frozenset(batch.present) - ALWAYS - objective.needs)
    check_each_close(objective.credit(bare), objective.credit(batch))
    for name in objective.needs - ALWAYS:
        try:
            objective.credit(_without(batch, frozenset({name})))
        except QreditError as error:
            if name not in str(error):
                raise AssertionError(f"refused without {name}, but not by its name: {error}") from None
        else:
            raise AssertionError(f"credit was given without {name}, which is among the needs")


def needs_are_the_union(subject: Subject) -> None:
    """What an objective needs is what its stages and penalties need, no more and no less."""
    leaves = [stage.needs for _, stage in stages(subject.objective.source)]
    wanted = frozenset[str]().union(*leaves, *(penalty.needs for penalty in subject.objective.penalties))
    if subject.objective.needs != wanted:
        raise AssertionError(f"needs {sorted(subject.objective.needs)}, its stages need {sorted(wanted)}")


def _without(batch: RolloutBatch, names: frozenset[str]) -> RolloutBatch:
    return replaced(batch, dict.fromkeys(names))
