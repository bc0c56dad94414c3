"""Rollouts for the rows of a data set, with their rewards and fields; further prompts where rewards are all equal."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from qredit.core.hint import hint
from qredit.data.encoding import ALIAS_IDS, ANSWER_IDS, HINTED_IDS, PROMPT_IDS
from qredit.data.prompt_sampler import GroupStatistics, PromptSampler
from qredit.data.statistics import summarize_rewards
from qredit.engine.collective import Collective
from qredit.engine.prompts import Prompts
from qredit.rollouts.collate import has_equal_rewards, split_groups
from qredit.rollouts.field_functions import FieldFunction
from qredit.rollouts.field_maker import FieldTools, RolloutMaker, make_fields
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import EndReason, FieldValues, Role, Segment, Trajectory
from qredit.utils.seed import DYNAMIC_SAMPLING_STREAM, FORK_STREAM, derive_seed


@dataclass
class RolloutSampler:
    """Samples for one process.

    Attributes:
        draw: (ids of each prompt, a number that the seed depends on) → a trajectory for each.
        reward: trajectories with their texts and rows → rewards; called on every process alike.
        field_functions: who makes each batch field.
        play: (rows of the data set, ids of each prompt, the number) → an episode for each, in the place of `draw`.
        answer: (trajectories in which thinking is closed, a number that the seed depends on) → the same with an answer.
        score: as `reward`, of rollouts that are not learned from.
        log: is told what makers of fields log, as means over all processes.
        seconds: spent so far; for its reader to set back.
    """

    collective: Collective
    format: TokenFormat
    tokenizer: PreTrainedTokenizerBase
    draw: Callable[[list[list[int]], int], list[Trajectory]]
    reward: Callable[[Sequence[Trajectory]], list[float]]
    field_functions: Mapping[str, FieldFunction | RolloutMaker]
    play: Callable[[Sequence[Mapping[str, Any]], list[list[int]], int], list[Trajectory]] | None = None
    log: Callable[[Mapping[str, float]], None] = lambda told: None
    answer: Callable[[Sequence[Trajectory], int], list[Trajectory]] | None = None
    score: Callable[[Sequence[Trajectory]], list[float]] | None = None
    seconds: float = 0.0

    def sampled(
        self,
        inputs: list[dict[str, Any]],
        number: int,
        m: int,
        proposal: hint | None = None,
        reward: Callable[[Sequence[Trajectory]], list[float]] | None = None,
    ) -> list[Trajectory]:
        """One trajectory, scored, for each input row; the m rows of one prompt are neighbours and share a group.

        Args:
            inputs: rows of the data set, each repeated m times.
            number: what the draws depend on.
            m: rollouts per prompt.
            proposal: which share of a group is drawn behind the prompt that shows the gold answer: its last rows.
            reward: in the place of the sampler's own.
        """
        start = time.perf_counter()
        hinted = 0 if proposal is None else proposal.count(m)
        drawn = self._drawn(inputs, number, [row % m >= m - hinted for row in range(len(inputs))])
        found = self.scored(drawn, inputs, number, m, reward)
        self.seconds += time.perf_counter() - start
        return found

    def scored(
        self,
        drawn: Sequence[Trajectory],
        inputs: Sequence[Mapping[str, Any]],
        number: int,
        m: int,
        reward: Callable[[Sequence[Trajectory]], list[float]] | None = None,
    ) -> list[Trajectory]:
        """Rollouts with their texts, rows, groups, rewards and made fields.

        Args:
            drawn: the m of each prompt together.
            inputs: the data set's row of each.
            number: what their groups are numbered by.
            m: rollouts per prompt.
            reward: in the place of the sampler's own.
        """
        # Stages that draw take the group's number for their seed, so no two generations or processes share one.
        first = (number * self.collective.size + self.collective.rank) * (len(inputs) // m)
        read = [
            self._decoded(attach_row(one, row, first + index // m))
            for index, (one, row) in enumerate(zip(drawn, inputs, strict=True))
        ]
        values = (reward or self.reward)(read)
        # an episode that an error ended was not played to its end, and says nothing of the policy
        values = [math.nan if one.end is EndReason.ERROR else value for one, value in zip(read, values, strict=True)]
        read = [replace(one, reward=value) for one, value in zip(read, values, strict=True)]
        made = self._make_fields(read, number)
        return [
            replace(one, fields={name: values[index] for name, values in made.items()})
            for index, one in enumerate(read)
        ]

    def _make_fields(self, trajectories: Sequence[Trajectory], number: int) -> dict[str, Sequence[FieldValues]]:
        """The fields of scored rollouts; what their makers log is averaged over processes."""
        told: list[tuple[str, float]] = []
        tools = FieldTools(
            self.tokenizer,
            lambda name, value: told.append((name, value)),
            None if self.answer is None else partial(self._answer_cut, FORK_STREAM + derive_seed(number) % FORK_STREAM),
            self.format.close_ids,
        )
        made = make_fields(self.field_functions, trajectories, tools)
        if any(isinstance(maker, RolloutMaker) for maker in self.field_functions.values()):
            values: dict[str, list[float]] = {}
            for name, value in self.collective.gather(told):
                values.setdefault(name, []).append(value)
            self.log({name: math.fsum(each) / len(each) for name, each in values.items()})
        return made

    def _answer_cut(self, number: int, trajectories: Sequence[Trajectory], cuts: Sequence[int]) -> list[Trajectory]:
        """The trajectories with their thinking cut, closed by force and answered anew, scored."""
        assert self.answer is not None
        closing = Segment(tuple(self.format.close_ids), Role.CLOSE, sampled=False)
        heads = [
            replace(one, segments=(Segment(one.ids[:cut], Role.THINK, sampled=True, logp=one.logp[:cut]), closing))
            for one, cut in zip(trajectories, cuts, strict=True)
        ]
        read = [self._decoded(one) for one in self.answer(heads, number)]
        return [replace(one, reward=value) for one, value in zip(read, (self.score or self.reward)(read), strict=True)]

    def _drawn(self, inputs: Sequence[Mapping[str, Any]], number: int, hinted: Sequence[bool]) -> list[Trajectory]:
        """A trajectory for each row, drawn behind its plain or its hinted prompt, that stands behind the plain one."""
        asked = [row[HINTED_IDS if shown else PROMPT_IDS] for row, shown in zip(inputs, hinted, strict=True)]
        drawn = self.draw_rows(inputs, asked, number)
        if HINTED_IDS not in inputs[0]:
            return drawn
        return [
            replace(one, prompt=tuple(row[PROMPT_IDS]), hinted=tuple(row[HINTED_IDS]), proposal=shown)
            for one, row, shown in zip(drawn, inputs, hinted, strict=True)
        ]

    def draw_rows(self, inputs: Sequence[Mapping[str, Any]], prompts: list[list[int]], number: int) -> list[Trajectory]:
        """A trajectory for each row, behind the prompt that is asked; an episode, where there is something to play.

        Args:
            inputs: rows of the data set.
            prompts: ids of each prompt.
            number: what the draws depend on.
        """
        if self.play is None:
            return self.draw(prompts, number)
        return self.play([strip_id_columns(row) for row in inputs], prompts, number)

    def replace_equal_reward_groups(
        self, sampled: Sequence[Trajectory], number: int, m: int, prompts: Prompts, further: PromptSampler, rounds: int
    ) -> tuple[list[Trajectory], float]:
        """The groups, those of equal rewards replaced by groups of further prompts that have some; the share replaced.

        A group for which none is found in `rounds` stays (arXiv 2503.14476, section 3.2, samples on).

        Args:
            sampled: those of the prompts of this generation.
            number: that of the generation.
            m: rollouts per prompt.
            prompts: in use; they are told of what takes whose place.
            further: gives the further prompts.
            rounds: how often they are asked for at most.
        """
        groups, examples = split_groups(sampled, m), prompts.share(prompts.asked)
        left_out: list[GroupStatistics] = []
        flat = [place for place, group in enumerate(groups) if has_equal_rewards(group)]
        found = 0
        for attempt in range(1, rounds + 1):
            wanted = max(self.collective.gather([len(flat)]))  # rewards are gathered: every process samples alike
            if wanted == 0:
                break
            drawn = prompts.share(prompts.drawn(further, wanted * self.collective.size))
            fresh = split_groups(
                self.sampled(
                    prompts.rows(drawn, m),
                    DYNAMIC_SAMPLING_STREAM + derive_seed(number, attempt) % DYNAMIC_SAMPLING_STREAM,
                    m,
                ),
                m,
            )
            varied = [at for at, group in enumerate(fresh) if not has_equal_rewards(group)]
            taken = dict(zip(flat, varied, strict=False))
            left_out += [summarize_rewards(examples[place], collect_rewards(groups[place])) for place in taken]
            left_out += [
                summarize_rewards(drawn[at], collect_rewards(group))
                for at, group in enumerate(fresh)
                if at not in taken.values()
            ]
            for place, at in taken.items():
                groups[place] = [replace(one, group=groups[place][0].group) for one in fresh[at]]
                examples[place] = drawn[at]
            found += len(taken)
            flat = flat[len(taken) :]
        prompts.replace(examples, left_out)
        return [one for group in groups for one in group], found / len(groups)

    def _decoded(self, trajectory: Trajectory) -> Trajectory:
        """With the sampled answer and the rationale as text, as reward functions and makers of fields read them."""
        thought = self.tokenizer.decode(trajectory.rationale_ids, skip_special_tokens=True)
        response = self.format.response_text(trajectory.answer_ids)
        return replace(trajectory, rationale=str(thought), response=response)


def attach_row(trajectory: Trajectory, row: Mapping[str, Any], group: int) -> Trajectory:
    """A trajectory with its row of the data set, and with the right answers that stand there, if any do.

    Args:
        trajectory: as it was sampled.
        row: of the data set.
        group: number of its group.
    """
    golds = tuple(map(tuple, filter(None, (row[ANSWER_IDS], *row.get(ALIAS_IDS, ())))))
    return replace(trajectory, example=strip_id_columns(row), golds=golds, group=group)


def collect_rewards(group: Sequence[Trajectory]) -> list[float]:
    """The rewards of a group's rollouts."""
    return [one.reward for one in group]


def strip_id_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's row without the ids that were added to it."""
    return {key: value for key, value in row.items() if key not in (PROMPT_IDS, ANSWER_IDS, ALIAS_IDS, HINTED_IDS)}
