"""Rows one by one, as they are kept, and together again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch, concatenate
from qredit.engine.replay.kept_credit import KEPT_CREDIT
from qredit.rollouts.collate import Rows, pad_prompts

_KEPT = (
    *("mask", "rationale", "answer", "close", "response", "sampled", "observation"),
    *("ids", "turn", "group", "reward", "sampler_logp"),
)
"""Fields of the batch that every row is kept with. Other fields are the on-policy credit's."""


@dataclass(frozen=True, eq=False)
class KeptRow:
    """A rollout that may be learned from again, without padding, on the CPU.

    Attributes:
        step: number of the optimiser step that ended its generation; 0 while that goes on.
        prompt: (P,) token ids.
        batch: the completion, one row, with the log-probabilities of the policy that sampled it, and with its
            coefficients where the rule's loss reads them.
    """

    step: int
    prompt: Int[Tensor, " P"]
    batch: RolloutBatch

    @property
    def reward(self) -> float:
        """That of the rollout."""
        return float(self.batch.require("reward", "replay"))

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and a number, for `torch.save`."""
        fields = {name: value for name in _KEPT if (value := getattr(self.batch, name)) is not None}
        return {"step": self.step, "prompt": self.prompt, **fields, **self.batch.extra}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> "KeptRow":
        """The row that was `state_dict`."""
        fields = {name: state[name].cpu() for name in _KEPT if name in state}
        credit = {KEPT_CREDIT: state[KEPT_CREDIT].cpu()} if KEPT_CREDIT in state else {}
        return cls(state["step"], state["prompt"].cpu(), RolloutBatch(**fields, extra=credit))


def cut_rows(rows: Rows, which: Bool[Tensor, " B"], credit: Float[Tensor, "B T"] | None = None) -> Iterator[KeptRow]:
    """Some of the rows, each by itself.

    Args:
        rows: padded.
        which: those that are kept.
        credit: (B, T) coefficients that they are kept with; None keeps none.
    """
    places = which.nonzero()[:, 0].tolist()
    if not places:
        return
    # brought over once: every row that is read off an accelerator by itself would wait for it
    known = {name: value.cpu() for name in _KEPT if (value := getattr(rows.batch, name)) is not None}
    credits = None if credit is None else credit.cpu()
    prompts, prompt_mask = rows.prompt_ids.cpu(), rows.prompt_mask.bool().cpu()
    for row in places:
        length = int(known["mask"][row].sum())
        own = {name: value[row : row + 1] for name, value in known.items()}
        fields = {name: (value[:, :length] if value.dim() == 2 else value).clone() for name, value in own.items()}
        own_credit = {} if credits is None else {KEPT_CREDIT: credits[row : row + 1, :length].clone()}
        yield KeptRow(0, prompts[row][prompt_mask[row]], RolloutBatch(**fields, extra=own_credit))


def join_rows(kept: Sequence[KeptRow], advantage: Float[Tensor, " n"] | None, seed: int, device: torch.device) -> Rows:
    """Rows that were cut, padded again, with an advantage in the place of each reward.

    Rows of one prompt are a group: numbers of groups repeat between generations.

    Args:
        kept: one at least.
        advantage: (n,) of each; None leaves the rewards.
        seed: of the batch.
        device: where the rows are put.
    """
    prompts = [tuple(one.prompt.tolist()) for one in kept]
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    together = concatenate([_with_observation(one.batch) for one in kept])
    batch = replace(
        together,
        group=torch.tensor([numbers[prompt] for prompt in prompts]),
        reward=together.reward if advantage is None else advantage,
        seed=seed,
    )
    return Rows(*pad_prompts(prompts, 0, device), batch.to(device))


def _with_observation(batch: RolloutBatch) -> RolloutBatch:
    """Rows of generations in which nobody observed anything have no such span, which others may have."""
    return batch if batch.observation is not None else replace(batch, observation=torch.zeros_like(batch.mask))
