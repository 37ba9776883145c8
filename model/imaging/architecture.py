"""The autoencoder of an experiment: which bands it reads, in which groups, and its sizes.

Contract: the network's channels are the bands of the store, in its order; nothing else decides the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model.imaging.autoencoder import AutoencoderConfig
from model.imaging.masks import Hiding
from pipeline import sections
from pipeline.imaging.bands import band_names
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.sections import SimulationSource
from pipeline.imaging.sections_model import Groups, Masking, Model


def network_config(model: Model, *, bands: Sequence[str], wavelengths: Sequence[float], tile: int) -> AutoencoderConfig:
    """The architecture for a store.

    Args:
        model: the configuration's block.
        bands: names of the store's bands, in its order.
        wavelengths: of these [nm].
        tile: rows and columns of a tile [pixels].

    Raises:
        ValueError: a rule of the architecture that the block breaks.
    """
    if tile == model.patch:
        raise ValueError(
            f"data.tile must hold several patches, of which some are hidden, got tiles and patches of {tile} pixels; "
            "choose a smaller model.patch"
        )
    return AutoencoderConfig(
        channels=tuple(bands),
        image=(tile, tile),
        groups=group_spec(model.groups, bands=bands, wavelengths=wavelengths),
        decoder_width=model.decoder.width,
        decoder_depth=model.decoder.depth,
        decoder_heads=model.decoder.heads,
        starts_from=model.starts_from,
        **model.model_dump(include=set(sections.Encoder.model_fields)),
    )


def planned_network(config: ImagingConfig) -> AutoencoderConfig:
    """The network of an experiment whose store need not exist.

    Raises:
        ValueError: neither the configuration nor a store says which bands there are.
    """
    wavelengths = planned_wavelengths(config)
    names = band_names(wavelengths)
    return network_config(config.model, bands=names, wavelengths=wavelengths, tile=config.data.tile)


def planned_wavelengths(config: ImagingConfig) -> list[float]:
    """Wavelengths of the bands that an experiment's store has or will have [nm].

    Raises:
        ValueError: neither the configuration nor a store says so.
    """
    if config.data.bands is not None:
        return config.data.bands.wanted
    if isinstance(config.source, SimulationSource):
        return config.source.bands.wavelengths
    if not config.paths.store.exists():
        raise ValueError(
            "data.bands must say which bands there are before the store exists, got none; give data.bands or run "
            "python -m pipeline ingest first"
        )
    return [float(value) for value in ImageStore.of(config).wavelengths]


def group_spec(groups: Groups, *, bands: Sequence[str], wavelengths: Sequence[float]) -> Any:
    """The partition of bands as `AutoencoderConfig` spells it.

    Args:
        groups: the configuration's block.
        bands: names, in the order of the wavelengths.
        wavelengths: of these [nm].

    Raises:
        ValueError: a range of wavelengths without a band.
    """
    if groups.by == "flat":
        return "all"
    if groups.by == "contiguous":
        return groups.count
    if groups.by == "list":
        return tuple(map(tuple, groups.listed))
    edges = np.linspace(wavelengths[0], wavelengths[-1], groups.count + 1)
    place = np.clip(np.searchsorted(edges, wavelengths, side="right") - 1, 0, groups.count - 1)
    members = tuple(tuple(b for b, p in zip(bands, place, strict=True) if p == g) for g in range(groups.count))
    if not all(members):
        empty = next(g for g, names in enumerate(members) if not names)
        raise ValueError(
            f"model.groups by wavelength must have a band in each of {groups.count} ranges, got none from "
            f"{edges[empty]:g} to {edges[empty + 1]:g} nm; choose a smaller count"
        )
    return members


def hiding_of(masking: Masking, *, seed: int | None = None) -> Hiding:
    """How much is hidden, as `masks` reads it.

    Args:
        masking: the configuration's block.
        seed: instead of the block's.
    """
    hiding = Hiding(masking.patches, seed=masking.seed if seed is None else seed, predicted=masking.predicted)
    if masking.bands is None:
        return hiding
    bands = masking.bands
    return replace(hiding, share=bands.share, windows=bands.windows, nanometres=bands.nanometres)
