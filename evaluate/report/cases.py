"""Single forecasts: forecast, truth and error of one init time, beside the climatology and the ceiling.

Contract: colours are anomalies from the climatology on one scale per variable, contours the field itself. With a
ceiling, the strips compare this very forecast with the ceiling's of the same init time; where the ceiling was not
issued then, they have the scores over its init times and say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate import text
from evaluate.page.figure_data import Numbers
from evaluate.page.pictures import Picture, PictureGroup
from evaluate.reading.align import lead_hours
from evaluate.report import style
from evaluate.report.ceiling import Comparison, Fields
from evaluate.report.gallery import Gallery
from evaluate.report.gauge import Strip
from evaluate.report.maps import MapPanel, Scale, scale_for
from pipeline.weather.climatology import Normals
from pipeline.weather.variables import Channel, parse_channel

CASE_PANELS = ("Forecast", "Truth", "Error")


@dataclass(frozen=True)
class Stores:
    """Where single forecasts are read from; the ceiling's store only where there is one."""

    forecast: xr.Dataset
    truth: xr.Dataset
    normals: Normals
    ceiling: xr.Dataset | None = None

    def fields(self, init: np.datetime64, lead: int, channel: str) -> Fields:
        """One forecast with its truth and climatology, and the ceiling's where it was issued then."""
        valid = init + np.timedelta64(lead, "h")
        ceiling = self.ceiling if self.ceiling is not None and init in self.ceiling.indexes["init_time"] else None
        return Fields(
            _field(self.forecast, init, lead, channel),
            self.truth["state"].sel(time=valid, channel=channel).values,
            self.normals.climatology_at(np.array([valid]), channels=[channel])[0, 0],
            None if ceiling is None else _field(ceiling, init, lead, channel),
        )


def _field(store: xr.Dataset, init: np.datetime64, lead: int, channel: str) -> Any:
    hours = lead_hours(store["lead_time"].values).tolist()
    return store["state"].sel(init_time=init, channel=channel).isel(lead_time=hours.index(lead)).values


@dataclass(frozen=True, eq=False)
class Case:
    """One forecast: the fields of one variable, init time and lead [h], and the scale that they are drawn on."""

    channel: Channel
    init: np.datetime64
    lead: int
    fields: Fields
    scale: Scale

    @property
    def unit(self) -> str:
        """Of the variable, for people."""
        return text.pretty_unit(self.channel.spec.unit)

    @property
    def when(self) -> str:
        """Init and valid time."""
        return text.issued(self.init, valid=self.init + np.timedelta64(self.lead, "h"))

    def field(self, name: str) -> Any:
        """The field that a panel shows, None for the error."""
        return {"Forecast": self.fields.forecast, "Truth": self.fields.truth}.get(name)


def triptychs(
    gallery: Gallery, stores: Stores, init: np.datetime64, *, channels: Sequence[str], leads: Sequence[int]
) -> list[PictureGroup]:
    """Draw the panels of one init time.

    Args:
        gallery: that draws.
        stores: where the forecast is read from.
        init: the init time.
        channels: short names.
        leads: hours.

    Returns:
        A group of three panels for every channel and lead.
    """
    groups = []
    for channel in channels:
        fields = {lead: stores.fields(init, lead, channel) for lead in leads}
        scale = case_scale(list(fields.values()))
        for lead in leads:
            case = Case(parse_channel(channel), init, lead, fields[lead], scale)
            title = f"{case.channel.title}, {text.lead_title(lead)}, issued {text.issued(init)}"
            groups.append(PictureGroup(title, _pictures(gallery, case)))
    return groups


def case_scale(cases: Sequence[Fields], *, shown: NDArray[np.bool_] | None = None) -> Scale:
    """The scale that all panels of some forecasts share, from the cells that are shown (all when absent)."""
    drawn = np.stack([[f.forecast - f.climatology, f.truth - f.climatology, f.forecast - f.truth] for f in cases])
    return scale_for("field", drawn if shown is None else drawn[..., shown])


def _pictures(gallery: Gallery, case: Case) -> list[Picture]:
    """Forecast, truth and error, each with a strip and a caption where there is a ceiling."""
    f, weights = case.fields, gallery.globe.grid.area_weights
    comparisons = _comparisons(gallery, case)
    strips: list[Strip | None] = [None, None, None]
    captions = ["", "", ""]
    if comparisons is not None:
        acc, rmse = comparisons
        size = float(np.sqrt((weights * (f.truth - f.climatology) ** 2).sum() / weights.sum()))
        anomaly = f"RMS anomaly: {text.number(size)} {case.unit}"
        strips = [Strip.of(acc), Strip(anomaly, "equals the RMSE of the climatology"), Strip.of(rmse)]
        base, best = rmse.number(rmse.climatology), rmse.number(rmse.ceiling)
        truth = f"For comparison, RMSE: climatology {base}, ceiling {best} {rmse.unit} ({rmse.sample})."
        captions = [f"ACC. {acc.sentence}", truth, f"RMSE. {rmse.sentence}"]
    return [
        _picture(gallery, case, name, strip, caption)
        for name, strip, caption in zip(CASE_PANELS, strips, captions, strict=True)
    ]


def case_panel(case: Case, name: str, *, labels: Callable[[str, str, str], style.Labels]) -> MapPanel:
    """One panel of a case, ready to be drawn: the anomaly of a field with its contours, or the error.

    Args:
        case: the forecast.
        name: one of CASE_PANELS.
        labels: from title, subtitle and unit to all that is written on the panel.
    """
    field = case.field(name)
    values = case.fields.forecast - case.fields.truth if field is None else field - case.fields.climatology
    title, subtitle = f"{name}, {text.lead_title(case.lead)}", f"{case.channel.title} · issued {case.when}"
    return MapPanel(values, case.scale, labels(title, subtitle, f"{_what(field)} [{case.unit}]"), contours=field)


def _what(field: Any) -> str:
    return "forecast minus truth" if field is None else "anomaly; contours: field"


def _picture(gallery: Gallery, case: Case, name: str, strip: Strip | None, caption: str) -> Picture:
    panel, field = case_panel(case, name, labels=gallery.labels), case.field(name)
    figure = gallery.globe.draw(dataclasses.replace(panel, strip=strip))
    grid = {"latitude": gallery.globe.grid.latitude, "longitude": gallery.globe.grid.longitude}
    drawn = {"error": panel.values} if field is None else {"anomaly": panel.values, "field": field}
    numbers = Numbers(
        xr.Dataset({k: (tuple(grid), v) for k, v in drawn.items()}, grid),
        f"{name}, {_what(field)}, {case.channel.title}, issued {case.when}",
        dict.fromkeys(drawn, case.channel.spec.unit),
    )
    path = f"cases/{case.channel.name}_{case.lead}h_{case.init.astype('datetime64[h]')}_{name.lower()}"
    alt = gallery.map_alt(f"{name} ({_what(field)})", case.channel, case.lead, panel.values, f" {case.unit}")
    return gallery.keeper.keep(figure, path, numbers, alt=alt, caption=caption, colours=case.scale.colours)


def _comparisons(gallery: Gallery, case: Case) -> list[Comparison] | None:
    """ACC and RMSE of this forecast beside the ceiling's; over all its init times where it was not issued then."""
    if gallery.ceiling is None:
        return None
    if case.fields.ceiling is None:
        return [gallery.ceiling.compare(case.channel.name, case.lead, metric) for metric in ("acc", "rmse")]
    return [case.fields.compare(metric, case.unit, gallery.globe.grid.area_weights) for metric in ("acc", "rmse")]
