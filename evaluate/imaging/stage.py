"""The score stage: reconstructions and baselines on what was hidden, and traits read from features.

Contract: reads the store of images, the normals, the reconstructions and the features; writes `scores.csv` and
`differences.csv` (tidy), `sums.zarr` (the sums per image from which both follow, and what a killed run resumes from),
and where the images have trait maps `traits.csv`, `trait_differences.csv` and `trait_patches.csv`. The receipt is
written last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from evaluate import bootstrap
from evaluate.imaging import tables
from evaluate.imaging.baselines.models import Baselines
from evaluate.imaging.colour import Rendering
from evaluate.imaging.complete import complete_score
from evaluate.imaging.facts import ScoreFacts, TraitFacts
from evaluate.imaging.reading import Reconstructions, training_tiles
from evaluate.imaging.sums import Judge, write_sums
from evaluate.imaging.traits.samples import Features, Patches, read_patches
from evaluate.imaging.traits.stage import (
    DRAWS,
    FEWEST_IMAGES,
    Judgement,
    inputs_of,
    label_draws,
    predicted_patches,
    run_trials,
    with_indices,
)
from pipeline import files, provenance
from pipeline.console import progress, say
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals
from pipeline.words import counted

FITTED_TILES = 24
"""Training tiles that baselines are fitted on, at most."""
NO_MAPS = "the images have no trait maps"


def run_score(config: ImagingConfig) -> None:
    """Score the reconstructions of a configuration beside the baselines, and predict traits.

    Raises:
        ValueError: an earlier stage is missing, or its outputs do not belong together.
    """
    paths = config.paths
    if done := complete_score(config):
        say(done)
        return
    images, normals = ImageStore.of(config), ImageNormals.open(paths.normals)
    with files.lock(paths.scores / "score.lock"):
        made = Reconstructions(paths.reconstruct, images)
        rendering = Rendering.of(images.wavelengths, mean=normals.mean, std=normals.std)
        judge, sums = judged(config, images, normals, made, rendering)
        sample = tables.Sample(sums, config.evaluation.bootstrap, config.evaluation.seed)
        outputs = [
            _write(paths.scores / "scores.csv", tables.score_table(sample)),
            _write(paths.scores / "differences.csv", tables.difference_table(sample)),
            paths.scores / "sums.zarr",
        ]
        traits, more = score_traits(config, images, normals)
        facts = _facts(config, images, made, sample, judge, traits)
    provenance.write_receipt(config, stage="score", outputs=outputs + more, facts=facts.to_json())
    say(f"score: {counted(len(facts.images), 'image')}, {paths.scores / 'scores.csv'}")


def judged(
    config: ImagingConfig, images: ImageStore, normals: ImageNormals, made: Reconstructions, rendering: Rendering
) -> tuple[Judge, xr.Dataset]:
    """The fitted baselines, and the sums of errors of all images."""
    seed = config.reconstruct.seed
    tiles = training_tiles(config, images, normals, most=FITTED_TILES, seed=seed)
    mean = np.nan_to_num(normals.mean)
    judge = Judge(Baselines.fit(tiles, wavelengths=images.wavelengths, mean=mean, seed=seed), rendering)
    contract = {"normals": normals.digest, "masking": config.masking.model_dump(mode="json"), "seed": seed}
    with progress("images") as bar:
        task = bar.add_task("score", total=len(made.by_image))
        sums = write_sums(
            config.paths.scores / "sums.zarr",
            made,
            judge,
            contract=contract,
            tick=lambda done: bar.advance(task, done),
        )
    return judge, sums


def score_traits(config: ImagingConfig, images: ImageStore, normals: ImageNormals) -> tuple[TraitFacts, list[Path]]:
    """Predict traits, where the images have maps of them; what is to be said, and the files written."""
    wanted = [str(name) for name in config.evaluation.traits]
    names = [name for name in wanted if name in images.traits]
    unknown = {name: "the images have no map of it" for name in wanted if name not in names}
    if reason := _no_traits(config, names):
        return TraitFacts(reason=reason, left_out=unknown), []
    held_out, training = _labelled(config, images, normals, names)
    if min(len(held_out.images), len(training.images)) < FEWEST_IMAGES:
        few = f"only {len(training.images)} training and {len(held_out.images)} held-out images show leaves"
        return TraitFacts(reason=few, left_out=unknown), []
    methods, left_out = inputs_of(images.wavelengths, list(training.inputs))
    if not config.evaluation.untrained:
        methods = {name: pair for name, pair in methods.items() if pair[0] != "features_untrained"}
    draws = label_draws(training.images, config.evaluation.few_labels, seed=config.evaluation.seed)
    with progress("fits") as bar:
        task = bar.add_task("traits", total=len(draws) * len(names) * len(methods))
        trials = run_trials(training, held_out, methods, draws=draws, tick=lambda: bar.advance(task))
    judgement = Judgement(held_out, config.evaluation.bootstrap, config.evaluation.seed)
    folder, by_number = config.paths.scores, [image.name for image in images.images]
    outputs = [
        _write(folder / "traits.csv", judgement.rows(trials)),
        _write(folder / "trait_differences.csv", judgement.differences(trials)),
        _write(folder / "trait_patches.csv", predicted_patches(held_out, trials, names=by_number)),
    ]
    facts = TraitFacts(
        names=names,
        training_images=len(training.images),
        held_out_images=len(held_out.images),
        training_patches=len(training.image),
        held_out_patches=len(held_out.image),
        patch=config.model.patch,
        few_labels=[n for n in draws if n < len(training.images)],
        draws=DRAWS,
        left_out=unknown | left_out,
    )
    return facts, outputs


def _no_traits(config: ImagingConfig, names: list[str]) -> str:
    """Why no traits are predicted; "" where they are."""
    if not names:
        return NO_MAPS if config.evaluation.traits else "evaluation.traits names none"
    if not config.reconstruct.features:
        return "reconstruct.features is false"
    return "reconstruct.split is train, so no image is held out" if config.reconstruct.split == "train" else ""


def _labelled(
    config: ImagingConfig, images: ImageStore, normals: ImageNormals, names: list[str]
) -> tuple[Patches, Patches]:
    """Labelled patches of the held-out images and of the training images."""
    features = Features(config.paths.features, images)
    splits = normals.splits
    wanted = [splits.of(config.reconstruct.split), splits.train]
    with progress("tiles") as bar:
        task = bar.add_task("labelled patches", total=sum(len(images.tiles_of(part)) for part in wanted))

        def patches(part: tuple[str, ...]) -> Patches:
            tick: Callable[[], None] = lambda: bar.advance(task)  # noqa: E731
            patch = config.model.patch
            found = read_patches(images, features, images=part, patch=patch, traits=names, tick=tick)
            return with_indices(found, images.wavelengths)

        held_out, training = (patches(part) for part in wanted)
    return held_out, training


def _facts(
    config: ImagingConfig,
    images: ImageStore,
    made: Reconstructions,
    sample: tables.Sample,
    judge: Judge,
    traits: TraitFacts,
) -> ScoreFacts:
    names, windows = list(made.by_image), [bool(made.window(row).any()) for row in range(len(made.tiles))]
    few = len(names) < bootstrap.FEWEST_BLOCKS
    why = f"none: {counted(len(names), 'image')}, fewer than {bootstrap.FEWEST_BLOCKS}"
    blocks = config.data.blocks
    return ScoreFacts(
        label=images.label,
        split=config.reconstruct.split,
        images=names,
        samples=len(made.tiles),
        with_window=sum(windows),
        bands=len(images.bands),
        wavelengths=[float(images.wavelengths[0]), float(images.wavelengths[-1])],
        tile=images.tile,
        patch=made.patch,
        hidden_share=float(np.mean([made.hidden(row).mean() for row in range(len(made.tiles))])),
        window_nanometres=config.masking.bands.nanometres if config.masking.bands and any(windows) else None,
        value_range=sample.value_range,
        rendering=judge.rendering.title,
        power=judge.baselines.power,
        components=len(judge.baselines.components.variances),
        training_tiles=FITTED_TILES,
        resamples=config.evaluation.bootstrap,
        intervals=why if few else "given",
        block_gap=blocks.gap if blocks else None,
        traits=traits,
    )


def _write(path: Path, table: pd.DataFrame) -> Path:
    files.write_text(path, table.to_csv(index=False, float_format="%.7g"))
    return path
