"""The user's own files: NetCDF, GRIB or Zarr, one or many.

Contract: a file is recognised by its first bytes, never by its name; opening reads metadata only (but see
`preprocess.sources.piece` on fields without a unit); nothing is written beside it. A file that cannot be read stops the
run with its name: no file is skipped.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import xarray as xr

from pipeline.console import console
from pipeline.weather.sections import Channels, FilesSource
from pipeline.weather.variables import BY_SHORT
from preprocess.decode.identify import Request
from preprocess.sources.archive import Archive
from preprocess.sources.grib import open_grib
from preprocess.sources.netcdf3 import require_whole
from preprocess.sources.piece import Piece

_NETCDF = (b"\x89HDF", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_GRIB = b"GRIB"
_ZARR = ("zarr.json", ".zgroup")
_MANY = 50
"""Number of files from which opening shows a sign of life."""


def open_files(source: FilesSource, *, channels: Channels, index: Path | None = None) -> Archive:
    """Open every file of a source as one archive.

    Args:
        source: patterns, label and files of constants.
        channels: what is wanted.
        index: folder for the headers of GRIB files; None keeps none.

    Raises:
        ValueError: a pattern without a file, a file that cannot be read, a name that no file has, or see `Archive`.
    """
    said = {"names": source.names, "units": source.units}
    request = Request.of(channels, member=source.member, **said)
    paths, constants = find_files(source.paths), find_files(source.constants)
    with console.status(f"opening {len(paths)} files") if len(paths) >= _MANY else nullcontext():
        pieces = [piece for path in paths for piece in open_file(path, index=index, request=request)]
    static = Request.of(channels, **said)
    found = [piece for path in constants for piece in open_file(path, index=index, request=static)]
    _require_named({s: n for s, n in source.names.items() if request.wants(s)}, [*pieces, *found])
    return Archive(pieces, channels=channels, label=source.label, description=source.identity, constants=found)


def _require_named(names: Mapping[str, str], pieces: Sequence[Piece]) -> None:
    """Refuse a name that the user gives and no file has, or that is not a field of that kind."""
    wrong = [f"{short}: {name}" for short, name in names.items() if not any(p.mentions(name) for p in pieces)]
    if wrong:
        held = "; ".join(dict.fromkeys(", ".join(p.survey.describe()) for p in pieces if p.survey.describe()))
        raise ValueError(f"source.names must be names in the files, got {', '.join(wrong)}; the files hold {held}")
    if any(p.survey.members and not p.survey.fields for p in pieces):
        return  # of another member, which the archive looks at
    for short, name in names.items():
        fields = [p.survey.fields[short].name for p in pieces if short in p.survey.fields]
        if name not in fields:
            kind = "on pressure levels" if BY_SHORT[short].levels else "without pressure levels"
            raise ValueError(
                f"source.names must give {short!r} a field {kind}, got {name!r}, which is none; give it the level as a "
                "coordinate in hPa (or take it away)"
            )


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Files of some paths, sorted, each once.

    Args:
        patterns: files, Zarr stores, folders (every file below, except hidden ones), or glob patterns. What exists
            under the very name is taken as it is, so a name may hold brackets.

    Raises:
        ValueError: a path or pattern without a file.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        given = Path(pattern).expanduser()
        matches = [given] if given.exists() else _matching(str(given))
        found = {file for match in matches for file in _files_of(match)}
        if not found:
            what = "files, got an empty folder" if given.is_dir() else "files, got none for"
            raise ValueError(f"source.paths must name {what} {pattern!r} (from {Path.cwd()})")
        paths |= found
    return sorted(paths)


def _matching(pattern: str) -> list[Path]:
    """Matches of a glob pattern; without any, of the same with its brackets meant literally."""
    for spelling in (pattern, pattern.replace("[", "[[]")):
        if found := glob.glob(spelling, recursive=True):  # noqa: PTH207
            return [Path(p) for p in found]
    return []


def _files_of(path: Path) -> Iterator[Path]:
    """A file or a Zarr store itself; of another folder, what it holds."""
    if path.is_file() or any((path / name).exists() for name in _ZARR):
        yield path
    elif path.is_dir():
        for below in path.iterdir():
            if not below.name.startswith("."):
                yield from _files_of(below)


def open_file(path: Path, *, index: Path | None = None, request: Request | None = None) -> list[Piece]:
    """Open one file lazily.

    Args:
        path: the file.
        index: folder for the headers of GRIB files; None keeps none.
        request: what is wanted; all of the catalogue for None.

    Returns:
        One piece for NetCDF and Zarr; for GRIB one for each block of times and levels, and one that only names the
        fields that nobody asked for.

    Raises:
        ValueError: another format, or a file cut short; see also `preprocess.decode.survey.survey`.
    """
    if path.is_dir():
        return [Piece.of(xr.open_zarr(path, chunks=None), origin=str(path), request=request)]
    with path.open("rb") as file:
        head = file.read(4)
    if head == _GRIB:
        datasets, others = open_grib(path, index=index, request=request)
        pieces = [Piece.of(raw, origin=str(path), request=request) for raw in datasets]
        return [*pieces, Piece.of_names(others, origin=str(path))] if others else pieces
    if head not in _NETCDF:
        raise ValueError(f"source file must be NetCDF or GRIB, got {path}, which begins with {head!r}; leave it out")
    if head.startswith(b"CDF"):
        require_whole(path)
    try:
        raw = xr.open_dataset(path, engine="netcdf4", chunks=None, cache=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"NetCDF file must be readable and whole, got {path} ({error}); fetch it again") from None
    return [Piece.of(raw, origin=str(path), request=request)]
