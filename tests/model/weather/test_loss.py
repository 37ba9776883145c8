"""The training loss against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.weather.loss import channel_mse, weighted_mse


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(3, 4, 5, 7, generator=generator, dtype=torch.float64)
    target = torch.randn(3, 4, 5, 7, generator=generator, dtype=torch.float64)
    area = torch.rand(5, 7, generator=generator, dtype=torch.float64) + 0.1
    return y, target, area, torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)


def test_equals_the_sum_written_out() -> None:
    """Catches weights on the wrong axis, weights not scaled to mean 1, a mean of means."""
    y, target, area, channel = (tensor.numpy() for tensor in case())
    total = 0.0
    for b, v, i, j in np.ndindex(3, 4, 5, 7):
        total += channel[v] * area[i, j] * (y[b, v, i, j] - target[b, v, i, j]) ** 2
    right = total / (3 * channel.sum() * area.sum())
    y_t, target_t, area_t, channel_t = case()
    assert weighted_mse(y_t, target_t, area_HW=area_t, channel_V=channel_t).item() == pytest.approx(right, rel=1e-13)


def test_units_of_errors() -> None:
    """Catches units multiplied, not squared, or on the wrong axis."""
    y, target, area, channel = case()
    unit = torch.tensor([[1.0, 2.0, 0.5, 3.0], [0.1, 1.5, 2.5, 0.7], [4.0, 1.1, 0.9, 0.3]], dtype=torch.float64)
    right = weighted_mse(y / unit[..., None, None], target / unit[..., None, None], area_HW=area, channel_V=channel)
    found = weighted_mse(y, target, area_HW=area, channel_V=channel, unit_BV=unit)
    assert found.item() == pytest.approx(right.item(), rel=1e-12)


def test_units_of_weights_do_not_matter() -> None:
    """Catches a loss that changes with areas in steradians or square kilometres."""
    y, target, area, channel = case()
    one = weighted_mse(y, target, area_HW=area, channel_V=channel)
    other = weighted_mse(y, target, area_HW=area * 4e7, channel_V=channel * 0.01)
    assert other.item() == pytest.approx(one.item(), rel=1e-13)


def test_global_mean_is_the_mean_of_equal_parts() -> None:
    """Catches a loss that depends on how a batch is cut over ranks."""
    y, target, area, channel = case()
    whole = weighted_mse(y, target, area_HW=area, channel_V=channel)
    parts = [weighted_mse(y[[b]], target[[b]], area_HW=area, channel_V=channel) for b in range(3)]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-13)


def test_sums_in_float32() -> None:
    """Catches squares summed in bfloat16, where 1 + 0.001 is 1."""
    y = torch.full((2, 1, 40, 50), 1.0, dtype=torch.bfloat16)
    loss = weighted_mse(y, torch.zeros_like(y), area_HW=torch.rand(40, 50) + 0.5)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.0, rel=1e-6)


def test_per_channel_losses() -> None:
    """Catches channels averaged away."""
    y, target, area, _ = case()
    right = [weighted_mse(y[:, [v]], target[:, [v]], area_HW=area).item() for v in range(4)]
    assert channel_mse(y, target, area_HW=area).tolist() == pytest.approx(right, rel=1e-13)


def test_shapes_must_fit() -> None:
    """Catches broadcasting, which would give a number for the wrong pairs."""
    y, target, area, channel = case()
    with pytest.raises(ValueError, match="target must have the prediction's shape"):
        weighted_mse(y, target[:, :1], area_HW=area)
    with pytest.raises(ValueError, match="area must have the grid's shape"):
        weighted_mse(y, target, area_HW=area[:, :1])
    with pytest.raises(ValueError, match=r"channel weights must have shape \(4,\)"):
        weighted_mse(y, target, area_HW=area, channel_V=channel[:1])
