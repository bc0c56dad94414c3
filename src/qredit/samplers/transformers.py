"""Sampling rationales and answers with transformers' generate.

One call samples thinking, closes it, by force where the budget ends, and goes on to the answer: a logits processor
draws the tokens itself, so that each row can be in its own phase and every draw comes from one seeded generator.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qredit.rollouts.format import Marker, TokenFormat
from qredit.rollouts.sampling_params import Budget, Draw
from qredit.rollouts.trajectory import Rollout
from qredit.shared_prefix.decode import Decoder, shares_prefix


def warpers(draw: Draw) -> LogitsProcessorList:
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


class _Phase(IntEnum):
    THINKING = 0
    CLOSING = 1
    ANSWERING = 2
    DONE = 3


@dataclass
class _Controller(LogitsProcessor):  # type: ignore[misc]
    """Draws every row's next token by the phase it is in; leaves that token alone a finite score."""

    format: TokenFormat
    budget: Budget
    draw: Draw
    rows: int
    stop_tokens: Int[Tensor, " E"]
    pad: int
    generator: torch.Generator
    device: torch.device
    tokens: list[Tensor] = field(default_factory=list)
    logps: list[Tensor] = field(default_factory=list)
    candidates: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.phase = torch.full((self.rows,), _Phase.THINKING, device=self.device)
        self.count = torch.zeros(self.rows, dtype=torch.long, device=self.device)  # tokens within the phase
        self.close_start = torch.full((self.rows,), -1, device=self.device)
        self.close_end = torch.full((self.rows,), -1, device=self.device)
        self.forced = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.dropped = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.ended = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self.length = torch.zeros(self.rows, dtype=torch.long, device=self.device)
        self.close_ids = torch.tensor(self.format.close_ids, device=self.device)
        self.warpers = warpers(self.draw)
        if self.budget.thinking == 0:
            self._force(torch.ones_like(self.forced))

    @property
    def done(self) -> Tensor:
        return self.phase == _Phase.DONE

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        token = self.next_tokens(input_ids, scores, torch.arange(self.rows, device=self.device))
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def next_tokens(
        self, input_ids: Int[Tensor, "R L"], scores: Float[Tensor, "R V"], rows: Int[Tensor, " R"]
    ) -> Int[Tensor, " B"]:
        """Every row's next token, from the scores of those rows that are not done; padding for the others."""
        scores = scores.float()
        tempered = scores if self.draw.temperature in (0.0, 1.0) else scores / self.draw.temperature
        log_probs = tempered.log_softmax(-1)
        drawn = self._drawn(self.warpers(input_ids, scores) if self.warpers else log_probs, rows)
        token = torch.full((self.rows,), self.pad, device=self.device).index_copy_(0, rows, drawn)
        logp = torch.zeros(self.rows, device=self.device)
        logp[rows] = log_probs.gather(1, drawn[:, None])[:, 0]
        stop = torch.isin(token, self.stop_tokens)
        # a closing may hold a token that ends a turn (gpt-oss closes its analysis with <|end|>): it is left to go on
        cut = (self.phase == _Phase.THINKING) & stop & ~torch.isin(token, self.close_ids)
        self.dropped |= cut
        self._force(cut)
        closing = self.phase == _Phase.CLOSING
        token = torch.where(closing, self.close_ids[self.count.clamp(max=len(self.close_ids) - 1)], token)
        token = torch.where(self.done, self.pad, token)
        self.tokens.append(token)
        self.logps.append(torch.where(closing | self.done, 0.0, logp))
        self._advance(token, stop)
        return token

    def _drawn(self, scores: Float[Tensor, "R V"], rows: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """A draw from each distribution: the largest of p / e with e exponential (the exponential race).

        The noise is made for all rows, so that a row's draws do not depend on which others are done.
        """
        if self.draw.temperature == 0.0:
            return scores.argmax(-1)
        noise = torch.empty(self.rows, scores.shape[1], device=self.device).exponential_(generator=self.generator)
        return scores.softmax(-1).div_(noise.index_select(0, rows)).argmax(-1)

    def _force(self, rows: Tensor) -> None:
        """Start closing by force in these rows, at the next token."""
        position = len(self.tokens)
        self.phase = torch.where(rows, _Phase.CLOSING, self.phase)
        self.forced |= rows
        self.close_start = torch.where(rows, position, self.close_start)
        self.count = torch.where(rows, 0, self.count)

    def _advance(self, token: Tensor, stop: Tensor) -> None:
        """Move every row to the phase of its next token."""
        position = len(self.tokens)
        self.count += 1
        closing, answering = self.phase == _Phase.CLOSING, self.phase == _Phase.ANSWERING
        tail = self._completed(self.format.closing, token, self.phase == _Phase.THINKING)
        self.close_start = torch.where(tail > 0, position - tail, self.close_start)
        closed = (closing & (self.count == len(self.close_ids))) | (tail > 0)
        self.close_end = torch.where(closed, position, self.close_end)
        ended = answering & stop
        if self.format.end is not None:
            ended |= self._completed(self.format.end, token, answering) > 0
        self.ended |= ended
        finished = ended | (answering & (self.count == self.budget.answer))
        self.length = torch.where(finished, position, self.length)
        self.phase = torch.where(closed, _Phase.ANSWERING, torch.where(finished, _Phase.DONE, self.phase))
        self.count = torch.where(closed, 0, self.count)
        self._force((self.phase == _Phase.THINKING) & (self.count == self.budget.thinking))

    def _completed(self, marker: Marker, token: Tensor, rows: Tensor) -> Tensor:
        """How many last tokens of each row hold the marker, where the row's newest token completes it; else 0."""
        length = torch.zeros_like(self.count)
        found = (rows & torch.isin(token, self._candidates(marker))).nonzero()[:, 0].tolist()
        if found:
            recent = torch.stack(self.tokens[-marker.window :], 1)[found].tolist()
            starts = (len(self.tokens) - self.count[found]).tolist()
            for row, ids, start in zip(found, recent, starts, strict=True):
                within = ids[max(0, start - (len(self.tokens) - len(ids))) :]
                length[row] = marker.length(within) or 0
        return length

    def _candidates(self, marker: Marker) -> Tensor:
        if marker.text not in self.candidates:
            self.candidates[marker.text] = torch.tensor(marker.candidates, device=self.device)
        return self.candidates[marker.text]

    def rollouts(self) -> list[Rollout]:
        """What was drawn, row by row, without padding."""
        ids, logps = torch.stack(self.tokens, 1).tolist(), torch.stack(self.logps, 1).tolist()
        facts = torch.stack(
            [self.close_start, self.close_end, self.forced.long(), self.dropped.long(), self.ended.long()], 1
        )
        return [
            Rollout(
                ids=tuple(row[:length]),
                logp=tuple(logp[:length]),
                close_start=start,
                close_end=end,
                forced=bool(forced),
                dropped_end=bool(dropped),
                ended=bool(ended),
            )
            for row, logp, length, (start, end, forced, dropped, ended) in zip(
                ids, logps, self.length.tolist(), facts.tolist(), strict=True
            )
        ]


@dataclass
class _StopWhenDone(StoppingCriteria):  # type: ignore[misc]
    controller: _Controller

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return self.controller.done


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    format: TokenFormat,
    budget: Budget,
    *,
    draw: Draw = Draw(),
    stop_tokens: Sequence[int],
    pad: int,
    seed: int,
) -> list[Rollout]:
    """One rollout per prompt; repeat a prompt to get several. All draws are a function of `seed`.

    Nothing but `draw` changes the distribution: the model's own generation_config, which may hold a repetition penalty
    or suppressed tokens, is set aside for the call.

    Args:
        model: the unwrapped model; put into evaluation mode for the call and back after it.
        prompts: token ids, opening included.
        stop_tokens: end-of-text ids; they end an answer, as does the format's own end. Inside thinking they are dropped
            and it is closed by force.
        pad: id for the left padding of prompts.
    """
    device = model.device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, width - len(prompt) :] = 1
    controller = _Controller(
        format=format,
        budget=budget,
        draw=draw,
        rows=len(prompts),
        stop_tokens=torch.tensor(sorted({*stop_tokens, *format.stop_ids}), device=device),
        pad=pad,
        generator=torch.Generator(device=device).manual_seed(seed),
        device=device,
    )
    longest = budget.thinking + len(format.close_ids) + budget.answer
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if shares_prefix(model):
                _decode(model, prompts, ids, controller, longest)
            else:
                _generate(model, ids, mask, controller, longest)
    finally:
        model.train(was_training)
    return controller.rollouts()


