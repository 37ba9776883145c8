"""Made-up scans, written by plain loops in the formats that users have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import config as configuration
from pipeline import store
from pipeline.imaging.config import ImagingConfig

WAVELENGTHS = (400.0, 410.0, 421.0, 433.0, 446.0, 460.0)
"""Of the bands [nm]: no two are as far apart."""
ORDER = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
"""Axes (band, row, column) in the order in which a file has them, slowest first."""
TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
"""ENVI's numbers of data types."""


def cube(rows: int = 9, columns: int = 7, bands: int = 6, *, seed: int = 0) -> NDArray[np.float64]:
    """Reflectance (band, row, column) in steps of a thousandth, so that integers hold it, all different enough."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(20, 900, size=(bands, rows, columns)) / 1000.0)


def write_envi(
    path: Path,
    values: NDArray[Any],
    *,
    interleave: str = "bil",
    data_type: int = 4,
    byte_order: int = 0,
    offset: int = 0,
    header: Mapping[str, Any] | None = None,
    wavelengths: Sequence[float] | None = WAVELENGTHS,
) -> Path:
    """Write an ENVI image (band, row, column) and its header; returns the header's path."""
    bands, rows, columns = values.shape
    kind = np.dtype(TYPES[data_type]).newbyteorder(">" if byte_order else "<")
    values = values if kind.kind == "f" else np.rint(values)
    with path.with_suffix(".raw").open("wb") as file:
        file.write(b"\0" * offset)
        file.write(np.ascontiguousarray(values.transpose(ORDER[interleave])).astype(kind).tobytes())
    fields = {
        "samples": columns, "lines": rows, "bands": bands, "header offset": offset, "file type": "ENVI Standard",
        "data type": data_type, "interleave": interleave, "byte order": byte_order,
    }  # fmt: skip
    if wavelengths is not None:
        fields |= {"wavelength units": "nm", "wavelength": wavelengths}
    fields |= dict(header or {})
    path.write_text("ENVI\n" + "".join(f"{key} = {_text(value)}\n" for key, value in fields.items()))
    return path


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else "{" + ", ".join(map(str, value)) + "}"


def experiment(folder: Path, files: Sequence[Path | str], *, data: Any = None, **source: Any) -> ImagingConfig:
    """A configuration of small images that writes below a folder."""
    found = configuration.parse(
        {
            "task": "reconstruct",
            "name": "scans",
            "directory": str(folder / "out"),
            "source": {"kind": "images", "files": [str(file) for file in files], **source},
            "data": {
                "tile": 4,
                "slab_tiles": 3,
                "splits": {"train": 0.5, "validation": 0.0, "test": 0.5},
                **(data or {}),
            },
            "model": {"patch": 2},
            "compute": {"threads": 2},
        }
    )
    assert isinstance(found, ImagingConfig)
    return found


def simulation(folder: Path, *, data: Any = None, **source: Any) -> ImagingConfig:
    """The same of simulated plants."""
    small = {"images": 3, "size": 10, "bands": {"start": 450, "stop": 850, "step": 100}}
    found = configuration.parse(
        {
            "task": "reconstruct",
            "name": "plants",
            "directory": str(folder / "out"),
            "source": {"kind": "simulation", **small, **source},
            "data": {"tile": 4, "slab_tiles": 4, **(data or {})},
            "model": {"patch": 2},
            "compute": {"threads": 2},
        }
    )
    assert isinstance(found, ImagingConfig)
    return found


def by_image(path: Path, name: str) -> NDArray[np.float32]:
    """An image (band, row, column) put together again from the tiles of a store, NaN where it is not valid."""
    import xarray as xr

    with xr.open_zarr(path, chunks=None, consolidated=False) as ds:
        size = next(entry for entry in ds.attrs["contract"]["images"] if entry["name"] == name)
        whole = np.full((ds.sizes["band"], size["rows"], size["columns"]), np.nan, np.float32)
        tile = ds.sizes["y"]
        for i in np.flatnonzero(ds["image"].values == name):
            row, column = int(ds["row"][i]), int(ds["column"][i])
            height, width = min(tile, size["rows"] - row), min(tile, size["columns"] - column)
            whole[:, row : row + height, column : column + width] = ds["reflectance"][i, :, :height, :width]
    return whole


def killed_at_every_slab(stage: Callable[[Any], None], config: ImagingConfig, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a stage until it ends, stopping it once at each slab whose values are on the disk and not yet recorded."""
    real, stopped = store.SlabStore.record, set()

    def record(self: store.SlabStore, slab: store.Slab, **more: Any) -> None:
        if slab.index not in stopped:
            stopped.add(slab.index)
            raise KeyboardInterrupt
        real(self, slab, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store.SlabStore, "record", record)
        while True:
            assert not config.paths.receipt(config.store_stage).exists()
            try:
                stage(config)
            except KeyboardInterrupt:
                continue
            return len(stopped)
