"""The rows of a whole step in one process, where other processes score and differentiate their sequences.

An engine that spreads sequences over workers names each of them by a key. Credit is evaluated here, over all rows of
the optimiser step, so that it does not depend on how the workers share them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.chain import Scope, When
from qredit.core.objective import Credited, Objective
from qredit.engine.collective import SingleProcess
from qredit.engine.columns import Place, find_places, gather_tokens
from qredit.engine.rollout_bytes import from_bytes
from qredit.engine.scorer import Scorer
from qredit.engine.stage_state import UPDATE_CADENCES, StageState, accumulate_sums
from qredit.rollouts.collate import Rows, Tail, collate
from qredit.rollouts.trajectory import Trajectory
from qredit.utils.errors import QreditError

_ALONE = SingleProcess()
Told = Mapping[str, Mapping[str, Tensor]]  # batch field → key of a sequence → a number for each of its tokens


@dataclass(frozen=True, eq=False)
class GatheredRows:
    """The rollouts of a step, or of a part of it.

    Attributes:
        rows: of whole groups.
        places: of their sequences.
        keys: of the sequences, in the same order.
        batch: the rows, with what is known of them.
        first: the rollouts of the first group; empty in a part.
    """

    rows: Rows
    places: Sequence[Place]
    keys: Sequence[str]
    batch: RolloutBatch
    first: Sequence[Trajectory] = ()

    def select(self, chosen: Tensor) -> "GatheredRows":
        """Some of the rows, by their ascending numbers."""
        number = {int(row): place for place, row in enumerate(chosen)}
        kept = [at for at, place in enumerate(self.places) if place.row in number]
        return GatheredRows(
            self.rows.select(chosen),
            [replace(self.places[at], row=number[self.places[at].row]) for at in kept],
            [self.keys[at] for at in kept],
            self.batch.select(chosen),
        )

    def count_complete(self, m: int) -> int:
        """How many groups have all of their m rollouts."""
        rollouts = {rollout_of(key) for key in self.keys}
        return sum(size == m for size in Counter(_split(one)[0] for one in rollouts).values())

    def split(self, groups: int) -> list["GatheredRows"]:
        """Parts of so many groups."""
        own = self.batch.group.unique()
        if len(own) <= groups:
            return [self]
        return [self.select(torch.isin(self.batch.group, part).nonzero()[:, 0]) for part in own.split(groups)]

    def attach(self, told: Told, scorer: Scorer, off_policy: bool = False) -> "GatheredRows":
        """With what was told of each sequence.

        Args:
            told: logp and entropy.
            scorer: says what an objective reads of it.
            off_policy: the weights have moved since the rollouts were sampled. What the batch knew of them before is
                then the density that they were sampled with.
        """
        rows = self.rows
        if off_policy:
            before = replace(rows.batch, sampler_logp=self.batch.logp, extra=self.batch.extra)
            rows = replace(rows, batch=before)
        scores = {
            name: gather_tokens(self.places, [values[key] for key in self.keys], rows) for name, values in told.items()
        }
        return replace(self, rows=rows, batch=scorer.attach_scores(rows.batch, scores, off_policy))

    def move_off_policy(self) -> "GatheredRows":
        """The same under weights that have moved since: ratios are against the scores that it has."""
        return replace(self, batch=replace(self.batch, sampler_logp=self.batch.logp))


def gather_rollouts(
    packed: Mapping[str, bytes], keys: Sequence[str], tails: Sequence[Tail], pad: int, first: int, seed: int
) -> GatheredRows:
    """The rows of rollouts that came as bytes, and whose sequences lie elsewhere.

    Groups are numbered by the place of their prompts in the data: keys may be drawn at random, and a resumed run is to
    number its groups alike.

    Args:
        packed: each rollout, by PROMPT_NUMBER.
        keys: of all sequences, PROMPT_NUMBER_SEQUENCE.
        tails: what rows end in.
        pad: id of the padding token.
        first: number of the first group.
        seed: of the batch: stages that draw depend on it.

    Raises:
        QreditError: other sequences came than the rollouts are made of.
    """
    told = {key: from_bytes(data) for key, data in packed.items()}
    order = sorted(told, key=lambda key: (told[key][0], *_split(key)))
    groups = {prompt: first + number for number, prompt in enumerate(dict.fromkeys(_split(key)[0] for key in order))}
    trajectories = [replace(told[key][1], group=groups[_split(key)[0]]) for key in order]
    rows = collate(trajectories, tails, pad, seed, torch.device("cpu"))
    places = find_places(rows.batch)
    counts = Counter(map(rollout_of, keys))
    own = [f"{rollout}_{number}" for rollout in order for number in range(counts[rollout])]
    if len(own) != len(places) or len(own) != len(keys):
        raise QreditError(f"rollouts of {len(places)} sequences were sampled, and {len(keys)} sequences came")
    return GatheredRows(rows, places, own, rows.batch, [one for one in trajectories if one.group == first])


def rollout_of(key: str) -> str:
    """The rollout of a sequence: PROMPT_NUMBER of PROMPT_NUMBER_SEQUENCE."""
    return key.rsplit("_", 1)[0]


def _split(key: str) -> tuple[str, int]:
    """The prompt's key and the number of the rollout."""
    prompt, number = key.rsplit("_", 1)
    return prompt, int(number)


