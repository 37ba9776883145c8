"""NumPy .npz files that a reader sees whole or not at all.

Contract: equal arrays give equal files, whenever they are written: `np.savez` would write the time of day into them.
One array is in memory at a time, so a file may be larger than the memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files


def write_npz(path: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write named arrays to a file; its folder is created if absent; several may write it at once."""
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays:
            large = values.nbytes >= 1 << 31
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=large) as member:
                np.lib.format.write_array(member, np.asarray(values, order="C"), allow_pickle=False)
