"""climate-learn's convolutional networks as forecasting networks, trained like any other.

Contract: called as DCHAG is, `network(x_BCHW, lead_hours_B) -> y_BVHW`. The lead time, or the length of the step, goes
in as one more channel, in units of 100 hours, which is climate-learn's own way with several leads; the rest is
climate-learn's function, unchanged, so that untrained it is neither the climatology nor persistence. They normalise by
the statistics of a batch: on several data ranks each normalises by those of its own part, as torch's
DistributedDataParallel does, and so the loss does depend on the number of data ranks; through several steps, each step
normalises by its own. They cannot be cut over channels.

Letters: B batch, C input channels, V predicted channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from model.network import climatelearn
from model.network.cut import Network
from model.network.groups import Tree, build_tree
from model.network.lead import in_lead_units


@dataclass(frozen=True, kw_only=True)
class ConvolutionConfig:
    """What defines one of climate-learn's networks.

    Args:
        architecture: "resnet" or "unet".
        channels: input channels by name, in input order.
        out_channels: predicted channels, in output order.
        image: (H, W) of the grid [cells].
    """

    architecture: str
    channels: tuple[str, ...]
    out_channels: tuple[str, ...]
    image: tuple[int, int]

    def __post_init__(self) -> None:
        if self.architecture not in climatelearn.ARCHITECTURES:
            known = ", ".join(climatelearn.ARCHITECTURES)
            raise ValueError(f"architecture must be one of {known}, got {self.architecture!r}")
        for name in ("channels", "out_channels", "image"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def channel_tree(self) -> Tree:
        """One group: the channels are not cut."""
        return build_tree(self.channels, groups="all", tree="none")

    def stack_sizes(self) -> dict[str, int]:
        """None: there is no stack to cut."""
        return {}

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> Convolution:
        """The network; it has one group, which every rank holds."""
        assert groups is None or tuple(groups) == (0,)
        return Convolution(self, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that the config can be made from again."""
        return asdict(self)


class Convolution(Network):
    """A network of climate-learn with the lead time as its last input channel.

    Args:
        config: which one.
        seed: of the initial parameters; None leaves them as they come.

    Raises:
        ValueError: climate-learn is not installed.
    """

    config: ConvolutionConfig

    def __init__(self, config: ConvolutionConfig, *, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            inputs, outputs = len(config.channels) + 1, len(config.out_channels)
            self.network = climatelearn.network(config.architecture, in_channels=inputs, out_channels=outputs)

    @property
    def channels_held(self) -> tuple[str, ...]:
        """All input channels."""
        return self.config.channels

    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter to its start, a function of the seed."""
        self.load_state_dict(Convolution(self.config, seed=seed).state_dict())

    def forward(self, x_BCHW: Tensor, lead_hours_B: Tensor) -> Tensor:
        """Forecast anomalies.

        Args:
            x_BCHW: normalised fields of all input channels.
            lead_hours_B: lead time of each sample [h].

        Returns:
            (B, V, H, W): anomalies at the lead time, normalised.
        """
        B, _, H, W = x_BCHW.shape
        lead_B1HW = in_lead_units(lead_hours_B, like=x_BCHW).view(B, 1, 1, 1).expand(B, 1, H, W)
        y_BVHW: Tensor = self.network(torch.cat([x_BCHW, lead_B1HW], dim=1))
        return y_BVHW
