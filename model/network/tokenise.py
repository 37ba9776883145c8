"""Per-channel patch embedding: token_c = W_c x_c + b_c + e_c.

Contract: one row of parameters per channel held, initialised from the channel's name alone, so the rows of
a channel are the same whatever else the model or the rank holds. Patches come channel-major with a last
pixel of ones, which makes the embedding linear: token_c = [x_c, 1] . [W_c; b_c + e_c].

Letters: B batch, K channels of this rank, H/W grid, L patches, N = B * L, P pixels of a patch, Q = P + 1,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """Picks rows along the first dim: a view when they are consecutive, else a copy.

    Args:
        indices: the rows, in the order wanted.
        total: number of rows of the tensors it is given.
    """

    index: Tensor

    def __init__(self, indices: Sequence[int], *, total: int) -> None:
        super().__init__()
        self.start = indices[0]
        self.count = len(indices)
        self.consecutive = all(row == self.start + i for i, row in enumerate(indices))
        self.everything = self.consecutive and self.count == total
        empty = () if self.consecutive else tuple(indices)
        # made on the CPU even inside `with torch.device("meta")`: it holds data, not parameters
        self.register_buffer("index", torch.tensor(empty, dtype=torch.long, device="cpu"), persistent=False)

    def take(self, tensor: Tensor) -> Tensor:
        """The rows of a tensor whose first dim has `total` rows."""
        if self.everything:
            return tensor
        if self.consecutive:
            return tensor.narrow(0, self.start, self.count)
        return tensor.index_select(0, self.index.to(tensor.device))


class Tokeniser(nn.Module):
    """Patch and channel embeddings of the channels held.

    Args:
        num_channels: K.
        pixels: P, pixels of a patch.
        width: D.
    """

    def __init__(self, *, num_channels: int, pixels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, pixels, width))
        self.bias = nn.Parameter(torch.empty(num_channels, width))
        self.channel = nn.Parameter(torch.empty(num_channels, width))

    def table(self) -> Tensor:
        """The affine embeddings as one linear table (K, Q, D): pixel weights, then b_c + e_c for the pixel of ones."""
        return torch.cat([self.weight, (self.bias + self.channel).unsqueeze(1)], dim=1)

    def forward(self, patches_KQN: Tensor, rows: Rows) -> Tensor:
        """Tokens of every channel and patch (the reference form; the fused form never calls this).

        Args:
            patches_KQN: as `patchify` gives them.
            rows: the channels held that the patches belong to.

        Returns:
            (K, N, D) tokens.
        """
        return patches_KQN.transpose(1, 2) @ rows.take(self.table())


def patchify(x_BKHW: Tensor, *, patch: int, patches_BM: Tensor | None = None) -> Tensor:
    """Images as channel-major patches with a pixel of ones appended.

    Args:
        x_BKHW: normalised fields; H and W divisible by `patch`.
        patch: side of a patch [cells].
        patches_BM: the M patches wanted of each image, by position row by row; None for all L.

    Returns:
        (K, Q, N): pixels row by row, then ones; patches row by row (in the order wanted) within an image, image after
        image.
    """
    B, K, H, W = x_BKHW.shape
    x = x_BKHW.reshape(B, K, H // patch, patch, W // patch, patch)
    if patches_BM is None:
        x_KPN = x.permute(1, 3, 5, 0, 2, 4).reshape(K, patch * patch, -1)
    else:
        rows_BM, columns_BM = patches_BM // (W // patch), patches_BM % (W // patch)
        image_B1 = torch.arange(B, device=x.device).unsqueeze(1)
        wanted = x.permute(0, 2, 4, 1, 3, 5)[image_B1, rows_BM, columns_BM]
        x_KPN = wanted.permute(2, 3, 4, 0, 1).reshape(K, patch * patch, -1)
    return torch.cat([x_KPN, x_KPN.new_ones(K, 1, x_KPN.shape[2])], dim=1)
