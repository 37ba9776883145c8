"""The forecasting networks there are, and how the configuration chooses among them.

Contract: input channels are the store's dynamic channels, its static ones, features, and then the dynamic ones of every
earlier time; predicted channels are the dynamic ones; all in store order, and nothing else decides the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.dchag import DCHAGConfig
from model.network.convolutional import ConvolutionConfig
from model.weather.names import earlier_name, input_names
from pipeline import sections
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections_model import Groups, Model

ForecastNetwork = DCHAGConfig | ConvolutionConfig
_SIZES = ("decoder_depth", "conditioning", "output", "output_margin")
"""What the configuration says of the network besides its encoder."""


def network_config(
    model: Model, *, channels: Sequence[str], static_channels: Sequence[str], image: tuple[int, int]
) -> ForecastNetwork:
    """The architecture for a store.

    Args:
        model: the configuration's block.
        channels: short names of the store's dynamic channels, in its order.
        static_channels: short names of its static channels.
        image: (latitudes, longitudes) of its grid.

    Raises:
        ValueError: a rule of the architecture that the block breaks.
    """
    inputs = input_names(channels, static_channels, hours=model.history_hours, features=model.features)
    if model.architecture != "dchag":
        return ConvolutionConfig(
            architecture=model.architecture, channels=inputs, out_channels=tuple(channels), image=image
        )
    sizes = model.model_dump(include={*sections.Encoder.model_fields, *_SIZES})
    groups = group_spec(model.groups, channels=channels, history_hours=model.history_hours)
    return DCHAGConfig(channels=inputs, out_channels=tuple(channels), image=image, groups=groups, **sizes)


def planned_network(config: WeatherConfig) -> ForecastNetwork:
    """The network of an experiment whose store need not exist."""
    channels = config.data.channels
    return network_config(
        config.model,
        channels=[c.name for c in channels.dynamic],
        static_channels=[c.name for c in channels.static],
        image=config.data.regrid.grid.shape,
    )


def network_from_dict(values: Mapping[str, Any]) -> ForecastNetwork:
    """The network that a checkpoint's description holds under "model"."""
    if "architecture" in values:
        return ConvolutionConfig(**values)
    return DCHAGConfig.from_dict(dict(values))


def group_spec(
    groups: Groups, *, channels: Sequence[str] = (), history_hours: Sequence[int] = ()
) -> str | int | tuple[tuple[str, ...], ...]:
    """The partition of channels as `DCHAGConfig` spells it.

    Args:
        groups: the configuration's block.
        channels: the dynamic channels, which bring their earlier states into the group that lists them.
        history_hours: of the earlier states.
    """
    if groups.by == "flat":
        return "all"
    if groups.by == "contiguous":
        return groups.count
    if groups.by == "list":
        earlier = [(name, h) for h in sorted(history_hours) for name in channels]
        return tuple((*names, *(earlier_name(n, h) for n, h in earlier if n in names)) for names in groups.listed)
    return groups.by
