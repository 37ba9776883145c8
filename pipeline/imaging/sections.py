"""The configuration sections for hyperspectral images: where they come from and what the store holds.

Contract: as in `pipeline.sections`. Wavelengths are in nanometres everywhere.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.sections import Fraction, Positive, Section

Nanometres = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class BandRange(Section):
    """Equally spaced bands, both ends included."""

    start: Nanometres = 400.0
    """First wavelength [nm]."""
    stop: Nanometres = 899.0
    """Last wavelength [nm]."""
    step: Nanometres = 1.0
    """Spacing of the bands [nm]."""

    @model_validator(mode="after")
    def _ordered(self) -> BandRange:
        if self.stop < self.start:
            raise ValueError(f"stop must not be below start, got {self.start:g} .. {self.stop:g}")
        return self

    @property
    def wavelengths(self) -> list[float]:
        """Wavelengths of the bands [nm]."""
        count = int((self.stop - self.start) / self.step + 1e-9) + 1
        return [self.start + i * self.step for i in range(count)]


class SimulationSource(Section):
    """The embedded default: a scanner's view of poplar plants, from leaf optics (PROSPECT-D)."""

    kind: Literal["simulation"] = "simulation"
    images: Positive = 96
    """Number of images."""
    size: Annotated[int, Field(ge=8)] = 64
    """Rows and columns of an image, pixels."""
    bands: BandRange = BandRange()
    """Bands of the simulated scanner, within 400 .. 2500 nm."""
    field_of_view: Annotated[float, Field(gt=0)] = 200.0
    """Side of an image on the stage [mm]; a large leaf is 90 mm long."""
    plants: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of plants in an image."""
    stage: Literal["dark", "soil"] = "dark"
    """What the plants stand on: black cloth, or dry to moist soil."""
    senescence: Share = 0.4
    """Share of plants that are losing leaves; their oldest leaves are yellow with brown spots."""
    lamp_zenith: Annotated[float, Field(ge=0, le=60)] = 25.0
    """Angle between the lamp and the vertical, degrees."""
    diffuse: Share = 0.3
    """Share of the light that does not come from the lamp and so also reaches shadows."""
    unevenness: Annotated[float, Field(ge=0, le=0.3)] = 0.05
    """Relative standard deviation of the illumination that the white reference leaves uncorrected."""
    noise: Share = 0.002
    """Standard deviation of the measured reflectance of a white target at the wavelength where lamp and detector are
    best; it grows towards both ends of the range."""
    smile: Annotated[float, Field(ge=0, le=20)] = 0.0
    """Wavelength shift at both edges of a scan line relative to its middle [nm]."""
    stripes: Annotated[float, Field(ge=0, le=0.3)] = 0.0
    """Relative standard deviation of the gain from column to column."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _optics(self) -> SimulationSource:
        if self.bands.start < 400 or self.bands.stop > 2500:
            raise ValueError(
                f"bands of simulated images must lie within 400 .. 2500 nm, got {self.bands.start:g} .. "
                f"{self.bands.stop:g}"
            )
        return self


class References(Section):
    """Images of the scanner's own dark signal and of a white panel, for raw counts."""

    dark: str
    """File of the dark reference; if every image has its own, {folder} and {name} stand for those of the image."""
    white: str
    """File of the white reference, with the same placeholders."""
    white_reflectance: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Reflectance of the panel."""


class ImageWords(Section):
    """What the image files do not say themselves."""

    variable: str | None = None
    """Name of the image in .mat, .nc and .zarr files; None takes the only array that can be one."""
    shape: tuple[Positive, Positive] | None = None
    """Rows and columns of an image stored as a MATLAB matrix of bands x pixels, with pixels in column-major order."""
    wavelengths: list[Nanometres] | str | None = None
    """Wavelengths [nm] if the files have none, a list or a text file of numbers; None takes those of the files."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Factor from stored values to reflectance, e.g. 0.0001; None takes what the headers say, or 1."""
    references: References | None = None
    """Dark and white references: reflectance is (raw - dark) / (white - dark)."""
    saturation: float | None = None
    """Stored value at and above which a pixel is saturated and masked; None takes the largest value of an integer type,
    and masks nothing for other types."""
    ignore: float | None = None
    """Stored value that means no data; None takes what the headers say."""

    @model_validator(mode="after")
    def _one_way(self) -> ImageWords:
        if self.references is not None and self.scale is not None:
            raise ValueError("scale must be absent where references are given, which make reflectance of raw counts")
        return self


