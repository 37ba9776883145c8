"""A few scores at once: one variable, one lead, printed.

Contract: nothing is written. Scores that the score stage has written are read from there; without them the stored
forecasts of that one channel are scored now, beside persistence and climatology, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from evaluate import text
from evaluate.metrics import METRICS
from evaluate.scoring import tables
from evaluate.scoring.regions import TITLES
from evaluate.scoring.score_table import ScoreTable, read_scores
from evaluate.scoring.stores import ScoringOptions, score_stores
from pipeline.console import data_name
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel, require_channel_names

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
    leads = config.forecast.lead_hours if lead is None else [text.parse_lead(lead)]
    channels = config.evaluation.variables if variable is None else [parse_channel(variable).name]
    absent = [h for h in leads if h not in config.forecast.lead_hours]
    if absent:
        raise ValueError(f"lead must be one of forecast.lead_hours {config.forecast.lead_hours}, got {absent[0]} h")
    known = [c.name for c in config.data.channels.dynamic]
    unknown = [c for c in channels if c not in known]
    if unknown:
        raise ValueError(f"variable must be a channel of the store, got {unknown[0]!r}; it has {', '.join(known)}")
    if region not in TITLES:
        raise ValueError(f"region must be one of {', '.join(TITLES)}, got {region!r}")
    table, source = _scores(config, leads=leads, channels=channels)
    console = Console(highlight=False)
    console.width = max(console.width, 110)
    printed = []
    for channel in channels:
        for hours in leads:
            rows = table.rows(channel, region=region)
            rows = rows[rows["lead"] == hours]
            if rows.empty:
                raise ValueError(f"region {region!r} must be among the scored ones, got none of {channel}")
            console.print(_printed(ScoreTable(rows), channel=channel, lead=hours, region=region))
            printed.append(rows)
    label = data_name("simulated" if config.simulated else getattr(config.source, "label", ""))
    summary = f"{int(table.frame['n_init'].max())} init times; 95% intervals below; {label}; {source}"
    console.print(summary, markup=False, soft_wrap=True)
    return pd.concat(printed)


def _scores(config: WeatherConfig, *, leads: Sequence[int], channels: Sequence[str]) -> tuple[ScoreTable, str]:
    """Scores from the table of the score stage, or computed now; and which of the two."""
    paths = config.paths
    if paths.receipt("score").exists() and (paths.scores / "scores.csv").exists():
        return read_scores(paths.scores)[0], f"from {paths.scores / 'scores.csv'}"
    forecast = open_store(paths.forecast, stage="python -m pipeline forecast")
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    require_channel_names(truth, store=paths.store)
    known = list(map(str, forecast["channel"].values))
    models = {str(forecast.attrs["contract"]["model"]): forecast.isel(channel=[known.index(c) for c in channels])}
    options = ScoringOptions(leads, channels, console=Console(stderr=True))
    scored = score_stores(models, truth, Normals.open(paths.normals), options)
    block = tables.choose_block(scored.sums, channels=channels, spacing_hours=scored.spacing_hours)
    units = dict(zip(map(str, truth["channel"].values), map(str, truth["unit"].values), strict=True))
    frame = tables.score_table(tables.Sample(scored.sums, block), units=units)
    return ScoreTable(frame), "scored now; python -m pipeline score keeps them"


def _printed(scores: ScoreTable, *, channel: str, lead: int, region: str) -> Table:
    unit = text.pretty_unit(parse_channel(channel).spec.unit)
    what = parse_channel(channel).title + (rf" \[{unit}]" if unit else "")
    table = Table(title=f"{what}, {text.lead_title(lead)}, {TITLES[region]}", title_justify="left")
    table.add_column("model")
    for metric in SHOWN:
        table.add_column(METRICS[metric].title.replace(" against climatology", ""), justify="right")
    for model in scores.models:
        cells = [model]
        for metric in SHOWN:
            write = text.number if METRICS[metric].power else text.score
            score = scores.score(model, channel, lead, metric, region=region)
            interval = f"\n{write(score.low)} … {write(score.high)}" if score.has_interval else ""
            cells.append(f"{write(score.value)}{interval}")
        table.add_row(*cells)
    return table
