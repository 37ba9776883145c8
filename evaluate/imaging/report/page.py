"""The page: figures, tables and sentences put into the template `imaging.html.j2`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evaluate import text
from evaluate.imaging.report import tables
from evaluate.imaging.report.results import Results
from evaluate.imaging.report.sentences import findings
from evaluate.imaging.traits.indices import INDICES
from evaluate.page.pictures import Picture, PictureGroup
from evaluate.page.rendering import render_page
from pipeline.imaging.config import SIMULATED, ImagingConfig
from pipeline.words import counted

TEMPLATE = Path(__file__).resolve().parent / "templates" / "imaging.html.j2"


@dataclass(frozen=True)
class Figures:
    """The figures of the page by section."""

    images: list[PictureGroup] = field(default_factory=list)
    errors: list[Picture] = field(default_factory=list)
    training: list[Picture] = field(default_factory=list)
    labels: list[Picture] = field(default_factory=list)
    scatter: list[Picture] = field(default_factory=list)
    trait_maps: list[PictureGroup] = field(default_factory=list)


def render(config: ImagingConfig, results: Results, figures: Figures) -> str:
    """The page of an experiment, from its scores and its figures."""
    return render_page(
        config,
        TEMPLATE,
        facts=results.facts,
        results=results,
        figures=figures,
        findings=findings(results),
        header=header_facts(config, results),
        score_columns=tables.score_columns(),
        score_groups=tables.score_groups(results),
        trait_columns=tables.trait_columns(results),
        trait_groups=tables.trait_groups(results),
        formulas=formulas(results),
        left_out={k.replace("_", " "): v for k, v in results.facts.traits.left_out.items()},
    )


def header_facts(config: ImagingConfig, results: Results) -> list[tuple[str, str, str]]:
    """What stands at the top, (name, value, detail)."""
    facts, layout = results.facts, config.training.layout
    low, high = facts.wavelengths
    tiles = counted(facts.with_window, "tile")
    window = f"and {facts.window_nanometres:g} nm of bands in {tiles}" if facts.window_nanometres else ""
    blocks = "" if facts.block_gap is None else f"blocks of one scene, {counted(facts.block_gap, 'pixel')} apart"
    network = f"width {config.model.width}, depth {config.model.depth}, {counted(layout.world_size, 'rank')}"
    return [
        ("Images", str(len(facts.images)), blocks or f"split {facts.split}{', never trained on' * results.held_out}"),
        ("Reconstructed", counted(facts.samples, "tile"), f"{facts.tile} × {facts.tile} pixels"),
        ("Bands", str(facts.bands), f"{low:.0f} to {high:.0f} nm"),
        ("Hidden", text.percent(facts.hidden_share), f"in patches of {facts.patch} × {facts.patch} pixels {window}"),
        ("Network", counted(config.training.steps, "step"), network),
        (
            "Truth",
            SIMULATED if config.simulated else facts.label,
            f"reflectance, range {text.number(facts.value_range)}",
        ),
    ]


def formulas(results: Results) -> dict[str, str]:
    """Definitions in short."""
    facts = results.facts
    span = f"{text.number(facts.value_range)}, of all valid pixels of these images"
    found = {
        "What counts": "valid pixels of hidden patches in visible bands, of visible patches in hidden bands, and of "
        "hidden patches in hidden bands. Never what the network saw.",
        "RMSE, MAE": "over all pixels and bands of all images; the root is taken last.",
        "PSNR": f"10 log₁₀(range² / MSE), range {span}.",
        "SSIM": f"Wang et al. 2004, on {facts.rendering} pictures with the truth in visible patches, mean over "
        "hidden pixels.",
        "Spectral angle": "arccos(⟨a, b⟩ / |a||b|) of each pixel's spectrum, mean over pixels.",
        "Band mean": "mean of each band over the training images.",
        "Mean of visible patches": "mean spectrum of the tile's visible pixels; hidden bands interpolated linearly.",
        "Interpolation": f"inverse distance weighting of the visible pixels, power {facts.power} (the best on training "
        "images); hidden bands interpolated linearly.",
        "Low-rank completion": f"{facts.components} principal components of training spectra; their scores at visible "
        "pixels, extended to hidden ones with weights fitted on training images; they also fill in hidden bands.",
        "Intervals": f"95%, {facts.resamples} resamples of whole images, the same for all models, widened for the "
        "number of images."
        if results.has_intervals
        else f"{facts.intervals}.",
    }
    if facts.traits.names:
        found |= {
            "Linear probe": "ridge regression on the frozen encoder's tokens for a patch of the unmasked image; the "
            "penalty is chosen by cross-validation over training images.",
            "PLS": "partial least squares on the mean leaf spectrum of a patch; number of components by "
            "cross-validation over training images.",
            "Indices": "; ".join(f"{i.title}: {i.text}" for i in INDICES.values()) + "; polynomials of degree 1 to 3.",
            "R²": "1 − SSE / SST over all patches of the held-out images, at least half leaf, SST about their mean.",
        }
    return found
