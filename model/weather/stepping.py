"""A model applied again and again: what it reads at each step, and how its output becomes the next state.

Contract: states are normalised anomalies of all predicted channels, the same on every channel rank. With
`model.predicts: change` the network's output, in units of the standard deviation of the change over the step, is added
to the state it read; with `anomaly` it is the next state. A rank reads its own channels of a state and nothing else;
gradients flow back through every step, also to channels that other ranks read.

Letters: B batch, V predicted channels, K dynamic channels of this rank, S static channels and features, E lengths of
steps, H/W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.parallel import wrap
from model.parallel.channels import ChannelPlan
from model.parallel.collectives import slice_forward_sum_backward
from model.parallel.mesh import CHANNEL, DeviceMesh, axis_size, channel_rank
from model.parallel.targets import whole_target
from model.training.task import Predict
from model.weather.architecture import ForecastNetwork
from model.weather.input_layout import layout_of
from model.weather.names import history_hours
from model.weather.trajectories import Trajectories
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig


@dataclass(frozen=True)
class Units:
    """In which units a network's numbers are; all on one device.

    Attributes:
        change: (E, V) standard deviation of the change over each length of step, over that of the channel; ones for a
            network that predicts anomalies.
        gain: (V,) standard deviation of each channel over that of its anomaly.
        adds: whether the output is added to the state that was read.
        reads_anomalies: whether the network reads anomalies in their own units instead of standardised states.
    """

    change: Tensor
    gain: Tensor
    adds: bool
    reads_anomalies: bool

    @classmethod
    def of(
        cls,
        normals: Normals,
        *,
        channels: Sequence[str],
        predicts: str,
        step_hours: Sequence[int],
        network_input: str,
        device: torch.device,
    ) -> Units:
        """Those of a network.

        Args:
            normals: of its training periods.
            channels: V predicted channels.
            predicts: "change" or "anomaly".
            step_hours: lengths of its steps [h].
            network_input: "state" or "anomaly".
            device: of this rank.
        """
        rows = normals.channel_indices(channels)
        std, adds = normals.std[rows], predicts == "change"
        change = [normals.change_std(h, channels=channels) / std if adds else np.ones_like(std) for h in step_hours]
        return cls(
            torch.from_numpy(np.stack(change)).float().to(device),
            torch.from_numpy((std / normals.anomaly_std[rows]).astype(np.float32)).to(device),
            adds=adds,
            reads_anomalies=network_input == "anomaly",
        )

    @classmethod
    def ones(cls, config: WeatherConfig, *, channels: Sequence[str], device: torch.device) -> Units:
        """Of the right shapes, for an experiment without normals."""
        options = config.training
        return cls(
            torch.ones(len(options.step_hours), len(channels), device=device),
            torch.ones(len(channels), device=device),
            adds=config.model.predicts == "change",
            reads_anomalies=config.model.network_input == "anomaly",
        )

    def of_samples(self, which_B: Tensor) -> Tensor:
        """Units of the output of each sample, (B, V, 1, 1)."""
        return self.change[which_B, :, None, None]


class Stepper:
    """Which channels of a state a rank reads and predicts, and the rules of a roll-out.

    Args:
        network: that is applied.
        units: of its numbers.
        mesh: of the ranks.
    """

    def __init__(self, network: ForecastNetwork, units: Units, *, mesh: DeviceMesh) -> None:
        self.units, self.mesh = units, mesh
        self.plan: ChannelPlan = wrap.plan_for(network, ranks=axis_size(mesh, CHANNEL))
        self.channels: tuple[str, ...] = network.out_channels
        self.layout = layout_of(network, self.plan.channels[channel_rank(mesh)])
        device = units.gain.device
        self.rows = torch.tensor([self.channels.index(name) for name in self.layout.channels], device=device).long()
        self.history_hours = history_hours(network.channels)
        hours_back = [0, *self.history_hours]
        everything = range(len(self.layout.channels))
        self._blocks: list[tuple[int, Tensor | slice]] = [
            (
                hours_back.index(hours),
                slice(None) if list(rows) == list(everything) else torch.from_numpy(rows).to(device),
            )
            for hours, rows in self.layout.blocks
        ]
        """Steps back, and which of this rank's channels are read there; the present first. A slice makes no copy."""
        self._reads_all = self.layout.channels == self.channels and axis_size(mesh, CHANNEL) == 1

    def whole(self, states_BTKHW: Tensor) -> Tensor:
        """All predicted channels of states of which each rank has read its own: (B, T, V, H, W), no gradient flows."""
        B, T, _, H, W = states_BTKHW.shape
        read_BKTHW = states_BTKHW[:, :, self._blocks[0][1]].transpose(1, 2).reshape(B, -1, T * H, W)
        return self.of_all_ranks(read_BKTHW).reshape(B, len(self.channels), T, H, W).transpose(1, 2)

    def of_all_ranks(self, target_BKHW: Tensor) -> Tensor:
        """All predicted channels from those that each rank reads at the init time, (B, V, H, W); no gradient flows."""
        return whole_target(target_BKHW, plan=self.plan, channels=self.channels, group=self.mesh.get_group(CHANNEL))

    def roll(
        self, predict: Predict, start_BVHW: Tensor, batch: Trajectories, *, steps: int, gradients_from: int = 0
    ) -> Iterator[Tensor]:
        """States after 1, 2, ... steps, (B, V, H, W) each.

        Args:
            predict: the network, under the run's precision.
            start_BVHW: all channels of the state at the start.
            batch: earlier states, and what is read besides.
            steps: how many.
            gradients_from: so many steps at the start have no gradients.
        """
        state = start_BVHW
        past = [batch.states[:, p] for p in range(batch.past)]
        past.append(self.own(state))
        for k in range(steps):
            climatology = batch.climatology[:, k : k + len(past)] if batch.climatology.shape[1] else None
            with torch.set_grad_enabled(torch.is_grad_enabled() and k >= gradients_from):
                x = self.inputs(past, batch.static[:, k], climatology)
                state = self.advance(state, predict(x, batch.step_hours), self.units.of_samples(batch.which))
                past = [*past[1:], self.own(state)]
            yield state

    def own(self, state_BVHW: Tensor) -> Tensor:
        """This rank's channels of a state, (B, K, H, W)."""
        if self._reads_all:
            return state_BVHW
        return slice_forward_sum_backward(state_BVHW, rows=self.rows, group=self.mesh.get_group(CHANNEL))

    def advance(self, state_BVHW: Tensor, output_BVHW: Tensor, change_BV11: Tensor) -> Tensor:
        """The next state."""
        output_BVHW = output_BVHW.to(state_BVHW.dtype)
        if not self.units.adds:
            return output_BVHW
        return state_BVHW + change_BV11.to(state_BVHW.dtype) * output_BVHW

    def inputs(self, past: Sequence[Tensor], static_BSHW: Tensor, climatology: Tensor | None) -> Tensor:
        """What the network reads, (B, C, H, W).

        Args:
            past: states (B, K, H, W) of this rank's channels, a step apart, the present one last.
            static_BSHW: static fields and features.
            climatology: (B, P + 1, K, H, W) standardised, of the times of `past`; None for anomalies.
        """
        parts: list[Tensor] = []
        for back, rows in self._blocks:
            fields_BKHW = past[-1 - back][:, rows]
            if climatology is None:
                gain_V = self.units.gain[self.rows[rows]]
                fields_BKHW = fields_BKHW * gain_V[:, None, None].to(fields_BKHW.dtype)
            else:
                fields_BKHW = fields_BKHW + climatology[:, -1 - back, rows]
            parts.append(fields_BKHW)
            if not back:
                parts.append(static_BSHW)
        return torch.cat(parts, dim=1)


def noise_of(number: Sequence[int], *, seed: int, like: Tensor) -> Tensor:
    """Standard normal noise for some samples: a function of the seed and of each sample's number, on any ranks.

    Args:
        number: position of each sample in the sequence of all.
        seed: of the training.
        like: (B, V, H, W), whose shape, type and device it takes.
    """
    drawn = []
    for position in number:
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, position]).generate_state(1)[0]))
        drawn.append(torch.randn(like.shape[1:], generator=generator))
    return torch.stack(drawn).to(like.device, like.dtype)


def stepping_identity(config: WeatherConfig) -> dict[str, Any]:
    """What a checkpoint of a model with steps must agree with; nothing for direct forecasts."""
    if not config.training.step_hours:
        return {}
    return {"stepping": {"predicts": config.model.predicts, "step_hours": config.training.step_hours}}


def trained_steps(description: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """What a checkpoint's network predicts, "change" or "anomaly", and its steps [h]; none for direct forecasts."""
    stepping = description.get("stepping", {"predicts": "anomaly", "step_hours": []})
    return stepping["predicts"], tuple(stepping["step_hours"])
