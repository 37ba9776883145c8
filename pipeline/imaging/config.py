"""The configuration of an experiment with hyperspectral images, and where its stages write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pipeline.config import Config
from pipeline.imaging.sections import Data, SimulationSource, Source
from pipeline.imaging.sections_model import Evaluation, Masking, Model, Reconstruct
from pipeline.imaging.stages import STAGES
from pipeline.stages import Paths

SIMULATED = "simulated plants"
"""What titles and figures call images that nobody measured."""


class ImagingPaths(Paths):
    """Every path of an experiment with images; the names follow from `pipeline.imaging.stages`."""

    simulated: Path
    ingested: Path
    normals: Path
    reconstruct: Path
    features: Path

    @property
    def store(self) -> Path:
        """The store of images, whichever stage writes it."""
        return self.ingested


class ImagingConfig(Config):
    """One experiment of masked autoencoding, from images to report."""

    task: Literal["reconstruct"]
    """The workload: reconstruct."""
    source: Source
    data: Data = Data()
    model: Model = Model()
    masking: Masking = Masking()
    reconstruct: Reconstruct = Reconstruct()
    evaluation: Evaluation = Evaluation()

    @property
    def paths(self) -> ImagingPaths:
        """Where each stage writes."""
        return ImagingPaths(self, STAGES)

    @property
    def simulated(self) -> bool:
        """Whether the images are simulated."""
        return self.source.kind == "simulation"

    @property
    def store_stage(self) -> str:
        """The stage that writes the store of images."""
        return "simulate" if self.simulated else "ingest"

    @model_validator(mode="after")
    def _consistent(self) -> ImagingConfig:
        tile, patch = self.data.tile, self.model.patch
        if tile % patch:
            raise ValueError(f"data.tile must be a multiple of model.patch, got {tile} and {patch} pixels")
        if isinstance(self.source, SimulationSource) and self.source.size < patch:
            raise ValueError(f"source.size must be at least model.patch, got {self.source.size} and {patch} pixels")
        if self.compute.scheduler != "threads":
            raise ValueError(
                "compute.scheduler must be threads for images, which one machine reads, got "
                f"{self.compute.scheduler!r}; compute.threads says how many"
            )
        blocks = self.data.blocks
        if self.simulated and blocks is not None:
            raise ValueError("data.blocks must be absent for simulated images, got some; choose source.size instead")
        if blocks is not None and min(blocks.rows, blocks.columns) < patch:
            raise ValueError(
                f"data.blocks must be at least as large as model.patch ({patch}), got {blocks.rows} x {blocks.columns}"
            )
        return self


CONFIG = ImagingConfig
