"""Requests, each with ends and a length of its own, drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qredit.rollouts.format import Marker
from qredit.samplers.draws import Controller
from qredit.samplers.protocol import Completion, Request, Stop

_GOING = -1


@dataclass(kw_only=True)
class RequestController(Controller):
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

    def settle(self, drawn: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
        return drawn, ~self.done  # what is drawn behind a request's end is left out of its completion

    def advance(self, token: Int[Tensor, " B"]) -> None:
        going = ~self.done
        self.count += going
        complete = torch.zeros_like(going)
        for marker, rows in self.markers:
            complete |= self.completed(marker, token, rows & going) > 0
        ended = (token[:, None] == self.ends).any(1)
        for stop, holds in ((Stop.LENGTH, self.count == self.limit), (Stop.MARKER, complete), (Stop.END, ended)):
            self.stop = torch.where(going & holds, stop, self.stop)  # the last of those that hold stays

    def completions(self) -> list[Completion]:
        """What was drawn, request by request, without padding."""
        ids, logps = torch.stack(self.tokens, 1).tolist(), torch.stack(self.logps, 1).tolist()
        return [
            Completion(tuple(row[:count]), tuple(logp[:count]), Stop(stop))
            for row, logp, count, stop in zip(ids, logps, self.count.tolist(), self.stop.tolist(), strict=True)
        ]


def _padded(ids: Sequence[Sequence[int]]) -> Int[Tensor, "B E"]:
    """Lists of ids as one table, filled up with -1, which is no token."""
    width = max(map(len, ids))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in ids], dtype=torch.long).view(len(ids), width)


def _by_marker(requests: Sequence[Request]) -> list[tuple[Marker, Bool[Tensor, " B"]]]:
    """Each marker that occurs, with the rows that it ends."""
    markers = {request.marker.text: request.marker for request in requests if request.marker is not None}
    return [
        (marker, torch.tensor([one.marker is not None and one.marker.text == text for one in requests]))
        for text, marker in markers.items()
    ]
