"""The self-check of a shared prefix: on given rows, its gradient against that of the ordinary forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qredit.rollouts.collate import Rows
from qredit.shared_prefix.layout import Layout
from qredit.shared_prefix.packing import pack, pad_rows
from qredit.shared_prefix.patch_forward import score
from qredit.utils.errors import QreditError


def gradient_difference(model: nn.Module, rows: Rows) -> float:
    """The largest ‖Δg‖/‖g‖ over parameters, g the gradient of the sum of all log-probabilities.

    Args:
        model: unwrapped, prepared by `share_prefix`.
    """
    with _without_dropout(model):
        pairs = list(zip(*(logp_gradients(model, layout(rows)) for layout in (pack, pad_rows)), strict=True))
    return max(float((one - other).norm() / other.norm().clamp(min=1e-12)) for one, other in pairs)


def logp_gradients(model: nn.Module, layout: Layout) -> tuple[Tensor, ...]:
    """The gradient of the sum of all log-probabilities, of each parameter that is trained.

    Args:
        model: prepared by `share_prefix`.
        layout: how the rows lie in the forward pass.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(score(model, layout)["logp"].sum(), parameters, materialize_grads=True)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Adapters may have dropout, which would draw differently in each pass."""
    switched = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in switched:
        module.eval()
    try:
        yield
    finally:
        for module in switched:
            module.train()


def verify(model: nn.Module, rows: Rows, half: bool) -> float:
    """`gradient_difference`, refused where it is more than rounding explains.

    Args:
        model: in its wrappers (DDP, PEFT), so that their hooks run.
        rows: prompts and completions, padded, (B, P) and (B, T).
        half: the pass computes in half precision, so rounding is coarser.

    Raises:
        QreditError: more than 1e-3, or 0.1 in half precision; names the difference and the setting that avoids it.
    """
    found, most = gradient_difference(model, rows), 0.1 if half else 1e-3
    if not found <= most:
        raise QreditError(
            f"gradients through the shared prefix differ by {found:.2g} of their norm from the ordinary ones, more "
            f"than {most:g}; set shared_prefix to false for this model"
        )
    return found
