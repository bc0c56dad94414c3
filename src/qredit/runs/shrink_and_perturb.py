"""Weights drawn towards 0 and shaken before a run, so that what was learned before it can be unlearned."""

import torch
from torch import Generator, nn

from qredit.utils.seed import PERTURBATION_STREAM, derive_seed


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, shrink: float, noise: float, seed: int) -> None:
    """θ ← shrink · θ + noise · ε, ε ~ N(0, 1), for every weight of a model; a function of seed and weights alone.

    Shared weights are changed once. Norms' scales and embeddings are among the weights.

    Args:
        model: is changed.
        shrink: above 0 and at most 1; 1 leaves weights where they are.
        noise: standard deviation of what is added.
        seed: of the run.

    Source: arXiv 1910.08475 (shrink, perturb, repeat). Difference: there it stands between trainings on more and more
    data; here between fine-tuning and reinforcement learning.
    """
    generator = Generator().manual_seed(derive_seed(seed, PERTURBATION_STREAM))
    for weight in model.parameters():
        drawn = torch.randn(weight.shape, generator=generator).to(weight)  # on the CPU: alike on every device
        weight.mul_(shrink).add_(drawn, alpha=noise)
