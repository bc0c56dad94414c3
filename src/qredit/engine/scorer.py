"""The forward passes of a micro-batch: what they tell of each token, in chunks that fit the memory."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from qredit.core.batch import RolloutBatch
from qredit.core.right_answers import join_answers
from qredit.engine.memory import count_fitting_rows, count_key_bytes, measure_bytes_per_token
from qredit.engine.passes import fill_empty_pass
from qredit.engine.teacher import Forward, Teacher
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.branches import repeat_for_answers
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.packing import pack, pack_prompts, pad_rows
from qredit.shared_prefix.patch_forward import ScoreRequest, TeacherStates, score
from qredit.shared_prefix.support import reruns_detached, unwrap_peft

SAMPLER_ENTROPY = "sampler_entropy"
Scores = dict[str, Tensor]  # what a forward pass tells of each completion token, by the name of the batch field


@dataclass(eq=False)
class Scorer:
    """Scores rows with a model.

    What only an engine knows is handed in; what changes during a run is asked for anew.

    Attributes:
        needs: the batch fields that the objective reads.
        tails: what rows end in.
        temperature: what logits are divided by.
        layout: how rows lie in a forward pass; None is the engine's own pass, `native_forward`.
        native_forward: (model, rows) → log-probability and entropy of each completion token.
        policy: the model without its wrappers.
        unsharded: whether all weights lie whole on this process, all the time.
        agree_on_passes: number of this process's forward passes → how many all processes make. Where weights are
            sharded each pass gathers them, which takes all processes.
        rows_per_forward: the most rows of a forward pass; None is as many as fit.
        free_bytes: memory that a pass may use.
        device: where rows lie.
        teachers: by name, those that the objective compares with.
        autocast: the precision that the policy is scored in.
        seconds: spent on scoring without gradient; for its reader to set back.
        caches_prompts: whether `can_cache_prompts`, once it was asked.
    """

    needs: frozenset[str]
    tails: Sequence[str]
    temperature: float
    layout: Callable[[Rows], Layout] | None
    policy: Callable[[], Any]
    device: torch.device
    free_bytes: Callable[[], float]
    native_forward: Callable[[nn.Module, Rows], tuple[Tensor, Tensor]] | None = None
    unsharded: bool = True
    agree_on_passes: Callable[[int], int] = int
    rows_per_forward: int | None = None
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    seconds: float = 0.0
    caches_prompts: bool | None = None
    _held: float | None = None
    _tokens_that_fit: int | None = None

    def make_request(self, rows: Rows) -> ScoreRequest:
        """What the objective needs of each token beside its log-probability and entropy."""
        hidden, policy = rows.teacher_hidden, self.policy()
        against = {name: TeacherStates(states, *self.teachers[name].head(policy)) for name, states in hidden.items()}
        return ScoreRequest.of(self.needs, rows.vocabulary, against)

    def forward(self, model: nn.Module) -> Forward:
        """How teachers and learners run a model over rows.

        Args:
            model: the wrapped policy.
        """
        return Forward(
            model,
            self.policy(),
            self.layout or pad_rows,
            lambda rows: self.split_rows(rows, torch.arange(len(rows.batch.mask))),
            self.temperature,
            self.autocast,
        )

    def can_cache_prompts(self) -> bool:
        """Whether the keys of prompts may be kept on the graph for two passes over completions.

        Not where layers leave no graph at first (`use_reentrant`), nor where their weights come and go.
        """
        if self.caches_prompts is None:
            detached = reruns_detached(unwrap_peft(self.policy()))
            self.caches_prompts = self.layout is pack and self.unsharded and not detached
        return self.caches_prompts

    def kept_bytes(self, rows: Rows) -> float:
        """What the kept prompts of rows hold beside what `bytes_per_token` counts: nothing, or with checkpointing keys.

        A checkpointed layer holds its input alone. The keys of all layers are held beside it, and their gradients.
        """
        policy = unwrap_peft(self.policy())
        if not policy.is_gradient_checkpointing:
            return 0.0
        key = count_key_bytes(policy.config.get_text_config(), policy.dtype.itemsize)
        return 2.0 * key * pack_prompts(rows).ids.numel()

    def fits_with_kept_prompts(self, rows: Rows) -> bool:
        """Whether rows that fit one pass also do beside the keys of their prompts; where rows are given, they do."""
        if self.rows_per_forward is not None or self._tokens_that_fit is None:
            return True
        held = self.bytes_per_token(rows)
        return self.tokens(rows) * held + self.kept_bytes(rows) <= self._tokens_that_fit * held

    def score(self, model: nn.Module, rows: Rows, only: Tensor | None = None) -> Scores:
        """log-probability and entropy of each completion token, and what the objective needs beside them.

        Through the wrapped model; differentiable.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            rows: prompts and completions, padded, (B, P) and (B, T).
            only: (B, T) tokens that suffice; the entropy of others is NaN.
        """
        if self.layout is not None:
            layout = self.layout(rows)
            if only is None:
                return score(model, layout, self.temperature, self.make_request(rows))
            return mask_unscored_entropy(
                score(model, layout.only(only), self.temperature, self.make_request(rows)), only
            )
        assert self.native_forward is not None
        device = rows.batch.mask.device  # a model that is spread over several devices answers on its last one
        if rows.batch.alias is None:
            logp, entropy = self.native_forward(model, rows)
            return {"logp": logp.to(device), "entropy": entropy.to(device)}
        single, place = repeat_for_answers(rows)
        told = (value.to(device).flatten()[place] for value in self.native_forward(model, single))
        return dict(zip(("logp", "entropy"), (torch.where(rows.batch.mask, value, 0.0) for value in told), strict=True))

    def attach_scores(self, batch: RolloutBatch, scores: Scores, off_policy: bool = False) -> RolloutBatch:
        """The batch with what a forward pass tells: log-probabilities, the right answers' likelihood, entropies.

        Args:
            batch: whole groups, with the fields that are needed.
            scores: (B, T) tensors by the name of the batch field.
            off_policy: the weights have moved since the rollouts were sampled; else they need no ratio.
        """
        logp = scores["logp"].detach()
        likely = "answer" in self.tails
        log_w, share = join_answers(logp, batch.answer, batch.alias) if likely else (None, None)
        extra = {**batch.extra, **{name: told for name, told in scores.items() if name not in ("logp", "entropy")}}
        if SAMPLER_ENTROPY in self.needs and SAMPLER_ENTROPY not in extra:
            extra[SAMPLER_ENTROPY] = scores["entropy"].detach()  # the weights are still those that sampled
        return replace(
            batch,
            logp=logp,
            entropy=scores["entropy"],
            answer_logp=log_w,
            answer_share=share,
            # on policy every ratio is 1: without the sampler's numbers its rounding cannot make it anything else
            sampler_logp=batch.sampler_logp if off_policy else None,
            extra=extra,
        )

    def score_batch_no_grad(self, model: nn.Module, rows: Rows, off_policy: bool = False) -> RolloutBatch:
        """The batch of all rows, scored.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            rows: prompts and completions, padded, (B, P) and (B, T).
            off_policy: the weights have moved since the rollouts were sampled.
        """
        scores: Scores = {}
        self.fill_scores_no_grad(model, rows, torch.arange(len(rows.batch.mask)), scores)
        return self.attach_scores(rows.batch, scores, off_policy)

    def fill_scores_no_grad(
        self, model: nn.Module, rows: Rows, which: Tensor, scores: Scores, only: Tensor | None = None
    ) -> None:
        """Fill in the scores of some rows, of some of their tokens.

        Args:
            model: in its wrappers (DDP, PEFT), so that their hooks run.
            rows: prompts and completions, padded, (B, P) and (B, T).
            which: numbers of the rows.
            scores: filled in, (B, T) for all rows.
            only: (B, T) tokens that suffice; None is all.
        """
        start = time.perf_counter()
        with torch.no_grad():
            for chunk in self.split_rows(rows, which):
                taken = fill_empty_pass(chunk)
                few = None if only is None else only[taken]
                told = self.score(model, rows.select(taken), few)
                if len(chunk):
                    write_scores(scores, rows, chunk, told)
        self.seconds += time.perf_counter() - start

    def split_rows(self, rows: Rows, which: Tensor) -> list[Tensor]:
        """Row numbers cut to what fits a forward pass; empty ones behind them where other processes make more passes.

        An empty one is run as well, on rows that count for nothing: see `fill_empty_pass`.
        """
        fits = self.rows_per_forward or self._rows_that_fit(rows)
        chunks = list(which.split(min(fits, len(which)))) if len(which) else []
        return chunks + [which[:0]] * (self.agree_on_passes(len(chunks)) - len(chunks))

    def tokens(self, rows: Rows) -> int:
        """How many tokens the forward pass of these rows computes, padding among them where nothing is packed."""
        if self.layout is not None:
            return self.layout(rows).ids.numel()
        single = rows if rows.batch.alias is None else repeat_for_answers(rows)[0]
        return len(single.batch.mask) * (single.prompt_ids.shape[1] + single.batch.mask.shape[1])

    def select_longest(self, rows: Rows) -> Rows:
        """The two longest of the rows."""
        return rows.select(rows.batch.mask.sum(1).topk(min(2, len(rows.batch.mask))).indices)

    def bytes_per_token(self, rows: Rows) -> float:
        """What a token holds for the backward pass, seen on the two longest of the rows that are asked for first."""
        if self._held is None:
            few, device, policy = self.select_longest(rows), self.device, self.policy()
            self._held = measure_bytes_per_token(
                lambda: self.score(policy, few)["logp"], self.tokens(few), device, policy, self.unsharded
            )
        return self._held

    def _rows_that_fit(self, rows: Rows) -> int:
        """As many as the memory holds, by what the two longest rows of the first micro-batch were seen to need."""
        whole = len(rows.batch.mask)
        if not self.policy().training and self._tokens_that_fit is None:
            return whole
        prompt, completion = rows.prompt_ids.shape[1], rows.batch.mask.shape[1]
        # Where prompts are packed, rows of a group share one; else each row pays for its own.
        shared = whole if self.layout is pack else 1
        if self.layout is not pack and rows.batch.alias is not None:  # a row for each answer
            answers = int(rows.batch.alias.max()) + 1
            prompt, completion = answers * prompt, answers * completion
        if self._tokens_that_fit is None:
            held = self.bytes_per_token(rows)
            self._tokens_that_fit = max(int(self.free_bytes() / held), 1)
        group = min(int((rows.batch.group == rows.batch.group[0]).sum()), shared)
        return count_fitting_rows(self._tokens_that_fit, prompt, completion, group)


def write_scores(scores: Scores, rows: Rows, which: Tensor, told: Scores) -> None:
    """Put what was told of some rows in its place among all of them.

    Args:
        scores: filled in, (B, T) for all rows.
        rows: prompts and completions, padded, (B, P) and (B, T).
        which: numbers of the rows that were scored.
        told: what was told of these rows.
    """
    for name, value in told.items():
        if name not in scores:
            scores[name] = value.new_zeros(len(rows.batch.mask), *value.shape[1:])
        scores[name][which] = value.detach()


def mask_unscored_entropy(told: Scores, only: Tensor | None) -> Scores:
    """The entropy of tokens that were left out is not known."""
    return told if only is None else told | {"entropy": torch.where(only, told["entropy"], torch.nan)}
