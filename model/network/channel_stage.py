"""From the pixels of the channels held to one token per group and patch, in one of two equal forms.

Contract: `fused` never forms the (K, L, D) channel tokens: the first tree level is computed from pixels in
the folded form, later levels in the absorbed form (model/network/aggregate.py). `reference` tokenises every channel
and aggregates the tokens by ordinary attention: what the fused form is tested against, and the baseline of
benchmarks. Both hold the same parameters under the same names. Units of equal size are one batch, so uneven
groups cost neither padding nor a loop over channels. Nothing here knows of ranks: a rank holds the tree of
its own channels.

Letters: B batch, K channels held, H/W grid, L patches, N = B * L, P pixels of a patch, Q = P + 1, D width,
U units of a batch, M members of a unit, T tokens that leave the stage.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.network.aggregate import CrossAttentionUnits, LinearUnits, UnitRows, Units
from model.network.groups import Kept, Members, Tree, buckets
from model.network.tokenise import Rows, Tokeniser, patchify


class ChannelStage(nn.Module):
    """Tokeniser and aggregation tree of the channels held.

    With `recompute` only the input is kept for backward, and the stage runs a second time there.

    Args:
        tree: the channels held and their units.
        patch: side of a patch [cells].
        width: D.
        heads: attention heads of cross-attention units.
        unit: "C" or "L", the kind of every unit of the tree.
        form: "fused" or "reference".
    """

    def __init__(self, tree: Tree, *, patch: int, width: int, heads: int, unit: str, form: str) -> None:
        super().__init__()
        self.tree = tree
        self.patch, self.form = patch, form
        self.recompute = False
        self.tokeniser = Tokeniser(num_channels=len(tree.channels), pixels=patch * patch, width=width)
        self.levels = nn.ModuleList()
        for members in tree.levels:
            total = sum(len(unit_members) for unit_members in members)
            self.levels.append(
                CrossAttentionUnits(num_units=len(members), width=width, heads=heads)
                if unit == "C"
                else LinearUnits(num_units=len(members), num_members=total)
            )
        self.whole = TreeIndex(tree, tree.keep(tree.channels)[1], held=tree)

    def forward(self, x_BKHW: Tensor, index: TreeIndex | None = None, patches_BM: Tensor | None = None) -> Tensor:
        """Group tokens of a batch.

        Args:
            x_BKHW: normalised fields of the channels held, or of the subset that `index` describes.
            index: a subset of the tree, None for all of it.
            patches_BM: the patches read, see `patchify`; None for all.

        Returns:
            (T, N, D): one token per group, or one per channel when the tree has no level.
        """
        index = self.whole if index is None else index
        if self.recompute and torch.is_grad_enabled():
            tokens_TND: Tensor = checkpoint(self._tokens, x_BKHW, index, patches_BM, use_reentrant=False)
            return tokens_TND
        return self._tokens(x_BKHW, index, patches_BM)

    def _tokens(self, x_BKHW: Tensor, index: TreeIndex, patches_BM: Tensor | None) -> Tensor:
        patches_KQN = patchify(x_BKHW, patch=self.patch, patches_BM=patches_BM)
        if not index.levels or self.form == "reference":
            tokens_IND: Tensor = self.tokeniser(patches_KQN, index.channels)
            levels = range(len(index.levels))
        else:
            tokens_IND = self._folded_level(patches_KQN, index)
            levels = range(1, len(index.levels))
        for level in levels:
            units = self._units(level)
            run = units.forward if self.form == "reference" else units.absorbed
            tokens_IND = index.levels[level].map(run, tokens_IND)
        return tokens_IND

    def flat(
        self,
        x_BKHW: Tensor,
        unit: CrossAttentionUnits,
        index: TreeIndex | None = None,
        patches_BM: Tensor | None = None,
    ) -> Tensor:
        """All channels held through one cross-attention unit from outside the tree, folded.

        Args:
            x_BKHW: as for `forward`.
            unit: the single unit.
            index: as for `forward`.
            patches_BM: as for `forward`.

        Returns:
            (1, N, D).
        """
        index = self.whole if index is None else index
        if self.recompute and torch.is_grad_enabled():
            out_1ND: Tensor = checkpoint(self._flat, x_BKHW, unit, index, patches_BM, use_reentrant=False)
            return out_1ND
        return self._flat(x_BKHW, unit, index, patches_BM)

    def _flat(self, x_BKHW: Tensor, unit: CrossAttentionUnits, index: TreeIndex, patches_BM: Tensor | None) -> Tensor:
        patches_KQN = patchify(x_BKHW, patch=self.patch, patches_BM=patches_BM)
        table_KQD = index.channels.take(self.tokeniser.table())
        only = Rows((0,), total=1)
        return unit.folded(patches_KQN.unsqueeze(0), table_KQD.unsqueeze(0), UnitRows(only, only))

    def _folded_level(self, patches_KQN: Tensor, index: TreeIndex) -> Tensor:
        table_KQD = index.channels.take(self.tokeniser.table())
        return index.levels[0].map(self._units(0).folded, patches_KQN, table_KQD)

    def _units(self, level: int) -> Units:
        units = self.levels[level]
        assert isinstance(units, CrossAttentionUnits | LinearUnits)
        return units


class TreeIndex(nn.Module):
    """The rows of inputs and parameters that every level of a tree works on.

    Args:
        tree: the tree to run, over all channels held or some of them.
        kept: which rows of the tree held it is.
        held: the tree held.
    """

    def __init__(self, tree: Tree, kept: Kept, *, held: Tree) -> None:
        super().__init__()
        self.channels = Rows(kept.channels, total=len(held.channels))
        inputs = (kept.channels, *kept.levels)
        totals = (len(held.channels), *(len(members) for members in held.levels))
        self.levels: list[LevelIndex] = [
            LevelIndex(members, units=kept.levels[i], inputs=inputs[i], totals=(totals[i + 1], totals[i]))
            for i, members in enumerate(tree.levels)
        ]
        self.registered = nn.ModuleList(self.levels)


class LevelIndex(nn.Module):
    """The buckets of one level: units of equal size, their inputs, their parameter rows.

    Args:
        members: per unit, indices of its inputs among those present.
        units: parameter row of every unit.
        inputs: parameter row of every input present.
        totals: parameter rows held: of units, of inputs.
    """

    def __init__(
        self, members: Members, *, units: tuple[int, ...], inputs: tuple[int, ...], totals: tuple[int, int]
    ) -> None:
        super().__init__()
        self.buckets: list[tuple[tuple[int, int], Rows, UnitRows]] = []
        order: list[int] = []
        for bucket in buckets(members):
            flat = tuple(m for unit_members in bucket.members for m in unit_members)
            size = (len(bucket.units), len(bucket.members[0]))
            take = Rows(flat, total=len(inputs))
            unit_rows = Rows([units[u] for u in bucket.units], total=totals[0])
            member_rows = Rows([inputs[m] for m in flat], total=totals[1])
            self.buckets.append((size, take, UnitRows(unit_rows, member_rows)))
            order.extend(bucket.units)
        position = {unit: i for i, unit in enumerate(order)}
        self.restore = Rows([position[u] for u in range(len(order))], total=len(order))
        self.registered = nn.ModuleList(
            part for _, take, rows in self.buckets for part in (take, rows.units, rows.members)
        )

    def map(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Runs a batched unit on every bucket.

        Args:
            function: (tensors (U, M, ...) ..., rows) -> (U, N, D).
            inputs: tensors whose first dim is the inputs present.

        Returns:
            (units of the level, N, D), in the order of the level.
        """
        outputs: list[Tensor] = []
        for size, take, rows in self.buckets:
            batched = [picked.view(*size, *picked.shape[1:]) for picked in map(take.take, inputs)]
            outputs.append(function(*batched, rows))
        return self.restore.take(outputs[0] if len(outputs) == 1 else torch.cat(outputs))
