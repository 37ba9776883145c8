"""The configuration sections for the forecasting network and its training.

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
    """How the network is conditioned on the lead: token adds its embedding to every token; adaptive_norm also lets it
    shift and scale the outputs of every block's norms and scale the block's residual branches."""
    architecture: Literal["dchag", "resnet", "unet"] = "dchag"
    """dchag: the vision transformer with its channel stage; resnet, unet: climate-learn's convolutional networks, which
    do not use the transformer's sizes."""
    predicts: Literal["anomaly", "change"] = "anomaly"
    """anomaly: the departure from the climatology at the valid time; change: its change over one step
    (training.step_hours), added to the anomaly at the start of the step, so that an untrained network gives
    persistence."""
    network_input: Literal["state", "anomaly"] = "state"
    """What the network reads: state is (state - mean) / std, as in ClimaX; anomaly is the departure from the
    climatology at the init time, divided by its own standard deviation, which is better when training is short."""
    history_hours: list[Positive] = []
    """Earlier states that the network reads too, in hours before the init time, e.g. [12, 24]; multiples of
    data.step_hours. Each adds one input channel per variable and level."""
    features: list[Literal["season", "time_of_day", "latitude", "longitude"]] = []
    """Inputs besides fields, each as sine and cosine: the time of year, the local solar time, the position of a cell.
    They are channels such as sin_season: groups by variable put them into a group of their own, groups by level with
    the surface fields; listed groups must include them."""
    output: Literal["patches", "overlap", "smooth"] = "patches"
    """How tokens become fields: patches predicts the cells of each patch; overlap predicts a larger window, and windows
    are blended, so that patch edges are not visible; smooth is patches followed by a small residual convolution."""
    output_margin: Annotated[int, Field(ge=0)] = 0
    """Cells by which a window of `output: overlap` extends beyond each edge of its patch, at most half a patch; 0 means
    half a patch. The head's last layer grows with the area of a window."""


class Training(sections.Training):
    """Optimisation, and how samples are drawn and weighted."""

    ADDED = sections.Training.ADDED | {"step_hours", "rollout", "rollout_gradients", "input_noise"}

    lead_hours: LeadHours = [168, 336, 720]
    """Forecast lead times to train on, a list or {start, stop, step} with both ends included; multiples of
    data.step_hours. Each sample draws one. Ignored if step_hours is given."""
    lead_weights: list[float] = []
    """Sampling weight of each lead, or of each step length if step_hours is given; empty means equal."""
    step_hours: list[Positive] = []
    """Train a model with steps, applied repeatedly to its own output: the length of a step [h], or several, of which
    each sample draws one; multiples of data.step_hours. Empty trains direct forecasts of lead_hours."""
    rollout: list[tuple[Fraction, Positive]] = [(0.0, 1)]
    """How many steps in a row to train through, and from which share of the training on, e.g.
    [[0, 1], [0.4, 2], [0.65, 3]]; the loss is the mean over the steps. With `minutes`, shares are of the time."""
    rollout_gradients: Literal["all", "last"] = "all"
    """all: gradients flow through every step; last: loss and gradients are those of the last step, the others only make
    its input (the pushforward trick)."""
    input_noise: Annotated[float, Field(ge=0)] = 0.0
    """Gaussian noise on the initial states of training roll-outs, in standard deviations of the change over the
    step."""
    channel_weights: dict[str, float] = {}
    """Loss weight by channel or variable short name; 1 if absent. A channel's own weight overrides its variable's."""
    pressure_weighted: bool = False
    """Weight channels on levels by pressure, relative to the mean of the levels."""
    anomaly_weighted: bool = False
    """Weight channels by (std / anomaly_std)^2: errors count in units of the anomalies from the climatology, not of the
    whole field, whose variance is mostly the contrast between equator and poles (z, t)."""
    roll_longitude: bool = False
    """Rotate samples, with their static fields, by a random longitude: exact only if the dynamics do not depend on
    longitude. In the simulated atmosphere only the daily cycle over land does."""
    climax_channels: list[str] = []
    """Channels of the ClimaX file, in its order; empty means those of the published 5.625 degree model."""

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
        """Number of steps of the longest roll-out in training."""
        return max(steps for _, steps in self.rollout)

    def rollout_steps(self, progress: float) -> int:
        """Number of roll-out steps at a share of the training, 0 at its start."""
        return [steps for share, steps in self.rollout if share <= progress][-1]
