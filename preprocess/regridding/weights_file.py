"""Regridding weights on disk, in one format for both engines.

Contract: a file is a NumPy .npz of the CSR arrays data, indices, indptr and shape (target cells,
source cells), the coordinates of both grids, and `about`, a JSON text with the method, the engine,
its version and the SHA-256 of every array. It is written whole or not at all, and read only if it
matches its digest.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Grid
from preprocess.npz import write_npz
from preprocess.regridding.weights import Weights

FORMAT = 1


def content_digest(weights: Weights) -> str:
    """SHA-256 of a matrix."""
    return _digest({"data": weights.data, "indices": weights.indices, "indptr": weights.indptr})


def load_weights(path: Path) -> Weights:
    """Read a file written by `cached_weights`, checking every byte against its digest.

    Raises:
        ValueError: the file is absent, cut short, altered or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "about"}
            about = json.loads(str(file["about"]))
        whole = about["format"] == FORMAT and about["sha256"] == _digest(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"weights file must be whole, got {path} ({error}); delete it to have it computed again"
        ) from None
    if not whole:
        raise ValueError(f"weights file must match its digest, got {path}; delete it to have it computed again")
    entries = (arrays["data"], arrays["indices"], arrays["indptr"])
    return Weights(entries, shape=(int(arrays["shape"][0]), int(arrays["shape"][1])))


def write_weights(path: Path, weights: Weights, *, source: Grid, target: Grid, about: dict[str, Any]) -> None:
    """Write weights atomically: a reader sees the whole file or none.

    Args:
        path: file written, with its folder.
        weights: matrix of shape (target.size, source.size).
        source: grid read.
        target: grid of the result.
        about: JSON-ready facts kept with the matrix (method, engine, versions).
    """
    arrays = {
        "data": weights.data,
        "indices": weights.indices,
        "indptr": weights.indptr,
        "shape": np.array(weights.shape, dtype=np.int64),
        "source_latitude": source.latitude,
        "source_longitude": source.longitude,
        "target_latitude": target.latitude,
        "target_longitude": target.longitude,
    }
    text = json.dumps(about | {"format": FORMAT, "sha256": _digest(arrays)}, sort_keys=True)
    write_npz(path, {"about": np.array(text), **arrays}.items())


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
