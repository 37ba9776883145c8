"""How figures look: fonts, colours, colour maps, and how they are written to files.

Contract: one place decides fonts and colours. Colour maps are perceptually even; the diverging ones are symmetric in
lightness about their centre (built in OKLab). Figures are written as palette PNG, small enough to be inlined, and as
PDF, each under a temporary name first.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Colormap, ListedColormap
from numpy.typing import NDArray

from pipeline import files

DPI = 170
FORMATS = (".png", ".pdf")
"""Of figures."""
INK = "#1c2430"
MUTED = "#5b6675"
GRID = "#dfe4ea"
UNDER = "#f6cfae"
"""Colour of values below a scale that starts at zero skill."""

COLOURS = ("#0a6bc2", "#008f6b", "#a33ea1", "#b8860b", "#3f3f95")
"""Networks, in order."""
CEILING = "#1d6b34"
"""The best that can be reached."""


@dataclass(frozen=True)
class Look:
    """How lines of a model look, and what legends and tables call it; without dashes a line is solid."""

    colour: str
    title: str
    dashes: tuple[float, ...] = ()


RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.edgecolor": "#9aa4b1",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.35,
}


@dataclass(frozen=True)
class Labels:
    """What is written on a panel.

    Args:
        title: what is shown.
        subtitle: variable, dates and sample.
        note: the data.
        unit: of axis or colours.
        detail: a line below the subtitle, where there is more to say.
    """

    title: str
    subtitle: str
    note: str
    unit: str
    detail: str = ""


@contextmanager
def look() -> Iterator[None]:
    """A context, or a decorator, in which matplotlib draws in the project's style."""
    settings: Any = RC
    with plt.rc_context(settings):
        yield


PANEL = (4.5, 3.15)
"""Width and height of a panel in inches; text stays readable at the width of a phone."""


def write_labels(figure: Any, labels: Labels, *, height: float = PANEL[1]) -> None:
    """Title, subtitle, note and detail of a panel of some height in inches."""
    line = 0.06 * PANEL[1] / height
    top = 1.0 - 0.05 * PANEL[1] / height
    small: dict[str, Any] = {"fontsize": 7.6, "color": MUTED, "va": "center"}
    figure.text(0.03, top, labels.title, fontsize=11, fontweight="bold", va="center")
    figure.text(0.03, top - line, labels.subtitle, **small)
    figure.text(0.97, top, labels.note, ha="right", **small)
    if labels.detail:
        figure.text(0.03, top - 1.9 * line, labels.detail, **small)


def shades(count: int) -> Any:
    """Colours for lines that differ in one ordered thing, such as the lead."""
    return plt.get_cmap("viridis")(np.linspace(0.15, 0.8, count))


