"""How far rounding may take numbers apart that are computed in two ways: multiples of the dtype's epsilon.

Other processors have other kernels: other widths, other orders of sums, fused products or none. So nothing that is
computed in two orders, or on batches of two shapes, is compared bit for bit, and no bound is another path's error.
`test_prefix.py::test_rounding_is_a_few_epsilon` holds the multiples against a float64 reference over 20 seeds.
"""

import torch
from torch import Tensor

# A gradient's relative error on the tests' networks of two or three layers, in epsilons of the dtype. Against float64
# 15 (float32) and 4 (bfloat16) were the most over 20 seeds and seven architectures, with and without vector kernels.
GRADIENT_UNITS = {torch.float32: 84, torch.bfloat16: 16}


def gradient_bound(dtype: torch.dtype = torch.float32) -> float:
    """‖Δg‖/‖g‖ that rounding may explain between two orders of computation."""
    return GRADIENT_UNITS[dtype] * torch.finfo(dtype).eps


def same(found: Tensor, wanted: Tensor, units: int = 16) -> bool:
    """Whether each number is the other up to `units` roundings of the largest one; infinities must be equal."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    finite = wanted[wanted.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(found, wanted, rtol=0.0, atol=units * torch.finfo(found.dtype).eps * scale)
