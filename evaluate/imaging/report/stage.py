"""The report stage: every figure, and one self-contained page that explains them.

Contract: reads what the score stage wrote, the stores of images and reconstructions for single images, and every
stage's receipt; writes figures (PNG and PDF, with their numbers) and `report.html`, which loads nothing from anywhere,
needs no JavaScript, stays under 10 MB and says above everything else when its images are simulated. The receipt is
written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluate.imaging.colour import Rendering
from evaluate.imaging.complete import complete_report, shown_digest
from evaluate.imaging.facts import ScoreFacts
from evaluate.imaging.reading import Reconstructions
from evaluate.imaging.report import score_charts, trait_figures
from evaluate.imaging.report.image_figures import FIGURES, image_group
from evaluate.imaging.report.page import Figures, render
from evaluate.imaging.report.results import Results
from evaluate.imaging.report.shown import ShownImage, image_errors, put_together, ranked
from evaluate.imaging.traits.stage import PROBE
from evaluate.page import style
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture, PictureGroup
from evaluate.page.rendering import write_page
from pipeline import files, provenance
from pipeline.console import progress, say
from pipeline.imaging.config import SIMULATED, ImagingConfig
from pipeline.imaging.image_store import TRAIT_UNITS, ImageStore
from pipeline.imaging.normals import ImageNormals
from pipeline.store import open_store

MAPPED_IMAGES = 2
"""Images whose traits are mapped, of those that are shown."""


def run_report(config: ImagingConfig) -> None:
    """Draw the figures of a configuration and write its report.

    Raises:
        ValueError: the scores or a log of training are missing, or the page would be larger than 10 MB.
    """
    paths = config.paths
    if done := complete_report(config):
        say(done)
        return
    facts = ScoreFacts.from_json(provenance.read_receipt(config, stage="score")["facts"])
    results, shown = Results.read(paths.scores, facts), shown_digest(config)
    with files.lock(paths.scores / "report.lock"):
        page = render(config, results, _draw(config, results))
        size = write_page(config, page, remedy="show fewer images (evaluation.images_shown)")
    written = {"bytes": size, "label": facts.label, "shown": shown}
    provenance.write_receipt(config, stage="report", outputs=[paths.report, paths.figures], facts=written)
    say(f"report: {paths.report} ({size / 1e6:.1f} MB)")


def _draw(config: ImagingConfig, results: Results) -> Figures:
    """Draw every figure."""
    paths, images, normals = config.paths, ImageStore.of(config), ImageNormals.open(config.paths.normals)
    made = Reconstructions(paths.reconstruct, images)
    rendering = Rendering.of(images.wavelengths, mean=normals.mean, std=normals.std)
    errors = image_errors(open_store(paths.scores / "sums.zarr"))
    chosen = ranked(list(made.by_image), errors, count=config.evaluation.images_shown)
    traits = results.facts.traits.names
    count = FIGURES * len(chosen) + len(results.regions) + 1 + (2 + MAPPED_IMAGES) * len(traits)
    with progress("figures") as bar:
        task = bar.add_task("report", total=count)
        note = SIMULATED if config.simulated else results.facts.label
        keeper = Keeper(paths.figures, note, lambda: bar.advance(task))
        pixels = config.evaluation.pixels_shown
        found = [
            put_together(made, rendering, name=name, rank=rank, rmse=rmse, pixels=pixels) for name, rank, rmse in chosen
        ]
        others = {curve.name: curve.path for curve in config.evaluation.training_curves}
        return Figures(
            images=_images(keeper, found, of=int(np.isfinite(errors).sum()), rendering=rendering, images=images),
            errors=score_charts.error_charts(keeper, results.scores),
            training=score_charts.training_chart(keeper, paths.metrics, others),
            labels=[trait_figures.label_chart(keeper, results.traits, trait=trait) for trait in traits],
            scatter=[_scatter(keeper, results, trait) for trait in traits],
            trait_maps=_trait_maps(keeper, results, images, [image.name for image in found]),
        )


def _images(
    keeper: Keeper, found: Sequence[ShownImage], *, of: int, rendering: Rendering, images: ImageStore
) -> list[PictureGroup]:
    """The figures of every image, their errors on one scale."""
    known = np.concatenate([image.error[np.isfinite(image.error)] for image in found]) if found else np.zeros(1)
    end = style.nice_ceiling(float(np.quantile(known, 0.98)) if known.size else 0.0)
    how: dict[str, Any] = {"of": of, "rendering": rendering.title, "end": end, "wavelengths": images.wavelengths}
    return [image_group(keeper, image, **how) for image in found]


def _scatter(keeper: Keeper, results: Results, trait: str) -> Picture:
    unit = trait_figures.unit_text(TRAIT_UNITS[trait])
    return trait_figures.scatter(keeper, results.patches, trait=trait, unit=unit)


def _trait_maps(keeper: Keeper, results: Results, images: ImageStore, names: Sequence[str]) -> list[PictureGroup]:
    """Maps of every trait for the first of the shown images that have leaves; none where no image has traits."""
    if not results.facts.traits.names:
        return []
    table, patch, found = results.patches, results.facts.traits.patch, []
    mapped = [name for name in names if len(table) and (table["image"] == name).any()][:MAPPED_IMAGES]
    sizes = {image.name: image for image in images.images}
    places = {i: (place.row // patch, place.column // patch) for i, place in enumerate(images.places)}
    for name in mapped:
        rows = table[table["image"] == name]
        shape = (-(-sizes[name].rows // patch), -(-sizes[name].columns // patch))
        pictures = []
        for trait in results.facts.traits.names:
            columns = {"truth": trait, "probe": f"{trait}_{PROBE}"}
            maps = trait_figures.map_of(rows, columns, shape=shape, offsets=places)
            low, high = (float(np.quantile(table[trait], q)) for q in (0.02, 0.98))
            unit = trait_figures.unit_text(TRAIT_UNITS[trait])
            pictures.append(
                trait_figures.trait_maps(keeper, maps, trait=trait, unit=unit, image=name, ends=(low, high))
            )
        found.append(PictureGroup(name, pictures))
    return found
