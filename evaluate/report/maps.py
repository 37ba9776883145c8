"""Maps of scores and of fields, on the whole globe or in a part of it.

Contract: a panel is one picture with its own title, colour bar, unit, lead, dates, sample size and the name of the
data, so that it stands alone anywhere; panels that belong together share their scale. Cells are drawn where they are:
the seam of the map lies on a cell edge, so the ring of longitudes is closed. Coastlines are the 0.5 contour of the
data's own land-sea mask; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cartopy import crs
from matplotlib import pyplot as plt
from matplotlib.colors import Colormap, Normalize
from numpy.typing import NDArray

from evaluate.report import gauge, style, window
from pipeline.grid import Grid

HATCH_LINES = 58
"""Over the width of a map."""
LEAST_SKILL = 0.2
"""End of the smallest scale of skill, so that noise about zero stays pale."""


@dataclass(frozen=True)
class Scale:
    """How values become colours.

    Args:
        low, high: ends of the scale.
        colours: the colour map.
        extend: which ends values run beyond: "neither", "min", "max" or "both".
    """

    low: float
    high: float
    colours: Colormap
    extend: str = "neither"


def scale_for(metric: str, values: NDArray[np.floating]) -> Scale:
    """One scale for all maps of a metric of a variable.

    Args:
        metric: its name in `evaluate.metrics.METRICS`, or "field".
        values: all values that will be drawn with it.

    Returns:
        From zero for errors; 0 .. 1 for correlations, one colour below; symmetric about zero for bias and skill. The
        outermost half per cent of the values may run beyond it.
    """
    finite = np.asarray(values, dtype=np.float64)[np.isfinite(values)]
    if not finite.size:
        return Scale(0.0, 1.0, style.ERROR)
    size = float(np.quantile(np.abs(finite), 0.995))
    if metric in ("acc", "pearson"):
        return Scale(0.0, 1.0, style.CORRELATION, "min" if finite.min() < 0 else "neither")
    if metric in ("bias", "field") or metric.startswith("skill"):
        high = style.nice_ceiling(size)
        if metric.startswith("skill"):
            high = float(np.clip(high, LEAST_SKILL, 1.0))
        ends = [end for end, beyond in (("min", finite.min() < -high), ("max", finite.max() > high)) if beyond]
        extend = "both" if len(ends) == 2 else "".join(ends) or "neither"
        return Scale(-high, high, style.SKILL if metric.startswith("skill") else style.BIAS, extend)
    high = style.nice_ceiling(size)
    return Scale(0.0, high, style.ERROR, "max" if finite.max() > high else "neither")


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One map with everything on it.

    Args:
        values: shape (latitude, longitude).
        scale: of the colours.
        labels: what is written on it.
        doubtful: cells to hatch.
        contours: a field whose contours are drawn over the colours.
        strip: drawn below, in a taller figure.
    """

    values: NDArray[Any]
    scale: Scale
    labels: style.Labels
    doubtful: NDArray[np.bool_] | None = None
    contours: NDArray[Any] | None = None
    strip: gauge.Strip | None = None


@dataclass(frozen=True, eq=False)
class SmallMap:
    """One of many maps in a table: values (latitude, longitude), cells to hatch, a line of text below."""

    values: NDArray[Any]
    doubtful: NDArray[np.bool_] | None = None
    note: str = ""


