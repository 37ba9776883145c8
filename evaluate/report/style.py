"""How figures look: colours, colour maps, words and file writing.

Contract: one place decides fonts, colours and units in words. Colour maps are perceptually even; the
diverging ones are symmetric in lightness about their centre (built in OKLab). Figures are written as
palette PNG, small enough to be inlined, and as PDF, each under a temporary name first.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
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

DPI = 170
INK = "#1c2430"
MUTED = "#5b6675"
GRID = "#dfe4ea"
UNDER = "#f6cfae"
"""Colour of values below a scale that starts at zero skill."""

COLOURS = ("#0a6bc2", "#008f6b", "#a33ea1", "#b8860b", "#3f3f95")
"""Models, in order."""
REFERENCES = {
    "damped_persistence": "#e08a4f", "linear": "#9a6a00", "resnet": "#7b5ea7", "unet": "#b0609a",
    "coarse": "#5f9c3f", "ceiling": "#1d6b34",
}  # fmt: skip
"""Colours of further models that everybody knows."""
FAR = ("coarse", "ceiling")
"""Models whose skill would dwarf that of all others in one panel."""
MODEL_TITLES = {
    "damped_persistence": "damped persistence", "linear": "linear regression", "resnet": "ResNet", "unet": "U-Net",
    "coarse": "coarse core", "ceiling": "ceiling (perfect model)",
}  # fmt: skip
BASELINES = {"persistence": "#d1571b", "climatology": "#68717d", "truth": "#1c2430"}

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
class Text:
    """The words of a panel.

    Args:
        title: what is shown, and the lead or the region.
        subtitle: variable, dates, sample size.
        note: what the data are called.
        unit: of what is shown, in words, for the axis or the colour bar.
    """

    title: str
    subtitle: str
    note: str
    unit: str


def look() -> Any:
    """A context in which matplotlib draws in the project's style."""
    settings: Any = RC
    return plt.rc_context(settings)


def write_words(figure: Any, text: Text) -> None:
    """Title, subtitle and note of a panel."""
    figure.text(0.03, 0.95, text.title, fontsize=11, fontweight="bold", va="center")
    figure.text(0.03, 0.89, text.subtitle, fontsize=7.6, color=MUTED, va="center")
    figure.text(0.97, 0.95, text.note, fontsize=7.6, color=MUTED, va="center", ha="right")


def pretty_unit(unit: str) -> str:
    """A unit for people: "m2 s-2" becomes "m² s⁻²"; "1" becomes nothing.

    >>> pretty_unit("m2 s-2"), pretty_unit("kg kg-1"), pretty_unit("1"), pretty_unit("(m s-1)^2")
    ('m² s⁻²', 'kg kg⁻¹', '', '(m s⁻¹)²')
    """
    if unit == "1":
        return ""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?:(?<=[A-Za-z])|\^)(-?\d+)", lambda m: m.group(1).translate(raised), unit)


def squared(unit: str) -> str:
    """The square of a unit, for people.

    >>> squared("K"), squared("m s-1")
    ('K²', '(m s⁻¹)²')
    """
    return f"{unit}²" if unit.isalpha() else f"({pretty_unit(unit)})²"


def number(value: float, *, digits: int = 3) -> str:
    """A number for people: three significant digits, no trailing exponent, a dash for NaN.

    >>> number(1234.6), number(0.1234), number(-0.00001234), number(float("nan")), number(2)
    ('1235', '0.123', '−1.23 × 10⁻⁵', '–', '2.00')
    """
    if not np.isfinite(value):
        return "–"
    sign, size = ("−" if value < 0 else ""), abs(float(value))
    if size == 0:
        return "0"
    power = int(np.floor(np.log10(float(f"{size:.{digits - 1}e}"))))
    if -4 < power < digits:
        return f"{sign}{size:.{digits - 1 - power}f}"
    if 0 < power < 6:
        return f"{sign}{size:.0f}"
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{sign}{size / 10.0**power:.{digits - 1}f} × 10{raised}"


def score(value: float) -> str:
    """A dimensionless score for people: two decimals, three where it is small, and a true minus sign.

    >>> score(0.4249), score(-0.4249), score(0.0042), score(0.0), score(float("nan"))
    ('0.42', '−0.42', '0.004', '0.00', '–')
    """
    if not np.isfinite(value):
        return "–"
    digits = 3 if 0 < abs(value) < 0.0995 else 2
    text = f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) > 0 else text


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.296), percent(-0.031), percent(-0.001), percent(float("nan"))
    ('30%', '−3%', '0%', '–')
    """
    return f"{round(100 * share)}%".replace("-", "−") if np.isfinite(share) else "–"


def data_phrase(label: str) -> str:
    """The same inside a sentence."""
    return "the simulated atmosphere" if label == "simulated" else label


def model_title(model: str) -> str:
    """What tables and legends call a model.

    >>> model_title("linear"), model_title("mine")
    ('linear regression', 'mine')
    """
    return MODEL_TITLES.get(model, model)


def model_colours(models: list[str]) -> Mapping[str, str]:
    """A colour for every model; baselines keep theirs."""
    own = [m for m in models if m not in BASELINES and m not in REFERENCES]
    return {**BASELINES, **REFERENCES, **{m: COLOURS[i % len(COLOURS)] for i, m in enumerate(own)}}


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clipped sRGB (..., 3) from OKLab (Ottosson 2020)."""
    cone = lab @ np.array([[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775],
                           [0.2158037573, -0.0638541728, -1.2914855480]])  # fmt: skip
    linear = cone**3 @ np.array([[4.0767416621, -1.2684380046, -0.0041960863],
                                 [-3.3077115913, 2.6097574011, -0.7034186147],
                                 [0.2309699292, -0.3413193965, 1.7076147010]])  # fmt: skip
    linear = np.clip(linear, 0.0, 1.0)
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
"""White (no correlation) over green to deep blue; below zero in another hue altogether."""

MAPS = {colours.name: colours for colours in (BIAS, SKILL, ERROR, CORRELATION)}
"""All colour maps of figures, by name."""


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing positive."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(s for s in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if s * power >= value * (1 - 1e-9)) * power)


def save(figure: Any, path: Path, *, colours: Colormap | None = None, pdf: bool = True) -> bytes:
    """Write PNG and PDF, close the figure, and return the PNG's bytes.

    Args:
        figure: a matplotlib figure.
        path: without suffix, or with either.
        colours: the one of MAPS that fills the figure, so that the PNG's palette keeps it.
        pdf: also write the PDF.
    """
    from PIL import Image

    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    if colours is None:
        image: Any = Image.fromarray(pixels).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    else:
        image = with_palette(pixels, colours)
    small = io.BytesIO()
    image.save(small, "png", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path.with_suffix(".png"), small.getvalue())
    if pdf:
        page = io.BytesIO()
        figure.savefig(page, format="pdf", metadata={"CreationDate": None})
        replace(path.with_suffix(".pdf"), page.getvalue())
    plt.close(figure)
    return small.getvalue()


_INKS = (INK, MUTED, UNDER, GRID, "#cfd6de", COLOURS[0], "#6ca6db", REFERENCES["ceiling"], "#7aa486")


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
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
