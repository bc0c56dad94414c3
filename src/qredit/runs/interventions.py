"""Rows of intervention training: wrong rollouts whose first wrong step the model replaces, shown a right solution."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from qredit.data.completions import Completion, CompletionGroup, merge_groups
from qredit.data.corrections import Correction, WrongRollout, tells_answer
from qredit.rewards.judge.endpoint import Question
from qredit.rewards.judge.steps import STEPS, decode_pieces, join_step_texts
from qredit.rewards.reward_spec import Reward
from qredit.rollouts.format import Prompt, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.tokenizer import encode_in_context, find_first_control_token, get_control_tokens
from qredit.rollouts.trajectory import Trajectory, make_one_turn
from qredit.samplers.answers import make_response
from qredit.samplers.protocol import Sampler
from qredit.samplers.think_then_answer import begin_thinking, go_on_thinking, think
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError
from qredit.utils.seed import INTERVENTION_STREAM, derive_seed

ROWS_PER_BATCH = 256  # rollouts that are drawn at once
SEPARATORS: Mapping[str, str] = {"blank_lines": "\n\n", "sentences": ""}
"""What is put behind a new step, by what ends a step; the mark that ends a sentence is its own."""
_LOCATE, _REPLACE, _TRY = range(3)
REASONS: Mapping[str, str] = {
    "unheard": "no reply came: the question does not fit the model, or who was asked did not answer",
    "unlocated": "no step was named as the first wrong one",
    "too_long": "the new step was too long, or did not end",
    "unreadable": "the new step was empty, or held what ends thinking",
    "leaked": "the new step told the answer",
    "no_room": "nothing could be thought behind the new step",
    "never_right": "no continuation was right",
}
"""Why a wrong rollout gives no row."""


@dataclass(frozen=True)
class Reply:
    """What was written.

    Attributes:
        text: of it.
        ids: as they were sampled, without what ends an answer; None where only the text is known.
        ended: it ended by itself.
    """

    text: str
    ids: tuple[int, ...] | None = None
    ended: bool = True


class Proposer(Protocol):
    """Who finds the first wrong step of a rollout and writes another one."""

    def ask(self, questions: Sequence[Question], seed: int) -> list[Reply | None]:
        """The reply to each question; None where none came.

        Args:
            questions: a task, and what it is about.
            seed: all draws are a function of it.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """The model whose rollouts are corrected, and how it is asked.

    Attributes:
        sampler: draws with it.
        tokens: the layout of a completion, as ids of its tokenizer.
        budget: the most tokens of thinking and of answer.
        stop_tokens: ids that end a text.
        reward: says which answers are right: those of 1 or more.
        template: switches of the chat template.
        steps: what ends a step, a name in `STEPS`.
        seed: all draws are a function of it.
    """

    sampler: Sampler
    tokens: TokenFormat
    budget: TokenBudget
    stop_tokens: Sequence[int]
    reward: Reward
    template: Mapping[str, Any]
    steps: str
    seed: int


@dataclass(frozen=True)
class OwnProposer:
    """The model itself, which may think before it replies, as long as in its rollouts.

    It is not asked what its context does not hold, nor what spells a control token: a rollout says what it likes, and
    would be read as the end of the question.

    Attributes:
        setting: of the model.
        chat: put the question into a message of the user.
        most: tokens of a reply.
        context: tokens that the model reads at most; None is unlimited.
    """

    setting: Setting
    chat: bool
    most: int
    context: int | None = None

    def ask(self, questions: Sequence[Question], seed: int) -> list[Reply | None]:
        setting = self.setting
        budget = TokenBudget(setting.budget.thinking, self.most + len(setting.tokens.end_ids))
        prompts = [self._encode(f"{task}\n\n{about}\n\n", budget) for task, about in questions]
        asked = [prompt for prompt in prompts if prompt is not None]
        rollouts = iter(
            think(setting.sampler, asked, setting.tokens, budget, stop_tokens=setting.stop_tokens, seed=seed)
            if asked
            else []
        )
        return [None if prompt is None else self._read(next(rollouts)) for prompt in prompts]

    def _encode(self, text: str, budget: TokenBudget) -> list[int] | None:
        """The ids of a question; None where it cannot be asked."""
        tokens = self.setting.tokens
        if find_first_control_token(text, get_control_tokens(tokens.tokenizer)) is not None:
            return None
        shown: Prompt = [{"role": "user", "content": text}] if self.chat else text
        ids = tokens.prompt_ids(shown, **self.setting.template)
        length = len(ids) + budget.thinking + len(tokens.close_ids) + budget.answer
        return None if self.context is not None and length > self.context else ids

    def _read(self, rollout: Trajectory) -> Reply:
        ids = trim_reply(rollout.answer_ids, self.setting.tokens, self.setting.stop_tokens)
        return Reply(self.setting.tokens.text(ids), ids, rollout.ended)


