"""What one rank reads: its own bands, normalised, laid down at random, in an order that every rank knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.imaging.task import AutoencodingTask, open_images
from model.imaging.training_data import ImagingData, Order, Reflectance, laid, ways_of
from tests.model.imaging.cases import BANDS
from tests.model.imaging.conftest import in_folder, reflectance


def expected(tiles: list[int], bands: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Normalised values of tiles by plain arithmetic on what the store was made from, and where they are valid."""
    values = reflectance().astype(np.float64)
    names = [f"leaf{i:02d}" for i in [*range(10), 9, 10]]
    return values[tiles][:, bands], np.array(names)


def test_values_are_normalised_and_zero_where_invalid(made: Path) -> None:
    """Catches the mean of another band, other rows of the store, and NaN that reaches the network."""
    store, normals = open_images(in_folder(made))
    read = Reflectance(store, normals, bands=BANDS[3:5])
    x, valid = read.read(np.array([2, 10, 0]))
    values, names = expected([2, 10, 0], [3, 4])
    trained = reflectance().astype(np.float64)[[name in normals.splits.train for name in names]]
    mean, std = (f(trained, axis=(0, 2, 3))[[3, 4], None, None] for f in (np.nanmean, np.nanstd))
    assert np.array_equal(valid.numpy(), np.isfinite(values))
    assert not valid[0, 1, 1, 3]
    np.testing.assert_allclose(x.numpy()[valid], ((values - mean) / std)[valid], rtol=2e-5, atol=2e-5)
    assert (x[~valid] == 0).all()


@pytest.mark.parametrize("ways", [None, np.array([0, 1, 6, 3])])
def test_memory_and_store_give_the_same_bits(made: Path, ways: np.ndarray | None) -> None:
    """Catches tiles held under another number, or turned in another way."""
    read = Reflectance(*open_images(in_folder(made)))
    tiles = np.array([10, 3, 3, 11])
    before = read.read(tiles, ways=ways)
    read.load(np.array([11, 3, 10]), progress=False)
    after = read.read(tiles, ways=ways)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_eight_ways_are_all_there_are() -> None:
    """Catches a way that comes twice, and a turn that mixes bands."""
    tile = torch.arange(2 * 9.0).view(2, 3, 3)
    found = {tuple(laid(tile, way)[0].flatten().tolist()) for way in range(8)}
    assert len(found) == 8
    assert all(torch.equal(laid(tile, way)[1], laid(tile, way)[0] + 9) for way in range(8))
    assert set(ways_of(np.arange(100), seed=0).tolist()) == set(range(8))


def test_an_epoch_has_every_tile_once() -> None:
    """Catches an order that repeats, or that depends on how it is asked for."""
    order = Order(np.array([4, 7, 9, 12, 30]), seed=1)
    first, second = order.samples(np.arange(5)), order.samples(np.arange(5, 10))
    assert sorted(first.tolist()) == sorted(second.tolist()) == [4, 7, 9, 12, 30]
    assert not np.array_equal(first, second)
    assert np.array_equal(order.samples(np.arange(3, 8)), [*first[3:], *second[:3]])


def data_of(folder: Path, *, channels: tuple[str, ...] = BANDS, rank: int = 0, ranks: int = 1) -> ImagingData:
    return AutoencodingTask(in_folder(folder)).data(channels=channels, rank=rank, ranks=ranks, pin=False)


def test_ranks_read_parts_of_one_batch(made: Path) -> None:
    """Catches masks that differ between channel ranks, and data ranks that read the same samples."""
    whole = data_of(made)
    for step in range(4):
        batch = whole.batch(step)
        halves = [data_of(made, rank=rank, ranks=2).batch(step) for rank in range(2)]
        assert torch.equal(torch.cat([half.x for half in halves]), batch.x)
        assert torch.equal(torch.cat([half.visible for half in halves]), batch.visible)
        some = data_of(made, channels=BANDS[2:5]).batch(step)
        assert torch.equal(some.x, batch.x[:, 2:5])
        assert torch.equal(some.predicted, batch.predicted)
        assert some.hidden == batch.hidden
        assert torch.equal(some.band_hidden, batch.band_hidden[2:5])


def test_some_steps_hide_bands_and_then_predict_all_patches(made: Path) -> None:
    """Catches windows that are never drawn, and hidden bands of visible patches that nobody predicts."""
    data = data_of(made)
    batches = [data.batch(step) for step in range(12)]
    assert {bool(batch.hidden) for batch in batches} == {True, False}
    for batch in batches:
        assert batch.predicted.shape[1] == (16 if batch.hidden else 12)
        assert batch.hides.sum(dim=1).tolist() == [12] * 4
        assert set(np.array(BANDS)[batch.band_hidden]) == batch.hidden
        seen = batch.visible.unsqueeze(1) == batch.predicted.unsqueeze(2)
        assert torch.equal(batch.hides, ~seen.any(dim=2))
