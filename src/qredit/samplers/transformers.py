"""Sampling with a transformers model: by decoding with shared prompts where it can, else by its generate.

Requests are drawn together, and so are rationales with their closings and answers: `samplers/logits_processor.py` draws
the tokens either way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import SamplingParams, TokenBudget
from qredit.rollouts.trajectory import Trajectory
from qredit.samplers.logits_processor import SamplingLogitsProcessor
from qredit.samplers.protocol import Completion, Request
from qredit.samplers.requests import RequestLogitsProcessor
from qredit.samplers.think_answer_processor import ThinkAnswerLogitsProcessor
from qredit.shared_prefix.decode import Decoder, has_shared_prefix
from qredit.shared_prefix.share import share_prefix
from qredit.utils.device import autocast
from qredit.utils.former_names import former_names


@dataclass
class TransformersSampler:
    """Draws with a transformers model. Thinking is sampled in one call.

    Nothing but `draw` changes the distribution: the model's own generation_config, which may hold a repetition penalty
    or suppressed tokens, is set aside for the call.

    Attributes:
        model: the unwrapped model; put into evaluation mode for a call and back after it.
        pad: id for the left padding of prompts.
        draw: the distribution, as a change of the model's own.
        half: compute in bf16, on the weights as they are.
    """

    model: PreTrainedModel
    pad: int
    draw: SamplingParams = SamplingParams()
    half: bool = False

    def sync(self, model: nn.Module) -> None:
        """Draw with this model from now on."""
        self.model = model

    def sample(self, requests: Sequence[Request], seed: int) -> list[Completion]:
        """One completion per request. All draws are a function of the requests and of `seed`."""
        controller = RequestLogitsProcessor(requests=requests, **self._settings(len(requests), seed))
        longest = max(request.max_tokens for request in requests)
        self._run([request.prompt_ids for request in requests], controller, longest)
        return controller.completions()

    def think(
        self,
        prompts: Sequence[Sequence[int]],
        format: TokenFormat,
        budget: TokenBudget,
        *,
        stop_tokens: Sequence[int],
        seed: int,
    ) -> list[Trajectory]:
        """Rationale, closing and answer for each prompt, as `samplers.thinking.think` describes them, in one call.

        Args:
            prompts: the ids of each prompt, opening included.
            format: the layout of a completion, as ids of this tokenizer.
            budget: the most tokens of thinking and of answer.
            stop_tokens: ids that end a text.
            seed: all draws are a function of it.
        """
        ends = torch.tensor(sorted({*stop_tokens, *format.stop_ids}), device=self.model.device)
        controller = ThinkAnswerLogitsProcessor(
            format=format, budget=budget, stop_tokens=ends, **self._settings(len(prompts), seed)
        )
        self._run(prompts, controller, budget.thinking + len(format.close_ids) + budget.answer)
        return controller.trajectories(prompts)

    def _settings(self, rows: int, seed: int) -> dict[str, Any]:
        """What every controller needs."""
        device = self.model.device
        generator = torch.Generator(device=device).manual_seed(seed)
        return {"draw": self.draw, "rows": rows, "pad": self.pad, "generator": generator, "device": device}

    def _run(self, prompts: Sequence[Sequence[int]], controller: SamplingLogitsProcessor, longest: int) -> None:
        """Draw until every row is done, `longest` tokens at most."""
        model, width = self.model, max(map(len, prompts))
        ids = torch.full((len(prompts), width), controller.pad, device=controller.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt, device=controller.device)
            mask[row, width - len(prompt) :] = 1
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), autocast(model.device, self.half):
                if has_shared_prefix(model):
                    _decode(model, prompts, ids, controller, longest)
                else:
                    _generate(model, ids, mask, controller, longest)
        finally:
            model.train(was_training)


def make_sampler(
    model: PreTrainedModel, pad: int, draw: SamplingParams = SamplingParams(), half: bool = False
) -> TransformersSampler:
    """A sampler of a loaded model, which decodes with shared prompts where the model can.

    Args:
        model: loaded, without wrappers.
        pad: id of the padding token.
        draw: temperature and truncation of the distribution.
        half: whether the policy computes in half precision.
    """
    share_prefix(model)
    return TransformersSampler(model, pad, draw, half)


def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    format: TokenFormat,
    budget: TokenBudget,
    *,
    draw: SamplingParams = SamplingParams(),
    stop_tokens: Sequence[int],
    pad: int,
    seed: int,
) -> list[Trajectory]:
    """One trajectory per prompt from a model; repeat a prompt to get several. See `samplers.thinking.think`.

    Args:
        model: loaded, without wrappers.
        prompts: the ids of each prompt, opening included.
        format: the layout of a completion, as ids of this tokenizer.
        budget: the most tokens of thinking and of answer.
        draw: temperature and truncation of the distribution.
        stop_tokens: ids that end a text.
        pad: id of the padding token.
        seed: all draws are a function of it.
    """
    return TransformersSampler(model, pad, draw).think(prompts, format, budget, stop_tokens=stop_tokens, seed=seed)


@dataclass
class _StopWhenDone(StoppingCriteria):  # type: ignore[misc]
    controller: SamplingLogitsProcessor

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return self.controller.done


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    ids: Tensor,
    controller: SamplingLogitsProcessor,
    longest: int,
) -> None:
    """Each distinct prompt once, then token by token; rows that are done leave once they are a quarter of those left.

    Args:
        ids: the prompts, padded to the left: what penalties on repeated tokens look at.
    """
    decoder = Decoder(model, prompts, longest)
    scores = decoder.prefill()
    while True:
        # Warpers such as the repetition penalty read what stands before; without any, nobody does.
        seen = torch.cat([ids, *(token[:, None] for token in controller.tokens)], 1) if controller.warpers else ids
        token = controller.next_tokens(seen[decoder.rows], scores, decoder.rows)
        going = ~controller.done[decoder.rows]
        if not bool(going.any()):
            return
        # To leave rows out copies the keys and values of the others, which is not worth it for a few.
        if float(going.float().mean()) <= 0.75:
            decoder.keep_rows(going.nonzero()[:, 0])
        scores = decoder.step(token[decoder.rows])


def _generate(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, controller: SamplingLogitsProcessor, longest: int
) -> None:
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


__getattr__ = former_names(__name__, {"Budget": "TokenBudget", "Draw": "SamplingParams"})
