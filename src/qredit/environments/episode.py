"""Episodes over any sampler: all that are going on are sampled together, turn by turn.

    prompt | thinking  closing  action | observation | thinking  closing  answer
             turn 0                                    turn 1

Ids are put behind each other and never decoded and encoded again. Only the environment reads text.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from qredit.environments.beginning import Beginning
from qredit.environments.budget import EpisodeBudget
from qredit.environments.calls import CallForm
from qredit.environments.observation import ObservationFormat
from qredit.environments.protocol import (
    Environment,
    EnvironmentFactory,
    Step,
    check_step,
    close_quietly,
    collect_earned,
)
from qredit.environments.turn import TurnSampler
from qredit.rollouts.format import TokenFormat
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory, TurnRecord
from qredit.samplers.protocol import Sampler
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error, to_one_line
from qredit.utils.seed import ENVIRONMENT_STREAM, TURN_STREAM, derive_seed

MOST_FAULTS = 0.25


@dataclass
class _Episode:
    """One that is going on."""

    prompt: tuple[int, ...]
    environment: Environment | None
    state_key: str | None = None
    segments: list[Segment] = field(default_factory=list)
    turns: list[TurnRecord] = field(default_factory=list)
    dropped_ends: int = 0
    end: EndReason | None = None
    fault: str | None = None

    @property
    def context(self) -> tuple[int, ...]:
        return (*self.prompt, *(token for segment in self.segments for token in segment.ids))

    def count(self, observed: bool) -> int:
        """Tokens of observations, or those that were sampled."""
        return sum(len(s.ids) for s in self.segments if (s.role == Role.OBSERVATION if observed else s.sampled))

    def fail(self, error: Exception) -> None:
        """A fault of the environment: it is over."""
        self.fault = to_one_line(f"{type(error).__name__}: {summarize_error(error)}")
        self.end = EndReason.ERROR

    def trajectory(self) -> Trajectory:
        assert self.end is not None
        return Trajectory(
            self.prompt, tuple(self.segments), self.end, dropped_ends=self.dropped_ends, turns=tuple(self.turns)
        )


@dataclass(frozen=True)
class EpisodePlayer:
    """Plays episodes.

    Attributes:
        makers: says for rows what makes the environment of each; `alike` where they are all made alike.
        format: the layout of a turn, as ids of this tokenizer.
        budget: the most that an episode may take.
        observations: how observations are written.
        form: how tools are called; None where an environment reads whatever is said.
        most_faults: the largest share of episodes that may end by a fault of their environment.
        beginning: how what reset says comes into the prompt.
    """

    makers: Callable[[Sequence[Mapping[str, Any]]], Iterable[EnvironmentFactory]]
    format: TokenFormat
    budget: EpisodeBudget
    observations: ObservationFormat
    form: CallForm | None = None
    most_faults: float = MOST_FAULTS
    beginning: Beginning = field(default_factory=Beginning)

    def play(
        self,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        examples: Sequence[Mapping[str, Any]],
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        """One episode for each prompt; repeat a prompt to get several.

        With a single turn and an environment that says nothing before it, these are the trajectories of
        `samplers.think_then_answer.think`, draw by draw.

        Args:
            sampler: what draws tokens.
            prompts: token ids, opening included.
            examples: what each environment is reset to: a row of data with its `prompt`, and neighbours of one prompt
                with one and the same.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.

        Raises:
            QreditError: more than `most_faults` of the environments failed, or one whose first observation differs
                between rollouts of one prompt.
        """
        turns = TurnSampler(self.format, self.budget.turn, tuple(stop_tokens), self.form)
        episodes = [
            self._begin(make, prompt, example, derive_seed(seed, ENVIRONMENT_STREAM, number))
            for number, (make, prompt, example) in enumerate(zip(self.makers(examples), prompts, examples, strict=True))
        ]
        try:
            _align_beginnings(episodes, prompts, examples)
            for turn in range(self.budget.turns):
                live = [one for one in episodes if one.end is None or not one.segments]
                if not live:
                    break
                last = [self._is_last(one, turn) for one in live]
                drawn = turns.sample(
                    sampler,
                    [one.context for one in live],
                    last,
                    derive_seed(seed, TURN_STREAM, turn) if turn else seed,
                )
                for one, said, final in zip(live, drawn, last, strict=True):
                    self._take(one, turn, said, final, turns)
            for one in episodes:
                _add_earned(one)
        finally:
            for one in episodes:
                close_quietly(one.environment)
        self._check_faults(episodes)
        return [one.trajectory() for one in episodes]

    def _begin(
        self, make: EnvironmentFactory, prompt: Sequence[int], example: Mapping[str, Any], seed: int
    ) -> _Episode:
        one = _Episode(tuple(prompt), None)
        try:
            one.environment = make()
            begun = check_step(one.environment.reset(example, seed))
            one.state_key = begun.state_key
            one.prompt = self._add_first(one.prompt, begun, example)
        except Exception as error:  # whatever it raises ends this episode alone
            one.fail(error)
        return one

    def _add_first(self, prompt: tuple[int, ...], begun: Step, example: Mapping[str, Any]) -> tuple[int, ...]:
        """The prompt with what the environment says first; its own ids where that is nothing."""
        template = self.beginning.get_template(example)
        if template is None:
            template = self.observations.template
        else:  # the row has one of its own, which whoever encoded the prompt did not know of
            prompt = tuple(self.format.prompt_ids(example["prompt"], **template))
        if not begun.observation:
            return prompt
        if not isinstance(begun.observation, str):
            raise QreditError("what reset says must be a text: it is put at the end of the prompt")
        asked = self.beginning.join(example["prompt"], self.observations.neutralize(begun.observation))
        ids = tuple(self.format.prompt_ids(asked, **template))
        if len(ids) - len(prompt) > self.budget.observation:
            raise QreditError(
                f"what reset says takes {len(ids) - len(prompt)} tokens; observation_budget is "
                f"{self.budget.observation}"
            )
        return ids

    def _is_last(self, one: _Episode, turn: int) -> bool:
        return one.end is not None or self.budget.is_last(turn, one.count(observed=False), one.count(observed=True))

    def _take(self, one: _Episode, turn: int, said: Trajectory, last: bool, turns: TurnSampler) -> None:
        """Put a turn behind an episode, and what comes of it.

        Args:
            one: the episode.
            turn: number of the turn, from 0.
            said: as it was drawn.
            last: no turn may follow.
            turns: reads what was said.
        """
        one.segments += [replace(segment, turn=turn) for segment in said.segments]
        one.dropped_ends += said.dropped_ends
        action = turns.decode(said.answer_ids)
        if one.end is not None:  # its environment could not be reset: nothing answers
            one.turns.append(TurnRecord())
            return
        if last and self.form is not None and self.form.find(action):
            # Its result could not be read any more, so it is not run.
            one.turns.append(TurnRecord(state_key=one.state_key, counts={"calls_not_run": 1.0}))
            one.end = EndReason.BUDGET
            return
        assert one.environment is not None
        try:
            step = check_step(one.environment.step(action))
        except Exception as error:  # whatever it raises ends this episode alone
            one.turns.append(TurnRecord(state_key=one.state_key))
            one.fail(error)
            return
        counts = Counter({name: float(count) for name, count in step.info.items()})
        if step.truncated or (last and not step.done):
            one.end = EndReason.BUDGET
        elif step.done:
            one.end = said.end
        else:
            try:
                seen = self.observations.encode(step.observation, self.budget.observation, said.ended)
            except QreditError as error:
                one.turns.append(TurnRecord(state_key=one.state_key))
                one.fail(error)
                return
            counts["observations_cut"] += seen.cut
            one.segments.append(Segment(seen.ids, Role.OBSERVATION, sampled=False, turn=turn))
        reward = math.nan if step.reward is None else float(step.reward)
        one.turns.append(TurnRecord(reward, one.state_key, {name: n for name, n in counts.items() if n}))
        one.state_key = step.state_key

    def _check_faults(self, episodes: Sequence[_Episode]) -> None:
        faults = [one.fault for one in episodes if one.fault is not None]
        if len(faults) > self.most_faults * len(episodes):
            raise QreditError(
                f"{len(faults)} of {len(episodes)} episodes ended by a fault of their environment, more than "
                f"{100 * self.most_faults:g} %; the last: {faults[-1]}"
            )


def alike(make: EnvironmentFactory) -> Callable[[Sequence[Mapping[str, Any]]], Iterable[EnvironmentFactory]]:
    """What says that all rows have environments of one kind."""
    return lambda rows: repeat(make, len(rows))


def _add_earned(one: _Episode) -> None:
    """Add what the whole episode earned to the reward of its last turn, unless a fault ended it."""
    if one.end is EndReason.ERROR:
        return
    try:
        earned = collect_earned(one.environment)
    except Exception as error:  # as a fault in a turn
        one.fail(error)
        return
    if earned is not None:
        last = one.turns[-1]
        one.turns[-1] = replace(last, reward=earned + (0.0 if math.isnan(last.reward) else last.reward))


def _align_beginnings(
    episodes: Sequence[_Episode], prompts: Sequence[Sequence[int]], examples: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse rollouts of one prompt that do not begin alike; one whose reset failed begins as the others do.

    Args:
        episodes: as they were begun; those of one prompt are neighbours.
        prompts: as they were asked, by which those of one prompt are known,
        examples: and by the row.
    """
    first = 0
    for number in range(1, len(episodes) + 1):
        same = number < len(episodes) and (prompts[number], examples[number]) == (prompts[first], examples[first])
        if same:
            continue
        group = episodes[first:number]
        begun = {one.prompt for one in group if one.fault is None}
        if len(begun) > 1:
            raise QreditError(
                "what reset says differs between two rollouts of one prompt; it must be a function of the example: put "
                "what differs into a column of the data"
            )
        for one in group:
            one.prompt = next(iter(begun), one.prompt)
        first = number
