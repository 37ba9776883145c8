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
    train: Path
    forecast: Path
    twins: dict[str, Path]
    networks: Path
    network_forecasts: dict[str, Path]
    scores: Path
    fits: Path
    report: Path

    @property
    def checkpoints(self) -> Path:
        """Of the model's training."""
        return self.train / "checkpoints"

    @property
    def metrics(self) -> Path:
        """What the training logged."""
        return self.train / "metrics.jsonl"

    @property
    def figures(self) -> Path:
        """Of the report."""
        return self.scores / "figures"


class WeatherConfig(Config):
    """One forecasting experiment, from source to report."""

    task: Literal["forecast"] = "forecast"
    """Which workload: forecast."""
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
        for key, leads in (("training", self.training.lead_hours), ("forecast", self.forecast.lead_hours)):
            for hours in leads:
                if hours % self.data.step_hours:
                    raise ValueError(
                        f"{key}.lead_hours must be multiples of data.step_hours ({self.data.step_hours}), got {hours}"
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
        step = self.forecast.rollout_hours
        if step and (step % self.data.step_hours or any(hours % step for hours in self.forecast.lead_hours)):
            raise ValueError(
                f"forecast.rollout_hours must be a multiple of data.step_hours ({self.data.step_hours}) and divide "
                f"every lead of {self.forecast.lead_hours}, got {step}"
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


CONFIG = WeatherConfig
