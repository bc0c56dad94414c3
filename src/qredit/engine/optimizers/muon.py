"""Muon on the matrices inside a model, Adam on the rest."""

from dataclasses import dataclass
from typing import Any

from torch import optim
from torch.optim import Optimizer

from qredit.core.schedule import check_range
from qredit.engine.optimizers.joined import JoinedOptimizers
from qredit.engine.optimizers.protocol import AdamSettings, OptimizerRule
from qredit.shared_prefix.support import unwrap_peft
from qredit.utils.errors import check_count


@dataclass(frozen=True)
class muon(OptimizerRule):
    """PyTorch's Muon for every matrix but embeddings and head, AdamW for these and for vectors.

    Muon's step is the momentum made orthogonal by Newton-Schulz iterations, all its singular values near 1. It is
    scaled by 0.2 · sqrt(larger side), about the size of Adam's step, so that the run's learning rate and weight decay
    serve both.

    Args:
        momentum: of the matrices, 0 … 1.
        steps: Newton-Schulz iterations.

    Source: `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`; the scale is that of arXiv 2502.16982.
    """

    momentum: float = 0.95
    steps: int = 5

    def __post_init__(self) -> None:
        check_range("momentum of muon", self.momentum, 0.0, 1.0)
        check_count("steps of muon", self.steps, 1)

    def make(self, model: Any, settings: AdamSettings) -> Optimizer:
        base = unwrap_peft(model)
        outer = {
            id(part.weight) for part in (base.get_input_embeddings(), base.get_output_embeddings()) if part is not None
        }
        learned = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        matrices = [weight for _, weight in learned if weight.ndim == 2 and id(weight) not in outer]
        rest = [(name, weight) for name, weight in learned if weight.ndim != 2 or id(weight) in outer]
        groups = [
            {"params": [weight for name, weight in rest if (name in settings.decayed) is decays], "weight_decay": decay}
            for decays, decay in ((True, settings.weight_decay), (False, 0.0))
        ]
        inner = optim.Muon(
            matrices,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=self.momentum,
            ns_steps=self.steps,
            adjust_lr_fn="match_rms_adamw",
        )
        if not any(group["params"] for group in groups):
            return inner
        return JoinedOptimizers([inner, optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)])
