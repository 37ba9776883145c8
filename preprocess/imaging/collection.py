"""All images of an experiment together: the same bands, one scale, names, and blocks of large scenes.

Contract: everything is checked before anything is written, from headers and from a thin sample of the values of every
image. The images come in the order of their files, blocks of one image row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.bands import Resampling, Wavelengths, require_increasing, resampling
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.sections import Bands, Blocks, ImagesSource
from preprocess.imaging.calibrate import calibration, reference_paths
from preprocess.imaging.picture import Picture
from preprocess.imaging.readers.opening import find_images, open_image
from preprocess.imaging.readers.raw_image import RawImage

SAME_NM = 0.05
"""Wavelengths of two files that differ by less are the same [nm]."""
_LOWEST, _HIGHEST = -1.0, 2.0
"""Between these lie all but a few per cent of reflectances: a gloss exceeds 1, noise falls below 0."""
_NO_PIXEL = "has no valid pixel: all are NaN, no data or saturated"


@dataclass(frozen=True, eq=False)
class Collection:
    """All images, checked.

    Attributes:
        pictures: in the order of the store.
        wavelengths: of the store's bands [nm].
        fwhm: widths of the bands [nm]; None where they are not known.
        label: what the data are called.
        left_out: bands of the files that are not used, each with wavelength [nm] and reason.
        empty: blocks that are left out, with the reason.
        files: number of files.
    """

    pictures: list[Picture]
    wavelengths: Wavelengths
    fwhm: Wavelengths | None
    label: str
    left_out: list[dict[str, Any]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    files: int = 0


def collect(config: ImagingConfig) -> Collection:
    """Open and check all images.

    Raises:
        ValueError: a file that cannot be read, images that do not go together, one smaller than a patch or without a
            valid pixel.
    """
    source, blocks = config.source, config.data.blocks
    assert isinstance(source, ImagesSource)
    paths = _scans(find_images(source.files), source)
    raws = [open_image(path, source) for path in paths]
    resamplings = bands_of(raws, config.data.bands)
    pictures: list[Picture] = []
    highest: list[float] = []
    empty: list[str] = []
    for name, raw, resample in zip(image_names(paths), raws, resamplings, strict=True):
        calibrate = calibration(raw, source)
        for label, row, column, rows, columns in pieces(name, raw.rows, raw.columns, blocks=blocks):
            picture = Picture(label, raw, calibrate, resample, row, column, rows, columns)
            small = min(rows, columns) < config.model.patch
            sample = np.empty(0) if small else picture.sample()
            if sample.size:
                pictures.append(picture)
                highest.append(_highest(sample, picture))
                continue
            reason = (
                f"has {rows} x {columns} pixels, less than model.patch ({config.model.patch})" if small else _NO_PIXEL
            )
            if blocks is None:
                raise ValueError(
                    f"image must be at least a patch and have valid pixels, got {raw.path}, which {reason}"
                )
            empty.append(f"{label} {reason}")
    if not pictures:
        raise ValueError(f"images must have blocks that can be used, got none; {empty[0]}")
    _require_one_scale(pictures, highest)
    widths, whole = raws[0].fwhm, config.data.bands is None
    return Collection(
        pictures,
        resamplings[0].wavelengths,
        widths[list(resamplings[0].used)] if widths is not None and whole else None,
        source.label,
        _left_out(raws),
        empty,
        len(paths),
    )


def _scans(paths: list[Path], source: ImagesSource) -> list[Path]:
    """The files without those that are references of others, which a pattern may fit too.

    Raises:
        ValueError: nothing is left.
    """
    if source.references is None:
        return paths
    named = {reference.absolute() for path in paths for reference in reference_paths(path, source.references)}
    scans = [path for path in paths if path.absolute() not in named]
    if not scans:
        raise ValueError(f"source.files must name images beside the references, got {len(paths)} references only")
    return scans


def image_names(paths: Sequence[Path]) -> list[str]:
    """Names of images: those of the files, with as many folders before as they need to differ."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["-".join([*path.with_suffix("").parts[-depth:]]).lstrip("/-") for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = Counter(str(path.with_suffix("")) for path in paths).most_common(1)[0][0]
    raise ValueError(f"images must have names that differ, got {twice} with several endings; rename one")


