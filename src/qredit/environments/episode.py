"""Episodes over any sampler: all that are going on are sampled together, turn by turn.

    prompt | thinking  closing  action | observation | thinking  closing  answer
             turn 0                                    turn 1

Ids are put behind each other and never decoded and encoded again. Only the environment reads text.

Where a rule branches episodes (`environments/branching`), a further one takes over the ids of another up to a turn. Its
environment is made anew and played to there again, by the same example, seed and actions.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, repeat
from random import Random
from typing import Any

from qredit.environments.beginning import Beginning
from qredit.environments.branching.protocol import Branching, PlayedEpisode, PlayedTurn, check_decision
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
from qredit.utils.seed import BRANCH_STREAM, ENVIRONMENT_STREAM, TURN_STREAM, derive_seed

MOST_FAULTS = 0.25


@dataclass(frozen=True)
class _Start:
    """What an episode begins from, and can be begun from again."""

    make: EnvironmentFactory
    prompt: tuple[int, ...]
    example: Mapping[str, Any]
    seed: int


@dataclass
class _Episode:
    """One that is going on.

    Attributes:
        steps: each action that its environment was given, and what came of it.
        branch: number of its first own turn.
        shows_prefix: what stands before its branch was sampled by another and is its context.
    """

    start: _Start
    prompt: tuple[int, ...]
    environment: Environment | None
    tree: int = -1
    branch: int = 0
    shows_prefix: bool = False
    steps: list[tuple[str, Step]] = field(default_factory=list)
    state_key: str | None = None
    segments: list[Segment] = field(default_factory=list)
    turns: list[TurnRecord] = field(default_factory=list)
    dropped_ends: int = 0
    end: EndReason | None = None
    fault: str | None = None

    @property
    def is_going(self) -> bool:
        """Whether a turn is to be played; one that could not be reset has one, too, so that it is a rollout."""
        return self.end is None or not self.segments

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

    def prune(self) -> None:
        """It is not gone on from; what it was answered is read by nobody."""
        self.end = EndReason.PRUNED
        if self.segments[-1].role == Role.OBSERVATION:
            del self.segments[-1]

    def trajectory(self) -> Trajectory:
        assert self.end is not None
        segments = [
            replace(segment, sampled=False, logp=None) if self.shows_prefix and segment.turn < self.branch else segment
            for segment in self.segments
        ]
        return Trajectory(
            self.prompt,
            tuple(segments),
            self.end,
            dropped_ends=self.dropped_ends,
            turns=tuple(self.turns),
            branch=self.branch,
            tree=self.tree,
        )

    def show(self, new: bool) -> PlayedEpisode:
        """What a rule of branching sees of it."""
        drawn: list[list[float]] = [[] for _ in self.turns]
        for segment in self.segments:
            if segment.sampled:
                drawn[segment.turn] += [-logp for logp in segment.logp or ()]
        return PlayedEpisode(
            tuple(PlayedTurn(tuple(own), turn.reward) for own, turn in zip(drawn, self.turns, strict=True)),
            *(self.branch, self.tree, new, self.end is not None, self.end is EndReason.ERROR),
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
        branching: Branching | None = None,
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
            branching: by which rule the episodes of a prompt branch; None begins all of them at the prompt.

        Raises:
            QreditError: more than `most_faults` of the environments failed, one whose first observation differs
                between rollouts of one prompt, or one that cannot be played again to where another was.
        """
        turns = TurnSampler(self.format, self.budget.turn, tuple(stop_tokens), self.form)
        starts = [
            _Start(make, tuple(prompt), example, derive_seed(seed, ENVIRONMENT_STREAM, number))
            for number, (make, prompt, example) in enumerate(zip(self.makers(examples), prompts, examples, strict=True))
        ]
        groups: list[_Group] = []
        try:
            for place, slots in enumerate(_split_prompts(starts)):
                roots = len(slots) if branching is None else branching.count_roots(len(slots))
                # the list is in `groups` while it is filled: what was begun is closed whatever happens
                groups.append(group := _Group(slots, [], derive_seed(seed, BRANCH_STREAM, place)))
                for slot in slots[:roots]:
                    group.episodes.append(self._begin(slot))
                _align_beginnings(group.episodes)
                if branching is not None:
                    group.number_trees()
            for number in count():
                live = [one for group in groups for one in group.episodes if one.is_going]
                if not live:
                    break
                self._play_turn(live, turns, sampler, derive_seed(seed, TURN_STREAM, number) if number else seed)
                if branching is not None:
                    new = set(map(id, live))
                    for group in groups:
                        self._branch(group, branching, new, number)
            episodes = [one for group in groups for one in group.episodes]
            for one in episodes:
                _add_earned(one)
        finally:
            for group in groups:
                for one in group.episodes:
                    close_quietly(one.environment)
        self._check_faults(episodes)
        return [one.trajectory() for one in episodes]

    def _play_turn(self, live: Sequence[_Episode], turns: TurnSampler, sampler: Sampler, seed: int) -> None:
        last = [self._is_last(one) for one in live]
        drawn = turns.sample(sampler, [one.context for one in live], last, seed)
        for one, said, final in zip(live, drawn, last, strict=True):
            self._take(one, len(one.turns), said, final, turns)

    def _begin(self, start: _Start) -> _Episode:
        one = _Episode(start, start.prompt, None)
        try:
            one.environment = start.make()
            begun = check_step(one.environment.reset(start.example, start.seed))
            one.state_key = begun.state_key
            one.prompt = self._add_first(one.prompt, begun, start.example)
        except Exception as error:  # whatever it raises ends this episode alone
            one.fail(error)
        return one

    def _branch(self, group: "_Group", branching: Branching, new: Collection[int], number: int) -> None:
        """Add the episodes that branch off now; those that nobody branches are begun at the prompt in the end.

        Args:
            group: of one prompt.
            branching: the rule.
            new: `id` of the episodes of all groups that played a turn just now.
            number: of the turn, among all.
        """
        if not group.free:
            return
        shown = [one.show(id(one) in new) for one in group.episodes]
        decision = branching.decide(shown, group.free, Random(derive_seed(group.seed, number)))
        check_decision(decision, shown, group.free)
        branches = list(decision.branches)
        for branch in branches:
            source = group.episodes[branch.episode]
            if branch.turn == 0:
                group.add_root(self._begin(group.next_slot), source.tree)
            else:
                group.episodes.append(self._go_along(source, branch.turn, shows_prefix=not branching.trains_prefix))
        for place in decision.pruned:
            group.episodes[place].prune()
        if not any(one.is_going for one in group.episodes):
            while group.free:
                group.add_root(self._begin(group.next_slot), 1 + max(one.tree for one in group.episodes))

    def _go_along(self, source: _Episode, turn: int, shows_prefix: bool) -> _Episode:
        """An episode that went as another one until some turn, its environment played again to there."""
        one = self._begin(source.start)
        one.prompt, one.tree, one.branch, one.shows_prefix = source.prompt, source.tree, turn, shows_prefix
        one.segments = [segment for segment in source.segments if segment.turn < turn]
        one.turns = source.turns[:turn]
        for action, before in source.steps[:turn]:
            if one.fault is not None:
                break
            assert one.environment is not None
            try:
                again = check_step(one.environment.step(action))
            except Exception as error:  # whatever it raises ends this episode alone
                one.fail(error)
                break
            if again != before:
                close_quietly(one.environment)
                raise QreditError(
                    f"environment {type(one.environment).__name__} says something else when the same actions are "
                    "played again with the same example and seed; episodes branch where it does not"
                )
            one.steps.append((action, again))
            one.state_key = again.state_key
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

    def _is_last(self, one: _Episode) -> bool:
        spent = one.count(observed=False), one.count(observed=True)
        return one.end is not None or self.budget.is_last(len(one.turns), *spent)

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
        one.steps.append((action, step))
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
    """Add what the whole episode earned to the reward of its last turn, if it was played to its end."""
    if one.end in (EndReason.ERROR, EndReason.PRUNED):
        return
    try:
        earned = collect_earned(one.environment)
    except Exception as error:  # as a fault in a turn
        one.fail(error)
        return
    if earned is not None:
        last = one.turns[-1]
        one.turns[-1] = replace(last, reward=earned + (0.0 if math.isnan(last.reward) else last.reward))


