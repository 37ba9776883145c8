"""A masked autoencoder written the obvious way: no fused stage, no splitting, masks by loops, torch's own layers.

Letters: B batch, C bands, H/W pixels, P pixels of a patch, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.imaging.autoencoder import Autoencoder
from tests.model.naive import NaiveStage, naive_twin, pairs

State = dict[str, Tensor]


def naive_forward(
    model: Autoencoder, stage: NaiveStage, x_BCHW: Tensor, visible: list[list[int]], hidden: list[int]
) -> Tensor:
    """Every patch of every band, (B, L, C, P), by `stage` and by layers that hold the model's own tensors.

    Args:
        model: whose parameters are used for what follows the stage.
        stage: its twin, see `naive_twin`.
        x_BCHW: all bands.
        visible: positions of the patches read of each image.
        hidden: numbers of the bands that are not read.
    """
    patch, (rows, columns) = model.config.patch, model.grid
    left = [c for c in range(x_BCHW.shape[1]) if c not in hidden]
    images = []
    for image, positions in zip(x_BCHW, visible, strict=True):
        tokens = []
        for position in positions:  # one patch at a time, as an image of its own
            row, column = divmod(position, columns)
            cut = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            token = stage(cut.unsqueeze(0), left)[0, 0]
            tokens.append(token + model.position[position])
        read = naive_trunk(model.trunk, torch.stack(tokens).unsqueeze(0))[0]
        everything = []
        for position in range(rows * columns):
            token = model.decoder.query
            if position in positions:
                token = nn.functional.linear(
                    read[positions.index(position)], model.decoder.embed.weight, model.decoder.embed.bias
                )
            everything.append(token + model.decoder.position[position])
        decoded = naive_trunk(model.decoder.trunk, torch.stack(everything).unsqueeze(0))[0]
        bands = []
        for token in decoded:
            values = []
            for c in range(x_BCHW.shape[1]):
                values.append(model.output.weight[c] @ token + model.output.bias[c])
            bands.append(torch.stack(values))
        images.append(torch.stack(bands))
    if model.config.starts_from == "mean":
        return torch.stack(images)
    return torch.stack(images) + naive_interpolation(x_BCHW, visible, hidden, patch=patch, columns=columns)


def naive_interpolation(
    x_BCHW: Tensor, visible: list[list[int]], hidden: list[int], *, patch: int, columns: int
) -> Tensor:
    """Visible pixels as they are, hidden bands on straight lines, hidden pixels by kriging, one by one: (B, L, C, P).

    For patches of up to 4 x 4 pixels, whose blocks are single pixels.
    """
    B, C, H, W = x_BCHW.shape
    out = torch.zeros(B, (H // patch) * columns, C, patch**2, dtype=x_BCHW.dtype)
    left = [c for c in range(C) if c not in hidden]
    for b, positions in enumerate(visible):
        image = x_BCHW[b].clone()
        for c in hidden:
            below, above = [k for k in left if k < c][-1:], [k for k in left if k > c][:1]
            if below and above:
                far = above[0] - below[0]
                image[c] = ((above[0] - c) * image[below[0]] + (c - below[0]) * image[above[0]]) / far
            else:
                image[c] = image[(below or above)[0]]
        seen = [(y, x) for y in range(H) for x in range(W) if (y // patch) * columns + x // patch in positions]
        own = torch.tensor([[_falls(p, q, patch) + 0.05 * (p == q) for q in seen] for p in seen], dtype=x_BCHW.dtype)
        values = torch.stack([image[:, y, x] for y, x in seen])
        weights = torch.linalg.solve(own, values)
        for y in range(H):
            for x in range(W):
                near = torch.tensor([_falls((y, x), p, patch) for p in seen], dtype=x_BCHW.dtype)
                place = (y // patch) * columns + x // patch
                value = image[:, y, x] if (y, x) in seen else near @ weights
                out[b, place, :, (y % patch) * patch + x % patch] = value
    return out


def _falls(p: tuple[int, int], q: tuple[int, int], patch: int) -> float:
    return math.exp(-math.dist(p, q) / (0.75 * patch))


def naive_trunk(trunk: nn.Module, x_BLD: Tensor) -> Tensor:
    """Pre-norm blocks, with attention written as a softmax over a matrix."""
    for block in trunk.blocks:
        x_BLD = x_BLD + naive_attention(block.attn, block.norm1(x_BLD))
        inner = block.mlp.fc1(block.norm2(x_BLD))
        x_BLD = x_BLD + block.mlp.fc2(nn.functional.gelu(inner))
    return trunk.norm(x_BLD)


def naive_attention(attention: nn.Module, x_BLD: Tensor) -> Tensor:
    """Heads one by one; q, k and v of a head follow one another in the rows of one matrix."""
    size, joined = attention.head_width, []
    for head in range(x_BLD.shape[2] // size):
        parts = [slice((3 * head + i) * size, (3 * head + i + 1) * size) for i in range(3)]
        q, k, v = (x_BLD @ attention.qkv.weight[s].T + attention.qkv.bias[s] for s in parts)
        joined.append(torch.softmax(q @ k.transpose(1, 2) / size**0.5, dim=2) @ v)
    return attention.proj(torch.cat(joined, dim=2))


def naive_loss(
    y_BLCP: Tensor,
    x_BCHW: Tensor,
    valid_BCHW: Tensor,
    *,
    visible: list[list[int]],
    hidden: list[int],
    patch: int,
    scale: Tensor | None = None,
    band_weight: float = 1.0,
) -> Tensor:
    """Squared errors of valid hidden values, added up one by one, over the number of hidden values.

    Args:
        y_BLCP: predictions of every patch.
        x_BCHW: targets.
        valid_BCHW: where they count.
        visible: patches read of each image.
        hidden: bands not read.
        patch: side of a patch.
        scale: weight of each band; None for ones.
        band_weight: of hidden bands in patches that are read.
    """
    columns = x_BCHW.shape[3] // patch
    total, count = x_BCHW.new_zeros(()), 0
    for b, positions in enumerate(visible):
        for place in range(y_BLCP.shape[1]):
            for c in range(x_BCHW.shape[1]):
                if place in positions and c not in hidden:
                    continue
                for p in range(patch * patch):
                    y = (place // columns) * patch + p // patch
                    x = (place % columns) * patch + p % patch
                    count += 1
                    if valid_BCHW[b, c, y, x]:
                        weight = (1.0 if scale is None else scale[c]) * (band_weight if place in positions else 1.0)
                        total = total + weight * (y_BLCP[b, place, c, p] - x_BCHW[b, c, y, x]) ** 2
    return total / count


__all__ = ["naive_forward", "naive_loss", "naive_twin", "pairs"]
