"""One turn of several episodes: thinking, closing and what is said; or thinking that a tool call ends.

Models that think between tags call tools behind their closing, so that a turn is what `samplers.think_then_answer`
draws. Others call as soon as they know what they want, and nothing is closed: the turn ends with the call. Only where
no turn may follow is thinking always closed, so that every episode comes to its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from qredit.environments.calls import CallForm
from qredit.rollouts.format import EitherStopString, StopString, TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role, Segment, Trajectory
from qredit.samplers.protocol import Completion, Request, Sampler, StopReason
from qredit.samplers.think_then_answer import Head, ThinkThenAnswer, draw_completions, think
from qredit.utils.seed import ANSWER_STREAM, derive_seed


@dataclass(frozen=True)
class TurnSampler:
    """Draws turns.

    Attributes:
        format: the layout of a turn, as ids of this tokenizer.
        budget: the most tokens of thinking, or of thinking and call, and of what is said.
        stop_tokens: ids that end a text.
        form: how tools are called; None where there are none, or an environment reads whatever is said.
    """

    format: TokenFormat
    budget: TokenBudget
    stop_tokens: tuple[int, ...]
    form: CallForm | None = None

    @property
    def calls_while_thinking(self) -> bool:
        """Whether a call may stand in the place of a closing: where no tags say that thinking is going on."""
        return self.form is not None and not self.format.format.opening.strip()

    def sample(
        self, sampler: Sampler, contexts: Sequence[Sequence[int]], last: Sequence[bool], seed: int
    ) -> list[Trajectory]:
        """The next turn behind each context, as a trajectory of that one turn.

        Args:
            sampler: what draws tokens.
            contexts: token ids, opening included.
            last: no turn may follow this one.
            seed: all draws are a function of it.
        """
        if not self.calls_while_thinking or all(last):
            return think(sampler, contexts, self.format, self.budget, stop_tokens=self.stop_tokens, seed=seed)
        return self._sample_with_calls(sampler, contexts, last, seed)

    def _sample_with_calls(
        self, sampler: Sampler, contexts: Sequence[Sequence[int]], last: Sequence[bool], seed: int
    ) -> list[Trajectory]:
        asked = ThinkThenAnswer(self.format, self.budget, self.stop_tokens)
        requests = [self._thinking_request(asked, *each) for each in zip(contexts, last, strict=True)]
        drawn = draw_completions(sampler, requests, seed)
        calls = [
            None if final else self._split_call(context, thinking)
            for context, thinking, final in zip(contexts, drawn, last, strict=True)
        ]
        heads: list[Head | None] = [
            None if call is not None else asked.close(thinking) for call, thinking in zip(calls, drawn, strict=True)
        ]
        answers = iter(
            draw_completions(
                sampler,
                [
                    asked.answer_request(context, head)
                    for context, head in zip(contexts, heads, strict=True)
                    if head is not None
                ],
                derive_seed(seed, ANSWER_STREAM),
            )
        )
        return [
            call or asked.join(context, head, thinking, next(answers))  # type: ignore[arg-type]  # one of the two
            for context, head, thinking, call in zip(contexts, heads, drawn, calls, strict=True)
        ]

    def _thinking_request(self, asked: ThinkThenAnswer, context: Sequence[int], last: bool) -> Request | None:
        request = asked.thinking_request(context)
        if request is None or last or self._stop is None:
            return request
        return Request(request.prompt_ids, request.max_tokens, request.stop_token_ids, self._stop)

    @cached_property
    def _stop(self) -> EitherStopString | None:
        """Ends thinking at its closing or at the end of a call, where no end of turn would stop the model there."""
        if self.form is None or self.form.end is None:
            return None
        tokenizer, closing = self.format.tokenizer, self.format.format.closing
        return EitherStopString(tokenizer, closing, StopString(tokenizer, self.form.end))

    def _split_call(self, context: Sequence[int], thinking: Completion) -> Trajectory | None:
        """The turn that ends with a call; None where it is to be closed and answered."""
        assert self.form is not None
        ids, logp = thinking.ids, thinking.logp
        closed = self.format.closing.length(ids) is not None
        if thinking.stop == StopReason.LENGTH or (thinking.stop == StopReason.MARKER and closed):
            return None
        if not self.form.find(self.decode(ids)):
            return None
        start = self._find_start(ids)
        return Trajectory(
            prompt=tuple(context),
            segments=(
                Segment(ids[:start], Role.THINK, sampled=True, logp=logp[:start]),
                Segment(ids[start:], Role.ANSWER, sampled=True, logp=logp[start:]),
            ),
            end=EndReason.ANSWER,
        )

    def _find_start(self, ids: Sequence[int]) -> int:
        """The first token of the call: no part of it stands before, so that what follows holds all calls."""
        assert self.form is not None
        whole, low, high = str(self.form.find(self.decode(ids))), 0, len(ids) - 1
        while low < high:  # the later it begins, the less it holds: the last start that still holds everything
            middle = (low + high + 1) // 2
            if str(self.form.find(self.decode(ids[middle:]))) == whole:
                low = middle
            else:
                high = middle - 1
        return low

    def decode(self, ids: Sequence[int]) -> str:
        """What was said, as text: marks of calls may be special tokens and stay, seam and end of the turn do not."""
        end = self.format.format.end
        if ids and ids[-1] in {*self.stop_tokens, *self.format.stop_ids}:
            ids, end = ids[:-1], end.removesuffix(self._as_text(self.format.stop_ids))
        return self._as_text(ids).removeprefix(self.format.format.seam).removesuffix(end)

    def _as_text(self, ids: Sequence[int]) -> str:
        tokenizer = self.format.tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
