"""Rows one by one, as they are kept, and together again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qredit.core.batch import RolloutBatch, concatenate
from qredit.rollouts.collate import Rows, pad_prompts

_KEPT = (
    *("mask", "rationale", "answer", "close", "response", "sampled", "observation"),
    *("ids", "turn", "group", "reward", "sampler_logp"),
)
"""Fields of the batch that a row is kept with. Other fields are the on-policy credit's."""


@dataclass(frozen=True, eq=False)
class KeptRow:
    """A rollout that may be learned from again, without padding, on the CPU.

    Attributes:
        step: number of the optimiser step that ended its generation; 0 while that goes on.
        prompt: (P,) token ids.
        batch: the completion, one row, with the log-probabilities of the policy that sampled it.
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
        return {"step": self.step, "prompt": self.prompt, **fields}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> "KeptRow":
        """The row that was `state_dict`."""
        fields = {name: state[name].cpu() for name in _KEPT if name in state}
        return cls(state["step"], state["prompt"].cpu(), RolloutBatch(**fields))


def cut_rows(rows: Rows, which: Bool[Tensor, " B"]) -> Iterator[KeptRow]:
    """Some of the rows, each by itself.

    Args:
        rows: padded.
        which: those that are kept.
    """
    places = which.nonzero()[:, 0].tolist()
    if not places:
        return
    # brought over once: every row that is read off an accelerator by itself would wait for it
    known = {name: value.cpu() for name in _KEPT if (value := getattr(rows.batch, name)) is not None}
    prompts, prompt_mask = rows.prompt_ids.cpu(), rows.prompt_mask.bool().cpu()
    for row in places:
        length = int(known["mask"][row].sum())
        own = {name: value[row : row + 1] for name, value in known.items()}
        fields = {name: (value[:, :length] if value.dim() == 2 else value).clone() for name, value in own.items()}
        yield KeptRow(0, prompts[row][prompt_mask[row]], RolloutBatch(**fields))


def join_rows(kept: Sequence[KeptRow], advantage: Float[Tensor, " n"], seed: int, device: torch.device) -> Rows:
    """Rows that were cut, padded again, with an advantage in the place of each reward.

    Rows of one prompt are a group: numbers of groups repeat between generations.

    Args:
        kept: one at least.
        advantage: (n,) of each.
        seed: of the batch.
        device: where the rows are put.
    """
    prompts = [tuple(one.prompt.tolist()) for one in kept]
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    batch = replace(
        concatenate([_with_observation(one.batch) for one in kept]),
        group=torch.tensor([numbers[prompt] for prompt in prompts]),
        reward=advantage,
        seed=seed,
    )
    return Rows(*pad_prompts(prompts, 0, device), batch.to(device))


def _with_observation(batch: RolloutBatch) -> RolloutBatch:
    """Rows of generations in which nobody observed anything have no such span, which others may have."""
    return batch if batch.observation is not None else replace(batch, observation=torch.zeros_like(batch.mask))