@dataclass
class Globe:
    """A grid ready to be drawn: projected cell corners, coastline and graticule, computed once.

    Args:
        grid: of the maps.
        land_sea_mask: land fraction on it, or None to draw no coast.
        shown: cells that are drawn, shape (latitude, longitude); all of them when absent.
    """

    grid: Grid
    land_sea_mask: NDArray[np.floating] | None = None
    shown: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        edges, lat = self.grid.longitude_edges, self.grid.latitude_edges
        if self.grid.is_periodic:
            seam = int(np.argmin(np.abs(edges[:-1] - 180.0)))
            start = edges[seam] - 360.0
            order = np.roll(np.arange(self.grid.longitude.size), -seam)
            widths = np.diff(edges)[order]
        else:
            start, order, widths = edges[0], np.arange(self.grid.longitude.size), np.diff(edges)
        lon = start + np.concatenate([[0.0], np.cumsum(widths)])
        middle = 0.5 * (lon[0] + lon[-1])
        self._order = order
        boxed = self.shown is not None and window.is_box(self.shown)
        self.projection: Any = (crs.PlateCarree if boxed else crs.Robinson)(central_longitude=middle)
        self._west, self._east = lon[0], lon[-1]
        self._edges = lon
        self._corners = self._project(*np.meshgrid(lon, lat))
        self._centre_lon = 0.5 * (lon[1:] + lon[:-1])
        self.window = window.Window()
        if self.shown is not None and not self.shown.all():
            self.window = window.around(self.shown[:, order], self._corners)
        self._lines = (
            (range(-170, 181, 10), range(-80, 81, 10)) if boxed else (range(-120, 181, 60), range(-60, 61, 30))
        )
        meridians, parallels = self._lines
        self._graticule = [self._project(np.full(91, x), np.linspace(-90, 90, 91)) for x in meridians]
        span = np.linspace(lon[0], lon[-1], 181)
        self._graticule += [self._project(span, np.full(181, float(y))) for y in parallels]
        self._coast = [] if self.land_sea_mask is None else self.contours(np.asarray(self.land_sea_mask), [0.5])[0]

    def _project(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        inside = np.clip(lon, self._west + 1e-6, self._east - 1e-6) if self.grid.is_periodic else lon
        points = self.projection.transform_points(crs.PlateCarree(), np.asarray(inside, float), np.asarray(lat, float))
        return points[..., 0], points[..., 1]

    def contours(self, values: NDArray[Any], levels: list[float]) -> list[list[Any]]:
        """Projected contour lines of a field (latitude, longitude), a list of (x, y) for each level."""
        from contourpy import LineType, contour_generator

        rolled = np.asarray(values, dtype=np.float64)[:, self._order]
        lon = self._centre_lon
        if self.grid.is_periodic:
            rolled = np.concatenate([rolled[:, -1:], rolled, rolled[:, :1]], axis=1)
            lon = np.concatenate([[lon[-1] - 360.0], lon, [lon[0] + 360.0]])
        generator = contour_generator(lon, self.grid.latitude, rolled, line_type=LineType.Separate)
        found = []
        for level in levels:
            lines = []
            for line in generator.lines(level):
                points = np.asarray(line)
                inside = (points[:, 0] >= self._west) & (points[:, 0] <= self._east)
                lines.append(self._project(np.where(inside, points[:, 0], np.nan), points[:, 1]))
            found.append(lines)
        return found

    @cached_property
    def _hatch(self) -> tuple[Any, Any, NDArray[np.int64]]:
        """Points along diagonal lines over the map, shape (line, point), and the cell under each, -1 for none."""
        left, right, low, high = self.window.extent or (*self.projection.x_limits, *self.projection.y_limits)
        step = (right - left) / HATCH_LINES
        start = np.arange(left - (high - low), right, step)
        along = np.linspace(0.0, high - low, 6 * self.grid.shape[0])
        x, y = start[:, None] + along, low + along + 0.0 * start[:, None]
        points = crs.PlateCarree().transform_points(self.projection, x, y)
        on_map = np.isfinite(points).all(axis=-1)
        back = self.projection.transform_points(crs.PlateCarree(), points[..., 0], points[..., 1])
        on_map &= (np.abs(back[..., 0] - x) < 0.1 * step) & (np.abs(back[..., 1] - y) < 0.1 * step)
        lon, lat = np.where(on_map, points[..., 0], 0.0), np.where(on_map, points[..., 1], 0.0)
        edges, bounds = self._edges, self.grid.latitude_edges
        column = np.searchsorted(edges, (lon - edges[0]) % 360.0 + edges[0], side="right") - 1
        northward = 1 if bounds[0] < bounds[-1] else -1
        row = np.searchsorted(northward * bounds, northward * lat) - 1
        inside = on_map & (column < self.grid.shape[1]) & (row >= 0) & (row < self.grid.shape[0])
        return x, y, np.where(inside, row * self.grid.shape[1] + np.minimum(column, self.grid.shape[1] - 1), -1)

    def _hatching(self, chosen: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Hatching of the chosen cells (latitude, longitude) as one broken line."""
        x, y, cell = self._hatch
        inside = (cell >= 0) & chosen[:, self._order].ravel()[cell]
        inside[:, -1] = False
        return np.where(inside, x, np.nan).ravel(), y.ravel()

    @style.look()
    def draw(self, panel: MapPanel) -> Any:
        """Draw one panel; returns the figure."""
        figure, upper = gauge.figure_with(panel.strip, self._size([panel]))
        self._draw_on(upper, panel, height=self._size([panel])[1])
        return figure

    @style.look()
    def draw_beside(self, panels: Sequence[MapPanel]) -> Any:
        """Draw several panels without strips side by side; returns the figure."""
        width, height = self._size(panels)
        figure: Any = plt.figure(figsize=(width * len(panels), height))
        for part, panel in zip(figure.subfigures(1, len(panels)), panels, strict=True):
            self._draw_on(part, panel, height=height)
        return figure

    def _size(self, panels: Sequence[MapPanel]) -> tuple[float, float]:
        """Inches of each of some panels side by side."""
        width, height = style.PANEL
        if self.window.extent is not None:
            height = window.MARGINS + self.window.height_of(width)
        return width, height + window.DETAIL * any(panel.labels.detail for panel in panels)

    def _draw_on(self, figure: Any, panel: MapPanel, *, height: float) -> None:
        """Draw one panel on a (sub)figure of some height in inches."""
        part = style.PANEL[1] / height
        top = 0.14 * part + (window.DETAIL / height if panel.labels.detail else 0.0)
        axes: Any = figure.add_axes((0.015, 0.2 * part, 0.97, 1.0 - 0.2 * part - top), projection=self.projection)
        mesh = self.paint(axes, panel.values, panel.scale, doubtful=panel.doubtful)
        if panel.contours is not None:
            for level in self.contours(panel.contours, _contour_levels(panel.contours)):
                for x, y in level:
                    axes.plot(x, y, color="#11161c", linewidth=0.45, alpha=0.75, zorder=3.5)
        if self.window.labelled:
            meridians, parallels = self._lines
            self.window.write_degrees(
                axes,
                meridians=dict(zip(meridians, self._project(np.array(meridians), np.zeros(len(meridians)))[0])),
                parallels=dict(zip(parallels, self._project(np.zeros(len(parallels)), np.array(parallels))[1])),
            )
        style.write_labels(figure, panel.labels, height=height)
        place = (0.12, 0.135 * part, 0.76, 0.034 * part)
        colour_bar(figure, mesh, place, extend=panel.scale.extend, label=panel.labels.unit)

    @style.look()
    def draw_table(self, rows: Mapping[str, Mapping[str, SmallMap]], scale: Scale, labels: style.Labels) -> Any:
        """Many small maps with one scale: rows of variables, columns of leads.

        Args:
            rows: row name -> column name -> map.
            scale: of the colours.
            labels: what is written on it; the note is left out.

        Returns:
            The figure.
        """
        columns = list(next(iter(rows.values())))
        line = 0.24 if any(m.note for maps in rows.values() for m in maps.values()) else 0.0
        width, height = 10.0, 0.95 + (10.0 / len(columns) * 0.5 + line) * len(rows) + 0.75
        figure = plt.figure(figsize=(width, height))
        left, top, bottom = 0.04, 1 - 0.95 / height, 0.75 / height
        wide, high = (0.995 - left) / len(columns), (top - bottom) / len(rows)
        share = line / height / high
        centred: dict[str, Any] = {"ha": "center", "va": "center"}
        heading: dict[str, Any] = {"fontsize": 12.5, "fontweight": "bold", "ha": "center", "va": "bottom"}
        mesh: Any = None
        for j, column in enumerate(columns):
            figure.text(left + (j + 0.5) * wide, top + 0.06 / height, column, **heading)
        for i, (row, maps) in enumerate(rows.items()):
            low = top - (i + 1) * high
            figure.text(left * 0.5, low + high / 2, row, fontsize=12, rotation=90, **centred)
            for j, small in enumerate(maps.values()):
                place = (left + j * wide, low + (0.02 + share) * high, wide * 0.985, high * (0.96 - share))
                axes = figure.add_axes(place, projection=self.projection)
                mesh = self.paint(axes, small.values, scale, doubtful=small.doubtful)
                middle = left + (j + 0.5) * wide, low + 0.5 * line / height
                figure.text(*middle, small.note, fontsize=min(8.8, 37 / len(columns)), color=style.MUTED, **centred)
        figure.text(0.015, 1 - 0.26 / height, labels.title, fontsize=15, fontweight="bold", va="center")
        figure.text(0.015, 1 - 0.52 / height, labels.subtitle, fontsize=10, color=style.MUTED, va="center")
        place = (0.27, 0.47 / height, 0.5, 0.13 / height)
        bar = colour_bar(figure, mesh, place, extend=scale.extend, label=labels.unit)
        bar.ax.tick_params(labelsize=10)
        bar.ax.xaxis.label.set_size(10.5)
        return figure

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """A field with its columns in the order of the map, from the western edge."""
        return np.asarray(np.asarray(values)[:, self._order])

    def paint(self, axes: Any, values: NDArray[Any], scale: Scale, *, doubtful: NDArray[np.bool_] | None) -> Any:
        """Colours, hatching, graticule and coast on one pair of axes."""
        self.window.apply(axes)
        axes.grid(False)
        colours: Any = {"cmap": scale.colours, "norm": Normalize(scale.low, scale.high)}
        if self.shown is not None:
            values, doubtful = (
                np.where(self.shown, values, np.nan),
                doubtful if doubtful is None else doubtful & self.shown,
            )
        mesh = axes.pcolormesh(*self._corners, self.in_order(values), rasterized=True, **colours)
        if doubtful is not None and doubtful.any():
            axes.plot(*self._hatching(doubtful), color=style.MUTED, linewidth=0.4, alpha=0.8, zorder=2.5)
        for x, y in self._graticule:
            axes.plot(x, y, color="#20262e", linewidth=0.3, alpha=0.25, zorder=3)
        for x, y in self._coast:
            axes.plot(x, y, color="#11161c", linewidth=0.75, alpha=0.85, zorder=4)
        axes.spines["geo"].set_linewidth(0.6)
        axes.spines["geo"].set_edgecolor(style.MUTED)
        return mesh


def colour_bar(figure: Any, mesh: Any, place: tuple[float, float, float, float], *, extend: str, label: str) -> Any:
    """A horizontal colour bar at a place of the figure (left, bottom, width, height)."""
    bar = figure.colorbar(mesh, cax=figure.add_axes(place), orientation="horizontal", extend=extend)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=8, length=2.5, width=0.6)
    bar.ax.grid(False)
    bar.set_label(label, fontsize=8.2, color=style.INK, labelpad=1.5)
    return bar


def _contour_levels(values: NDArray[Any]) -> list[float]:
    low, high = float(np.min(values)), float(np.max(values))
    step = style.nice_ceiling((high - low) / 10.0)
    return list(np.arange(np.ceil(low / step) * step, high, step)) if high > low else []
