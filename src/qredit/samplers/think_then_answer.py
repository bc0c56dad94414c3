"""Thinking with a budget, its closing, by force where need be, and the answer: over any sampler.

    prompt | rationale … closing | answer … end
             first request         second request

Thinking is drawn up to the closing, an end of text, or the budget. Where the closing was not drawn, its ids are put
there. The second request goes on from the ids of all that, so that no text is encoded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from qredit.rollouts.format import StopString, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.samplers.protocol import Completion, Request, Sampler, StopReason, ThinkingSampler, check_completions
from qredit.utils.seed import ANSWER_STREAM, derive_seed


def think(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    format: TokenFormat,
    budget: TokenBudget,
    *,
    stop_tokens: Sequence[int],
    seed: int,
) -> list[Trajectory]:
    """One trajectory per prompt; repeat a prompt to get several. All draws are a function of prompts and `seed`.

    A sampler that closes thinking by itself does; any other is asked twice, once for all rationales and once for all
    answers.

    Args:
        sampler: what draws tokens.
        prompts: token ids, opening included.
        format: the layout of a completion, as ids of this tokenizer.
        budget: tokens of the rationale, a sampled closing included; tokens of the answer, its end included.
        stop_tokens: end-of-text ids; they end an answer, as does the format's own end. Inside thinking they are dropped
            and it is closed by force, unless the closing holds them.
        seed: all draws are a function of it.

    Raises:
        QreditError: a completion is not what was asked for.
    """
    if isinstance(sampler, ThinkingSampler):
        return sampler.think(prompts, format, budget, stop_tokens=stop_tokens, seed=seed)
    return think_by_requests(sampler, prompts, format, budget, stop_tokens=stop_tokens, seed=seed)


def think_by_requests(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    format: TokenFormat,
    budget: TokenBudget,
    *,
    stop_tokens: Sequence[int],
    seed: int,
) -> list[Trajectory]:
    """`think`, by two calls of the sampler.

    Args:
        sampler: what draws tokens.
        prompts: the ids of each prompt, opening included.
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        stop_tokens: ids that end a text.
        seed: all draws are a function of it.
    """
    asked = ThinkThenAnswer(format, budget, tuple(stop_tokens))
    drawn = draw_completions(sampler, [asked.thinking_request(prompt) for prompt in prompts], seed)
    return asked.answer_behind(sampler, prompts, [asked.close(thinking) for thinking in drawn], drawn, seed)


def begin_thinking(prompt: Sequence[int], ids: Sequence[int]) -> Trajectory:
    """The beginning of a rationale that was not sampled, for `go_on_thinking`.

    Args:
        prompt: token ids, opening included.
        ids: of the beginning; none is the prompt alone.
    """
    taken = (Segment(tuple(ids), Role.THINK, sampled=False),) if ids else ()
    return Trajectory(tuple(prompt), taken, EndReason.CAP)


def go_on_thinking(
    sampler: Sampler,
    beginnings: Sequence[Trajectory],
    format: TokenFormat,
    budget: TokenBudget,
    *,
    stop_tokens: Sequence[int],
    seed: int,
) -> list[Trajectory]:
    """One trajectory behind each beginning of a rationale: it thinks on, is closed and answers.

    What the beginning holds counts as thought already, so that whole rationales are as long as the budget says. A
    closing is found among the tokens that are drawn here: one whose text the beginning holds a part of is not seen.

    Args:
        sampler: what draws tokens.
        beginnings: trajectories whose segments are the beginning, or that have none; shorter than the budget.
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of a rationale, its beginning included, and of an answer.
        stop_tokens: ids that end a text.
        seed: all draws are a function of it and of the beginnings.
    """
    asked = ThinkThenAnswer(format, budget, tuple(stop_tokens))
    requests = [
        replace(asked, budget=replace(budget, thinking=budget.thinking - len(one.ids))).thinking_request(
            (*one.prompt, *one.ids)
        )
        for one in beginnings
    ]
    drawn = draw_completions(sampler, requests, seed)
    heads = [(*one.segments, *asked.close(thinking)) for one, thinking in zip(beginnings, drawn, strict=True)]
    return asked.answer_behind(sampler, [one.prompt for one in beginnings], heads, drawn, seed)


Head = Sequence[Segment]
NOTHING_DRAWN = Completion((), (), StopReason.LENGTH)


@dataclass(frozen=True)
class ThinkThenAnswer:
    """The two requests that a rollout is made of, and what is made of their completions.

    A request is None where no token may be drawn; `NOTHING_DRAWN` is then its completion.

    Attributes:
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        stop_tokens: ids that end a text.
    """

    format: TokenFormat
    budget: TokenBudget
    stop_tokens: tuple[int, ...]

    @cached_property
    def _ends(self) -> frozenset[int]:
        return frozenset({*self.stop_tokens, *self.format.stop_ids})

    def thinking_request(self, prompt: Sequence[int]) -> Request | None:
        """The rationale, up to its closing, an end of text or the budget."""
        # a closing may hold a token that ends a turn (gpt-oss closes its analysis with <|end|>): thinking goes on
        # behind it
        ends = self._ends.difference(self.format.close_ids)
        return _request(prompt, self.budget.thinking, ends, self.format.closing)

    def close(self, thinking: Completion) -> Head:
        """Thinking and its closing: as it was drawn, or put behind what was drawn, less an end of text."""
        ids, logp = thinking.ids, thinking.logp
        tail = self.format.closing.length(ids) if thinking.stop == StopReason.MARKER else None
        if tail is None:
            kept = len(ids) - (thinking.stop == StopReason.END)
            closing = Segment(tuple(self.format.close_ids), Role.CLOSE, sampled=False)
        else:
            kept = len(ids) - tail
            closing = Segment(ids[kept:], Role.CLOSE, sampled=True, logp=logp[kept:])
        return Segment(ids[:kept], Role.THINK, sampled=True, logp=logp[:kept]), closing

    def answer_request(self, prompt: Sequence[int], head: Head) -> Request | None:
        """The answer behind prompt, thinking and closing."""
        before = (*prompt, *(token for segment in head for token in segment.ids))
        return _request(before, self.budget.answer, self._ends, self.format.end)

    def join(self, prompt: Sequence[int], head: Head, thinking: Completion, answer: Completion) -> Trajectory:
        """The rollout.

        Args:
            prompt: token ids, opening included.
            head: what `close` made of the thinking.
            thinking, answer: as they were drawn.
        """
        return Trajectory(
            prompt=tuple(prompt),
            segments=(*head, Segment(answer.ids, Role.ANSWER, sampled=True, logp=answer.logp)),
            end=EndReason.CAP if answer.stop == StopReason.LENGTH else EndReason.ANSWER,
            dropped_ends=int(thinking.stop == StopReason.END),
        )

    def answer_behind(
        self,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        heads: Sequence[Head],
        thought: Sequence[Completion],
        seed: int,
    ) -> list[Trajectory]:
        """The rollouts whose thinking was drawn and closed, their answers drawn by one call.

        Args:
            sampler: what draws tokens.
            prompts: token ids of each, opening included.
            heads: what `close` made of the thinking of each.
            thought: the last completion of each one's thinking.
            seed: of the thinking; the answers' follows from it.
        """
        requests = [self.answer_request(prompt, head) for prompt, head in zip(prompts, heads, strict=True)]
        answers = draw_completions(sampler, requests, derive_seed(seed, ANSWER_STREAM))
        return [self.join(*each) for each in zip(prompts, heads, thought, answers, strict=True)]


def _request(
    prompt: Sequence[int], max_tokens: int, stop_token_ids: frozenset[int], marker: StopString | None
) -> Request | None:
    return Request(tuple(prompt), max_tokens, stop_token_ids, marker) if max_tokens else None


def draw_completions(sampler: Sampler, asked: Sequence[Request | None], seed: int) -> list[Completion]:
    """One completion per request, by one call; empty ones without a call where no token may be drawn.

    Args:
        sampler: what draws tokens.
        asked: the requests; all of them or none are None.
        seed: all draws are a function of it.

    Raises:
        QreditError: a completion is not what was asked for.
    """
    requests = [request for request in asked if request is not None]
    if not requests:  # a budget is that of all
        return [NOTHING_DRAWN] * len(asked)
    return check_completions(requests, sampler.sample(requests, seed))