def pieces(name: str, rows: int, columns: int, *, blocks: Blocks | None) -> Iterator[tuple[str, int, int, int, int]]:
    """(name, row, column, rows, columns) of the blocks of an image, or of the image itself.

    >>> [piece[1:] for piece in pieces("a", 5, 9, blocks=Blocks(rows=5, columns=4, gap=2))]
    [(0, 0, 5, 4), (0, 6, 5, 3)]
    """
    if blocks is None:
        yield name, 0, 0, rows, columns
        return
    for row in range(0, rows, blocks.rows + blocks.gap):
        for column in range(0, columns, blocks.columns + blocks.gap):
            height, width = min(blocks.rows, rows - row), min(blocks.columns, columns - column)
            yield f"{name}-r{row:05d}-c{column:05d}", row, column, height, width


def bands_of(raws: Sequence[RawImage], wanted: Bands | None) -> list[Resampling]:
    """How the bands of each image become those of the store.

    Bands that a header marks as bad are left out: of all images if none are asked for, of their own otherwise.

    Raises:
        ValueError: wavelengths that do not increase, images of different bands, or no band near one that is asked for.
    """
    bad = set().union(*(raw.bad for raw in raws))
    found: list[Resampling] = []
    for raw in raws:
        given = _wavelengths(raw)
        left_out = bad if wanted is None else set(raw.bad)
        good = [i for i in range(raw.bands) if i not in left_out]
        if not good:
            raise ValueError(f"{raw.path} must have a good band, got {raw.bands} that headers mark as bad")
        require_increasing(given[good], origin=str(raw.path))
        if wanted is None:
            _require_same(raw, raws[0])
        part = resampling(given[good], wanted, origin=str(raw.path))
        found.append(Resampling(part.wavelengths, tuple(tuple(good[i] for i in m) for m in part.members)))
    return found


def _wavelengths(raw: RawImage) -> NDArray[np.float64]:
    assert raw.wavelengths is not None, "opened by open_image"
    return raw.wavelengths


def _require_same(raw: RawImage, first: RawImage) -> None:
    ours, theirs = _wavelengths(raw), _wavelengths(first)
    if ours.size == theirs.size and np.abs(ours - theirs).max() < SAME_NM:
        return
    spans = [
        f"{w.size} bands, {w[0]:g} .. {w[-1]:g} nm, in {image.path}" for w, image in ((ours, raw), (theirs, first))
    ]
    raise ValueError(
        f"images must have the same bands, got {spans[0]} and {spans[1]}; name the bands of the store in data.bands, "
        "to which all images are then brought"
    )


def _left_out(raws: Sequence[RawImage]) -> list[dict[str, Any]]:
    """Bands that some header marks as bad, each wavelength once."""
    found = {round(float(_wavelengths(raw)[i]), 4): why for raw in raws for i, why in raw.bad.items()}
    return [{"wavelength": value, "reason": found[value]} for value in sorted(found)]


def _highest(sample: NDArray[Any], picture: Picture) -> float:
    """What nearly all values of an image are below; values far below 0 are refused."""
    low, high = np.percentile(sample, [2, 98])
    if low < _LOWEST:
        raise ValueError(
            f"reflectance must be about 0 to 1, got {low:.4g} in {picture.raw.path}; if that means no data, add "
            "`data ignore value` to the header or set source.ignore"
        )
    return float(high)


def _require_one_scale(pictures: Sequence[Picture], highest: Sequence[float]) -> None:
    """Refuse values that are no reflectance, and images of which some are and some are not."""
    large = [i for i, value in enumerate(highest) if value > _HIGHEST]
    if not large:
        return
    shown = f"values up to {highest[large[0]]:.4g} in {pictures[large[0]].raw.path}"
    remedy = "`reflectance scale factor` in its header, source.scale (e.g. 0.0001) or source.references"
    if len(large) < len(pictures):
        other = next(i for i, value in enumerate(highest) if value <= _HIGHEST)
        raise ValueError(
            f"images must have one scale of reflectance, got {shown} and up to {highest[other]:.4g} in "
            f"{pictures[other].raw.path} ({len(large)} of {len(pictures)} images are too large); give the "
            "scale of each in `reflectance scale factor` of its header"
        )
    raise ValueError(f"reflectance must be about 0 to 1, got {shown}; give {remedy}")
