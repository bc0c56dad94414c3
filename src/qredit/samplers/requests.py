"""Requests, each with ends and a length of its own, drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qredit.rollouts.format import StopString
from qredit.samplers.logits_processor import SamplingLogitsProcessor
from qredit.samplers.protocol import Completion, Request, StopReason

_GOING = -1


@dataclass(kw_only=True)
class RequestLogitsProcessor(SamplingLogitsProcessor):
    """Draws every request's next token until it stops."""

    requests: Sequence[Request]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stop = torch.full((self.rows,), _GOING, device=self.device)
        self.limit = torch.tensor([request.max_tokens for request in self.requests], device=self.device)
        self.ends = _padded([sorted(request.stop_token_ids) for request in self.requests]).to(self.device)
        self.markers = [(marker, rows.to(self.device)) for marker, rows in _by_marker(self.requests)]

    @property
    def done(self) -> Bool[Tensor, " B"]:
        return self.stop != _GOING

    def resolve_tokens(self, drawn: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
        return drawn, ~self.done  # what is drawn behind a request's end is left out of its completion

    def advance(self, token: Int[Tensor, " B"]) -> None:
        going = ~self.done
        self.count += going
        complete = torch.zeros_like(going)
        for marker, rows in self.markers:
            complete |= self.match_stop_string(marker, token, rows & going) > 0
        ended = (token[:, None] == self.ends).any(1)
        for stop, holds in (
            (StopReason.LENGTH, self.count == self.limit),
            (StopReason.MARKER, complete),
            (StopReason.END, ended),
        ):
            self.stop = torch.where(going & holds, stop, self.stop)  # the last of those that hold stays

    def completions(self) -> list[Completion]:
        """What was drawn, request by request, without padding."""
        ids, logps = torch.stack(self.tokens, 1).tolist(), torch.stack(self.logps, 1).tolist()
        return [
            Completion(tuple(row[:count]), tuple(logp[:count]), StopReason(stop))
            for row, logp, count, stop in zip(ids, logps, self.count.tolist(), self.stop.tolist(), strict=True)
        ]


def _padded(ids: Sequence[Sequence[int]]) -> Int[Tensor, "B E"]:
    """Lists of ids as one table, filled up with -1, which is no token."""
    width = max(map(len, ids))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in ids], dtype=torch.long).view(len(ids), width)


def _by_marker(requests: Sequence[Request]) -> list[tuple[StopString, Bool[Tensor, " B"]]]:
    """Each marker that occurs, with the rows that it ends."""
    markers = dict.fromkeys(request.stop_string for request in requests if request.stop_string is not None)
    return [(marker, torch.tensor([one.stop_string == marker for one in requests])) for marker in markers]