def _decode(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], ids: Tensor, controller: _Controller, longest: int
) -> None:
    """Each distinct prompt once, then token by token; rows that are done leave once they are a quarter of those left.

    Args:
        ids: the prompts, padded to the left: what penalties on repeated tokens look at.
    """
    decoder = Decoder(model, prompts, longest)
    scores = decoder.prefill()
    while True:
        seen = torch.cat([ids, *(token[:, None] for token in controller.tokens)], 1) if controller.warpers else ids
        token = controller.next_tokens(seen[decoder.rows], scores, decoder.rows)
        going = ~controller.done[decoder.rows]
        if not bool(going.any()):
            return
        if float(going.float().mean()) <= 0.75:
            decoder.leave_out(going.nonzero()[:, 0])
        scores = decoder.step(token[decoder.rows])


def _generate(model: PreTrainedModel, ids: Tensor, mask: Tensor, controller: _Controller, longest: int) -> None:
    """The same by transformers' generate, for models that do not share prefixes."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=longest, pad_token_id=controller.pad, eos_token_id=None, use_cache=True
    )
    with _plain_generation(model):
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([controller]),
            stopping_criteria=StoppingCriteriaList([_StopWhenDone(controller)]),
        )


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Set aside the generation_config of a model, and of the model inside its adapters: generate fills gaps from it."""
    owners = [model, *([model.get_base_model()] if hasattr(model, "get_base_model") else [])]
    saved = [vars(owner).get("generation_config") for owner in owners]
    try:
        for owner in owners:
            owner.generation_config = GenerationConfig()
        yield
    finally:
        for owner, config in zip(owners, saved, strict=True):
            if config is None:
                del owner.generation_config
            else:
                owner.generation_config = config
