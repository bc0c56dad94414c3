"""What a token's attention says of its part in a chain of reasoning (arXiv 2510.13554, section 5).

Heads that look back a short way on average are local, those that look back far are global. From the mean map of each
kind, A (N, N) with A_{t,s} the attention that token t pays to token s ≤ t:

    locality_t  = Σ_s A^loc_{t,s} · min(t - s, window)              how far back t looks: high where a chunk begins
    influence_s = mean of A^glob_{t,s} over t in [s + near, s + far]   how much later tokens look at s

How far a head looks back is the mean over the rows of the completion alone (eq. 7). Known from the paper's text, second
version, and from others' notes on how heads are split; no official code was found.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def average_local_and_global_heads(
    maps: Float[Tensor, "H N N"], start: int, share: float = 0.3
) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N N"]]:
    """The mean map of the `share` of heads with the smallest mean distance looked back, and of those with the largest.

    At least one head of each.

    Args:
        maps: (H, N, N) attention of each head.
        start: where the completion begins; rows before it, the prompt's, do not say how far a head looks back.
        share: of the heads, 0 … 1.
    """
    place = torch.arange(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    distance = (maps * (place[:, None] - place).clamp(min=0)).sum(-1)[:, start:].mean(-1)
    count = max(int(share * len(maps)), 1)
    order = distance.argsort(stable=True)
    return maps[order[:count]].mean(0), maps[order[-count:]].mean(0)


def locality(local: Float[Tensor, "N N"], window: int = 10) -> Float[Tensor, " N"]:
    """The windowed average attention distance of each token."""
    place = torch.arange(len(local), dtype=local.dtype, device=local.device)
    return (local * (place[:, None] - place).clamp(min=0, max=window)).sum(-1)


def influence(far_map: Float[Tensor, "N N"], near: int = 10, far: int = 100) -> Float[Tensor, " N"]:
    """The future attention influence of each token; 0 for the last `near` tokens, whom nobody later looks at.

    `far` is 100 in the paper's second version, 50 in its first.

    Args:
        far_map: (N, N) attention of a token (row) to earlier ones (column).
        near: nearest later token that counts.
        far: farthest one.
    """
    place = torch.arange(len(far_map), device=far_map.device)
    ahead = place[:, None] - place
    counts = (ahead >= near) & (ahead <= far)
    return torch.where(counts, far_map, 0.0).sum(0) / counts.sum(0).clamp(min=1)
