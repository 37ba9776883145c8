"""How images are cut into tiles, and tiles into chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.imaging import image_store
from pipeline.imaging.image_store import ImageSize, ImageStore, tile_places
from pipeline.imaging.normals import ImageNormals


def test_every_pixel_lies_in_one_tile() -> None:
    """Catches a remainder at an edge that is lost or cut twice, and tiles in another order than the images'."""
    images = [ImageSize("a", 5, 9), ImageSize("b", 4, 4), ImageSize("c", 8, 3)]
    places = tile_places(images, tile=4)
    seen = {image.name: np.zeros((image.rows, image.columns), int) for image in images}
    for place in places:
        seen[place.image][place.row : place.row + 4, place.column : place.column + 4] += 1
    assert all((count == 1).all() for count in seen.values())
    assert [place.image for place in places] == ["a"] * 6 + ["b"] + ["c"] * 2
    assert [(place.row, place.column) for place in places[:4]] == [(0, 0), (0, 4), (0, 8), (4, 0)]


@pytest.mark.parametrize(("bands", "tile", "expected"), [(500, 64, 24), (500, 16, 63), (198, 16, 25), (6, 4, 1)])
def test_chunks_hold_few_bands(bands: int, tile: int, expected: int) -> None:
    """Catches chunks so large that every rank decompresses all bands, and chunks larger than they should be."""
    chunk = image_store.arrays(tiles=3, bands=bands, tile=tile)["reflectance"].chunks
    assert chunk == (1, expected, tile, tile)
    assert 4 * expected * tile**2 <= image_store.CHUNK_BYTES


def test_another_store_is_refused(tmp_path: Path) -> None:
    """Catches a traceback where a path leads to nothing or to something else."""
    for kind in (ImageStore, ImageNormals):
        with pytest.raises(ValueError, match="must exist, got nothing at"):
            kind.open(tmp_path / "gone.zarr")
    import zarr

    zarr.open_group(tmp_path / "other.zarr", mode="w", attributes={"contract": {"kind": "normals"}})
    with pytest.raises(ValueError, match="must be those of images, got 'normals'"):
        ImageNormals.open(tmp_path / "other.zarr")
