"""Single forecasts: forecast, truth and error of one init time, beside the climatology and the ceiling.

Contract: colours are anomalies from the climatology on one scale per variable, contours the field itself. With a
ceiling, the strips compare this very forecast with the ceiling's of the same init time; where the ceiling was not
issued then, they have the scores over its init times and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from evaluate import text
from evaluate.reading.align import lead_hours
from evaluate.report.ceiling import Comparison, Fields
from evaluate.report.figure_data import Numbers
from evaluate.report.gallery import Gallery, Picture, PictureGroup
from evaluate.report.gauge import Strip
from evaluate.report.maps import MapPanel, Scale, scale_for
from pipeline.weather.climatology import Normals
from pipeline.weather.variables import Channel, parse_channel


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
        drawn = [[f.forecast - f.climatology, f.truth - f.climatology, f.forecast - f.truth] for f in fields.values()]
        scale = scale_for("field", np.stack(drawn))
        for lead in leads:
            case = Case(parse_channel(channel), init, lead, fields[lead], scale)
            title = f"{case.channel.title}, {text.lead_title(lead)}, issued {text.issued(init)}"
            groups.append(PictureGroup(title, _pictures(gallery, case)))
    return groups


def _pictures(gallery: Gallery, case: Case) -> list[Picture]:
    """Forecast, truth and error, each with a strip and a caption where there is a ceiling."""
    f, weights = case.fields, gallery.globe.grid.area_weights
    comparisons = _comparisons(gallery, case)
    strips: list[Strip | None] = [None, None, None]
    captions = ["", "", ""]
    if comparisons is not None:
        acc, rmse = comparisons
        size = float(np.sqrt((weights * (f.truth - f.climatology) ** 2).sum() / weights.sum()))
        anomaly = f"Anomaly: {text.number(size)} {case.unit}"
        strips = [Strip.of(acc), Strip(anomaly, "root mean square, the error of the climatology"), Strip.of(rmse)]
        base, best = rmse.number(rmse.climatology), rmse.number(rmse.ceiling)
        truth = f"For comparison: RMSE of the climatology {base}, of the ceiling {best} {rmse.unit} ({rmse.sample})."
        captions = [f"ACC. {acc.sentence}", truth, f"RMSE. {rmse.sentence}"]
    contents = (("Forecast", f.forecast), ("Truth", f.truth), ("Error", None))
    return [
        _picture(gallery, case, name, field, strip, caption)
        for (name, field), strip, caption in zip(contents, strips, captions, strict=True)
    ]


def _picture(gallery: Gallery, case: Case, name: str, field: Any, strip: Strip | None, caption: str) -> Picture:
    """One panel: the anomaly of a field with its contours, or the error."""
    f, variable = case.fields, case.channel.title
    values = f.forecast - f.truth if field is None else field - f.climatology
    what = "forecast minus truth" if field is None else "anomaly; contours: field"
    when = text.issued(case.init, valid=case.init + np.timedelta64(case.lead, "h"))
    title, subtitle = f"{name}, {text.lead_title(case.lead)}", f"{variable} · issued {when}"
    labels = gallery.labels(title, subtitle, f"{what} [{case.unit}]")
    figure = gallery.globe.draw(MapPanel(values, case.scale, labels, contours=field, strip=strip))
    grid = {"latitude": gallery.globe.grid.latitude, "longitude": gallery.globe.grid.longitude}
    drawn = {"error": values} if field is None else {"anomaly": values, "field": field}
    numbers = Numbers(
        xr.Dataset({k: (tuple(grid), v) for k, v in drawn.items()}, grid),
        f"{name}, {what}, {variable}, issued {when}",
        dict.fromkeys(drawn, case.channel.spec.unit),
    )
    path = f"cases/{case.channel.name}_{case.lead}h_{case.init.astype('datetime64[h]')}_{name.lower()}"
    alt = gallery.map_alt(f"{name}, {what}", case.channel, case.lead, values, f" {case.unit}")
    return gallery.keep(figure, path, numbers, alt=alt, caption=caption, colours=case.scale.colours)


def _comparisons(gallery: Gallery, case: Case) -> list[Comparison] | None:
    """ACC and RMSE of this forecast beside the ceiling's; over all its init times where it was not issued then."""
    if gallery.ceiling is None:
        return None
    if case.fields.ceiling is None:
        return [gallery.ceiling.compare(case.channel.name, case.lead, metric) for metric in ("acc", "rmse")]
    return [case.fields.compare(metric, case.unit, gallery.globe.grid.area_weights) for metric in ("acc", "rmse")]
