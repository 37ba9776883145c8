"""From the experiment's configuration to the model's.

Contract: input channels are the store's dynamic channels, its static ones, and then the dynamic ones of every
earlier time; predicted channels are the dynamic ones; all in store order, and nothing else decides the order.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.dchag import DCHAGConfig
from model.weather.names import earlier_name, input_names
from pipeline.weather import sections_model


def model_config(
    model: sections_model.Model, *, channels: Sequence[str], static_channels: Sequence[str], image: tuple[int, int]
) -> DCHAGConfig:
    """The architecture for a store.

    Args:
        model: the configuration's block.
        channels: short names of the store's dynamic channels, in its order.
        static_channels: short names of its static channels.
        image: (latitudes, longitudes) of its grid.

    Raises:
        ValueError: a rule of the architecture that the block breaks.
    """
    return DCHAGConfig(
        channels=input_names(channels, static_channels, hours=model.history_hours),
        out_channels=tuple(channels),
        image=image,
        patch=model.patch,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        decoder_depth=model.decoder_depth,
        dropout=model.dropout,
        groups=group_spec(model.groups, channels=channels, history_hours=model.history_hours),
        tree=model.tree if isinstance(model.tree, str) else tuple(model.tree),
        unit=model.unit,
        channel_stage=model.channel_stage,
    )


def group_spec(
    groups: sections_model.Groups, *, channels: Sequence[str] = (), history_hours: Sequence[int] = ()
) -> str | int | tuple[tuple[str, ...], ...]:
    """The partition of channels as `model.network.groups.build_tree` spells it.

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
