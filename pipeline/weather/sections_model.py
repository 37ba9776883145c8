"""The blocks of the configuration about the network and its training.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections import Fraction, LeadHours, Positive, Section


class Groups(Section):
    """How channels are partitioned before aggregation; part of the architecture, not of the machine."""

    by: Literal["flat", "variable", "level", "contiguous", "list"] = "flat"
    count: Positive = 1
    """Number of groups for `contiguous`."""
    listed: list[list[str]] = []
    """Channel names of each group for `list`."""


class Model(Section):
    """The vision transformer and its channel stage."""

    network_input: Literal["state", "anomaly"] = "state"
    """What the network reads: state is (state - mean) / std, as ClimaX; anomaly is the departure from the
    climatology of the init time over its own spread, which a short training uses better."""
    history_hours: list[Positive] = []
    """Earlier states that the network reads besides the one at the init time, by how much earlier they are, e.g.
    [12, 24]; multiples of data.step_hours. Each is one more input channel per variable and level."""
    patch: Positive = 2
    width: Positive = 128
    depth: Annotated[int, Field(ge=0)] = 4
    heads: Positive = 4
    mlp_ratio: float = 4.0
    decoder_depth: Annotated[int, Field(ge=0)] = 2
    dropout: Fraction = 0.0
    groups: Groups = Groups()
    tree: Literal["none", "Tree0", "Tree2", "Tree4", "Tree8"] | list[int] = "Tree0"
    """Aggregation inside a group: none gathers all tokens, TreeN puts N units in a first layer,
    a list gives the number of units of every level."""
    unit: Literal["C", "L"] = "C"
    """Kind of aggregation unit: C cross-attention with a learned query, L linear over channels."""
    channel_stage: Literal["fused", "reference"] = "fused"

    @model_validator(mode="after")
    def _heads(self) -> Model:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and heads {self.heads}")
        return self


class Layout(Section):
    """How ranks are arranged; the product is the number of processes torchrun starts."""

    data: Positive = 1
    channel: Positive = 1
    trunk: Literal["replicated", "tensor", "sequence"] = "replicated"
    sharding: Literal["ddp", "fsdp"] = "ddp"

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.data * self.channel


class Training(Section):
    """Optimisation."""

    steps: Positive = 1000
    batch_size: Positive = 16
    """Global batch, all ranks together."""
    lead_hours: LeadHours = [168, 336, 720]
    """Forecast lead times to train on, a list or {start, stop, step} with both ends included; multiples of
    data.step_hours. Each sample draws one."""
    lead_weights: list[float] = []
    """Sampling weight of each lead; empty means equal."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Fraction = 0.0
    """Decay of the moving average of weights that forecasts use; 0 switches it off."""
    channel_weights: dict[str, float] = {}
    """Loss weight by channel or variable short name; 1 where absent. A channel's name wins over its variable's."""
    pressure_weighted: bool = False
    """Weight channels on levels by pressure, relative to the mean of the levels."""
    anomaly_weighted: bool = False
    """Weight channels by (std / anomaly_std)^2: errors count in units of the departures from the climatology,
    not of the whole field, whose spread is mostly the contrast between equator and poles (z, t)."""
    roll_longitude: bool = False
    """Turn samples by a random number of longitudes, statics too: exact only where the
    dynamics do not know the longitude (the simulated atmosphere without a diurnal cycle)."""
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    """bfloat16 is autocast around the model, for GPUs; float64 is for checks of one layout against another."""
    start_from: str | None = None
    """Fine-tuning: a checkpoint of ours (its folder, or that of a training), a .safetensors file of ours or a file of
    ClimaX weights to start from. Channels that it lacks start at random and are listed."""
    climax_channels: list[str] = []
    """Channels of a ClimaX file in its order; empty means those of the published 5.625 degree model."""
    micro_batch: Positive | None = None
    """Samples of one forward pass on one rank; gradients add up to those of the global batch. None: all at once."""
    recompute: bool = False
    """Activation checkpointing: less memory, about a third more work."""
    compile: bool = False
    """torch.compile; worth it on a GPU and in long runs."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations in a row without a better one; 0 never stops early."""
    validate_every: Positive = 100
    validation_samples: Positive = 128
    checkpoint_every: Positive = 100
    keep_checkpoints: Positive = 2
    tensorboard: bool = True
    """Copy the metrics for TensorBoard, where that is installed."""
    seed: Annotated[int, Field(ge=0)] = 0
    layout: Layout = Layout()

    @model_validator(mode="after")
    def _weights(self) -> Training:
        if self.lead_weights and len(self.lead_weights) != len(self.lead_hours):
            raise ValueError(
                "lead_weights must have one entry a lead, "
                f"got {len(self.lead_weights)} for {len(self.lead_hours)} leads"
            )
        if self.batch_size % self.layout.data:
            raise ValueError(
                f"batch_size must be a multiple of layout.data, got {self.batch_size} samples for {self.layout.data} "
                "data ranks"
            )
        return self
