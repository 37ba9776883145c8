"""The held-out images that the page shows, put together from their tiles.

Contract: images are chosen by the rank of their error, evenly from the easiest to the hardest, so that the page shows
no lucky ones; pixels by the rank of theirs, among the brighter half of the hidden ones, since dark ones have hardly a
spectrum. A tile that was reconstructed with several masks is shown with the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.imaging.colour import Rendering
from evaluate.imaging.reading import Reconstructions, Sample
from evaluate.imaging.sums import NETWORK

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pixel:
    """A hidden pixel: its place in the image, its spectra, and the bands that were hidden everywhere.

    Args:
        row: in the image.
        column: in the image.
        truth: reflectance, shape (band,).
        guess: of the network.
        window: hidden bands.
    """

    row: int
    column: int
    truth: Array
    guess: Array
    window: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A held-out image.

    Args:
        name: of the image.
        rank: of its error, 1 for the smallest.
        rmse: over its hidden patches.
        truth: picture, shape (y, x, 3).
        completed: the visible patches as they are, the hidden ones as the network sees them.
        hidden: pixels of hidden patches, shape (y, x).
        error: root mean square error over the bands at hidden pixels, NaN elsewhere, shape (y, x).
        windows: hidden ranges of wavelengths of any of its tiles, as texts.
        pixels: whose spectra are drawn.
    """

    name: str
    rank: int
    rmse: float
    truth: Array = field(repr=False)
    completed: Array = field(repr=False)
    hidden: NDArray[np.bool_] = field(repr=False)
    error: Array = field(repr=False)
    windows: list[str]
    pixels: list[Pixel] = field(repr=False)


def image_errors(sums: xr.Dataset) -> Array:
    """RMSE of the network over the hidden patches of each image, shape (image,)."""
    squared = sums["squared"].sel(model=NETWORK, region="hidden").sum("band")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(squared / sums["count"].sel(region="hidden").sum("band")))


def choose(errors: Array, *, count: int) -> list[int]:
    """Positions at evenly spaced ranks, from small errors to large ones; never the same twice."""
    known = [int(i) for i in np.argsort(errors, kind="stable") if np.isfinite(errors[i])]
    ranks = [int((i + 0.5) / count * len(known)) for i in range(count)]
    return [known[rank] for rank in dict.fromkeys(ranks)] if known else []


def put_together(
    made: Reconstructions, rendering: Rendering, *, name: str, rank: int, rmse: float, pixels: int
) -> ShownImage:
    """One image from its tiles.

    Args:
        made: all reconstructions.
        rendering: of the pictures.
        name: of the image.
        rank: of its error.
        rmse: over its hidden patches.
        pixels: whose spectra are wanted.
    """
    size = next(image for image in made.images.images if image.name == name)
    shape, side = (size.rows, size.columns), made.images.tile
    truth, completed = np.full((*shape, 3), np.nan), np.full((*shape, 3), np.nan)
    hidden, error, brightness = np.zeros(shape, bool), np.full(shape, np.nan), np.full(shape, np.nan)
    windows: list[str] = []
    rows = {int(made.tiles[row]): row for row in reversed(made.by_image[name])}
    for tile, row in rows.items():
        sample, place = made.read(row), made.images.places[tile]
        there = slice(place.row, place.row + side), slice(place.column, place.column + side)
        inside = slice(0, shape[0] - place.row), slice(0, shape[1] - place.column)
        pictures = rendering(sample.seen.truth), rendering(sample.guess)
        pictures[1][~sample.seen.valid.all(axis=0)] = np.nan
        truth[there] = pictures[0][inside]
        completed[there] = np.where(sample.seen.hidden[:, :, None], pictures[1], pictures[0])[inside]
        hidden[there], error[there] = sample.seen.hidden[inside], pixel_errors(sample)[inside]
        brightness[there] = np.where(sample.seen.valid, sample.seen.truth, 0.0).mean(axis=0)[inside]
        windows += window_texts(made.images.wavelengths, sample.seen.window)
    bright = np.where(np.isfinite(error), brightness, np.nan)
    worth = np.where(bright >= np.nanmedian(bright), error, np.nan) if np.isfinite(bright).any() else error
    chosen = [np.unravel_index(i, shape) for i in choose(worth.ravel(), count=pixels)]
    found = [_pixel(made, rows, int(row), int(column)) for row, column in chosen]
    return ShownImage(
        name, rank, rmse, truth, completed, hidden, error, list(dict.fromkeys(windows)), [p for p in found if p]
    )


def pixel_errors(sample: Sample) -> Array:
    """RMSE over the bands that visible patches show at hidden pixels, NaN elsewhere; shape (y, x)."""
    seen = sample.seen
    counted = seen.valid & seen.hidden & ~seen.window[:, None, None]
    squared = np.where(counted, sample.guess - seen.truth, 0.0).astype(np.float64) ** 2
    number = counted.sum(axis=0)
    return np.where(number > 0, np.sqrt(squared.sum(axis=0) / np.maximum(number, 1)), np.nan)


def window_texts(wavelengths: Array, window: NDArray[np.bool_]) -> list[str]:
    """Hidden ranges of wavelengths: ["500 to 600 nm"]."""
    return [f"{wavelengths[a]:.0f} to {wavelengths[b]:.0f} nm" for a, b in runs(window)]


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last position of each run of True.

    >>> runs(np.array([True, True, False, True]))
    [(0, 1), (3, 3)]
    """
    padded = np.concatenate([[False], mask, [False]])
    starts, stops = (np.flatnonzero(padded[1:] & ~padded[:-1]), np.flatnonzero(~padded[1:] & padded[:-1]) - 1)
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


def _pixel(made: Reconstructions, rows: dict[int, int], row: int, column: int) -> Pixel | None:
    """A pixel of an image, from the tile in which it lies."""
    side = made.images.tile
    for tile, at in rows.items():
        place = made.images.places[tile]
        y, x = row - place.row, column - place.column
        if 0 <= y < side and 0 <= x < side:
            sample = made.read(at)
            truth, guess = (cube[:, y, x].astype(np.float64) for cube in (sample.seen.truth, sample.guess))
            return Pixel(row, column, truth, guess, sample.seen.window)
    return None


def ranked(names: Sequence[str], errors: Array, *, count: int) -> list[tuple[str, int, float]]:
    """The images that are shown: name, rank of the error, error."""
    order = {int(i): rank + 1 for rank, i in enumerate(np.argsort(errors, kind="stable"))}
    return [(names[i], order[i], float(errors[i])) for i in choose(errors, count=count)]
