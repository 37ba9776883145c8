"""A store of one file of the user's own, for a model that is trained already.

Contract: `ingest` does the work, on a configuration that differs in its source, its bands and its folder
(<results>/given/<hash of the file>), so that it has its own checks and resumption. The bands are those of the model,
under their names. A store made by this project is used as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

from pipeline import manifest, store
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.sections import Bands, ImagesSource, ImageWords
from preprocess.imaging.collection import SAME_NM, collect
from preprocess.imaging.complete import complete_ingest
from preprocess.imaging.ingest import write_collection
from preprocess.imaging.readers.opening import find_images, open_image
from preprocess.imaging.readers.raw_image import RawImage


def prepare_image(config: ImagingConfig, *, verify: bool = False) -> Path:
    """The store of the file that `reconstruct.image` names; written now if it is not there.

    Args:
        config: the experiment whose model will reconstruct it.
        verify: where the store is there, compare every slab with its digest; damaged ones are written again.

    Returns:
        Path of a finished store.

    Raises:
        ValueError: no file, one that cannot be read, or one of other bands than the model's.
    """
    given = Path(config.reconstruct.image or "").expanduser()
    if manifest.manifest_path(given).exists():
        return given
    model = ImageStore.of(config).wavelengths
    path = find_images([str(given)])[0]
    source = ImagesSource(kind="images", files=[str(path)], label=path.stem, **_words(config).model_dump())
    method = config.reconstruct.image_bands
    if method == "same":
        _require_bands(open_image(path, source), model)
    bands = Bands(wavelengths=model.tolist(), method="nearest" if method == "same" else method)
    data = config.data.model_copy(update={"bands": bands, "blocks": None})
    derived = config.model_copy(update={"source": source, "data": data, "directory": _folder(config, path)})
    if os.environ.get("RANK", "0") == "0" and not complete_ingest(derived, verify=verify):
        write_collection(derived, collect(derived), command=f"python -m pipeline reconstruct --image {given}")
    written, receipt = derived.paths.store, derived.paths.receipt("ingest")
    while not (receipt.exists() and store.finished(written, mend=False)):
        time.sleep(0.2)  # another rank writes it; torchrun ends this one if that fails
    return written


def _words(config: ImagingConfig) -> ImageWords:
    """What the user says about the file, or about the training's."""
    if config.reconstruct.image_words is not None:
        return config.reconstruct.image_words
    if not isinstance(config.source, ImagesSource):
        return ImageWords()
    return ImageWords(**config.source.model_dump(include=set(ImageWords.model_fields)))


def _require_bands(raw: RawImage, model: np.ndarray) -> None:
    assert raw.wavelengths is not None, "opened by open_image"
    good = np.delete(raw.wavelengths, sorted(raw.bad))
    if good.size == model.size and np.abs(good - model).max() < SAME_NM:
        return
    raise ValueError(
        f"image {raw.path} must have the bands of the model, {model.size} from {model[0]:g} to {model[-1]:g} nm, got "
        f"{good.size} from {good[0]:g} to {good[-1]:g} nm; set reconstruct.image_bands: averaged to bring it to them"
    )


def _folder(config: ImagingConfig, path: Path) -> Path:
    """A folder for this file; another one once it has changed under the same name."""
    mark = [str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns]
    return config.root / "given" / hashlib.sha256(json.dumps(mark).encode()).hexdigest()[:8]
