"""Forecasting as a task of the trainer: pairs of times from a store, an area-weighted loss, scores against climatology.

Letters: B batch, C input channels of this rank, V predicted channels, K predicted channels read by this rank, H/W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.cut import Network
from model.parallel import launch
from model.parallel.mesh import DATA, DeviceMesh, axis_size, data_rank
from model.training import optimise
from model.training.task import Predict
from model.weather.architecture import ForecastNetwork, network_config, planned_network
from model.weather.fields import Fields
from model.weather.input_layout import layout_of
from model.weather.loss import weighted_mse
from model.weather.samples import Batch, Items
from model.weather.stepping import Stepper, Units, noise_of, stepping_identity
from model.weather.training_data import TrainingData
from model.weather.trajectories import Trajectories
from model.weather.validation import Sums, part_of_rank
from model.weights.start import starting_model
from pipeline.grid import Grid
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel

Samples = Batch | Trajectories


class Forecasting:
    """What training and its plan share: the network, the loss, the shapes.

    Args:
        config: the experiment.
        network: to be trained.
        area_HW: cell areas.
        channel_V: loss weight of each predicted channel.
        units: of the network's numbers, for a model that is applied again and again.
    """

    def __init__(
        self,
        config: WeatherConfig,
        network: ForecastNetwork,
        *,
        area_HW: Tensor | None,
        channel_V: Tensor | None,
        units: Units | None,
    ) -> None:
        self.config, self._network, self.area_HW, self.channel_V = config, network, area_HW, channel_V
        self.units = units
        self._steppers: dict[DeviceMesh, Stepper] = {}

    @classmethod
    def planned(cls, config: WeatherConfig) -> Forecasting:
        """For an experiment whose store need not exist: shapes are right, values are not."""
        return cls(config, planned_network(config), area_HW=None, channel_V=None, units=None)

    @property
    def network(self) -> ForecastNetwork:
        """The network: how it is built, and how it may be cut."""
        return self._network

    def loss(self, predict: Predict, batch: Samples, *, mesh: DeviceMesh) -> Tensor:
        """Area-weighted mean square of normalised errors, weighted by channel; of several steps, the mean over them."""
        if isinstance(batch, Trajectories):
            return self._loss_of_steps(predict, batch, mesh=mesh)
        return self._error(*self.predicted(predict, batch, mesh=mesh))

    def used(self, batch: Samples, *, progress: float) -> Samples:
        """As many steps in a row as the schedule says."""
        if isinstance(batch, Trajectories):
            return batch.first(self.config.training.rollout_steps(progress))
        return batch

    def passes(self, progress: float) -> int:
        """As the schedule says; one for direct forecasts."""
        return self.config.training.rollout_steps(progress)

    def stepper(self, mesh: DeviceMesh, *, device: torch.device) -> Stepper:
        """What this rank reads and predicts, and how it rolls out."""
        if mesh not in self._steppers:  # once, not every step
            units = self.units or Units.ones(self.config, channels=self.network.out_channels, device=device)
            self._steppers[mesh] = Stepper(self.network, units, mesh=mesh)
        return self._steppers[mesh]

    def _loss_of_steps(self, predict: Predict, batch: Trajectories, *, mesh: DeviceMesh) -> Tensor:
        """Errors in units of the change over a step."""
        options, steps = self.config.training, batch.marks[-1]
        stepper = self.stepper(mesh, device=batch.states.device)
        unit_BV11 = stepper.units.of_samples(batch.which)
        truth_BTVHW = stepper.whole(torch.cat([batch.states[:, -1:], batch.targets], dim=1))
        start_BVHW = truth_BTVHW[:, 0]
        if options.input_noise and torch.is_grad_enabled():
            noise_BVHW = noise_of(batch.number.tolist(), seed=options.seed, like=start_BVHW)
            start_BVHW = start_BVHW + options.input_noise * unit_BV11 * noise_BVHW
        last_only = options.rollout_gradients == "last"
        rolled = stepper.roll(predict, start_BVHW, batch, steps=steps, gradients_from=steps - 1 if last_only else 0)
        losses = [
            self._error(state, truth_BTVHW[:, k], unit_BV=unit_BV11.flatten(1))
            for k, state in enumerate(rolled, start=1)
            if k == steps or not last_only
        ]
        return torch.stack(losses).mean()

    def _error(self, y_BVHW: Tensor, target_BVHW: Tensor, *, unit_BV: Tensor | None = None) -> Tensor:
        area_HW = torch.ones(self.network.image, device=y_BVHW.device) if self.area_HW is None else self.area_HW
        return weighted_mse(y_BVHW, target_BVHW, area_HW=area_HW, channel_V=self.channel_V, unit_BV=unit_BV)

    def predicted(self, predict: Predict, batch: Batch, *, mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
        """Prediction and target of all predicted channels, (B, V, H, W) each."""
        stepper = self.stepper(mesh, device=batch.target.device)
        return predict(batch.x, batch.lead_hours), stepper.of_all_ranks(batch.target)

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> Samples:
        """A batch of the right shapes; with the longest roll-out that is trained through."""
        none = np.zeros(samples, dtype=np.int64)
        items, step = Items(none, none, none), torch.ones(samples, device=device)
        layout, grid = layout_of(self.network, channels), self.network.image

        def fields(*sizes: int) -> Tensor:
            return torch.full((samples, *sizes, *grid), 0.5, dtype=dtype, device=device)

        options = self.config.training
        if not options.step_hours:
            return Batch(fields(len(channels)), step, fields(len(layout.target_channels)), items)
        past, reads, count = len(self.config.model.history_hours), options.most_steps, len(layout.channels)
        climatology = past + reads if self.config.model.network_input == "state" else 0
        return Trajectories(
            states=fields(past + 1, count),
            targets=fields(reads, count),
            static=fields(reads, len(layout.static_channels) + len(layout.feature_channels)),
            climatology=fields(climatology, count),
            step_hours=step,
            which=torch.zeros(samples, dtype=torch.int64, device=device),
            number=none,
            marks=tuple(range(1, reads + 1)),
            items=items,
        )

    def validation_samples(self) -> int:
        """How many fixed samples there are, 0 for none."""
        return self.config.training.validation_samples if self.config.splits.validation else 0


class ForecastTask(Forecasting):
    """Forecasting from a training store.

    Args:
        config: the experiment.
        device: of this rank.

    Raises:
        ValueError: the store or its normals are missing or do not fit the configuration.
    """

    def __init__(self, config: WeatherConfig, *, device: torch.device) -> None:
        self.normals = Normals.open(config.paths.normals)
        everything = Fields(config.paths.store, self.normals)  # names and sizes alone
        self.contract = everything.contract
        network = network_config(
            config.model,
            channels=everything.channels,
            static_channels=everything.static_channels,
            image=everything.grid_shape,
        )
        grid = Grid(everything.coords["latitude"].values, everything.coords["longitude"].values)
        rows = self.normals.channel_indices(network.out_channels)
        self.std = self.normals.std[rows]
        options = config.training
        named = [(c.name, c.variable, c.level) for c in map(parse_channel, network.out_channels)]
        factors = ((self.std / self.normals.anomaly_std[rows]) ** 2).tolist() if options.anomaly_weighted else None
        channel_V = optimise.channel_weights(
            named, weights=options.channel_weights, pressure_weighted=options.pressure_weighted, factors=factors
        )
        area_HW = torch.from_numpy(grid.area_weights).float()
        units = None
        if options.step_hours:
            units = Units.of(
                self.normals,
                channels=network.out_channels,
                predicts=config.model.predicts,
                step_hours=options.step_hours,
                network_input=config.model.network_input,
                device=device,
            )
        super().__init__(config, network, area_HW=area_HW.to(device), channel_V=channel_V.to(device), units=units)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a checkpoint must agree with to be resumed here; JSON-ready."""
        identity = {
            "contract": self.contract,
            "normals": self.normals.digest,
            "network_input": self.config.model.network_input,
            "splits": self.config.splits.model_dump(mode="json"),
        }
        return identity | stepping_identity(self.config)

    @property
    def description(self) -> Mapping[str, Any]:
        """The resolved configuration."""
        return {"config": self.config.model_dump(mode="json")}

    def start(self) -> tuple[Network, str] | None:
        """The network of `training.start_from`."""
        options = self.config.training
        if options.start_from is None:
            return None
        model, taken = starting_model(
            self.network,
            Path(options.start_from),
            seed=options.seed,
            network_input=self.config.model.network_input,
            predicts=self.config.model.predicts,
            climax_channels=options.climax_channels,
        )
        return model, str(taken)

    def data(self, *, channels: Sequence[str], rank: int, ranks: int, pin: bool) -> TrainingData:
        """The pairs of the training periods, as one rank reads them."""
        return TrainingData(self.config, normals=self.normals, channels=channels, rank=rank, ranks=ranks, pin=pin)

    def validate(
        self, predict: Predict, data: TrainingData, *, mesh: DeviceMesh, at_once: int
    ) -> dict[str, Any] | None:
        """Loss, skill against climatology and RMSE of the fixed pairs, per lead."""
        if data.validation is None:
            return None
        pairs, items = data.validation
        assert self.area_HW is not None
        assert self.channel_V is not None
        device = self.area_HW.device
        lead_hours = pairs.lead_hours
        if self.config.training.step_hours:
            step, marks = self.config.validation_steps
            lead_hours = tuple(step * mark for mark in marks)
        sums = Sums.zero(leads=len(lead_hours), channels=len(self.network.out_channels), device=device)
        dtype = torch.float64 if self.config.training.precision == "float64" else torch.float32
        for some, lead in part_of_rank(items, rank=data_rank(mesh), ranks=axis_size(mesh, DATA), batch_size=at_once):
            batch = data.fixed(some).to(device, dtype)
            if isinstance(batch, Batch):
                sums.add(*self.predicted(predict, batch, mesh=mesh), lead=lead, area_HW=self.area_HW)
                continue
            for e, (state, truth) in enumerate(self._rolled(predict, batch, mesh=mesh)):
                there = [e if one >= 0 else -1 for one in lead]
                sums.add(state, truth, lead=there, area_HW=self.area_HW)
        sums.merge(lambda values: launch.sum_over_ranks(values, group=mesh.get_group(DATA)))
        return sums.scores(
            lead_hours=lead_hours,
            channel_V=self.channel_V,
            channels=self.network.out_channels,
            std=self.std,
            shown=self.config.evaluation.variables,
        )

    def _rolled(self, predict: Predict, batch: Trajectories, *, mesh: DeviceMesh) -> Iterator[tuple[Tensor, Tensor]]:
        """Predicted and true states at the marks of a batch, (B, V, H, W) each."""
        stepper = self.stepper(mesh, device=batch.states.device)
        truth_BTVHW = stepper.whole(torch.cat([batch.states[:, -1:], batch.targets], dim=1))
        rolled = stepper.roll(predict, truth_BTVHW[:, 0], batch, steps=batch.marks[-1])
        for k, state in enumerate(rolled, start=1):
            if k in batch.marks:
                yield state, truth_BTVHW[:, 1 + batch.marks.index(k)]

    def summary(self, scores: Mapping[str, Any]) -> str:
        """Scores of a validation in one line."""
        skills = ", ".join(f"{hours} h {entry['skill']:+.3f}" for hours, entry in scores["leads"].items())
        return f"validation loss {scores['loss']:.4f}; skill against climatology at {skills}"