@dataclass(frozen=True)
class JudgeProposer:
    """Another model, which is asked in words.

    Attributes:
        ask_judge: its replies to questions; None where none came.
    """

    ask_judge: Callable[[Sequence[Question]], list[str | None]]

    def ask(self, questions: Sequence[Question], seed: int) -> list[Reply | None]:
        return [None if text is None else Reply(text.strip()) for text in self.ask_judge(questions)]


def trim_reply(ids: Sequence[int], tokens: TokenFormat, stop_tokens: Sequence[int]) -> tuple[int, ...]:
    """A sampled answer without what ends it, and without tokens of mere white space around it.

    Args:
        ids: as they were sampled.
        tokens: the layout of a completion.
        stop_tokens: ids that end a text.
    """
    kept = list(ids)
    tail = tokens.end.length(kept) if tokens.end is not None else None
    if tail is not None:
        kept = kept[: len(kept) - tail]
    elif kept and kept[-1] in {*stop_tokens, *tokens.stop_ids}:
        kept = kept[:-1]
    blank = [not piece.strip() for piece in decode_pieces(kept, tokens.tokenizer)]
    first = next((place for place, one in enumerate(blank) if not one), len(kept))
    last = next((place for place in reversed(range(len(kept))) if not blank[place]), first - 1)
    return tuple(kept[first : last + 1])


def read_rollout(prompt: Sequence[int], one: Completion, tokens: TokenFormat) -> Trajectory | None:
    """A kept completion as rationale, closing and answer; None where nothing closes its thinking.

    Args:
        prompt: its ids.
        one: the completion.
        tokens: the layout of a completion.
    """
    ends = (at for at, token in enumerate(one.ids, 1) if token in tokens.closing.candidate_set)
    for end in ends:
        tail = tokens.closing.length(one.ids[max(end - tokens.closing.window, 0) : end])
        if tail is not None:
            unknown = [0.0] * len(one.ids)
            return make_one_turn(prompt, one.ids, unknown, end - tail, end, forced=False, ended=True)
    return None


def find_wrong_rollouts(
    groups: Sequence[CompletionGroup],
    examples: Sequence[Example],
    solutions: Mapping[str, str],
    setting: Setting,
    per_prompt: int,
) -> list[WrongRollout]:
    """The rollouts whose answer is wrong, the first so many of each question, in steps.

    Left out are prompts that no example has, rollouts without a solution, without thinking, or that nothing scored.

    Args:
        groups: rollouts.
        examples: the questions, as they are asked.
        solutions: a right solution of each, by its id; empty where there is none.
        setting: of the model.
        per_prompt: most of one question.
    """
    tokens = setting.tokens
    asked = {tuple(tokens.prompt_ids(one.prompt, **setting.template)): one for one in examples}
    found = []
    for group in merge_groups(groups):
        example = asked.get(group.prompt_ids)
        if example is None or not solutions[example.id]:
            continue
        read = [read_rollout(group.prompt_ids, one, tokens) for one in group.completions]
        rollouts = [one for one in read if one is not None and one.rationale_ids]
        scores = setting.reward([make_response(tokens, example, one) for one in rollouts]) if rollouts else []
        wrong = [one for one, score in zip(rollouts, scores, strict=True) if score is not None and score < 1]
        found += [_split(example, one, solutions[example.id], setting) for one in wrong[:per_prompt]]
    return found


def _split(example: Example, rollout: Trajectory, solution: str, setting: Setting) -> WrongRollout:
    tokenizer = setting.tokens.tokenizer
    numbers = STEPS[setting.steps](rollout.rationale_ids, tokenizer)
    answer = example.answer or ""
    return WrongRollout(
        example=example,
        solution=f"{solution}\n\nAnswer: {answer}" if answer else solution,
        response=setting.tokens.response_text(rollout.answer_ids),
        prompt_ids=rollout.prompt,
        rationale_ids=tuple(rollout.rationale_ids),
        numbers=tuple(numbers),
        steps=tuple(join_step_texts(decode_pieces(rollout.rationale_ids, tokenizer), numbers)),
    )


