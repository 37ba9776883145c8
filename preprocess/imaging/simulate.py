"""The simulate stage: images of plants from leaf optics, written as a store with the maps of their traits.

Contract: image number i depends on the settings and i alone, so that a run that was killed ends with the same bytes.
The images go into the store at once: they are reflectance already and need nothing of what `ingest` does. They are
labelled "simulated" wherever a label fits.
"""

from __future__ import annotations

import numpy as np

from pipeline import provenance
from pipeline.console import say
from pipeline.imaging.bands import resampling
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import TRAIT_UNITS, ImageSize, TilePlace, tile_places
from pipeline.imaging.sections import SimulationSource
from pipeline.imaging.splits import assign
from pipeline.store import Slab
from pipeline.words import counted
from preprocess.imaging.complete import complete_simulate
from preprocess.imaging.simulation.scene import SimulatedImage, simulate_image
from preprocess.imaging.simulation.settings import SceneSettings
from preprocess.imaging.writing import Arrays, Content, fill, image_writer

LABEL = "simulated"


def run_simulate(config: ImagingConfig, *, verify: bool = False) -> None:
    """Make all images and write the store; resumes after a kill.

    Args:
        config: the experiment.
        verify: where the store is there, compare every slab with its digest; damaged ones are written again.

    Raises:
        ValueError: the source is another, the store belongs to other settings, or there is no space.
    """
    if not isinstance(config.source, SimulationSource):
        raise ValueError(
            f"source.kind must be simulation for this stage, got {config.source.kind!r}; run python -m pipeline ingest"
        )
    if done := complete_simulate(config, verify=verify):
        say(done)
        return
    source, size = config.source, config.source.size
    images = [ImageSize(image_name(i), size, size) for i in range(source.images)]
    assign([image.name for image in images], config.data.splits)
    maker = Maker(config, images)
    content = Content(
        images,
        maker.resample.wavelengths,
        {"label": LABEL, **source.identity},
        traits=list(TRAIT_UNITS),
    )
    writer = image_writer(config, content, command="python -m pipeline simulate")
    facts = {"label": LABEL, "images": source.images, "bands": len(maker.resample.members), "tiles": writer.length}
    with writer.held():
        fill(writer, maker, stage="simulate", facts=facts, workers=config.compute.threads)
    provenance.write_receipt(config, stage="simulate", outputs=[writer.path], facts=facts)
    shape = f"{size} x {size} pixels and {counted(len(maker.resample.members), 'band')}"
    say(f"simulate: {counted(source.images, 'image')} of {shape}, written to {writer.path}; label: {LABEL}")


def image_name(index: int) -> str:
    """What the store calls a simulated image."""
    return f"plants{index:04d}"


def scene_settings(source: SimulationSource) -> SceneSettings:
    """The simulation's own settings."""
    given = source.model_dump(exclude={"kind", "images", "bands"})
    return SceneSettings(wavelengths=tuple(source.bands.wavelengths), **given)


class Maker:
    """Makes the arrays of a slab.

    Args:
        config: the experiment.
        images: in the order of the store.
    """

    def __init__(self, config: ImagingConfig, images: list[ImageSize]) -> None:
        assert isinstance(config.source, SimulationSource)
        self.settings, self.tile = scene_settings(config.source), config.data.tile
        self.places = tile_places(images, tile=self.tile)
        self.numbers = {image.name: i for i, image in enumerate(images)}
        given = np.array(self.settings.wavelengths)
        self.resample = resampling(given, config.data.bands, origin="source.bands")

    def __call__(self, slab: Slab) -> Arrays:
        """All arrays of some tiles."""
        chosen = self.places[slab.start : slab.stop]
        bands, shape = len(self.resample.members), (len(chosen), -1, self.tile, self.tile)
        arrays: Arrays = {
            "reflectance": np.full((shape[0], bands, *shape[2:]), np.nan, np.float32),
            "valid": np.zeros((shape[0], bands, *shape[2:]), np.bool_),
            "traits": np.full((shape[0], len(TRAIT_UNITS), *shape[2:]), np.nan, np.float32),
        }
        for name in dict.fromkeys(place.image for place in chosen):
            image = simulate_image(self.settings, index=self.numbers[name])
            for i, place in enumerate(chosen):
                if place.image == name:
                    self._enter(arrays, i, place, image)
        return arrays

    def _enter(self, arrays: Arrays, i: int, place: TilePlace, image: SimulatedImage) -> None:
        """Put what lies in a tile where it belongs."""
        there = (slice(None), slice(place.row, place.row + self.tile), slice(place.column, place.column + self.tile))
        piece = image.reflectance[list(self.resample.used)][there]
        values, valid = self.resample(piece, np.isfinite(piece))
        here = (i, slice(None), slice(0, values.shape[1]), slice(0, values.shape[2]))
        arrays["reflectance"][here], arrays["valid"][here] = values, valid
        arrays["traits"][here] = image.traits[there]
