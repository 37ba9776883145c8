"""The part of a map that is shown: the whole globe, a band of latitudes, or a box.

Contract: a part is given by its cells and shown to their very edges, so that the picture has all cells that count in a
region's score and, where the region is a band or a box, no others. Lengths are inches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluate.report import style

MARGINS = 1.071
"""Above and below the map in a panel: title, subtitle, colour bar."""
DETAIL = 0.17
"""What one more line above the map needs."""
LEAST_HEIGHT, MOST_HEIGHT = 0.8, 3.6
"""Of a map that is not the whole globe."""
_SHARE = 0.97
"""Of the panel's width that the map may have."""


@dataclass(frozen=True)
class Window:
    """What axes show.

    Args:
        extent: left, right, bottom and top in the units of the projection; None for everything.
        stretch: length of a unit of y over that of a unit of x.
        labelled: whether meridians and parallels are straight lines that can be labelled at the edges.
    """

    extent: tuple[float, float, float, float] | None = None
    stretch: float = 1.0
    labelled: bool = False

    def apply(self, axes: Any) -> None:
        """Show this part on axes of cartopy."""
        if self.extent is None:
            axes.set_global()
            return
        axes.set_xlim(*self.extent[:2])
        axes.set_ylim(*self.extent[2:])
        axes.set_aspect(self.stretch)

    def write_degrees(self, axes: Any, *, meridians: Mapping[int, float], parallels: Mapping[int, float]) -> None:
        """Write the degrees of meridians and parallels at the lower and left edge, given where they are."""
        assert self.extent is not None, "the whole globe has no straight edges"
        left, right, low, high = self.extent
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.7}
        font: Any = {"fontsize": 6.8, "color": style.INK, "zorder": 5, "bbox": box}
        for degrees, x in meridians.items():
            if 0.08 < (x - left) / (right - left) < 0.97:
                axes.text(x, low, _degrees(degrees, "EW"), ha="center", va="bottom", **font)
        for degrees, y in parallels.items():
            if 0.05 < (y - low) / (high - low) < 0.97:
                axes.text(left, y, _degrees(degrees, "NS"), ha="left", va="center", **font)

    def height_of(self, width: float) -> float:
        """Height of the map in a panel of that width."""
        assert self.extent is not None, "the whole globe has a panel of its own size"
        left, right, low, high = self.extent
        wanted = _SHARE * width * self.stretch * (high - low) / (right - left)
        return float(np.clip(wanted, LEAST_HEIGHT, MOST_HEIGHT))


def is_box(shown: NDArray[np.bool_]) -> bool:
    """Whether some cells (latitude, longitude) are all those of some rows and some, not all, columns."""
    rows: Any = shown.any(axis=1)
    columns: Any = shown.any(axis=0)
    return bool(not columns.all() and np.array_equal(shown, rows[:, None] & columns[None, :]))


def around(shown: NDArray[np.bool_], corners: tuple[Any, Any]) -> Window:
    """The window around a band or a box; everything where the cells are neither.

    Args:
        shown: cells, shape (latitude, longitude), columns in the order of the map.
        corners: projected x and y of the corners of cells, each of shape (latitude + 1, longitude + 1).
    """
    touched: tuple[Any, Any] = shown.any(axis=1), shown.any(axis=0)
    rows, columns = map(np.flatnonzero, touched)
    boxed = is_box(shown)
    if not boxed and not shown[rows].all():
        return Window()
    part = slice(rows[0], rows[-1] + 2), slice(columns[0], columns[-1] + 2)
    x, y = (axis[part] for axis in corners)
    stretch = 1.0 / np.cos(np.deg2rad(0.5 * (y.min() + y.max()))) if boxed else 1.0
    return Window((float(x.min()), float(x.max()), float(y.min()), float(y.max())), float(stretch), labelled=boxed)


def _degrees(value: int, sides: str) -> str:
    """A longitude or latitude: "10° W", "0°"."""
    return f"{abs(value)}° {sides[value < 0]}" if value else "0°"
