"""In which units networks read the lead time, or the length of a step."""

from __future__ import annotations

from torch import Tensor

LEAD_UNIT_HOURS = 100.0
"""ClimaX's and climate-learn's unit."""


def in_lead_units(lead_hours_B: Tensor, *, like: Tensor) -> Tensor:
    """Leads as networks read them, (B,), in the type of another tensor.

    Args:
        lead_hours_B: [h].
        like: whose type they take.
    """
    return lead_hours_B.to(like.dtype) / LEAD_UNIT_HOURS
