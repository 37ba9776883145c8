"""How exactly matrix products of float32 tensors are computed.

Contract: torch keeps this as a setting of the whole process; it holds inside the context and is put back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Multiply with fewer bits where the processor is faster so; sums stay in float32.

    Args:
        precision: "highest" (float32), "high" (TensorFloat-32) or "medium" (bfloat16), as
            `torch.set_float32_matmul_precision` has them. Processors without such units compute in float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
