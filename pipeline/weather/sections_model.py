"""The blocks of the configuration about the forecasting network and its training.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline import sections
from pipeline.sections import Positive
from pipeline.weather.sections import LeadHours


class Model(sections.Encoder):
    """The forecasting network."""

    ADDED = frozenset({"architecture"})

    architecture: Literal["dchag", "resnet", "unet"] = "dchag"
    """dchag: the vision transformer with its channel stage; resnet, unet: climate-learn's convolutional networks, which
    take none of the sizes below."""
    network_input: Literal["state", "anomaly"] = "state"
    """What the network reads: state is (state - mean) / std, as ClimaX; anomaly is the departure from the
    climatology of the init time over its own standard deviation, which a short training uses better."""
    history_hours: list[Positive] = []
    """Earlier states that the network reads besides the one at the init time, by how much earlier they are, e.g.
    [12, 24]; multiples of data.step_hours. Each is one more input channel per variable and level."""


class Training(sections.Training):
    """Optimisation, and which pairs of times count how much."""

    lead_hours: LeadHours = [168, 336, 720]
    """Forecast lead times to train on, a list or {start, stop, step} with both ends included; multiples of
    data.step_hours. Each sample draws one."""
    lead_weights: list[float] = []
    """Sampling weight of each lead; empty means equal."""
    channel_weights: dict[str, float] = {}
    """Loss weight by channel or variable short name; 1 where absent. A channel's name wins over its variable's."""
    pressure_weighted: bool = False
    """Weight channels on levels by pressure, relative to the mean of the levels."""
    anomaly_weighted: bool = False
    """Weight channels by (std / anomaly_std)^2: errors count in units of the departures from the climatology,
    not of the whole field, whose variance is mostly the contrast between equator and poles (z, t)."""
    roll_longitude: bool = False
    """Turn samples by a random number of longitudes, statics too: exact only where the
    dynamics do not know the longitude (the simulated atmosphere without a diurnal cycle)."""
    climax_channels: list[str] = []
    """Channels of a ClimaX file in its order; empty means those of the published 5.625 degree model."""

    @model_validator(mode="after")
    def _weights(self) -> Training:
        if self.lead_weights and len(self.lead_weights) != len(self.lead_hours):
            raise ValueError(
                "lead_weights must have one entry per lead, "
                f"got {len(self.lead_weights)} for {len(self.lead_hours)} leads"
            )
        return self
