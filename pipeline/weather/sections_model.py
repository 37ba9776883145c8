"""The blocks of the configuration about the forecasting network and its training.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline import sections
from pipeline.sections import Fraction, Positive, Section
from pipeline.weather.sections import LeadHours


class Groups(Section):
    """How channels are partitioned before aggregation; part of the architecture, not of the machine."""

    by: Literal["flat", "variable", "level", "contiguous", "list"] = "flat"
    count: Positive = 1
    """Number of groups for `contiguous`."""
    listed: list[list[str]] = []
    """Channel names of each group for `list`."""


class Model(sections.Encoder):
    """The forecasting network."""

    ADDED = frozenset({"conditioning", "architecture", "predicts", "output", "output_margin", "features"})

    decoder_depth: Annotated[int, Field(ge=0)] = 2
    groups: Groups = Groups()
    conditioning: Literal["token", "adaptive_norm"] = "token"
    """How the network is told the lead: token adds its embedding to every token; adaptive_norm also lets it shift and
    scale what the norms of every block give and weigh what the block adds."""
    architecture: Literal["dchag", "resnet", "unet"] = "dchag"
    """dchag: the vision transformer with its channel stage; resnet, unet: climate-learn's convolutional networks, which
    take none of the sizes below."""
    predicts: Literal["anomaly", "change"] = "anomaly"
    """anomaly: the departure from the climatology at the valid time; change: how much that departure changes over one
    step (training.step_hours), added to the one at the init time, so that an untrained network is persistence."""
    network_input: Literal["state", "anomaly"] = "state"
    """What the network reads: state is (state - mean) / std, as ClimaX; anomaly is the departure from the
    climatology of the init time over its own standard deviation, which a short training uses better."""
    history_hours: list[Positive] = []
    """Earlier states that the network reads besides the one at the init time, by how much earlier they are, e.g.
    [12, 24]; multiples of data.step_hours. Each is one more input channel per variable and level."""
    features: list[Literal["season", "time_of_day", "latitude", "longitude"]] = []
    """What the network reads besides fields, the sine and cosine of each: of the share of the year that has passed, of
    the local solar time, of where a cell lies. Channels such as sin_season: groups by variable give them one of their
    own, groups by level put them with the surface, groups that are listed must list them."""
    output: Literal["patches", "overlap", "smooth"] = "patches"
    """How tokens become fields: patches predicts the cells of each patch; overlap those of a window larger than it, and
    windows are summed with weights that fade, so that no edges of patches are seen; smooth patches and then a small
    residual convolution."""
    output_margin: Annotated[int, Field(ge=0)] = 0
    """Cells by which a window of `output: overlap` reaches over each edge of its patch, up to half a patch; 0 is that
    half. The head's last layer grows with the area of a window."""


class Training(sections.Training):
    """Optimisation, and which pairs of times count how much."""

    ADDED = sections.Training.ADDED | {"step_hours", "rollout", "rollout_gradients", "input_noise"}

    lead_hours: LeadHours = [168, 336, 720]
    """Forecast lead times to train on, a list or {start, stop, step} with both ends included; multiples of
    data.step_hours. Each sample draws one. Not used where step_hours are given."""
    lead_weights: list[float] = []
    """Sampling weight of each lead, or of each step where step_hours are given; empty means equal."""
    step_hours: list[Positive] = []
    """Train a model that is applied again and again: the length of its step [h], or several of which each sample draws
    one; multiples of data.step_hours. Empty trains direct forecasts of lead_hours."""
    rollout: list[tuple[Fraction, Positive]] = [(0.0, 1)]
    """Through how many steps in a row to train: pairs of a share of the training and a number, e.g.
    [[0, 1], [0.4, 2], [0.65, 3]]; the loss is the mean over the steps. With `minutes`, shares of the time count."""
    rollout_gradients: Literal["all", "last"] = "all"
    """all: gradients flow through every step; last: the loss is that of the last step, the others only make its input
    (the pushforward trick)."""
    input_noise: Annotated[float, Field(ge=0)] = 0.0
    """Normal noise on the states that a roll-out starts from while training, in standard deviations of the change over
    the step."""
    channel_weights: dict[str, float] = {}
    """Loss weight by channel or variable short name; 1 where absent. A channel's name wins over its variable's."""
    pressure_weighted: bool = False
    """Weight channels on levels by pressure, relative to the mean of the levels."""
    anomaly_weighted: bool = False
    """Weight channels by (std / anomaly_std)^2: errors count in units of the departures from the climatology,
    not of the whole field, whose variance is mostly the contrast between equator and poles (z, t)."""
    roll_longitude: bool = False
    """Turn samples by a random number of longitudes, statics too: exact only where the dynamics do not depend
    on longitude. In the simulated atmosphere only the daily cycle over land does."""
    climax_channels: list[str] = []
    """Channels of a ClimaX file in its order; empty means those of the published 5.625 degree model."""

    @model_validator(mode="after")
    def _weights(self) -> Training:
        if self.lead_weights and len(self.lead_weights) != len(self.step_hours or self.lead_hours):
            what = "step" if self.step_hours else "lead"
            raise ValueError(
                f"lead_weights must have one entry per {what}, got {len(self.lead_weights)} for "
                f"{len(self.step_hours or self.lead_hours)} {what}s"
            )
        shares = [share for share, _ in self.rollout]
        if not shares or shares[0] != 0 or any(after <= before for before, after in pairwise(shares)):
            raise ValueError(
                "rollout must list shares of the training that start at 0 and increase, with a number of steps each, "
                f"got {[list(pair) for pair in self.rollout]}"
            )
        if not self.step_hours and (self.most_steps > 1 or self.input_noise):
            raise ValueError(
                "rollout and input_noise are for models that are applied again and again: set step_hours, e.g. [24]"
            )
        return self

    @property
    def most_steps(self) -> int:
        """Steps of the longest roll-out trained through."""
        return max(steps for _, steps in self.rollout)

    def rollout_steps(self, progress: float) -> int:
        """Steps of the roll-out at a share of the training, 0 at its start."""
        return [steps for share, steps in self.rollout if share <= progress][-1]