def correct_rollouts(
    wrong: Sequence[WrongRollout], proposer: Proposer, setting: Setting, most: int, tries: int, done: int = 0
) -> Iterator[list[Correction | str]]:
    """Of each wrong rollout the correction, or why there is none, a name in `REASONS`: batch by batch, in order.

    Args:
        wrong: the rollouts.
        proposer: finds the wrong step and writes another.
        setting: of the model that goes on from it.
        most: tokens of a new step, without what is put behind it.
        tries: continuations; one of them must be right.
        done: batches that are left out at the beginning; what the others give does not depend on it.
    """
    size = count_batch(tries)
    for start in range(done * size, len(wrong), size):
        yield _correct_batch(wrong[start : start + size], proposer, setting, most, tries, start)


def count_batch(tries: int) -> int:
    """Wrong rollouts that are corrected together, by the continuations of each."""
    return max(ROWS_PER_BATCH // tries, 1)


def _correct_batch(
    wrong: Sequence[WrongRollout], proposer: Proposer, setting: Setting, most: int, tries: int, start: int
) -> list[Correction | str]:
    """As `correct_rollouts`, all at once.

    Args:
        wrong: the rollouts.
        proposer: of a new step.
        setting: of the model.
        most: tokens of a new step.
        tries: continuations.
        start: the place of the first, which seeds follow.
    """

    def seed(kind: int) -> int:
        return derive_seed(setting.seed, INTERVENTION_STREAM + kind, start)

    where = proposer.ask([one.ask_where() for one in wrong], seed(_LOCATE))
    steps = [None if reply is None else one.read_step(reply.text) for one, reply in zip(wrong, where, strict=True)]
    named = [(one, step) for one, step in zip(wrong, steps, strict=True) if step is not None]
    instead = proposer.ask([one.ask_instead(step) for one, step in named], seed(_REPLACE)) if named else []
    made = iter([_put(one, step, reply, setting, most) for (one, step), reply in zip(named, instead, strict=True)])
    found = [
        next(made) if step is not None else "unheard" if reply is None else "unlocated"
        for reply, step in zip(where, steps, strict=True)
    ]
    ready = [one for one in found if isinstance(one, Correction)]
    tried = iter(_go_on(ready, setting, tries, seed(_TRY)) if ready else [])
    return [next(tried) if isinstance(one, Correction) else one for one in found]


def _put(one: WrongRollout, step: int, reply: Reply | None, setting: Setting, most: int) -> Correction | str:
    """A new step in the place of a wrong one, or why not.

    Args:
        one: the rollout.
        step: number of its wrong step.
        reply: what was written.
        setting: of the model.
        most: tokens of a new step.
    """
    tokens = setting.tokens
    if reply is None:
        return "unheard"
    if not reply.text.strip():
        return "unreadable"
    try:
        written = tuple(tokens.rationale_ids(reply.text))  # refuses what ends thinking, and control tokens
    except QreditError:
        return "unreadable"
    ids = written if reply.ids is None else reply.ids  # what the model sampled is not encoded anew
    if not {*get_control_tokens(tokens.tokenizer).values()}.isdisjoint(ids):
        return "unreadable"
    if not reply.ended or len(ids) >= most:
        return "too_long"
    if tells_answer(reply.text, one.example.right):
        return "leaked"
    separator = SEPARATORS[setting.steps]
    behind = tuple(encode_in_context(tokens.tokenizer, separator)) if separator else ()
    made = Correction(one, step, (*ids, *behind), reply.text.strip())
    return made if len(made.completion_ids) < setting.budget.thinking else "no_room"


def _go_on(made: Sequence[Correction], setting: Setting, tries: int, seed: int) -> list[Correction | str]:
    """The corrections behind which a continuation is right; the others never were.

    Args:
        made: not yet tried.
        setting: of the model.
        tries: continuations of each.
        seed: of the draws.
    """
    begun = [begin_thinking(one.rollout.prompt_ids, one.completion_ids) for one in made for _ in range(tries)]
    rollouts = go_on_thinking(
        setting.sampler, begun, setting.tokens, setting.budget, stop_tokens=setting.stop_tokens, seed=seed
    )
    asked = [one.rollout.example for one in made for _ in range(tries)]
    responses = [make_response(setting.tokens, *pair) for pair in zip(asked, rollouts, strict=True)]
    right = [score is not None and score >= 1 for score in setting.reward(responses)]
    counted = [
        replace(one, right=sum(right[place * tries : (place + 1) * tries]), tried=tries)
        for place, one in enumerate(made)
    ]
    return [one if one.right else "never_right" for one in counted]
