"""The draw of one token per row from a model's scores, as all of transformers' sampling here makes it.

The tokens are drawn by a logits processor, so that each row can be in its own phase and every draw comes from one
seeded generator.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qredit.rollouts.format import StopString
from qredit.rollouts.sampling_params import SamplingParams


def make_logits_warpers(draw: SamplingParams) -> LogitsProcessorList:
    """transformers' own processors for these settings."""
    chosen = LogitsProcessorList()
    if draw.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(draw.repetition_penalty))
    if draw.temperature not in (0.0, 1.0):
        chosen.append(TemperatureLogitsWarper(draw.temperature))
    if draw.top_k > 0:
        chosen.append(TopKLogitsWarper(draw.top_k))
    if draw.top_p < 1.0:
        chosen.append(TopPLogitsWarper(draw.top_p))
    if draw.min_p is not None:
        chosen.append(MinPLogitsWarper(draw.min_p))
    return chosen


def choose_block_width(vocabulary: int) -> int:
    """The power of two next to the square root: blocks and their tokens are then about as many as each other."""
    return 1 << ((vocabulary - 1).bit_length() + 1) // 2


def draw_in_blocks(probs: Float[Tensor, "R V"], noise: Float[Tensor, "R N"]) -> Int[Tensor, " R"]:
    """One token per row, each with its probability: an exponential race of blocks, then of the tokens in the winner.

    The largest of p_i / e_i, with e_i exponential, is i with probability p_i / Σp. A race of all tokens takes V
    exponentials per row, which cost more than the softmax. Two rounds take about 2 √V and draw from the same
    distribution: P(block) · P(token | block) = p. No cumulative sum is taken, which accelerators do not repeat bit for
    bit.

    Args:
        probs: float32; tokens of probability 0 are never drawn.
        noise: float32 exponentials of rate 1, N = blocks + `choose_block_width(V)`, those of the blocks first.
    """
    width = choose_block_width(probs.shape[1])
    short = -probs.shape[1] % width
    padded: Tensor = nn.functional.pad(probs, (0, short)) if short else probs  # a pad of 0 copies, too
    tokens = padded.unflatten(1, (-1, width))
    blocks = tokens.shape[1]
    block: Tensor = (tokens.sum(-1) / noise[:, :blocks]).argmax(-1)
    within: Tensor = (tokens[torch.arange(len(block), device=block.device), block] / noise[:, blocks:]).argmax(-1)
    return block * width + within


@dataclass(kw_only=True)
class SamplingLogitsProcessor(LogitsProcessor, ABC):  # type: ignore[misc]
    """Draws every row's next token; leaves that token alone a finite score.

    Attributes:
        count: tokens of each row within the phase that it is in.
        tokens, logps: what was drawn so far, one entry (B,) per step.
    """

    draw: SamplingParams
    rows: int
    pad: int
    generator: torch.Generator
    device: torch.device
    tokens: list[Tensor] = field(default_factory=list)
    logps: list[Tensor] = field(default_factory=list)
    candidates: dict[StopString, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.count = torch.zeros(self.rows, dtype=torch.long, device=self.device)
        self.warpers = make_logits_warpers(self.draw)

    @property
    @abstractmethod
    def done(self) -> Bool[Tensor, " B"]:
        """The rows that need no more tokens."""

    @abstractmethod
    def resolve_tokens(self, drawn: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
        """The tokens that rows go on with, and whether they are those that were drawn."""

    @abstractmethod
    def advance(self, token: Int[Tensor, " B"]) -> None:
        """Take note of the newest tokens, which stand at the end of `tokens`."""

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        token = self.next_tokens(input_ids, scores, torch.arange(self.rows, device=self.device))
        # generate itself would draw from torch's global generator, all rows alike. It is called greedily instead, and
        # the token that was drawn here alone keeps a finite score: that is the one it takes.
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def next_tokens(
        self, input_ids: Int[Tensor, "R L"], scores: Float[Tensor, "R V"], rows: Int[Tensor, " R"]
    ) -> Int[Tensor, " B"]:
        """Every row's next token, from the scores of those rows that are not done; padding for the others.

        Args:
            input_ids: (R, L) what stands before.
            scores: (R, V) logits.
            rows: (R,) numbers of the rows that are not done.
        """
        scores = scores.float()
        tempered = scores if self.draw.temperature in (0.0, 1.0) else scores / self.draw.temperature
        # Before top-k, top-p and penalties: the probability under the model that is trained, which has none of them.
        log_probs = tempered.log_softmax(-1)
        drawn = self._drawn(self.warpers(input_ids, scores) if self.warpers else log_probs, rows)
        token = torch.full((self.rows,), self.pad, device=self.device).index_copy_(0, rows, drawn)
        logp = torch.zeros(self.rows, device=self.device)
        logp[rows] = log_probs.gather(1, drawn[:, None])[:, 0]
        token, own = self.resolve_tokens(token)
        self.tokens.append(token)
        self.logps.append(torch.where(own, logp, 0.0))  # a token that was forced was not drawn, and has no ratio
        self.advance(token)
        return token

    def _drawn(self, scores: Float[Tensor, "R V"], rows: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """A draw from each distribution.

        The noise is made for all rows, so that a row's draws do not depend on which others are done.
        """
        if self.draw.temperature == 0.0:
            return scores.argmax(-1)
        width = choose_block_width(scores.shape[1])
        blocks = -(-scores.shape[1] // width)
        noise = torch.empty(self.rows, blocks + width, device=self.device).exponential_(generator=self.generator)
        return draw_in_blocks(scores.softmax(-1), noise.index_select(0, rows))

    def match_stop_string(self, marker: StopString, token: Tensor, rows: Tensor) -> Tensor:
        """How many last tokens of each row hold the marker, where the row's newest token completes it; else 0.

        Args:
            marker: the text that is looked for.
            token: (B,) newest token of each row.
            rows: (B,) rows that are looked at.
        """
        length = torch.zeros_like(self.count)
        # Only a token that can complete the marker is worth a look at the text, which needs the row on the CPU.
        found = (rows & torch.isin(token, self._candidates(marker))).nonzero()[:, 0].tolist()
        if found:
            recent = torch.stack(self.tokens[-marker.window :], 1)[found].tolist()
            starts = (len(self.tokens) - self.count[found]).tolist()
            for row, ids, start in zip(found, recent, starts, strict=True):
                # from the start of the phase on: a marker may not begin in the tokens before it
                within = ids[max(0, start - (len(self.tokens) - len(ids))) :]
                length[row] = marker.length(within) or 0
        return length

    def _candidates(self, marker: StopString) -> Tensor:
        if marker not in self.candidates:
            self.candidates[marker] = torch.tensor(marker.candidates, device=self.device)
        return self.candidates[marker]