def credit_before(
    objective: Objective, whole: GatheredRows, parts: Sequence[GatheredRows], stages: StageState
) -> list[Credited] | None:
    """Coefficients that are fixed before the first update; None where each update computes its own.

    Args:
        objective: the plain one of this moment.
        whole: all rows of the generation.
        parts: those of each update.
        stages: state of stateful stages; gets their sums where they are of the whole generation.
    """
    if objective.scope == Scope.GENERATION:
        credited = objective.evaluate(whole.batch, stages.state)
        if stages.state:
            accumulate_sums(stages.pending, objective.statistics(whole.batch, stages.state, UPDATE_CADENCES))
        row = {key: place.row for key, place in zip(whole.keys, whole.places, strict=True)}
        return [credited.select(torch.tensor(sorted({row[key] for key in part.keys}))) for part in parts]
    if objective.when == When.ROLLOUT and objective.scope < Scope.BATCH:
        return [objective.evaluate(part.batch, stages.state) for part in parts]
    return None


def credit_now(objective: Objective, part: GatheredRows, stages: StageState) -> Credited:
    """Coefficients of the rows of one update, under the weights that scored them.

    Args:
        objective: the plain one of this moment.
        part: scored rows.
        stages: state of stateful stages; gets their sums where they are of the whole step.
    """
    credited = objective.evaluate(part.batch, stages.state)
    if objective.scope >= Scope.BATCH and stages.state:
        accumulate_sums(stages.pending, objective.statistics(part.batch, stages.state, UPDATE_CADENCES))
    return credited


def iterate_updates(
    objective: Objective,
    whole: GatheredRows,
    parts: Sequence[GatheredRows],
    stages: StageState,
    scorer: Scorer,
    rescore: Callable[[int], Told],
) -> Iterator[tuple[GatheredRows, Credited]]:
    """The rows and coefficients of each update on one generation; the caller takes the step before it asks for more.

    Args:
        objective: the plain one of this moment.
        whole: all rows of the generation, scored.
        parts: those of each update, in order.
        stages: state of stateful stages; it is moved on.
        scorer: says what an objective reads of scores.
        rescore: number of an update → what the weights of now tell of its sequences.
    """
    stages.begin(objective, [whole.batch], _ALONE)
    known = credit_before(objective, whole, parts, stages)
    for number, part in enumerate(parts):
        if number and known is None:  # the weights have moved
            scored = part.attach(rescore(number), scorer, off_policy=True)
        else:
            scored = part.move_off_policy() if number else part
        yield scored, credit_now(objective, scored, stages) if known is None else known[number]
        stages.update(objective, scored.batch, _ALONE, True, number == len(parts) - 1)
