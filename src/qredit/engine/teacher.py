"""What a batch field `logp@NAME` or `kl@NAME` is filled by: a model, or a model after another prompt."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qredit.core.field_names import (
    HINT,
    HINTED_LOGP,
    LOGP_PREFIX,
    REFERENCE,
    STATE_PREFIXES,
    list_state_teachers,
    list_teachers,
)
from qredit.engine.passes import fill_empty_pass
from qredit.rollouts.collate import Rows
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.patch_forward import ScoreRequest, score
from qredit.shared_prefix.support import unwrap_peft
from qredit.utils.errors import QreditError

_PLAIN = ScoreRequest()


@dataclass(frozen=True, eq=False)
class Forward:
    """Forward passes without gradient, run as the policy's are: else rounding alone would be a divergence.

    Attributes:
        model: the policy in its wrappers.
        policy: without them.
        layout: how the policy's rows lie in a pass.
        split_rows: rows → row numbers of each pass, in order.
        temperature: logits are divided by it.
        autocast: the precision that the policy is scored in.
    """

    model: nn.Module
    policy: Any
    layout: Callable[[Rows], Layout]
    split_rows: Callable[[Rows], Sequence[Tensor]]
    temperature: float
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @torch.no_grad()
    def scores(
        self,
        model: nn.Module,
        rows: Rows,
        wanted: ScoreRequest = _PLAIN,
        layout: Callable[[Rows], Layout] | None = None,
    ) -> dict[str, Float[Tensor, "B T *more"]]:
        """`logp` and `entropy` of each completion token under a model, and what else is wanted; 0 where none stands.

        Args:
            model: any that scores tokens (`qredit.shared_prefix.patch_forward`), the policy or another one.
            rows: prompts and completions, padded, (B, P) and (B, T).
            wanted: what else is told of each token.
            layout: where the model's rows must lie in another way than the policy's.
        """
        lay = self.layout if layout is None else layout
        with self.autocast():
            chunks = self.split_rows(rows)
            told = [score(model, lay(rows.select(fill_empty_pass(c))), self.temperature, wanted) for c in chunks]
        return {
            name: torch.cat([part[name][: len(c)] for c, part in zip(chunks, told, strict=True)]) for name in told[0]
        }


class Teacher(Protocol):
    """Tells how probable completions are; asked once for each generation, when its rollouts are made.

    Attributes:
        model: what it holds in memory beside the policy; None where that is nothing.
    """

    @property
    def model(self) -> Any: ...

    def logp(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T"]:
        """Log-probability of each completion token in nats, 0 where none stands; constants."""

    def hidden(self, rows: Rows, forward: Forward) -> Float[Tensor, "B T E"]:
        """The last layer's state that predicts each completion token, 0 where none stands; asked for divergences."""

    def head(self, policy: Any) -> tuple[Float[Tensor, "V E"], Float[Tensor, " V"] | None]:
        """Weight and bias that make those states logits.

        Raises:
            QreditError: it has none to tell.
        """


def get_head(model: Any) -> tuple[Float[Tensor, "V E"], Float[Tensor, " V"] | None]:
    """Weight and bias of a model's head, as constants."""
    head = unwrap_peft(model).get_output_embeddings()
    return head.weight.detach(), None if head.bias is None else head.bias.detach()


def check_named(needs: Iterable[str], given: Iterable[str], filled: Iterable[str] = (), proposes: bool = False) -> None:
    """Refuse fields of teachers that are not there, and teachers whose fields nobody reads.

    Args:
        needs: the batch fields that are read.
        given: the teachers' names; the reference is always there.
        filled: fields that something else fills.
        proposes: the objective has a proposal, which tells `logp@hint`.

    Raises:
        QreditError: naming the teacher, and the choices.
    """
    needs, given, filled = set(needs), list(given), set(filled)
    known = [REFERENCE, *sorted(given)]
    if proposes and HINT in given:
        raise QreditError(
            f"teachers: '{HINT}' is the policy behind the prompt that the objective's proposal shows it; choose "
            "another name"
        )
    filled |= {HINTED_LOGP} if proposes else set()
    if REFERENCE in given:
        raise QreditError(f"teachers: '{REFERENCE}' is the model that the run begins with; choose another name")
    for told in (LOGP_PREFIX, *STATE_PREFIXES):
        for name in (rest.partition("@")[0] for rest in list_teachers(needs - filled, told)):
            if name not in known:
                raise QreditError(
                    f"the batch field '{told}{name}' is needed, but there is no teacher '{name}'; there is "
                    f"{', '.join(map(repr, known))}; give the trainer teachers={{'{name}': model}}, or "
                    f"--field {told}{name}=teacher_model(path)"
                    + (f" or --field {told}{name}=behind_prompt(template)" if told == LOGP_PREFIX else "")
                )
    read = {*list_teachers(needs), *list_state_teachers(needs)}
    idle = [name for name in given if name not in read]
    if idle:
        raise QreditError(f"teachers: nothing reads '{LOGP_PREFIX}{idle[0]}'; leave '{idle[0]}' out")


def check_heads(needs: Iterable[str], teachers: Mapping[str, Teacher], policy: Any) -> None:
    """Refuse a divergence over the whole vocabulary between heads of different sizes.

    Args:
        needs: names of batch fields.
        teachers: by name.
        policy: the model without its wrappers.

    Raises:
        QreditError: naming the teacher and both sizes; it tells no states.
    """
    for name in list_state_teachers(needs):
        rows = unwrap_peft(policy).get_output_embeddings().weight.shape[0]
        own = teachers[name].head(policy)[0].shape[0]
        if own != rows:
            raise QreditError(
                f"divergences from '{name}' run over the whole vocabulary, but the head of '{name}' has {own} rows, "
                f"the policy's {rows}; '{LOGP_PREFIX}{name}' compares sampled tokens alone"
            )
