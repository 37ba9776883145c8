"""Mean and standard deviation of every band over the training images, as the normals stage writes them.

Contract: a small Zarr group. Arrays over band: band (names), wavelength [nm], mean, std, minimum, maximum (float64) of
the valid training pixels, count (int64). The attribute `contract` holds kind, the digest of the store, its bands, and
the names of the images of each split; `digest` is a hash of the contract and the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.splits import SplitNames

KIND = "image normals"
ARRAYS = ("wavelength", "mean", "std", "minimum", "maximum", "count")


@dataclass(frozen=True, eq=False)
class ImageNormals:
    """Normals of a store of images; arrays have shape (band,)."""

    bands: list[str]
    wavelength: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    count: NDArray[np.int64]
    contract: Mapping[str, Any]
    digest: str

    @classmethod
    def open(cls, path: Path) -> ImageNormals:
        """Read normals.

        Raises:
            ValueError: they are not there, or are normals of something else.
        """
        import zarr

        if not path.exists():
            raise ValueError(f"normals must exist, got nothing at {path}; run python -m pipeline normals first")
        group: Any = zarr.open_group(path, mode="r")
        contract = dict(group.attrs.get("contract", {}))
        if contract.get("kind") != KIND:
            raise ValueError(f"normals {path} must be those of images, got {contract.get('kind')!r}; remove the folder")
        values = {name: np.asarray(group[name][:]) for name in ARRAYS}
        return cls(bands=list(contract["bands"]), contract=contract, digest=str(group.attrs["digest"]), **values)

    @property
    def splits(self) -> SplitNames:
        """Names of the images of each split."""
        return SplitNames(**{key: tuple(names) for key, names in self.contract["splits"].items()})
