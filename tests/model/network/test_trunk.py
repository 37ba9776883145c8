"""Trunk and head against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.network.head import Head, unpatchify
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


def test_recomputation_gives_the_same_gradients() -> None:
    """Catches checkpointing that draws other dropout masks the second time."""
    found = []
    for recompute in (False, True):
        trunk = scramble(Trunk(width=8, depth=2, heads=2, hidden=24, dropout=0.3))
        trunk.set_recompute(recompute)
        torch.manual_seed(4)
        trunk(tokens(3, 4, 8)).square().sum().backward()
        found.append([parameter.grad for parameter in trunk.parameters()])
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
