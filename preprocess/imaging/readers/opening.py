"""From the configuration's patterns to opened images, by the ending of their names.

Contract: files come sorted by name, each once. Wavelengths that files lack are those that the configuration gives.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.imaging.sections import ImageWords
from preprocess.imaging.readers.raw_image import RawImage

ENDINGS = (".hdr", ".mat", ".nc", ".nc4", ".zarr")


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The files that patterns name.

    Raises:
        ValueError: a pattern that fits nothing, or a file of another kind.
    """
    found: list[Path] = []
    for pattern in patterns:
        fitting = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        if not fitting:
            raise ValueError(f"source.files must name files that exist, got nothing at {pattern}")
        for path in fitting:
            if path.suffix.lower() not in ENDINGS:
                raise ValueError(
                    f"source.files must be ENVI headers (.hdr), .mat, .nc or .zarr, got {path}; narrow the pattern, "
                    "e.g. scans/*.hdr"
                )
        found += fitting
    return list(dict.fromkeys(found))


def open_image(path: Path, source: ImageWords) -> RawImage:
    """Open one image, with wavelengths.

    Raises:
        ValueError: it cannot be read, or has no wavelengths and the configuration neither.
    """
    raw = read_file(path, source)
    if raw.wavelengths is not None:
        return raw
    given = given_wavelengths(source)
    if given is None:
        raise ValueError(
            f"{path} must have wavelengths, got none; give them in source.wavelengths, a list or a text file [nm]"
        )
    if given.size != raw.bands:
        raise ValueError(
            f"source.wavelengths must have one number for each of {raw.bands} bands of {path}, got {given.size}"
        )
    return replace(raw, wavelengths=given)


def given_wavelengths(source: ImageWords) -> NDArray[np.float64] | None:
    """The wavelengths of the configuration [nm], listed or in a text file; None where it gives none.

    Raises:
        ValueError: the file is absent or holds something else than numbers.
    """
    if not isinstance(source.wavelengths, str):
        return None if source.wavelengths is None else np.asarray(source.wavelengths, np.float64)
    path = Path(source.wavelengths).expanduser()
    if not path.is_file():
        raise ValueError(f"source.wavelengths must be a list or a text file of numbers [nm], got nothing at {path}")
    words = files.read_text(path).replace(",", " ").split()
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"{path} must hold wavelengths [nm] and nothing else, got {error}") from None


def read_file(path: Path, source: ImageWords) -> RawImage:
    """Open a file by the ending of its name, with or without wavelengths.

    Raises:
        ValueError: it cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".hdr":
        from preprocess.imaging.readers.envi import open_envi

        return open_envi(path)
    if kind == ".mat":
        from preprocess.imaging.readers.matlab import open_matlab

        return open_matlab(path, variable=source.variable, shape=source.shape)
    from preprocess.imaging.readers.labelled import open_labelled

    return open_labelled(path, variable=source.variable)
