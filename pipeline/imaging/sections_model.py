"""The configuration sections for the masked autoencoder, what is hidden from it, and what is scored.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline import sections
from pipeline.imaging.sections import ImageWords, Nanometres, Share
from pipeline.sections import Fraction, Positive, Section

TraitName = Literal["chlorophyll", "carotenoids", "anthocyanins", "water", "dry_matter", "structure", "brown"]


class Groups(Section):
    """How bands are partitioned before aggregation; part of the architecture, not of the machine."""

    by: Literal["flat", "contiguous", "wavelength", "list"] = "flat"
    """flat: one group; contiguous: equally many bands each; wavelength: equally many nm each; list: as in `listed`."""
    count: Positive = 1
    """Number of groups for `contiguous` and `wavelength`."""
    listed: list[list[str]] = []
    """Band names of each group for `list`."""


class Decoder(Section):
    """The transformer that predicts all patches from the visible ones."""

    width: Positive = 64
    depth: Annotated[int, Field(ge=0)] = 1
    heads: Positive = 4

    @model_validator(mode="after")
    def _heads(self) -> Decoder:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and heads {self.heads}")
        return self


class Model(sections.Encoder):
    """The masked autoencoder."""

    patch: Positive = 8
    groups: Groups = Groups()
    decoder: Decoder = Decoder()
    starts_from: Literal["mean", "interpolation"] = "mean"
    """What the network's predictions are added to: the mean of the band, or an interpolation of what is visible, in
    space and across hidden bands, so that a short training only has to improve on it."""
    targets: Literal["reflectance", "normalised", "patch"] = "normalised"
    """Units of the loss: reflectance; normalised by the mean and standard deviation of each band; or patch, normalised
    by those of the patch itself, band by band."""

    @model_validator(mode="after")
    def _starts(self) -> Model:
        if self.starts_from == "interpolation" and self.targets == "patch":
            raise ValueError(
                "starts_from must be mean with targets: patch, whose units are those of each patch, got interpolation"
            )
        return self


class BandWindows(Section):
    """Contiguous ranges of bands that are hidden from the network and predicted by it."""

    ADDED = frozenset({"weight"})

    share: Share = 0.5
    """Share of the training steps, and of the tiles in validation and reconstruction, with hidden bands."""
    windows: Positive = 1
    """Number of ranges hidden at once."""
    nanometres: Nanometres = 100.0
    """Width of a range [nm]."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Loss weight of hidden bands in visible patches. Their squared errors are 1 to 6% of those in hidden patches, so
    with a weight of 1 hardly anything is learned from them."""


class Masking(Section):
    """What is hidden from the network."""

    patches: Fraction = 0.75
    """Share of the patches that are hidden, in all bands."""
    predicted: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the hidden patches that a training step predicts, drawn anew for every sample: below 1, a step with many
    bands takes much less time and teaches nearly as much (arXiv 2401.14391). Validation predicts all."""
    bands: BandWindows | None = None
    """Ranges of bands that are hidden, in all patches; None hides none."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed for what is hidden, which also depends on the sample number."""

    @model_validator(mode="after")
    def _something(self) -> Masking:
        if self.patches == 0 and self.bands is None:
            raise ValueError("masking must hide patches or bands, got neither; set patches, e.g. 0.75")
        return self


class Reconstruct(Section):
    """What the trained network reconstructs."""

    FREE = frozenset({"image", "image_bands", "image_words"})

    split: Literal["test", "validation", "train"] = "test"
    """Split whose images are reconstructed."""
    repeats: Positive = 1
    """How often each tile is reconstructed, each time with another mask."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed for the masks, which also depend on the tile number."""
    features: bool = True
    """Also keep the encoder's features of every tile without a mask, from the trained and the untrained network."""
    image: str | None = None
    """Reconstruct this file instead of the split. Same as --image."""
    image_bands: Literal["same", "nearest", "averaged"] = "same"
    """How that file's bands are mapped to the model's: same refuses others; nearest, averaged: as data.bands.method."""
    image_words: ImageWords | None = None
    """What that file does not say itself; None takes what `source` says about the other images."""


class TrainingCurve(Section):
    """The log of another training of the same model, e.g. on two ranks."""

    name: str = Field(min_length=1)
    """Its name in the legend."""
    path: Path
    """Its metrics.jsonl."""


class Evaluation(Section):
    """What is scored and drawn."""

    images_shown: Positive = 4
    """Number of held-out images in the report."""
    pixels_shown: Positive = 3
    """Number of pixels per image whose spectra are drawn."""
    traits: list[TraitName] = ["chlorophyll", "carotenoids", "water"]
    """Traits to predict from features, if the images have trait maps."""
    few_labels: list[Positive] = [5, 10, 50]
    """Numbers of labelled images from which traits are also predicted, besides all of them."""
    untrained: bool = True
    """Also predict traits from the features of the untrained network."""
    bootstrap: Positive = 500
    """Number of bootstrap resamples of the images, for intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed for the resamples and the choice of labelled images."""
    training_curves: list[TrainingCurve] = []
    """Logs of other trainings whose losses are drawn over this one's."""

    @property
    def shown(self) -> list[Any]:
        """The settings that affect only the report, JSON-ready."""
        content = self.model_dump(mode="json")
        return [content["images_shown"], content["pixels_shown"], content["training_curves"]]

    FREE = frozenset({"images_shown", "pixels_shown", "training_curves"})
