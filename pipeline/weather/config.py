"""The configuration of a forecasting experiment, and where its stages write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pipeline.config import Config
from pipeline.stages import Paths
from pipeline.weather import foresight
from pipeline.weather.sections import Data, SimulationSource, Source, Splits
from pipeline.weather.sections_evaluation import Evaluation, Forecast
from pipeline.weather.sections_model import Model, Training
from pipeline.weather.stages import STAGES


class WeatherPaths(Paths):
    """Every path of a forecasting experiment; the names follow from `pipeline.weather.stages`."""

    simulated: Path
    downloads: Path
    index: Path
    store: Path
    weights: Path
    export: Path
    normals: Path
    forecast: Path
    uncalibrated: dict[str, Path]
    free_run: Path
    twins: dict[str, Path]
    networks: Path
    network_forecasts: dict[str, Path]
    fits: Path


class WeatherConfig(Config):
    """One forecasting experiment, from source to report."""

    task: Literal["forecast"] = "forecast"
    """The workload: forecast."""
    source: Source
    data: Data
    model: Model = Model()
    training: Training = Training()
    forecast: Forecast = Forecast()
    evaluation: Evaluation = Evaluation()

    @property
    def paths(self) -> WeatherPaths:
        """Where each stage writes."""
        return WeatherPaths(self, STAGES)

    @property
    def splits(self) -> Splits:
        """The periods for fitting, choosing and judging.

        Raises:
            ValueError: there are none.
        """
        if self.data.splits is None:
            raise ValueError(
                "data.splits must be given for everything but the store and forecasts from it, got none; name the "
                "periods train and test"
            )
        return self.data.splits

    @property
    def simulated(self) -> bool:
        """Whether the data come from the embedded atmosphere."""
        return self.source.kind == "simulation"

    @property
    def twin_step_hours(self) -> int:
        """Spacing of the twins' init times: what is asked for, rounded up so that each is one of the forecasts'."""
        asked, step = self.evaluation.twins.init_step_hours, self.forecast.init_step_hours
        return -(-asked // step) * step

    @property
    def calibrates(self) -> bool:
        """Whether forecasts are calibrated on the validation periods."""
        asked, periods = self.forecast.calibrate, self.data.splits.validation if self.data.splits else []
        return bool(self.training.step_hours and periods) if asked is None else asked

    @property
    def validation_steps(self) -> tuple[int, list[int]]:
        """With which step a model with steps is validated [h], and after how many of them.

        The step that divides most of the leads of up to a week that are issued, of equals the longest. Scores are
        taken after one step and at each of these leads; where there are none, also at the end of the longest roll-out
        that is trained.
        """
        week = [hours for hours in self.forecast.lead_hours if hours <= 168]
        step = max(self.training.step_hours, key=lambda step: (sum(hours % step == 0 for hours in week), step))
        marks = [hours // step for hours in week if hours % step == 0] or [self.training.most_steps]
        return step, sorted({1, *marks})

    @model_validator(mode="after")
    def _consistent(self) -> WeatherConfig:
        foresight.settle(self)
        if self.data.period is None and self.source.kind != "files":
            raise ValueError(
                f"data.period must be given for source.kind {self.source.kind!r}, got none: only files may say "
                "themselves which times there are"
            )
        if self.data.splits is None:  # there are no stages that would read the rest
            return self
        leads = {
            "training.lead_hours": self.training.lead_hours,
            "training.step_hours": self.training.step_hours,
            "forecast.lead_hours": self.forecast.lead_hours,
        }
        for key, lengths in leads.items():
            for hours in lengths:
                if hours % self.data.step_hours:
                    raise ValueError(
                        f"{key} must be multiples of data.step_hours ({self.data.step_hours}), got {hours}"
                    )
        for hours in self.model.history_hours:
            if hours % self.data.step_hours or self.model.history_hours.count(hours) > 1:
                raise ValueError(
                    f"model.history_hours must be different multiples of data.step_hours ({self.data.step_hours}), "
                    f"got {self.model.history_hours}"
                )
        if self.forecast.init_step_hours % self.data.step_hours:
            raise ValueError(
                f"forecast.init_step_hours must be a multiple of data.step_hours ({self.data.step_hours}), "
                f"got {self.forecast.init_step_hours}"
            )
        known = [c.name for c in self.data.channels.dynamic]
        for key, names in (("variables", self.evaluation.variables), ("channels", self.evaluation.channels)):
            for name in names:
                if name not in known:
                    raise ValueError(f"evaluation.{key} must be channels of the store, got {name!r}; it has {known}")
        twins = self.evaluation.twins
        if twins.models and not isinstance(self.source, SimulationSource):
            raise ValueError(
                f"evaluation.twins.models must be empty for data that are not simulated, got {twins.models}"
            )
        rows, columns = self.data.regrid.grid.shape
        if rows % self.model.patch or columns % self.model.patch:
            raise ValueError(f"model.patch must divide the grid {rows} x {columns}, got {self.model.patch}")
        for name in self.training.channel_weights:
            if name not in known and name not in {c.variable for c in self.data.channels.dynamic}:
                raise ValueError(f"training.channel_weights must name channels or variables of the store, got {name!r}")
        if faults := list(foresight.refusals(self)):
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _steps(self) -> WeatherConfig:
        """A model is direct, or it has steps and is applied again and again."""
        if self.data.splits is None:
            return self
        steps, leads, rolled = self.training.step_hours, self.forecast.lead_hours, self.forecast.rollout_hours
        if len(set(steps)) < len(steps):
            raise ValueError(f"training.step_hours must name each step once, got {steps}")
        if self.model.predicts == "change" and not steps:
            raise ValueError(
                "training.step_hours must say over which steps a model with model.predicts: change is trained, got "
                "none; set e.g. [24]"
            )
        if self.model.predicts == "change" and self.training.anomaly_weighted:
            raise ValueError(
                "training.anomaly_weighted must be absent with model.predicts: change, whose errors count in units of "
                "the change"
            )
        if rolled and (rolled % self.data.step_hours or any(hours % rolled for hours in leads)):
            raise ValueError(
                f"forecast.rollout_hours must be a multiple of data.step_hours ({self.data.step_hours}) and divide "
                f"every lead of {leads}, got {rolled}"
            )
        if rolled and steps and rolled not in steps:
            raise ValueError(f"forecast.rollout_hours must be one of training.step_hours {steps}, got {rolled}")
        unreached = [hours for hours in leads if steps and all(hours % step for step in steps)]
        if unreached:
            raise ValueError(
                f"forecast.lead_hours must be multiples of a step in training.step_hours {steps}, got {unreached}"
            )
        if self.calibrates and not self.data.splits.validation:
            raise ValueError("forecast.calibrate must be absent without data.splits.validation, on which it is fitted")
        longest = max(((p.end - p.start).total_seconds() / 3600 for p in self.data.splits.validation), default=0.0)
        if self.calibrates and longest < max(leads):
            raise ValueError(
                f"data.splits.validation must hold a period longer than the longest lead of {max(leads)} h for "
                f"forecast.calibrate, got {longest:g} h; lengthen it or set forecast.calibrate: false"
            )
        if self.forecast.free_run_days and not steps:
            raise ValueError(
                "forecast.free_run_days must be absent for direct forecasts, which are not applied again and again, "
                f"got {self.forecast.free_run_days}; train a model with training.step_hours, e.g. [24]"
            )
        history = sorted(self.model.history_hours)
        if steps and history and (len(steps) > 1 or history != [steps[0] * (i + 1) for i in range(len(history))]):
            raise ValueError(
                "model.history_hours must be the last few steps of a model with one step, as "
                f"{[steps[0], 2 * steps[0]]} for training.step_hours {steps[:1]}, since a roll-out knows no other "
                f"times; got {self.model.history_hours} and {steps}"
            )
        return self


CONFIG = WeatherConfig
