"""What must be said beside every score: the images, what was hidden, the baselines, the traits.

Contract: `to_json` is what stands in the score stage's receipt; `from_json` reads it. Names of fields are its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluate.receipt_facts import read_facts


@dataclass(frozen=True)
class TraitFacts:
    """How traits were predicted; `left_out` gives reasons by the name of an index or a trait.

    Args:
        names: of the traits; empty where there are none, and then `reason` says why.
        training_images, held_out_images: with labelled patches.
        training_patches, held_out_patches: of those images.
        patch: rows and columns of a patch, pixels.
    """

    names: list[str] = field(default_factory=list)
    reason: str = ""
    training_images: int = 0
    held_out_images: int = 0
    training_patches: int = 0
    held_out_patches: int = 0
    patch: int = 0
    few_labels: list[int] = field(default_factory=list)
    draws: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreFacts:
    """The facts of the score stage.

    Args:
        label: what the data are called.
        images: names of those that were scored, of `split`.
        samples: reconstructed tiles, each with a mask.
        with_window: of those, how many had bands hidden.
        hidden_share: of the patches.
        window_nanometres: width of a hidden range of bands, None for none.
        value_range: of the reflectance, for the PSNR.
        rendering: what pictures are called.
        power: of the interpolation.
        components: of the low-rank completion.
        training_tiles: that baselines were fitted on, besides the normals.
        block_gap: pixels between images that are blocks of one scene; None where they are images of their own.
    """

    label: str
    split: str
    images: list[str]
    samples: int
    with_window: int
    bands: int
    wavelengths: list[float]
    tile: int
    patch: int
    hidden_share: float
    window_nanometres: float | None
    value_range: float
    rendering: str
    power: int
    components: int
    training_tiles: int
    resamples: int
    intervals: str
    block_gap: int | None
    traits: TraitFacts
    formulas: str = "docs/hyperspectral.md"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoreFacts:
        """The facts of a receipt.

        Raises:
            ValueError: something that this version does not write, or lacks what it writes.
        """
        return read_facts(cls, content)
