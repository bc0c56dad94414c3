"""Thinking, its closing and the answer in one call: each row goes through its phases by itself.

The trajectories are those of `samplers/think_then_answer.py`. One call is faster than two: prompts are prefilled once,
and a row's answer need not wait for the other rows' thinking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import Trajectory, make_one_turn
from qredit.samplers.logits_processor import SamplingLogitsProcessor


class _Phase(IntEnum):
    THINKING = 0
    CLOSING = 1
    ANSWERING = 2
    DONE = 3


@dataclass(kw_only=True)
class ThinkAnswerLogitsProcessor(SamplingLogitsProcessor):
    """Draws every row's next token by the phase it is in."""

    format: TokenFormat
    budget: TokenBudget
    stop_tokens: Int[Tensor, " E"]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phase = torch.full((self.rows,), _Phase.THINKING, device=self.device)
        self.close_start = torch.full((self.rows,), -1, device=self.device)
        self.close_end = torch.full((self.rows,), -1, device=self.device)
        self.forced = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.dropped = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.ended = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.length = torch.zeros(self.rows, dtype=torch.long, device=self.device)
        self.close_ids = torch.tensor(self.format.close_ids, device=self.device)
        if self.budget.thinking == 0:
            self._force(torch.ones_like(self.forced))

    @property
    def done(self) -> Bool[Tensor, " B"]:
        return self.phase == _Phase.DONE

    def resolve_tokens(self, drawn: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
        """A closing that is being forced takes the place of what was drawn; an end while thinking begins one."""
        # a closing may hold a token that ends a turn (gpt-oss closes its analysis with <|end|>): it is left to go on
        stop = torch.isin(drawn, self.stop_tokens) & ~torch.isin(drawn, self.close_ids)
        # An end of text while thinking would leave no answer to score: the token is dropped and thinking is closed.
        cut = (self.phase == _Phase.THINKING) & stop
        self.dropped |= cut
        self._force(cut)
        closing = self.phase == _Phase.CLOSING
        token = torch.where(closing, self.close_ids[self.count.clamp(max=len(self.close_ids) - 1)], drawn)
        return torch.where(self.done, self.pad, token), ~(closing | self.done)

    def _force(self, rows: Tensor) -> None:
        """Start closing by force in these rows, at the next token."""
        position = len(self.tokens)
        self.phase = torch.where(rows, _Phase.CLOSING, self.phase)
        self.forced |= rows
        self.close_start = torch.where(rows, position, self.close_start)
        self.count = torch.where(rows, 0, self.count)

    def advance(self, token: Int[Tensor, " B"]) -> None:
        """Move every row to the phase of its next token."""
        position = len(self.tokens)
        self.count += 1
        closing, answering = self.phase == _Phase.CLOSING, self.phase == _Phase.ANSWERING
        # A closing that the model wrote by itself, recognised as text: it may be made of other ids than `close_ids`.
        tail = self.match_stop_string(self.format.closing, token, self.phase == _Phase.THINKING)
        self.close_start = torch.where(tail > 0, position - tail, self.close_start)
        closed = (closing & (self.count == len(self.close_ids))) | (tail > 0)
        self.close_end = torch.where(closed, position, self.close_end)
        ended = answering & torch.isin(token, self.stop_tokens)
        if self.format.end is not None:
            ended |= self.match_stop_string(self.format.end, token, answering) > 0
        self.ended |= ended
        finished = ended | (answering & (self.count == self.budget.answer))
        self.length = torch.where(finished, position, self.length)
        self.phase = torch.where(closed, _Phase.ANSWERING, torch.where(finished, _Phase.DONE, self.phase))
        self.count = torch.where(closed, 0, self.count)
        # Last, so that a closing which is completed by the budget's last token still counts as the model's own.
        self._force((self.phase == _Phase.THINKING) & (self.count == self.budget.thinking))

    def trajectories(self, prompts: Sequence[Sequence[int]]) -> list[Trajectory]:
        """What was drawn for each prompt, without padding."""
        ids, logps = torch.stack(self.tokens, 1).tolist(), torch.stack(self.logps, 1).tolist()
        facts = torch.stack(
            [self.close_start, self.close_end, self.forced.long(), self.dropped.long(), self.ended.long()], 1
        )
        return [
            make_one_turn(
                *(prompt, row[:length], logp[:length]),
                close_start=start,
                close_end=end,
                forced=bool(forced),
                dropped_end=bool(dropped),
                ended=bool(ended),
            )
            for prompt, row, logp, length, (start, end, forced, dropped, ended) in zip(
                prompts, ids, logps, self.length.tolist(), facts.tolist(), strict=True
            )
        ]
