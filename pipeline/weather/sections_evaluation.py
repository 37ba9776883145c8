"""The configuration sections for issuing and scoring forecasts, and for what they are compared with.

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
    """Leads to issue, a list or {start, stop, step}; they need not have been trained on."""
    init_step_hours: Positive = 24
    """Spacing of init times; the last one is the longest lead before the end of the test period."""
    batch_size: Positive = 32
    rollout_hours: Positive | None = None
    """Roll the model out with this step; all leads must be multiples of it. None: one pass per lead or, for a model
    trained with training.step_hours, the mean of the roll-outs with each of those steps that divides the lead."""
    calibrate: bool | None = None
    """Scale the anomalies of each lead, channel and latitude by a factor fitted on forecasts from the validation
    periods, so that a forecast without skill becomes the climatology. None: only for a model trained with
    training.step_hours, if there are validation periods. The uncalibrated forecasts are kept and scored too."""
    free_run_days: Positive | None = None
    """Also run a model with steps for this many days, e.g. 365, from the start of the test period, with its longest
    step or forecast.rollout_hours, and report whether it stays near the climate of the data. None: no free run."""
    weights: Literal["average", "model"] = "average"
    """Weights to use: average is the moving average, if training kept one; model is those of the last step."""
    initial: str | None = None
    """Issue forecasts from these states instead of the test period: a file (NetCDF, GRIB), a folder of them, a Zarr
    archive, or a store of this project. Same as --initial."""
    initial_files: FileWords | None = None
    """Names, units and member of those files; None takes what `source` says about the training data."""


class Compared(Section):
    """A forecast from elsewhere."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Its name in tables and figures."""
    path: str
    """A forecast store of this project, or a forecast in the WeatherBench 2 layout."""
    trained_on: list[Period] = []
    """Periods it was fitted on, if the file does not say; it must be scored outside them."""


class Twins(Section):
    """Forecasts of a simulated atmosphere by its own core: the limit of predictability, and a coarser model."""

    models: list[TwinName] = []
    """ceiling: the same core from slightly perturbed states; coarse: the core at a lower truncation. Simulated
    sources only."""
    init_step_hours: Positive = 240
    """Spacing of their init times, rounded up to a multiple of forecast.init_step_hours; each init time costs as many
    simulated days as the longest lead."""
    perturbation: Fraction = 0.1
    """Error of the perturbed states, in standard deviations of the weather: stands for an analysis error."""
    coarse_truncation: Literal[10, 15, 21, 31, 42, 63] | None = None
    """Truncation of the coarse core; None takes the largest that is at most three quarters of the simulation's."""


class Budget(Section):
    """The training budget of trained baselines."""

    steps: Positive | None = None
    """Training steps of training.batch_size samples; None takes training.steps, for the same samples as the model."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Longest training of each network, on any machine. None takes training.minutes if steps is not given either, and
    otherwise sets no limit."""


class Evaluation(Section):
    """What is scored and drawn."""

    FREE = frozenset({"workers", "scheduler", "cases", "animation_frames"})

    variables: list[str] = ["z500", "t850", "t2m", "u10"]
    """Channels with maps and lead-time curves; scores.csv has every channel."""
    channels: list[str] = []
    """Channels to score; empty means all. To compare with a model that has fewer channels, list those."""
    map_lead_hours: list[Positive] = []
    """Leads with maps; empty means forecast.lead_hours, or five spread over them if there are more."""
    baselines: list[Baseline] = list(get_args(Baseline))
    """Scored beside the model on the same init times; the last two are fitted on the training periods."""
    trained_baselines: list[Literal["resnet", "unet"]] = []
    """climate-learn's networks, trained on the same store by `python -m pipeline baselines`."""
    trained_budget: Budget = Budget()
    """The training budget of each of them."""
    compare: list[Compared] = []
    """Forecasts from elsewhere, scored together with the model on the init times they share."""
    twins: Twins = Twins()
    """Reference forecasts by the simulated atmosphere itself."""
    cases: list[dt.datetime] = []
    """Init times (UTC) whose forecasts the report shows beside the truth, after the one it picks itself."""
    animation_frames: Annotated[int, Field(ge=0, le=200)] = 40
    """Number of init times in the report's animation; 0 for no animation."""
    workers: Positive = 1
    """Parallel processes for scoring and drawing."""
    scheduler: str | None = None
    """Address of a running Dask scheduler (tcp://host:port) whose workers do this instead; they must see the files."""

    @property
    def shown(self) -> list[Any]:
        """The settings that affect only the report, JSON-ready."""
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
