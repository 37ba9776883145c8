"""A few scores at once: one variable, one lead, printed.

Contract: nothing is written. Scores that the score stage has written are read from there; without them the stored
forecasts of that one channel are scored anew, beside persistence and climatology, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from evaluate.metrics import METRICS
from evaluate.reading.align import lead_title, parse_lead
from evaluate.report import sentences, style
from evaluate.scoring.regions import TITLES
from pipeline.console import data_name
from pipeline.store import open_store
from pipeline.weather import variables as catalogue
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig

SHOWN = ("rmse", "skill", "acc", "bias", "mae", "activity")


def run_print_scores(
    config: WeatherConfig, *, lead: str | None = None, variable: str | None = None, region: str = "globe"
) -> pd.DataFrame:
    """Print the scores of one variable at one lead (or at every lead, or of every drawn variable).

    Args:
        config: the experiment; its forecast stage must be complete.
        lead: "7d" or "168h"; all leads when absent.
        variable: short name of a channel; evaluation.variables when absent.
        region: one of `evaluate.scoring.regions.REGIONS`.

    Returns:
        The rows printed, as in scores.csv.

    Raises:
        ValueError: forecasts missing, or no such lead, channel or region.
    """
    leads = config.forecast.lead_hours if lead is None else [parse_lead(lead)]
    channels = config.evaluation.variables if variable is None else [catalogue.parse_channel(variable).name]
    absent = [h for h in leads if h not in config.forecast.lead_hours]
    if absent:
        raise ValueError(f"lead must be one of forecast.lead_hours {config.forecast.lead_hours}, got {absent[0]} h")
    known = [c.name for c in config.data.channels.dynamic]
    unknown = [c for c in channels if c not in known]
    if unknown:
        raise ValueError(f"variable must be a channel of the store, got {unknown[0]!r}; it has {', '.join(known)}")
    if region not in TITLES:
        raise ValueError(f"region must be one of {', '.join(TITLES)}, got {region!r}")
    frame, where = _rows(config, leads=leads, channels=channels)
    console = Console(highlight=False)
    console.width = max(console.width, 110)
    shown = []
    for channel in channels:
        for hours in leads:
            rows = sentences.select(frame, channel=channel, region=region)
            rows = rows[rows["lead"] == hours]
            if rows.empty:
                raise ValueError(f"region {region!r} must be among the scored ones, got none of {channel}")
            console.print(_table(rows, channel=channel, lead=hours, region=region))
            shown.append(rows)
    label = data_name("simulated" if config.simulated else getattr(config.source, "label", ""))
    console.print(f"{int(frame['n_init'].max())} init times; 95% intervals below; {label}; {where}", markup=False,
                  soft_wrap=True)  # fmt: skip
    return pd.concat(shown)


def _rows(config: WeatherConfig, *, leads: Sequence[int], channels: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Scores from the table of the score stage, or made anew."""
    from evaluate.report.stage import read_scores
    from evaluate.scoring import stage, tables

    paths = config.paths
    if paths.receipt("score").exists() and (paths.scores / "scores.csv").exists():
        return read_scores(paths.scores)[0], f"from {paths.scores / 'scores.csv'}"
    forecast = open_store(paths.forecast, stage="python -m pipeline forecast")
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    normals = Normals.open(paths.normals)
    name = str(forecast.attrs["contract"]["model"])
    some = forecast.isel(channel=[list(map(str, forecast["channel"].values)).index(c) for c in channels])
    scored = stage.score_stores(
        {name: some}, truth, normals, leads=leads, names=("persistence", "climatology"), map_channels=channels,
        console=Console(stderr=True),
    )  # fmt: skip
    block = tables.choose_block(scored.sums, channels=channels, spacing_hours=scored.spacing_hours)
    scores = tables.regional_scores(scored.sums, block=block)
    units = dict(zip(map(str, truth["channel"].values), map(str, truth["unit"].values), strict=True))
    frame = tables.to_table(scores, units=units, num_init=len(scored.alignment.init_times))
    return frame, "scored now; python -m pipeline score keeps them"


def _table(rows: pd.DataFrame, *, channel: str, lead: int, region: str) -> Table:
    spec = catalogue.parse_channel(channel).spec
    unit = style.pretty_unit(spec.unit)
    what = catalogue.parse_channel(channel).title + (rf" \[{unit}]" if unit else "")
    table = Table(title=f"{what}, {lead_title(lead)}, {TITLES[region]}", title_justify="left")
    table.add_column("model")
    for metric in SHOWN:
        table.add_column(METRICS[metric].title.replace(" against climatology", ""), justify="right")
    for model in rows["model"].unique():
        cells: list[Any] = [str(model)]
        for metric in SHOWN:
            write = style.number if METRICS[metric].power else style.score
            value, low, high = sentences.lookup(rows, model=model, lead=lead, metric=metric)
            cells.append(f"{write(value)}\n{write(low)} … {write(high)}" if low == low else write(value))
        table.add_row(*cells)
    return table