class ImagesSource(ImageWords):
    """Files of hyperspectral images: ENVI, MATLAB, NetCDF or Zarr."""

    kind: Literal["images"]
    files: list[str] = Field(min_length=1)
    """Files or glob patterns, relative to the working directory: ENVI headers (.hdr), .mat, .nc and .zarr."""
    label: str = "images"
    """What the data are called in every store, figure and table."""


Source = Annotated[SimulationSource | ImagesSource, Field(discriminator="kind")]


class Bands(Section):
    """Which wavelengths the store holds: a range or a list."""

    start: Nanometres | None = None
    """First wavelength of a range [nm], with stop and step."""
    stop: Nanometres | None = None
    """Last wavelength of a range [nm]."""
    step: Nanometres | None = None
    """Spacing of the bands of a range [nm]."""
    wavelengths: list[Nanometres] = []
    """Wavelengths [nm], instead of a range."""
    method: Literal["nearest", "averaged"] = "averaged"
    """nearest: the files' nearest band; averaged: the mean of the files' bands around each wavelength."""

    @model_validator(mode="after")
    def _one(self) -> Bands:
        given = [self.start, self.stop, self.step]
        if self.wavelengths and any(value is not None for value in given):
            raise ValueError("bands must be a range (start, stop, step) or wavelengths, got both")
        if not self.wavelengths and any(value is None for value in given):
            raise ValueError("bands must be a range with start, stop and step, or a list of wavelengths")
        wanted = self.wanted
        if any(after <= before for before, after in pairwise(wanted)):
            raise ValueError(f"bands must have increasing wavelengths, got {wanted[:6]}")
        return self

    @property
    def wanted(self) -> list[float]:
        """Wavelengths of the store [nm]."""
        if self.start is None or self.stop is None or self.step is None:
            return list(self.wavelengths)
        return BandRange(start=self.start, stop=self.stop, step=self.step).wavelengths


class Blocks(Section):
    """A large scene cut into rectangles that count as images."""

    rows: Positive
    """Height of a block, pixels."""
    columns: Positive
    """Width of a block, pixels."""
    gap: Annotated[int, Field(ge=0)] = 0
    """Pixels left out between two blocks; without a gap neighbouring blocks touch."""


class Splits(Section):
    """Which images are for training, validation and test: shares of them, or lists of names."""

    train: Fraction | list[str] = 0.7
    """Share of the images, or a list of names or name patterns, e.g. [plant01, plant02*]."""
    validation: Fraction | list[str] = 0.1
    test: Fraction | list[str] = 0.2
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed for which images a share takes."""

    @model_validator(mode="after")
    def _agree(self) -> Splits:
        parts = [self.train, self.validation, self.test]
        shares = [part for part in parts if isinstance(part, float)]
        if shares and len(shares) < len(parts):
            raise ValueError("splits must be three shares or three lists of names, got some of each")
        if shares and sum(shares) > 1 + 1e-9:
            raise ValueError(f"shares of the splits must add up to at most 1, got {sum(shares):g}")
        if not self.train or not self.test:
            raise ValueError("splits must have images for training and for the test, got none for one of them")
        return self


class Data(Section):
    """What the store of images holds."""

    FREE = frozenset({"slab_tiles"})

    bands: Bands | None = None
    """Bands of the store; None takes those of the source."""
    tile: Positive = 64
    """Rows and columns of a tile, pixels; a tile is one training sample."""
    blocks: Blocks | None = None
    """Cut every image into blocks that count as images, for a single large scene."""
    splits: Splits = Splits()
    slab_tiles: Positive = 16
    """Number of tiles written together as one shard."""

    @property
    def stored(self) -> dict[str, Any]:
        """The settings that determine the content of the store, JSON-ready."""
        return {key: value for key, value in self.identity.items() if key != "splits"}

    @field_validator("tile")
    @classmethod
    def _tile(cls, value: int) -> int:
        if value > 4096:
            raise ValueError(f"a tile must be at most 4096 pixels, got {value}")
        return value
