"""The forward passes of a micro-batch: what they tell of each token, in chunks that fit the memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.objective import Objective
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.install import States, Wanted, score
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.packing import pack
from qredit.shared_prefix.support import inside
from qredit.trl.config import QreditConfig
from qredit.trl.reference import Reference
from qredit.trl.step.memory import bytes_per_token, free_bytes, rows_that_fit, yet_to_come

SAMPLER_ENTROPY = "sampler_entropy"
Scores = dict[str, Tensor]  # what a forward pass tells of each completion token, by the name of the batch field


class Run(Protocol):
    """What passes ask of the trainer, each time anew: wrappers and the optimiser come after it is made.

    Attributes:
        layout: how rows lie in a forward pass; None is TRL's own pass.
        temperature: that of sampling.
        reference: the model that the run began with, if the objective compares with it.
        off_policy: whether the weights moved since the rollouts in use were sampled.
        serves_several_steps: whether rollouts are still in use when the weights have moved.
    """

    args: QreditConfig
    objective: Objective
    model: Any
    optimizer: Any
    accelerator: Accelerator
    layout: Callable[[Rows], Layout] | None
    model_wrapped: Any
    tails: Sequence[str]
    temperature: float
    reference: Reference | None

    @property
    def rollouts_per_prompt(self) -> int: ...

    @property
    def off_policy(self) -> bool: ...

    @property
    def serves_several_steps(self) -> bool: ...

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Any]: ...


class Passes:
    """Scores rows with the model of a run.

    Attributes:
        seconds: spent on scoring without gradient; for its reader to set back.
        keeps_prompts: whether `prompts_can_be_kept`, once it was asked.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds = 0.0
        self.keeps_prompts: bool | None = None
        self._held: float | None = None
        self._tokens_that_fit: int | None = None

    @property
    def policy(self) -> Any:
        """The model without its wrappers."""
        return self.run.accelerator.unwrap_model(self.run.model)

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        return 1.0 if "answer_logp" in self.run.objective.needs else float(self.run.temperature)

    def wanted(self, rows: Rows) -> Wanted:
        """What the objective needs of each token beside its log-probability and entropy."""
        reference, hidden = self.run.reference, rows.reference_hidden
        against = None if hidden is None or reference is None else States(hidden, *reference.head(self.policy))
        return Wanted.of(self.run.objective.needs, rows.vocabulary, against)

    def prompts_can_be_kept(self) -> bool:
        """Whether the keys of prompts may be kept on the graph for two passes over completions.

        Not where layers run again in the backward pass, nor where their weights come and go.
        """
        if self.keeps_prompts is None:
            resident = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
            again = inside(self.policy).is_gradient_checkpointing
            self.keeps_prompts = (
                self.run.layout is pack and self.run.accelerator.distributed_type in resident and not again
            )
        return self.keeps_prompts

    def score(self, model: nn.Module, rows: Rows, only: Tensor | None = None) -> Scores:
        """log-probability and entropy of each completion token, and what the objective needs beside them.

        Through the wrapped model; differentiable.

        Args:
            only: (B, T) tokens that suffice; the entropy of others is NaN.
        """
        batch = rows.batch
        if self.run.layout is not None:
            layout = self.run.layout(rows)
            if only is None:
                return score(model, layout, self.temperature, self.wanted(rows))
            return unscored_is_nan(score(model, layout.only(only), self.temperature, self.wanted(rows)), only)
        assert batch.ids is not None
        logp, entropy, _ = self.run._get_per_token_logps_and_entropies(
            model,
            torch.cat([rows.prompt_ids, batch.ids], 1),
            torch.cat([rows.prompt_mask, batch.mask.long()], 1),
            batch.mask.shape[1],
            compute_entropy=True,
        )
        device = batch.mask.device  # a model that TRL spread over several devices answers on its last one
        return {"logp": logp.to(device), "entropy": entropy.to(device)}

    def scored(self, batch: RolloutBatch, scores: Scores) -> RolloutBatch:
        """The batch with what a forward pass tells: log-probabilities, the gold answer's likelihood, entropies."""
        logp = scores["logp"].detach()
        extra = {**batch.extra, **{name: told for name, told in scores.items() if name not in ("logp", "entropy")}}
        if SAMPLER_ENTROPY in self.run.objective.needs and SAMPLER_ENTROPY not in extra:
            extra[SAMPLER_ENTROPY] = scores["entropy"].detach()  # the weights are still those that sampled
        return replace(
            batch,
            logp=logp,
            entropy=scores["entropy"],
            answer_logp=torch.where(batch.answer, logp.double(), 0.0).sum(1) if "answer" in self.run.tails else None,
            sampler_logp=batch.sampler_logp if self.run.off_policy else None,
            extra=extra,
        )

    def scored_without_gradient(self, model: nn.Module, rows: Rows) -> RolloutBatch:
        """The batch of all rows, scored."""
        scores: Scores = {}
        self.score_without_gradient(model, rows, torch.arange(len(rows.batch.mask)), scores)
        return self.scored(rows.batch, scores)

    def score_without_gradient(
        self, model: nn.Module, rows: Rows, which: Tensor, scores: Scores, only: Tensor | None = None
    ) -> None:
        """Fill in the scores of some rows, of some of their tokens."""
        start = time.perf_counter()
        with torch.no_grad():
            for chunk in self.chunks(rows, which) if len(which) else ():
                few = None if only is None else only[chunk]
                fill(scores, rows, chunk, self.score(model, rows.select(chunk), few))
        self.seconds += time.perf_counter() - start

    def chunks(self, rows: Rows, which: Tensor) -> list[Tensor]:
        """Row numbers cut to what fits a forward pass."""
        fits = self.run.args.rows_per_forward or self._rows_that_fit(rows)
        return list(which.split(min(fits, max(len(which), 1))))

    def tokens(self, rows: Rows) -> int:
        """How many tokens the forward pass of these rows computes, padding among them where nothing is packed."""
        if self.run.layout is not None:
            return self.run.layout(rows).ids.numel()
        return len(rows.batch.mask) * (rows.prompt_ids.shape[1] + rows.batch.mask.shape[1])

    def longest(self, rows: Rows) -> Rows:
        """The two longest of the rows."""
        return rows.select(rows.batch.mask.sum(1).topk(min(2, len(rows.batch.mask))).indices)

    def bytes_per_token(self, rows: Rows) -> float:
        """What a token holds for the backward pass, seen on the two longest of the rows that are asked for first."""
        if self._held is None:
            few, device, policy = self.longest(rows), self.run.accelerator.device, self.policy
            self._held = bytes_per_token(lambda: self.score(policy, few)["logp"], self.tokens(few), device, policy)
        return self._held

    def _rows_that_fit(self, rows: Rows) -> int:
        """As many as the memory holds, by what the two longest rows of the first micro-batch were seen to need."""
        run, whole = self.run, len(rows.batch.mask)
        if not run.model.training and self._tokens_that_fit is None:
            return whole
        prompt, completion = rows.prompt_ids.shape[1], rows.batch.mask.shape[1]
        shared = whole if run.layout is pack else 1
        if self._tokens_that_fit is None:
            held = self.bytes_per_token(rows)
            free = free_bytes(run.accelerator.device) - yet_to_come(self.policy, run.optimizer)
            self._tokens_that_fit = max(int(free / held), 1)
        group = min(run.rollouts_per_prompt * len(run.tails), shared)
        return rows_that_fit(self._tokens_that_fit, prompt, completion, group)


def fill(scores: Scores, rows: Rows, which: Tensor, told: Scores) -> None:
    """Put what was told of some rows in its place among all of them."""
    for name, value in told.items():
        if name not in scores:
            scores[name] = value.new_zeros(len(rows.batch.mask), *value.shape[1:])
        scores[name][which] = value.detach()


def unscored_is_nan(told: Scores, only: Tensor | None) -> Scores:
    """The entropy of tokens that were left out is not known."""
    return told if only is None else told | {"entropy": torch.where(only, told["entropy"], torch.nan)}
