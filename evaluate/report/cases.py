"""Single forecasts: forecast, truth and error of one init time, beside the climatology and the ceiling.

Contract: colours are anomalies from the climatology on one scale for a variable, contours the field itself. With a
ceiling, the strips say how good this very forecast is beside the ceiling's of the same init time; where the ceiling
was not issued then, they have the scores over its init times and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from evaluate.reading.align import lead_hours, lead_title
from evaluate.report import gauge, style
from evaluate.report.ceiling import Stand, case
from evaluate.report.gallery import Gallery, Panel, dates
from evaluate.report.maps import scale_for
from evaluate.scoring.ceiling_share import CEILING
from pipeline.weather.climatology import Normals
from pipeline.weather.variables import parse_channel


def triptychs(
    gallery: Gallery, forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset, normals: Normals, *, init: np.datetime64,
    channels: Sequence[str], leads: Sequence[int],
) -> list[dict[str, Any]]:  # fmt: skip
    """Draw the panels of one init time.

    Args:
        gallery: that draws.
        forecasts: forecast stores by model: ours, and the ceiling's where there is one.
        truth: training store.
        normals: of the training periods.
        init: the init time.
        channels: short names.
        leads: hours.

    Returns:
        A group of three panels for every channel and lead.
    """
    groups = []
    issued = dates(str(init), str(init), joint=" = ").split(" = ")[1]
    for channel in channels:
        spec = parse_channel(channel)
        unit = style.pretty_unit(spec.spec.unit)
        fields: dict[int, tuple[Any, ...]] = {}
        stands: dict[int, list[Stand]] = {}
        for lead in leads:
            valid = init + np.timedelta64(int(lead), "h")
            f = _field(forecasts[gallery.model], init, lead, channel)
            o = truth["state"].sel(time=valid, channel=channel).values
            c = normals.climatology_at(np.array([valid]), channels=[channel])[0, 0]
            fields[lead] = (f - c, o - c, f - o, f, o)
            best = _field(forecasts[CEILING], init, lead, channel) if _issued(forecasts, init) else None
            stands[lead] = _stands(gallery, channel, lead, f, o, c, best)
        scale = scale_for("field", np.stack([a for group in fields.values() for a in group[:3]]))
        for lead, (fa, oa, error, f, o) in fields.items():
            when = dates(str(init), str(init + np.timedelta64(int(lead), "h")), joint=", valid ")
            stem = f"{channel}_{lead}h_{init.astype('datetime64[h]')}"
            spread = float(
                np.sqrt((gallery.globe.grid.area_weights * oa**2).sum() / gallery.globe.grid.area_weights.sum())
            )
            panels = []
            for i, (name, values, lines) in enumerate((("Forecast", fa, f), ("Truth", oa, o), ("Error", error, None))):
                what = "forecast minus truth" if lines is None else "anomaly; contours: field"
                stand = None if i == 1 or not stands[lead] else stands[lead][i // 2]
                strip = gauge.strip(stand) if stand else None
                if i == 1 and stands[lead]:
                    strip = gauge.Strip(
                        f"Anomaly: {style.number(spread)} {unit}", "root mean square, the error of the climatology"
                    )
                png = gallery.globe.draw(
                    values, gallery.folder / "cases" / f"{stem}_{name.lower()}", scale=scale,
                    text=gallery.text(
                        f"{name}, {lead_title(lead)}", f"{spec.title} · issued {when}", f"{what} [{unit}]"
                    ),
                    lines=lines, pdf=gallery.pdf, strip=strip,
                )  # fmt: skip
                grid = {"latitude": gallery.globe.grid.latitude, "longitude": gallery.globe.grid.longitude}
                drawn = {"anomaly" if lines is not None else "error": values}
                drawn |= {"field": lines} if lines is not None else {}
                gallery.numbers(
                    f"cases/{stem}_{name.lower()}",
                    xr.Dataset({k: (tuple(grid), v) for k, v in drawn.items()}, grid),
                    f"{name}, {what}, {spec.title}, issued {when}", **dict.fromkeys(drawn, spec.spec.unit),
                )  # fmt: skip
                gallery.tick()
                alt = gallery.map_alt(f"{name}, {what}", spec.title, lead, values, unit)
                panels.append(Panel(png, alt, _caption(i, stands[lead])))
            groups.append({"title": f"{spec.title}, {lead_title(lead)}, issued {issued}", "figures": panels})
    return groups


def _caption(position: int, stands: Sequence[Stand]) -> str:
    """Under the forecast its ACC, under the error its RMSE, under the truth what it is to be measured with."""
    if not stands:
        return ""
    acc, rmse = stands
    base, best = rmse.number(rmse.climatology), rmse.number(rmse.ceiling)
    return (
        f"ACC. {acc.sentence}",
        f"To be measured with: RMSE of the climatology {base}, of the ceiling {best} {rmse.unit} ({rmse.sample}).",
        f"RMSE. {rmse.sentence}",
    )[position]


def _stands(gallery: Gallery, channel: str, lead: int, f: Any, o: Any, c: Any, best: Any) -> list[Stand]:
    """ACC and RMSE of this forecast beside the ceiling's; over all its init times where it was not issued then."""
    if gallery.ceiling is None:
        return []
    if best is None:
        return [gallery.ceiling.stand(channel, lead, metric) for metric in ("acc", "rmse")]
    unit = style.pretty_unit(parse_channel(channel).spec.unit)
    return [
        case(
            metric, unit if metric == "rmse" else "", fields={gallery.model: f, CEILING: best}, truth=o, climatology=c,
            weights=gallery.globe.grid.area_weights, sample="this forecast", model=gallery.model,
        )
        for metric in ("acc", "rmse")
    ]  # fmt: skip


def _issued(forecasts: Mapping[str, xr.Dataset], init: np.datetime64) -> bool:
    return CEILING in forecasts and init in forecasts[CEILING]["init_time"].values.astype("datetime64[ns]")


def _field(forecast: xr.Dataset, init: np.datetime64, lead: int, channel: str) -> Any:
    hours = lead_hours(forecast["lead_time"].values).tolist()
    return forecast["state"].sel(init_time=init, channel=channel).isel(lead_time=hours.index(lead)).values
