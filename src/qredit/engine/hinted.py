"""A teacher that reads another prompt before the same completion: the policy itself, or another model, with a hint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qredit.engine.teacher import Forward, Teacher
from qredit.rollouts.collate import Rows
from qredit.utils.errors import QreditError

Ids = tuple[int, ...]
_MOVES = (
    "the policy with a hint tells the log-probabilities of tokens alone, as logp@NAME; no kl@NAME, for its head moves"
)


class PolicyTeacher:
    """The policy, by its weights when the rollouts are made.

    It tells no states: by the time that they are compared its head may have moved.
    """

    model = None

    def logp(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        return forward.scores(forward.model, rows)["logp"]

    def hidden(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T E"]:
        raise QreditError(_MOVES)

    def head(self, policy: Any) -> tuple[Tensor, Tensor | None]:
        raise QreditError(_MOVES)


@dataclass(frozen=True, eq=False)
class Hinted:
    """A teacher to which the prompts are replaced and the completions are the same ids.

    Attributes:
        teacher: who reads them; `PolicyTeacher` is the policy.
        prompts: ids of each prompt → ids of the one that is read in its place.
        pad: the id that fills prompts up.
    """

    teacher: Teacher
    prompts: Mapping[Ids, Ids]
    pad: int

    @property
    def model(self) -> Any:
        return self.teacher.model

    def logp(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        return self.teacher.logp(self.shown(rows), forward)

    def hidden(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T E"]:
        return self.teacher.hidden(self.shown(rows), forward)

    def head(self, policy: Any) -> tuple[Tensor, Tensor | None]:
        return self.teacher.head(policy)

    def shown(self, rows: Rows) -> Rows:
        """The rows behind the other prompts.

        Raises:
            QreditError: a prompt that has no other.
        """
        own = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(rows.prompt_ids, rows.prompt_mask, strict=True)]
        missing = next((prompt for prompt in own if prompt not in self.prompts), None)
        if missing is not None:
            raise QreditError(f"no other prompt is given for one of {len(missing)} tokens that begins {missing[:5]}")
        return replace_prompts(rows, [self.prompts[prompt] for prompt in own], self.pad)


def replace_prompts(rows: Rows, prompts: Sequence[Ids], pad: int) -> Rows:
    """The same completions behind other prompts.

    Args:
        rows: prompts and completions, padded, (B, P) and (B, T).
        prompts: ids for each row.
        pad: the id that fills prompts up to the longest.
    """
    width, device = max(map(len, prompts)), rows.prompt_ids.device
    ids = [(pad,) * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [(0,) * (width - len(prompt)) + (1,) * len(prompt) for prompt in prompts]
    return replace(
        rows,
        prompt_ids=torch.tensor(ids, device=device),
        prompt_mask=torch.tensor(mask, device=device),
    )
