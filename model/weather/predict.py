"""From a checkpoint and initial states to physical forecasts, directly at each lead or by rolling out, on any ranks.

Contract: a direct forecast is climatology at the valid time plus one prediction for its lead. A roll-out applies the
model again and again to what it predicted: the state is kept within the possible range of each channel (no negative
moisture), and what the network reads besides is that of each valid time. Where several steps were trained, a lead is
reached with each of them that divides it, and the forecast is the mean. On several ranks the init times are divided
over the data axis, in passes of equal number, and channel ranks read and predict together.

Letters: N init times, E leads, B batch, C input channels and K dynamic channels of this rank, V predicted channels,
H/W grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.network.cut import Network, NetworkConfig
from model.parallel import wrap
from model.parallel.mesh import CHANNEL, DeviceMesh, axis_size, channel_rank
from model.training import checkpoint
from model.training.load import Weights, load_network
from model.training.precision import matmul_precision
from model.weather.architecture import network_from_dict
from model.weather.fields import Fields
from model.weather.stepping import Stepper
from pipeline.weather.variables import parse_channel, possible_range

Index = NDArray[np.int64]


def load_model(
    path: Path,
    fields: Fields,
    *,
    device: torch.device,
    weights: Weights = "average",
    mesh: DeviceMesh | None = None,
    placement: wrap.Placement | None = None,
) -> tuple[Network, str]:
    """The trained model for a store's fields, or this rank's part of it.

    Args:
        path: a checkpoint.
        fields: of the training store, or states like it; contract and normals must be those of training.
        device: where to put it.
        weights: the moving average where training kept one, or the parameters themselves.
        mesh: of the ranks; None for all of it in one process.
        placement: how it lies on the mesh.

    Returns:
        The model in evaluation mode, and a digest of the whole model's weights that does not depend on how they were
        saved or are held.

    Raises:
        ValueError: the checkpoint belongs to other data.
    """
    expected = {"contract": fields.trained_on, "normals": fields.normals.digest}
    config = network_from_dict(checkpoint.describe(path)["model"])
    return load_network(path, config, expected=expected, device=device, weights=weights, mesh=mesh, placement=placement)


@dataclass(frozen=True)
class Step:
    """Where a roll-out is after a step; all fields but the hours are (B, V, H, W).

    Attributes:
        hours: since the init times.
        state: each channel within its possible range, canonical units.
        unlimited: the same as it was predicted.
        climatology: at the valid times, canonical units.
        past: normalised anomalies that the next step is taken from, the oldest first.
    """

    hours: int
    state: NDArray[np.float32]
    unlimited: NDArray[np.float32]
    climatology: NDArray[np.float32]
    past: tuple[Tensor, ...]


@dataclass(frozen=True)
class Predictor:
    """A model and what it needs to read and to write.

    Args:
        model: in evaluation mode, this rank's part.
        whole: fields with all channels, for units and the climatology.
        own: fields with the channels that this rank reads, in the form that the network was trained to read.
        stepper: the rules of a roll-out, on the CPU.
        steps: trained lengths of a step [h], as the stepper's units list them.
        matmul_precision: of products of float32 matrices, see `model.training.precision`.
    """

    model: Network
    whole: Fields
    own: Fields
    stepper: Stepper
    steps: tuple[int, ...]
    matmul_precision: str = "highest"

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def direct(self, init: Index, *, lead_hours: list[int], batch_size: int) -> NDArray[np.float32]:
        """Forecasts at each lead in one pass.

        Args:
            init: positions of N init times.
            lead_hours: E leads [h].
            batch_size: samples a pass.

        Returns:
            (N, E, V, H, W), canonical units.
        """
        N, E = len(init), len(lead_hours)
        out = np.empty((N * E, len(self.whole.channels), *self.whole.grid_shape), dtype=np.float32)
        leads = np.tile(np.asarray(lead_hours, dtype=np.int64), N)
        inits = np.repeat(init, E)
        for first in range(0, N * E, batch_size):
            part = slice(first, first + batch_size)
            anomaly = self._predict(self.own.inputs(inits[part]), leads[part])
            climatology = self._climatology(self.whole.times[inits[part]], leads[part])
            out[part] = self.whole.scaling.physical(anomaly, climatology)
        return out.reshape(N, E, *out.shape[1:])

    @torch.no_grad()
    def roll_out(
        self, init: Index, *, lead_hours: Sequence[int], step_hours: Sequence[int], batch_size: int
    ) -> NDArray[np.float32]:
        """Forecasts by steps of one length, or the mean of those by several lengths.

        Args:
            init: positions of N init times.
            lead_hours: E leads [h], each a multiple of a step.
            step_hours: lengths of steps, of `steps`.
            batch_size: init times a pass.

        Returns:
            (N, E, V, H, W), canonical units, each channel within its possible range.
        """
        out = np.zeros((len(init), len(lead_hours), len(self.whole.channels), *self.whole.grid_shape), np.float32)
        ways = np.array([sum(hours % step == 0 for step in step_hours) for hours in lead_hours], np.float32)
        for first in range(0, len(init), batch_size):
            part = slice(first, first + batch_size)
            for step in step_hours:
                leads = {hours: e for e, hours in enumerate(lead_hours) if hours % step == 0}
                if not leads:
                    continue
                start = self.beginning(init[part])
                for then in self.follow(init[part], start, step_hours=step, after=0, until=max(leads)):
                    if then.hours in leads:
                        out[part, leads[then.hours]] += then.state / ways[leads[then.hours]]
        return out

    def beginning(self, init: Index) -> list[Tensor]:
        """What a roll-out starts from: normalised anomalies (B, V, H, W), the oldest of the earlier states first.

        Args:
            init: positions of B init times.
        """
        whole, history = self.whole, sorted(self.stepper.history_hours, reverse=True)
        return [*(whole.anomalies_at(whole.earlier(init, hours=h)) for h in history), whole.targets(init)]

    @torch.no_grad()
    def follow(self, init: Index, past: Sequence[Tensor], *, step_hours: int, after: int, until: int) -> Iterator[Step]:
        """A roll-out, step by step; one that goes on from the `past` of a step is the same to the bit.

        Args:
            init: positions of the B init times.
            past: from `beginning`, or of the step that it goes on from.
            step_hours: length of a step, of `steps`.
            after: hours since the init times that lie behind.
            until: hours since the init times of the last step.
        """
        own, stepper, start = self.own, self.stepper, self.whole.times[init]
        (low, high), scaling = limits(self.whole.channels), self.whole.scaling
        change_BV11 = stepper.units.of_samples(torch.full((len(init),), self.steps.index(step_hours)))
        hours_back = np.array([*sorted(stepper.history_hours, reverse=True), 0])
        past = list(past)
        for hours in range(after, until, step_hours):
            read_at = start[:, None] + (hours - hours_back).astype("timedelta64[h]")
            climatology = None if stepper.units.reads_anomalies else own.standard_climatology(read_at)
            read = [stepper.own(state) for state in past]
            x = stepper.inputs(read, own.static_at(read_at[:, -1:])[:, 0], climatology)
            predicted = torch.from_numpy(self._predict(x, np.full(len(x), step_hours)))
            following = stepper.advance(past[-1], predicted, change_BV11).numpy()
            climatology_then = self._climatology(start, np.full(len(x), hours + step_hours))
            unlimited = scaling.physical(following, climatology_then)
            state = np.clip(unlimited, low, high)
            past = [*past[1:], torch.from_numpy(scaling.anomaly(state, climatology_then))]
            yield Step(hours + step_hours, state, unlimited, climatology_then, tuple(past))

    def _predict(self, x_BCHW: Tensor, lead_hours: Index) -> NDArray[np.float32]:
        lead_B = torch.from_numpy(lead_hours.astype(np.float32)).to(self.device)
        with matmul_precision(self.matmul_precision):
            anomaly: NDArray[np.float32] = self.model(x_BCHW.to(self.device), lead_B).float().cpu().numpy()
        return anomaly

    def _climatology(self, init: NDArray[np.datetime64], lead_hours: Index) -> NDArray[np.float32]:
        """At the valid times."""
        valid: NDArray[np.datetime64] = init + lead_hours.astype("timedelta64[h]")
        return self.whole.normals.climatology_at(valid, channels=self.whole.channels)


def limits(channels: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest value that forecasts of each channel may have, (V, 1, 1), canonical units."""
    low, high = zip(*(possible_range(parse_channel(name)) for name in channels), strict=True)
    bounds = np.array([low, high], dtype=np.float32)[:, :, None, None]
    return bounds[0], bounds[1]


def divide(count: int, *, ranks: int, rank: int) -> Index:
    """Positions that a data rank works on: equally many on each, the last repeated where they do not divide."""
    part = math.ceil(count / ranks)
    return np.minimum(np.arange(part) + part * rank, count - 1)


def own_channels(network: NetworkConfig, mesh: DeviceMesh) -> tuple[str, ...]:
    """Channels that this rank reads."""
    plan = wrap.plan_for(network, ranks=axis_size(mesh, CHANNEL))
    return plan.channels[channel_rank(mesh)]
