"""An archive with the shape and storage of ARCO-ERA5 and synthetic weather, for timing reads at full size.

Contract: Zarr v2, consolidated, 0.25 degrees, rows on the poles from north to south, 37 levels, one time per chunk,
Blosc (LZ4, level 5, shuffled), which was Zarr's default; values are float32 after 16-bit packing, like all of
ERA5, so that they compress like its values. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.weather.variables import BY_SHORT, standard_geopotential

LEVELS = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700,
    750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
ON_LEVELS = ("z", "t", "u", "v", "q")
SURFACE = ("t2m", "u10", "v10")
STATIC = ("lsm", "orog")
SHAPE = (721, 1440)
FIRST = "2001-01-01"
_SHAPES = {  # mean, amplitude of waves, amplitude of small scales
    "z": (None, 2500.0, 25.0), "t": (240.0, 25.0, 0.5), "u": (8.0, 15.0, 1.0), "v": (0.0, 12.0, 1.0),
    "q": (0.004, 0.0025, 2e-4), "t2m": (278.0, 25.0, 0.7), "u10": (0.0, 6.0, 0.8), "v10": (0.0, 6.0, 0.8),
}  # fmt: skip


def make(path: Path, *, steps: int, seed: int = 0) -> Path:
    """Write the archive unless it is already there, complete.

    Returns:
        `path`, a Zarr group of `steps` times, six hours apart.
    """
    if (path / ".zmetadata").exists():
        return path
    rng = np.random.default_rng(seed)
    detail = [_detail(rng) for _ in range(8)]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs.update(valid_time_start=FIRST, valid_time_stop="2001-12-31")
    _axis(group, "time", np.arange(steps) * 6, {"units": f"hours since {FIRST}", "calendar": "proleptic_gregorian"})
    _axis(group, "level", np.array(LEVELS, np.int64), {"units": "hPa"})
    _axis(group, "latitude", 90 - 0.25 * np.arange(721, dtype=np.float32), {"units": "degrees_north"})
    _axis(group, "longitude", 0.25 * np.arange(1440, dtype=np.float32), {"units": "degrees_east"})
    for short in (*ON_LEVELS, *SURFACE):
        levels = LEVELS if short in ON_LEVELS else (None,)
        inner = (len(levels), *SHAPE) if short in ON_LEVELS else SHAPE
        dims = ["time", *(["level"] if short in ON_LEVELS else []), "latitude", "longitude"]
        array = _array(group, short, (steps, *inner), (1, *inner), dims)
        for step in range(steps):
            fields = [_field(short, level, step, detail, rng) for level in levels]
            array[step] = np.stack(fields).reshape(inner)
    for short in STATIC:
        wave = _wave(0.0, rng)
        values = np.clip(wave, 0, 1) if short == "lsm" else 2e4 * np.clip(wave, 0, 2)
        _array(group, short, SHAPE, SHAPE, ["latitude", "longitude"])[:] = values.astype(np.float32)
    zarr.consolidate_metadata(path, zarr_format=2)
    (path / "made.json").write_text(json.dumps({"steps": steps, "seed": seed}))
    return path


def chunks(path: Path, *, steps: int) -> list[Path]:
    """The chunk files that a regrid run of all 80 channels reads."""
    inner = dict.fromkeys(ON_LEVELS, "0.0.0") | dict.fromkeys(SURFACE, "0.0")
    files = [path / BY_SHORT[s].long / f"{t}.{place}" for t in range(steps) for s, place in inner.items()]
    return [*files, *(path / BY_SHORT[s].long / "0.0" for s in STATIC)]


def _field(
    short: str, level: int | None, step: int, detail: list[NDArray[np.float32]], rng: np.random.Generator
) -> NDArray[np.float32]:
    middle, size, small = _SHAPES[short]
    if short == "z":
        middle = standard_geopotential(max(float(level or 0), 6.0))
        size = min(size, 0.02 * middle + 500.0)
    assert middle is not None
    field = middle + size * _wave(step / 10 + (level or 0) / 500, rng)
    field += small * np.roll(detail[(step + (level or 0)) % 8], 7 * step, axis=1)
    if short == "q":
        field = np.clip(field * (level or 0) / 1000, 0, None)
    low, high = float(field.min()), float(field.max())
    scale = 2.0 ** np.ceil(np.log2((high - low) / 65535))  # ECMWF packs into 16 bits with a binary scale
    return (low + np.round((field - low) / scale) * scale).astype(np.float32)


def _wave(phase: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A smooth field between about -1 and 1."""
    lat = np.deg2rad(90 - 0.25 * np.arange(721))[:, None]
    lon = np.deg2rad(0.25 * np.arange(1440))[None, :]
    total = 0.6 * np.cos(2 * lat) + np.zeros((1, 1440))
    for k in (1, 3, 6):
        a, b = rng.uniform(-0.15, 0.15, 2)
        total = total + np.cos(lat) ** k * (a * np.cos(k * lon - phase) + b * np.sin(k * lon + 2 * lat))
    return total.astype(np.float32)


def _detail(rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise with a k^-5/3 spectrum and unit standard deviation."""
    spectrum = np.fft.rfft2(rng.standard_normal(SHAPE))
    k = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None] * 721, np.fft.rfftfreq(SHAPE[1])[None, :] * 1440)
    field = np.fft.irfft2(spectrum * np.maximum(k, 1.0) ** (-4 / 3), s=SHAPE)
    return (field / field.std()).astype(np.float32)


def _array(
    group: zarr.Group, short: str, shape: tuple[int, ...], blocks: tuple[int, ...], dims: list[str]
) -> zarr.Array:
    spec = BY_SHORT[short]
    attributes = {"_ARRAY_DIMENSIONS": dims, "units": spec.unit, "short_name": short}
    codec = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
    how: dict[str, Any] = {"dtype": "float32", "fill_value": np.nan, "compressors": codec, "attributes": attributes}
    return group.create_array(spec.long, shape=shape, chunks=blocks, **how)


def _axis(group: zarr.Group, name: str, values: NDArray[np.generic], attrs: dict[str, str]) -> None:
    group.create_array(name, data=values, fill_value=None, attributes={"_ARRAY_DIMENSIONS": [name], **attrs})
