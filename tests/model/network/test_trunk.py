"""Trunk and head against torch's own layers, and what follows the head against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model.network.head import Head, taper, unpatchify
from model.network.smooth import Smooth
from model.network.trunk import Attention, Trunk


def scramble(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.double()


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_attention_equals_torch() -> None:
    """Catches queries, keys and values of different heads mixed up: ours keeps the three of a head together."""
    ours = scramble(Attention(width=12, heads=3, dropout=0.0))
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        for mine, other in ((ours.qkv.weight, theirs.in_proj_weight), (ours.qkv.bias, theirs.in_proj_bias)):
            by_head = mine.view(3, 3, 4, *mine.shape[1:])  # head, q k v, row
            other.copy_(by_head.transpose(0, 1).reshape(mine.shape))
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    x = tokens(2, 5, 12)
    right, _ = theirs(x, x, x, need_weights=False)
    torch.testing.assert_close(ours(x), right, rtol=1e-12, atol=1e-12)


def test_blocks_are_pre_norm() -> None:
    """Catches a norm after the sum, a missing residual or another GELU."""
    trunk = scramble(Trunk(width=8, depth=2, heads=2, hidden=24, dropout=0.0))
    x = y = tokens(3, 4, 8)
    for block in trunk.blocks:
        normed = nn.functional.layer_norm(y, (8,), block.norm1.weight, block.norm1.bias, 1e-5)
        y = y + block.attn(normed)
        normed = nn.functional.layer_norm(y, (8,), block.norm2.weight, block.norm2.bias, 1e-5)
        hidden = normed @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
        gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        y = y + gelu @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    right = nn.functional.layer_norm(y, (8,), trunk.norm.weight, trunk.norm.bias, 1e-5)
    torch.testing.assert_close(trunk(x), right, rtol=1e-12, atol=1e-12)


def test_modulated_blocks_are_those_written_out() -> None:
    """Catches shift, scale and gate in exchanged places, of the other branch, or of another sample."""
    trunk = scramble(Trunk(width=8, depth=2, heads=2, hidden=24, dropout=0.0, modulated=True))
    x, condition = tokens(3, 4, 8), tokens(3, 8).flip(0)
    rows = []
    for b in range(3):
        y, c = x[[b]], condition[b]
        for block in trunk.blocks:
            six = (block.modulation.weight @ (c / (1 + torch.exp(-c))) + block.modulation.bias).view(6, 8)
            y = y + (1 + six[2]) * block.attn(block.norm1(y) * (1 + six[1]) + six[0])
            y = y + (1 + six[5]) * block.mlp(block.norm2(y) * (1 + six[4]) + six[3])
        rows.append(trunk.norm(y))
    torch.testing.assert_close(trunk(x, condition_BD=condition), torch.cat(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("modulated", [False, True])
def test_recomputation_gives_the_same_gradients(modulated: bool) -> None:
    """Catches checkpointing that draws other dropout masks the second time, and a condition without a gradient."""
    found = []
    for recompute in (False, True):
        trunk = scramble(Trunk(width=8, depth=2, heads=2, hidden=24, dropout=0.3, modulated=modulated))
        trunk.set_recompute(recompute)
        torch.manual_seed(4)
        condition = tokens(3, 8).requires_grad_() if modulated else None
        trunk(tokens(3, 4, 8), condition_BD=condition).square().sum().backward()
        found.append([parameter.grad for parameter in trunk.parameters()])
        if condition is not None:
            found[-1].append(condition.grad)
            assert condition.grad.abs().min() > 0
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_dropout_only_in_training() -> None:
    """Catches forecasts that are random."""
    trunk = scramble(Trunk(width=8, depth=1, heads=2, hidden=24, dropout=0.5))
    x = tokens(3, 4, 8)
    assert not torch.equal(trunk(x), trunk(x))
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_head_layers(depth: int) -> None:
    """Catches a head that ends in GELU or misses a hidden layer."""
    head = Head(width=8, depth=depth, pixels=4, channels=3)
    assert [type(layer) for layer in head] == [nn.Linear, nn.GELU] * depth + [nn.Linear]
    assert head(torch.zeros(2, 5, 8)).shape == (2, 5, 12)


def test_unpatchify_places_every_value() -> None:
    """Catches latitude and longitude, or channels and pixels, in exchanged places: every value is its own address."""
    h, w, p, V = 2, 3, 2, 5
    y = torch.empty(1, h * w, p * p * V)
    for lat in range(h * p):
        for lon in range(w * p):
            for v in range(V):
                patch, pixel = (lat // p) * w + lon // p, (lat % p) * p + lon % p
                y[0, patch, pixel * V + v] = 10_000 * v + 100 * lat + lon
    fields = unpatchify(y, patch=p, grid=(h, w))
    assert fields.shape == (1, V, h * p, w * p)
    assert fields[0, 3, 2, 5] == 30_205
    assert torch.equal(
        fields[0, :, :, 4], torch.tensor([[10_000.0 * v + 100 * lat + 4 for lat in range(4)] for v in range(V)])
    )


@pytest.mark.parametrize(("patch", "margin", "grid"), [(4, 2, (2, 3)), (4, 1, (3, 2)), (5, 2, (1, 1)), (2, 1, (3, 4))])
def test_overlapping_windows_equal_a_loop(patch: int, margin: int, grid: tuple[int, int]) -> None:
    """Catches a window put beside its patch, a wrap in latitude, none in longitude, and poles that lose weight."""
    (h, w), side, V = grid, patch + 2 * margin, 3
    y = tokens(2, h * w, side * side * V)
    ramp = [math.sin(math.pi / 2 * (i + 0.5) / (2 * margin)) ** 2 for i in range(2 * margin)]
    weights = ramp + [1.0] * (side - 4 * margin) + ramp[::-1]
    total = torch.zeros(2, V, h * patch, w * patch, dtype=torch.float64)
    weight = torch.zeros(h * patch, w * patch, dtype=torch.float64)
    for patch_number in range(h * w):
        for i in range(side):
            for j in range(side):
                lat = patch_number // w * patch - margin + i
                lon = (patch_number % w * patch - margin + j) % (w * patch)
                if 0 <= lat < h * patch:
                    values = y[:, patch_number].view(2, side, side, V)[:, i, j]
                    total[:, :, lat, lon] += weights[i] * weights[j] * values
                    weight[lat, lon] += weights[i] * weights[j]
    found = unpatchify(y, patch=patch, grid=grid, margin=margin)
    torch.testing.assert_close(found, total / weight, rtol=1e-12, atol=1e-12)
    assert (weight[margin:-margin] - 1).abs().max() < 1e-12
    assert weight[0].max() < 1


def test_windows_add_up_to_one() -> None:
    """Catches a taper of whole cells, whose weights at an edge add up to more or less than one; and its precision."""
    for patch, margin in ((8, 4), (8, 2), (5, 2)):
        weight = taper(patch + 2 * margin, margin=margin, dtype=torch.float64)
        assert (weight[-2 * margin :] + weight[: 2 * margin] - 1).abs().max() < 1e-15
        assert torch.equal(weight[2 * margin : -2 * margin], torch.ones(patch - 2 * margin, dtype=torch.float64))
    half = unpatchify(torch.ones(1, 6, 36, dtype=torch.bfloat16), patch=4, grid=(2, 3), margin=1)
    assert half.dtype == torch.float32
    assert (half - 1).abs().max() < 1e-6


def test_smoothing_equals_a_loop() -> None:
    """Catches zeros beyond the date line or the poles, and channels mixed before their neighbourhoods."""
    smooth = scramble(Smooth(2))
    x = tokens(1, 2, 5, 6)
    local = torch.empty_like(x)
    for v in range(2):
        for lat in range(5):
            for lon in range(6):
                local[0, v, lat, lon] = smooth.depthwise.bias[v]
                for i in range(-2, 3):
                    for j in range(-2, 3):
                        there = x[0, v, min(max(lat + i, 0), 4), (lon + j) % 6]
                        local[0, v, lat, lon] += smooth.depthwise.weight[v, 0, i + 2, j + 2] * there
    hidden = torch.einsum("hv,bvyx->bhyx", smooth.mix.weight[:, :, 0, 0], local) + smooth.mix.bias[:, None, None]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    right = (
        torch.einsum("vh,bhyx->bvyx", smooth.project.weight[:, :, 0, 0], hidden) + smooth.project.bias[:, None, None]
    )
    torch.testing.assert_close(smooth(x), x + right, rtol=1e-12, atol=1e-12)
