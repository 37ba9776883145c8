"""An animation: forecasts of one lead beside the truth, valid time after valid time.

Contract: every frame shows the forecast and the truth at the same valid time as anomalies from the climatology, on one
scale for all frames, and says variable, lead, both dates, unit and the name of the data. Frames follow the init times
in order without leaving any out. Written as GIF, atomically, by `python -m pipeline animate` and by the report.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from rich.console import Console

from evaluate.reading.align import lead_hours
from evaluate.report import style
from evaluate.report.maps import Globe, Scale, colour_bar, scale_for
from evaluate.scoring import wanted
from evaluate.text import issued, lead_title, parse_lead, pretty_unit
from pipeline.console import data_name, terminal_progress
from pipeline.grid import Grid
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel, require_channel_names
from pipeline.words import counted

FRAME_MILLISECONDS = 220
SIZE = (9.0, 3.3)
DPI = 100


@dataclass(frozen=True)
class Film:
    """What is shown.

    Args:
        channel: short name.
        lead: hours.
        init_times: shape (frame,).
        forecast, truth: anomalies from the climatology, shape (frame, latitude, longitude).
        note: what the data are called.
    """

    channel: str
    lead: int
    init_times: NDArray[np.datetime64]
    forecast: NDArray[np.float32]
    truth: NDArray[np.float32]
    note: str

    def __len__(self) -> int:
        return len(self.init_times)


def run_animate(
    config: WeatherConfig, *, channel: str | None = None, lead: int | str | None = None, frames: int | None = None
) -> Path:
    """Write the animation of a configuration's forecasts.

    Args:
        config: the experiment; its forecast stage must be complete.
        channel: short name; the first of evaluation.variables when absent.
        lead: hours, or "7d"; the first of forecast.lead_hours when absent.
        frames: how many init times; evaluation.animation_frames when absent.

    Returns:
        The file, below the figures.

    Raises:
        ValueError: an earlier stage is missing, or an unknown channel or lead.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    channel = channel or config.evaluation.variables[0]
    lead = parse_lead(str(lead or config.forecast.lead_hours[0]))
    frames = frames or config.evaluation.animation_frames or 40
    paths = config.paths
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    forecast = open_store(paths.forecast, stage="python -m pipeline forecast")
    for ds, path in ((truth, paths.store), (forecast, paths.forecast)):
        require_channel_names(ds, store=path)
    film = collect(forecast, truth, Normals.open(paths.normals), channel=channel, lead=lead, frames=frames)
    mask = truth["static"].sel(static_channel="lsm").values if "lsm" in truth.get("static_channel", []) else None
    target = path_of(paths.figures, channel=channel, lead=lead)
    progress = terminal_progress("frames", on=console)
    with progress:
        task = progress.add_task("animate", total=len(film))
        size = draw(film, Globe(Grid.from_dataset(truth), mask), target, tick=lambda: progress.advance(task))
    console.print(f"animate: {counted(len(film), 'frame')}, {target} ({size / 1e6:.1f} MB)", markup=False)
    return target


def path_of(figures: Path, *, channel: str, lead: int) -> Path:
    """Where the animation of a channel and lead lies."""
    return figures / f"animation_{channel}_{lead}h.gif"


def collect(forecast: xr.Dataset, truth: xr.Dataset, normals: Normals, *, channel: str, lead: int, frames: int) -> Film:
    """Read what is shown: the first `frames` init times whose truth is in the store.

    Raises:
        ValueError: the forecasts lack the channel, the lead, or every init time.
    """
    leads, known = lead_hours(forecast["lead_time"].values).tolist(), list(map(str, forecast["channel"].values))
    wanted.one_of("variable", channel, known)
    wanted.lead(f"{lead}h", leads, of="the forecasts' leads")
    init: Any = forecast["init_time"].values.astype("datetime64[ns]")
    step = np.timedelta64(lead, "h")
    init = init[np.isin(init + step, truth["time"].values)][:frames]
    if not init.size:
        raise ValueError(f"the store must hold a valid time of the forecasts at {lead} h, got none")
    f = forecast["state"].sel(channel=channel, init_time=init).isel(lead_time=leads.index(lead)).values
    o = truth["state"].sel(channel=channel, time=init + step).values
    c = normals.climatology_at(init + step, channels=[channel])[:, 0]
    return Film(channel, lead, init, f - c, o - c, data_name(truth.attrs["contract"]["source"]["label"]))


def draw(film: Film, globe: Globe, path: Path, *, tick: Callable[[], None] = lambda: None) -> int:
    """Draw all frames and write the GIF.

    Args:
        film: what is shown.
        globe: its grid.
        path: `.gif`.
        tick: called after every frame.

    Returns:
        Bytes of the file.
    """
    unit = pretty_unit(parse_channel(film.channel).spec.unit)
    scale = scale_for("field", np.stack([film.forecast, film.truth]))
    images = []
    middle: dict[str, Any] = {"va": "center"}
    with style.look():
        figure: Any = plt.figure(figsize=SIZE, dpi=DPI)
        meshes = [
            _half(figure, globe, left, title, values[0], scale)
            for left, title, values in ((0.01, "Forecast", film.forecast), (0.505, "Truth", film.truth))
        ]
        title = f"{parse_channel(film.channel).title}, {lead_title(film.lead)} ahead"
        figure.text(0.012, 0.94, title, fontsize=12, fontweight="bold", **middle)
        figure.text(0.988, 0.94, film.note, fontsize=9, color=style.MUTED, ha="right", **middle)
        dates = figure.text(0.012, 0.865, "", fontsize=9, color=style.INK, **middle)
        label = f"anomaly from the climatology [{unit}]"
        colour_bar(figure, meshes[0], (0.25, 0.14, 0.5, 0.035), extend=scale.extend, label=label)
        for i, init in enumerate(film.init_times):
            for mesh, values in zip(meshes, (film.forecast[i], film.truth[i]), strict=True):
                mesh.set_array(globe.in_order(values))
            dates.set_text(f"valid {issued(init + np.timedelta64(film.lead, 'h'))}, issued {issued(init)}")
            figure.canvas.draw()
            images.append(style.with_palette(np.asarray(figure.canvas.buffer_rgba())[..., :3], scale.colours))
            tick()
        plt.close(figure)
    gif = io.BytesIO()
    timing: Any = {"duration": FRAME_MILLISECONDS, "loop": 0, "optimize": False, "disposal": 1}
    images[0].save(gif, "gif", save_all=True, append_images=images[1:], **timing)
    path.parent.mkdir(parents=True, exist_ok=True)
    style.replace(path, gif.getvalue())
    return gif.tell()


def _half(figure: Any, globe: Globe, left: float, title: str, values: Any, scale: Scale) -> Any:
    axes = figure.add_axes((left, 0.19, 0.485, 0.6), projection=globe.projection)
    mesh = globe.paint(axes, values, scale, doubtful=None)
    figure.text(left + 0.02, 0.775, title, fontsize=10, fontweight="bold", va="center")
    return mesh
