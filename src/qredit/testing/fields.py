"""Random values for the batch fields that not every engine fills: a line for each."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from qredit.core.batch import RolloutBatch
from qredit.core.field_names import field_kind
from qredit.utils.errors import QreditError

RandomField = Callable[[RolloutBatch, Generator], Tensor]


def _per_token(*more: int) -> RandomField:
    """Standard normal numbers (B, T, *more)."""
    return lambda batch, generator: torch.randn(*batch.mask.shape, *more, dtype=torch.float64, generator=generator)


def _some_tokens(batch: RolloutBatch, generator: Generator) -> Tensor:
    """A span that holds about a third of the tokens."""
    return (torch.rand(batch.mask.shape, generator=generator) < 0.3) & batch.mask


def _runs(batch: RolloutBatch, generator: Generator) -> Tensor:
    """Numbers of consecutive runs of tokens, -1 before the first."""
    return (torch.rand(batch.mask.shape, generator=generator) < 0.5).cumsum(1) - 1


def _few_numbers(batch: RolloutBatch, generator: Generator) -> Tensor:
    """-1, 0 or 1 on each token."""
    return torch.randint(-1, 2, batch.mask.shape, generator=generator)


def _near_logp(batch: RolloutBatch, generator: Generator) -> Tensor:
    noise = 0.1 * torch.randn(batch.mask.shape, dtype=torch.float64, generator=generator)
    return batch.require("logp", "random field") + noise


FIELDS: Mapping[str, RandomField] = MappingProxyType(
    {
        "logp@": _near_logp,
        "kl": _per_token(),
        "forward_kl": _per_token(),
        "tempered_kl": _per_token(),
        "hellinger": lambda batch, generator: torch.rand(batch.mask.shape, generator=generator).double(),
        "base_probability": lambda batch, generator: torch.rand(len(batch.group), generator=generator).double(),
        "cluster": lambda batch, generator: torch.randint(-1, 3, batch.group.shape, generator=generator),
        "nucleus_entropy": _per_token(),
        "sampler_entropy": _per_token(),
        "attention_locality": _per_token(),
        "attention_influence": _per_token(),
        "hidden": _per_token(3),
        "prediction_error": _per_token(4),
        "planning": _some_tokens,
        "step": _runs,
        "step_score": _per_token(),
        "wrong_step": _some_tokens,
        "turn_reward": _per_token(),
        "state": _few_numbers,
        "answer_logp_at": lambda batch, generator: -torch.rand(batch.mask.shape, generator=generator).double(),
        "reinforced": lambda batch, generator: torch.rand(batch.group.shape, generator=generator) < 0.3,
        "degenerate": lambda batch, generator: torch.rand(batch.group.shape, generator=generator) < 0.3,
        "tree": lambda batch, generator: torch.randint(-1, 2, batch.group.shape, generator=generator),
        "support": lambda batch, generator: -5 * torch.rand(batch.mask.shape, generator=generator).double(),
        "unused_step": _some_tokens,
        "macro": _runs,
        "value": _per_token(),
        "budget": lambda batch, generator: _runs(batch, generator).clamp(max=3),
        "budget_reward": lambda batch, generator: torch.rand(len(batch.group), generator=generator).double(),
        "difficulty_tag": lambda batch, generator: torch.randint(3, batch.group.shape, generator=generator),
    }
)


def random_field(name: str, batch: RolloutBatch, generator: Generator) -> Tensor:
    """A field of that name, which may carry a number or name after an @; a function of batch and generator alone.

    Args:
        name: of the field.
        batch: whole groups, with the fields that are needed.
        generator: of the draws.

    Raises:
        QreditError: nothing is known about such a field.
    """
    kind = field_kind(name)
    if kind not in FIELDS:
        raise QreditError(f"no random values for the batch field '{name}'; add a line to qredit.testing.fields")
    return FIELDS[kind](batch, generator)
