"""Figures of single images: truth, what the network saw, its reconstruction, the error, and spectra of some pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from evaluate import text
from evaluate.imaging.report import drawing
from evaluate.imaging.report.shown import ShownImage, runs
from evaluate.page import style
from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture, PictureGroup

Array = NDArray[np.float64]
Places = NDArray[np.integer]

FIGURES = 5
"""Of each image, at most."""
MOST_PIXELS = 300
"""Along a side of a picture; a figure shows no more, and its numbers would be large."""
PIXEL_COLOURS = ("#0a6bc2", "#c2410c", "#00735a", "#a33ea1", "#b8860b")


def image_group(
    keeper: Keeper, image: ShownImage, *, of: int, rendering: str, end: float, wavelengths: Array
) -> PictureGroup:
    """The figures of one image.

    Args:
        keeper: writes them.
        image: what is shown.
        of: number of scored images.
        rendering: what pictures are called.
        end: of the scale of errors.
        wavelengths: of the bands [nm].
    """
    about = f"{image.name} · error rank {image.rank} of {of}"
    pictures = [
        _picture(keeper, image, "truth", f"Truth, {rendering}", about, image.truth),
        _picture(keeper, image, "seen", "What the network sees", about, _covered(image)),
        _picture(keeper, image, "reconstruction", "Reconstruction", about, image.completed),
        _error(keeper, image, about, end),
    ]
    if image.pixels:
        pictures.append(_spectra(keeper, image, about, wavelengths))
    return PictureGroup(f"{image.name}: RMSE {text.number(image.rmse)}, rank {image.rank} of {of}", pictures)


def _covered(image: ShownImage) -> Array:
    """The true picture with the hidden patches painted over."""
    return np.where(image.hidden[:, :, None], np.array(to_rgb(drawing.BLANK)), image.truth)


@style.look()
def _picture(keeper: Keeper, image: ShownImage, name: str, title: str, about: str, picture: Array) -> Picture:
    rows, columns, thin = _thinned(image.hidden.shape)
    picture = picture[thin]
    shown = np.where(np.isfinite(picture), picture, 1.0)
    hidden = f"bands {text.join(image.windows)} hidden in all patches of a tile" if image.windows else "no bands hidden"
    below = {
        "truth": "numbers: hidden pixels whose spectra are shown",
        "seen": f"{text.percent(float(image.hidden.mean()))} of the image hidden; {hidden}",
        "reconstruction": "visible patches are the truth, hidden ones the network's",
    }[name]
    figure, axes, _ = drawing.image_panel(keeper.labels(title, about), shown, below=below, extent=_extent(image))
    if name == "truth":
        for i, pixel in enumerate(image.pixels):
            _mark(axes, pixel.column, pixel.row, i)
    colours = {
        f"{name}_{c}": (("y", "x"), picture[:, :, i].astype(np.float32)) for i, c in enumerate(("red", "green", "blue"))
    } | {"y": rows, "x": columns}
    alt = f"{title} of the image {image.name}, {keeper.note}; {below}."
    numbers = Numbers(xr.Dataset(colours), f"{title}, {image.name}: sRGB between 0 and 1")
    return keeper.keep(figure, f"images/{image.name}_{name}", numbers, alt=alt, photograph=True)


def _thinned(shape: tuple[int, ...]) -> tuple[Places, Places, tuple[slice, slice]]:
    """Rows and columns that a picture shows: every one of a small image, every second or third of a large one."""
    every = slice(None, None, -(-max(shape) // MOST_PIXELS))
    return np.arange(shape[0])[every], np.arange(shape[1])[every], (every, every)


def _extent(image: ShownImage) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a picture, so that pixels keep their numbers."""
    rows, columns = image.hidden.shape
    return -0.5, columns - 0.5, rows - 0.5, -0.5


def _mark(axes: Any, x: int, y: int, number: int) -> None:
    colour = PIXEL_COLOURS[number % len(PIXEL_COLOURS)]
    axes.plot(x, y, marker="o", markersize=9, markerfacecolor=colour, markeredgecolor="white", markeredgewidth=1.2)
    axes.text(x, y, str(number + 1), color="white", fontsize=6.5, fontweight="bold", ha="center", va="center_baseline")


@style.look()
def _error(keeper: Keeper, image: ShownImage, about: str, end: float) -> Picture:
    labels = keeper.labels("Error at hidden pixels", about, "reflectance")
    colours = style.ERROR.with_extremes(bad=drawing.BLANK)
    rows, columns, thin = _thinned(image.hidden.shape)
    scale: Any = {"cmap": colours, "vmin": 0.0, "vmax": end, "extent": _extent(image)}
    figure, _, shown = drawing.image_panel(labels, image.error[thin], **scale)
    drawing.colour_bar(figure, shown, label="RMSE over the bands [reflectance]; grey: visible patches")
    known = image.error[np.isfinite(image.error)]
    low, high = (text.number(float(f(known))) if known.size else "–" for f in (np.min, np.max))
    alt = f"Map of the error at hidden pixels of the image {image.name}, from {low} to {high} in reflectance."
    error = image.error[thin].astype(np.float32)
    values = xr.Dataset({"rmse": (("y", "x"), error)}, coords={"y": rows, "x": columns})
    numbers = Numbers(values, f"Error at hidden pixels, {image.name}", {"rmse": "1"})
    return keeper.keep(figure, f"images/{image.name}_error", numbers, alt=alt, colours=style.ERROR)


@style.look()
def _spectra(keeper: Keeper, image: ShownImage, about: str, wavelengths: Array) -> Picture:
    """Truth and reconstruction of some hidden pixels; ranges hidden everywhere are shaded."""
    labels = keeper.labels("Spectra of hidden pixels", about, "1")
    figure, axes = drawing.chart(labels, x="wavelength [nm]", y="reflectance [1]")
    shaded = {run for pixel in image.pixels for run in runs(pixel.window)}
    for i, (a, b) in enumerate(sorted(shaded)):
        name = {"label": "hidden bands"} if i == 0 else {}
        axes.axvspan(wavelengths[a], wavelengths[b], color="#e9d8a6", alpha=0.55, linewidth=0, **name)
    rows = []
    for i, pixel in enumerate(image.pixels):
        colour = PIXEL_COLOURS[i % len(PIXEL_COLOURS)]
        axes.plot(wavelengths, pixel.truth, color=colour, linewidth=0.9, alpha=0.55, label=f"{i + 1} truth")
        axes.plot(
            wavelengths, pixel.guess, color=colour, linewidth=1.7, dashes=(4, 1.4), label=f"{i + 1} reconstruction"
        )
        spectra = {
            "wavelength": wavelengths,
            "truth": pixel.truth,
            "reconstruction": pixel.guess,
            "hidden": pixel.window,
        }
        rows.append(pd.DataFrame(spectra).assign(pixel=i + 1, row=pixel.row, column=pixel.column))
    axes.set_xlim(wavelengths[0], wavelengths[-1])
    drawing.legend_below(figure, axes)
    errors = [float(np.sqrt(np.nanmean((p.guess - p.truth) ** 2))) for p in image.pixels]
    alt = (
        f"Spectra of {len(errors)} hidden pixels of {image.name}, truth and reconstruction; root mean square errors "
        f"{text.join([text.number(e) for e in errors])}."
    )
    numbers = Numbers(pd.concat(rows), f"Spectra of hidden pixels, {image.name}")
    return keeper.keep(figure, f"images/{image.name}_spectra", numbers, alt=alt)
