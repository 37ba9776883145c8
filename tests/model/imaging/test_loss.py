"""Targets and weights of the loss against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.imaging.loss import FLOOR, hidden_loss, targets_of
from model.imaging.tiles import cut_patches, join_patches
from model.parallel.launch import process_group
from model.parallel.mesh import CHANNEL, build_mesh
from tests.model.imaging.cases import BANDS, tiles_of_step
from tests.model.imaging.naive import naive_loss


def test_patches_come_back_where_they_were() -> None:
    """Catches rows and columns mixed up: the tile is not square."""
    fields = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    every = torch.arange(6).expand(2, -1)
    patches = cut_patches(fields, patch=2, wanted_BQ=every)
    assert patches[1, 4, 2].tolist() == fields[1, 2, 2:4, 2:4].flatten().tolist()
    assert torch.equal(join_patches(patches, patch=2, grid=(2, 3)), fields)


@pytest.mark.parametrize("band_weight", [1.0, 20.0])
def test_bands_are_weighted_and_invalid_values_do_not_count(band_weight: float) -> None:
    """Catches a weight of another band, errors against the zeros that stand for what is not valid, and a weight of
    hidden bands that hidden patches have too."""
    hidden = {BANDS[5], BANDS[6]}
    batch = tiles_of_step(0, channels=BANDS, rows=slice(4), hidden=hidden)
    weight = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    y = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 16, 7, 4)))
    with process_group(world_size=1):
        group = build_mesh().get_group(CHANNEL)
        ours = hidden_loss(
            y, batch, patch=2, bands=7, weight_K=weight, by_patch=False, band_weight=band_weight, group=group
        )
    both = {"scale": weight, "band_weight": band_weight}
    theirs = naive_loss(y, batch.x, batch.valid, visible=batch.visible.tolist(), hidden=[5, 6], patch=2, **both)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)


def test_targets_by_patch_have_no_mean_and_unit_deviation() -> None:
    """Catches a mean over bands or over invalid pixels."""
    batch = tiles_of_step(3, channels=BANDS, rows=slice(4), hidden=set())
    target, counts = targets_of(batch, patch=2, by_patch=True)
    whole = cut_patches(batch.x, patch=2, wanted_BQ=batch.predicted)
    for b, q, k in [(0, 0, 0), (1, 5, 3), (3, 11, 6)]:
        values = whole[b, q, k][counts[b, q, k]].numpy()
        wanted = (values - values.mean()) / np.sqrt(values.var() + FLOOR)
        np.testing.assert_allclose(target[b, q, k][counts[b, q, k]].numpy(), wanted, atol=1e-12)
