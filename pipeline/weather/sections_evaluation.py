"""The blocks of the configuration that say which forecasts are issued and scored, and beside what.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from pipeline.sections import Fraction, Positive, Section
from pipeline.weather import variables as catalogue
from pipeline.weather.sections import FileWords, LeadHours, Period

Baseline = Literal["persistence", "climatology", "damped_persistence", "linear"]
TwinName = Literal["ceiling", "coarse"]


class Forecast(Section):
    """Which forecasts are issued from the test period."""

    FREE = frozenset({"free_run_days"})  # it has a store of its own
    ADDED = frozenset({"rollout_hours", "weights", "initial", "initial_files", "calibrate"})

    lead_hours: LeadHours = [168, 336, 720]
    """Leads to issue, a list or {start, stop, step}; any, not only those trained on."""
    init_step_hours: Positive = 24
    """Spacing of init times; the last init is the longest lead before the end of the test period."""
    batch_size: Positive = 32
    rollout_hours: Positive | None = None
    """Apply the model again and again with this step; all leads are multiples of it. None: once for each lead, or,
    for a model trained on training.step_hours, with each of these that divides a lead, and the mean of them."""
    calibrate: bool | None = None
    """Scale the anomalies of each lead and channel by a factor fitted on forecasts from the validation periods, so that
    a forecast that knows nothing any more is the climatology. None: for a model trained on training.step_hours that
    has validation periods. The forecasts as they were are kept and scored beside."""
    free_run_days: Positive | None = None
    """Also apply a model with steps for so many days, e.g. 365, from the start of the test period on, with its longest
    step, and report whether it stays near the climate of the data. None: no free run."""
    weights: Literal["average", "model"] = "average"
    """Which weights: the moving average where training kept one, or those of the last step."""
    initial: str | None = None
    """Issue forecasts from these states instead of the test period: a file (NetCDF, GRIB), a folder of them, a Zarr
    archive, or a store of this project. The same as --initial."""
    initial_files: FileWords | None = None
    """What is to be said about those files; None takes what `source` says about the training's."""


class Compared(Section):
    """A forecast from elsewhere."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What tables and figures call it."""
    path: str
    """A forecast store of this project, or a forecast in the WeatherBench 2 layout."""
    trained_on: list[Period] = []
    """Periods it was fitted on, where the file does not say; scores must lie outside them."""


class Twins(Section):
    """Forecasts of a simulated atmosphere by its own core: what could be known, and what a coarser model knows."""

    models: list[TwinName] = []
    """ceiling: the same core from slightly perturbed states; coarse: the core at a lower truncation. Simulated
    sources only."""
    init_step_hours: Positive = 240
    """Spacing of their init times, rounded up to a multiple of forecast.init_step_hours; each costs as many simulated
    days as the longest lead."""
    perturbation: Fraction = 0.1
    """Error of the perturbed states, in standard deviations of the weather: what an analysis does not know."""
    coarse_truncation: Literal[10, 15, 21, 31, 42, 63] | None = None
    """Of the coarse core; None takes the largest that is at most three quarters of the simulation's."""


class Budget(Section):
    """What trained baselines may spend."""

    steps: Positive | None = None
    """Training steps of training.batch_size samples; None takes training.steps, the same samples as the model's."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Time each network may train at most, on whatever machine. None takes training.minutes where no steps are given
    here either, and sets no limit otherwise."""


class Evaluation(Section):
    """What is scored and drawn."""

    FREE = frozenset({"workers", "scheduler", "cases", "animation_frames"})

    variables: list[str] = ["z500", "t850", "t2m", "u10"]
    """Channels with maps and lead-time curves; scores.csv has every channel."""
    channels: list[str] = []
    """Channels that are scored; empty means all. A comparison with a model of fewer channels names them here."""
    map_lead_hours: list[Positive] = []
    """Leads that get maps; empty means forecast.lead_hours, or five spread over them where there are more."""
    baselines: list[Baseline] = list(get_args(Baseline))
    """Scored beside the model on the same init times; the last two are fitted on the training periods."""
    trained_baselines: list[Literal["resnet", "unet"]] = []
    """climate-learn's networks, trained on the same store by `python -m pipeline baselines`."""
    trained_budget: Budget = Budget()
    """What each of them may spend."""
    compare: list[Compared] = []
    """Forecasts from elsewhere, scored together with the model on the init times they share."""
    twins: Twins = Twins()
    """References made by the simulated atmosphere itself."""
    cases: list[dt.datetime] = []
    """Init times (UTC) whose forecasts the report shows beside the truth, after the one it chooses itself."""
    animation_frames: Annotated[int, Field(ge=0, le=200)] = 40
    """Init times in the animation that goes with the report; 0 makes none."""
    workers: Positive = 1
    """Processes that sum scores and draw figures side by side."""
    scheduler: str | None = None
    """Address of a running Dask scheduler (tcp://host:port) whose workers do it instead; they must see the files."""

    @property
    def shown(self) -> list[Any]:
        """The settings that only the report depends on, JSON-ready."""
        content = self.model_dump(mode="json")
        return [content["cases"], content["animation_frames"]]

    @field_validator("variables", "channels")
    @classmethod
    def _channels(cls, value: list[str]) -> list[str]:
        for name in value:
            catalogue.parse_channel(name)
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"must name each channel once, got {', '.join(twice)} more than once")
        return value

    @model_validator(mode="after")
    def _names(self) -> Evaluation:
        listed: dict[str, list[str]] = {
            "baselines": [*self.baselines],
            "trained_baselines": [*self.trained_baselines],
            "compare": [c.name for c in self.compare],
        }
        for key, names in listed.items():
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key} must name each model once, got {', '.join(twice)} more than once")
        absent = [name for name in self.variables if self.channels and name not in self.channels]
        if absent and "variables" in self.model_fields_set:
            raise ValueError(f"channels must hold the variables that are drawn, got none of {', '.join(absent)}")
        return self
