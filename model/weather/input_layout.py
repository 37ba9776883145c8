"""Which channels a network reads, at which times, and in which order.

Letters: K dynamic channels read, S static channels, F features, V channels predicted from here, C input channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.weather.architecture import ForecastNetwork
from model.weather.names import FEATURES, channel_and_hours, earlier_name, feature_names, is_feature

Index = NDArray[np.int64]


@dataclass(frozen=True)
class InputLayout:
    """Which channels a network reads, at which times, and in which order.

    Attributes:
        channels: names of the K dynamic channels read, at whatever time, in store order.
        static_channels: names of the S static ones read.
        target_channels: names of the V dynamic channels read at the init time itself.
        feature_channels: names of the F features read (`model.weather.features`).
        input_channels: names of the C input channels: dynamic, static, features, then the earlier states.
        blocks: (hours earlier, rows of `channels`) in the order of the inputs; 0 hours first.
    """

    channels: tuple[str, ...]
    static_channels: tuple[str, ...]
    target_channels: tuple[str, ...]
    feature_channels: tuple[str, ...]
    input_channels: tuple[str, ...]
    blocks: tuple[tuple[int, Index], ...]

    @classmethod
    def of(cls, names: Sequence[str], *, dynamic: Sequence[str], static: Sequence[str]) -> InputLayout:
        """The layout of some input channels.

        Args:
            names: input channels, in any order (`model.weather.names`).
            dynamic: those of the store, in its order.
            static: likewise.
        """
        read_at: dict[int, set[str]] = {0: set()}
        for channel, hours in map(channel_and_hours, names):
            read_at.setdefault(hours, set()).add(channel)
        ever = set().union(*read_at.values())
        channels = tuple(c for c in dynamic if c in ever)
        present = {hours: [c for c in dynamic if c in read_at[hours]] for hours in sorted(read_at)}
        blocks = ((h, np.array([channels.index(c) for c in cs], dtype=np.int64)) for h, cs in present.items())
        statics = tuple(c for c in static if c in read_at[0])
        features = tuple(c for c in feature_names(FEATURES) if c in read_at[0])
        earlier = [earlier_name(c, hours) for hours, cs in present.items() if hours for c in cs]
        inputs = (*present[0], *statics, *features, *earlier)
        return cls(channels, statics, tuple(present[0]), features, inputs, tuple(blocks))


def layout_of(network: ForecastNetwork, names: Sequence[str]) -> InputLayout:
    """Which channels a rank reads, without a store.

    Args:
        network: its predicted channels are the dynamic ones.
        names: input channels of the rank.
    """
    dynamic = set(network.out_channels)
    other = [name for name in network.channels if channel_and_hours(name)[0] not in dynamic]
    static = [name for name in other if not is_feature(name)]
    return InputLayout.of(names, dynamic=network.out_channels, static=static)