_LAB_TO_CONE = np.array(
    [
        [1, 1, 1],
        [0.3963377774, -0.1055613458, -0.0894841775],
        [0.2158037573, -0.0638541728, -1.2914855480],
    ]
)
_CONE_TO_RGB = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clipped sRGB (..., 3) from OKLab (Ottosson 2020)."""
    linear = np.clip((lab @ _LAB_TO_CONE) ** 3 @ _CONE_TO_RGB, 0.0, 1.0)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def diverging(low: float, high: float, *, name: str) -> Colormap:
    """A diverging map from hue `low` over near-white to hue `high` (degrees in OKLab), even in lightness."""
    s = np.linspace(-1.0, 1.0, 255)
    hue = np.deg2rad(np.where(s < 0, low, high))
    lightness = 0.975 - 0.56 * np.abs(s)
    chroma = 0.155 * np.sin(np.clip(np.abs(s), 0, 1) ** 0.85 * np.pi * 0.62) / np.sin(np.pi * 0.5)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return ListedColormap(_from_oklab(lab), name=name)


def sequential(low: float, high: float, *, name: str) -> Colormap:
    """A map from near-white to dark whose hue runs from `low` to `high` (degrees in OKLab), even in lightness."""
    s = np.linspace(0.0, 1.0, 256)
    hue = np.deg2rad(low + (high - low) * s**0.9)
    chroma = 0.15 * np.sin(np.pi * (0.05 + 0.75 * s))
    lab = np.stack([0.975 - 0.65 * s, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return ListedColormap(_from_oklab(lab), name=name)


BIAS = diverging(255.0, 35.0, name="bias")
"""Blue over white to red."""
SKILL = diverging(55.0, 185.0, name="skill")
"""Orange (worse than the reference) over white to teal (better)."""
ERROR = ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.02, 0.9, 256)), name="error")
CORRELATION = sequential(150.0, 268.0, name="correlation").with_extremes(under=UNDER)
"""White (no correlation) over green to deep blue; below zero in another hue."""

MAPS = {colours.name: colours for colours in (BIAS, SKILL, ERROR, CORRELATION)}
"""All colour maps of figures, by name."""


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing positive."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(s for s in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if s * power >= value * (1 - 1e-9)) * power)


def save(
    figure: Any, path: Path, *, colours: Colormap | None = None, pdf: bool = True, photograph: bool = False
) -> bytes:
    """Write PNG and PDF, close the figure, and return the PNG's bytes.

    Args:
        figure: a matplotlib figure.
        path: without suffix, or with either.
        colours: the one of MAPS that fills the figure, so that the PNG's palette keeps it.
        pdf: also write the PDF.
        photograph: keep every colour, where 256 would not do.
    """
    small = _png(figure, colours, photograph=photograph)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path.with_suffix(".png"), small)
    if pdf:
        replace(path.with_suffix(".pdf"), _pdf(figure))
    plt.close(figure)
    return small


def save_one(figure: Any, path: Path, *, colours: Colormap) -> None:
    """Write a figure to one file of one of FORMATS, and close it; arguments as in `save`."""
    content = _pdf(figure) if path.suffix.lower() == ".pdf" else _png(figure, colours)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, content)
    plt.close(figure)


def _png(figure: Any, colours: Colormap | None, *, photograph: bool = False) -> bytes:
    from PIL import Image

    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    image: Any
    if photograph:
        image = Image.fromarray(pixels)
    elif colours is None:
        image = Image.fromarray(pixels).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    else:
        image = with_palette(pixels, colours)
    small = io.BytesIO()
    image.save(small, "png", optimize=True)
    return small.getvalue()


def _pdf(figure: Any) -> bytes:
    page = io.BytesIO()
    figure.savefig(page, format="pdf", metadata={"CreationDate": None})
    return page.getvalue()


_INKS = (INK, MUTED, UNDER, GRID, "#cfd6de", COLOURS[0], "#6ca6db", CEILING, "#7aa486")


def _palette(colours: Colormap) -> NDArray[np.uint8]:
    """256 colours: greys for text, the colour map, and its shades under thin dark lines, shape (256, 3)."""
    light = colours(np.linspace(0.0, 1.0, 144))[:, :3]
    dark = np.concatenate([0.66 * light[::6], 0.33 * light[::9]])
    inks = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in _INKS])
    greys = np.linspace(0.05, 1.0, 256 - len(light) - len(dark) - len(inks))[:, None] * np.ones(3)
    return np.asarray(np.round(255 * np.concatenate([light, dark, greys, inks])), dtype=np.uint8)


@lru_cache(maxsize=8)
def _nearest(name: str) -> NDArray[np.uint8]:
    """Position in the palette of a colour map of the colour nearest to each of 64 x 64 x 64 colours."""
    from scipy.spatial import KDTree

    steps = np.linspace(0.0, 255.0, 64)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(KDTree(_palette(MAPS[name]).astype(np.float64)).query(cube)[1], dtype=np.uint8)


def with_palette(pixels: NDArray[np.uint8], colours: Colormap) -> Any:
    """A palette image whose every pixel takes the nearest colour of the palette of a colour map."""
    from PIL import Image

    coarse = (pixels.astype(np.int32) * 63 + 127) // 255
    image = Image.fromarray(_nearest(colours.name)[coarse @ np.array([4096, 64, 1], dtype=np.int32)])
    image.putpalette(_palette(colours).ravel().tolist())
    return image


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)
