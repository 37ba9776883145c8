"""The user's own files: NetCDF, GRIB or Zarr, one or many.

Contract: a file is recognised by its first bytes, never by its name; opening reads metadata only; nothing
is written beside it. A file that cannot be read stops the run with its name: no file is skipped.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import xarray as xr

from pipeline.console import console
from pipeline.weather.sections import Channels, FilesSource
from preprocess.sources.archive import Archive, Piece
from preprocess.sources.grib import open_grib
from preprocess.sources.netcdf3 import require_whole

_NETCDF = (b"\x89HDF", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_GRIB = b"GRIB"
_MANY = 50
"""Number of files from which opening shows a sign of life."""


def open_files(source: FilesSource, *, channels: Channels, index: Path | None = None) -> Archive:
    """Open every file of a source as one archive.

    Args:
        source: patterns, label and files of constants.
        channels: what is wanted.
        index: folder for the headers of GRIB files; None keeps none.

    Raises:
        ValueError: a pattern without a file, a file that cannot be read, or see `Archive`.
    """
    description = source.model_dump(mode="json")
    paths, constants = find_files(source.paths), find_files(source.constants)
    with console.status(f"opening {len(paths)} files") if len(paths) >= _MANY else nullcontext():
        pieces = [piece for path in paths for piece in open_file(path, index=index)]
    return Archive(
        pieces,
        channels=channels,
        label=source.label,
        description=description,
        constants=[piece for path in constants for piece in open_file(path, index=index)],
    )


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Files of some glob patterns, sorted, each once.

    Raises:
        ValueError: a pattern without a file.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        matches = [Path(p) for p in glob.glob(str(Path(pattern).expanduser()), recursive=True)]  # noqa: PTH207
        matches = [p for p in matches if p.is_file() or (p / "zarr.json").exists() or (p / ".zgroup").exists()]
        if not matches:
            raise ValueError(f"source.paths must name files, got none for {pattern!r} (from {Path.cwd()})")
        paths |= set(matches)
    return sorted(paths)


def open_file(path: Path, *, index: Path | None = None) -> list[Piece]:
    """Open one file lazily.

    Args:
        path: the file.
        index: folder for the headers of GRIB files; None keeps none.

    Returns:
        One piece for NetCDF and Zarr; for GRIB one for each block of times and levels.

    Raises:
        ValueError: another format, or a file cut short; see also `preprocess.decode.survey.survey`.
    """
    if path.is_dir():
        return [Piece.of(xr.open_zarr(path, chunks=None), origin=str(path))]
    with path.open("rb") as file:
        head = file.read(4)
    if head == _GRIB:
        return [Piece.of(raw, origin=str(path)) for raw in open_grib(path, index=index)]
    if head not in _NETCDF:
        raise ValueError(f"source file must be NetCDF or GRIB, got {path}, which begins with {head!r}; leave it out")
    if head.startswith(b"CDF"):
        require_whole(path)
    try:
        raw = xr.open_dataset(path, engine="netcdf4", chunks=None, cache=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"NetCDF file must be readable and whole, got {path} ({error}); fetch it again") from None
    return [Piece.of(raw, origin=str(path))]