@dataclass
class _Group:
    """The episodes of one prompt.

    Attributes:
        slots: what each begins from, if it begins at the prompt.
        episodes: those that were begun.
        seed: of what is drawn of where they branch.
    """

    slots: Sequence[_Start]
    episodes: list[_Episode]
    seed: int

    @property
    def free(self) -> int:
        """How many more are to come."""
        return len(self.slots) - len(self.episodes)

    def number_trees(self) -> None:
        """Each is the root of a tree."""
        for tree, one in enumerate(self.episodes):
            one.tree = tree

    @property
    def next_slot(self) -> _Start:
        """What the next episode begins from, if it begins at the prompt."""
        return self.slots[len(self.episodes)]

    def add_root(self, one: _Episode, tree: int) -> None:
        """One more that begins at the prompt."""
        one.tree = tree
        self.episodes.append(one)
        _align_beginnings(self.episodes)


def _split_prompts(starts: Sequence[_Start]) -> Iterator[Sequence[_Start]]:
    """The neighbours of each prompt, known by its ids and its row."""
    first = 0
    for number in range(1, len(starts) + 1):
        same = number < len(starts) and (
            (starts[number].prompt, starts[number].example) == (starts[first].prompt, starts[first].example)
        )
        if not same:
            yield starts[first:number]
            first = number


def _align_beginnings(group: Sequence[_Episode]) -> None:
    """Refuse rollouts of one prompt that do not begin alike; one whose reset failed begins as the others do."""
    begun = {one.prompt for one in group if one.fault is None or one.segments}
    if len(begun) > 1:
        raise QreditError(
            "what reset says differs between two rollouts of one prompt; it must be a function of the example: put "
            "what differs into a column of the data"
        )
    for one in group:
        one.prompt = next(iter(begun), one.prompt)
