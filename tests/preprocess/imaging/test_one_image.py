"""A user's own file for a model that is trained already."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import __main__ as cli
from pipeline import running
from pipeline.config import dump
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from preprocess.imaging.ingest import run_ingest
from preprocess.imaging.one_image import prepare_image
from tests.preprocess.imaging.scans import WAVELENGTHS, by_image, cube, experiment, write_envi


@pytest.fixture
def trained(tmp_path: Path) -> ImagingConfig:
    """An experiment whose store is there."""
    for i, name in enumerate("ab"):
        write_envi(tmp_path / f"{name}.hdr", cube(4, 4, seed=i))
    config = experiment(tmp_path, [tmp_path / "*.hdr"])
    run_ingest(config)
    return config


def asked(config: ImagingConfig, image: Path, **words: Any) -> ImagingConfig:
    section = config.reconstruct.model_copy(update={"image": str(image), **words})
    return config.model_copy(update={"reconstruct": section})


def test_the_file_becomes_a_store_in_the_bands_of_the_model(trained: ImagingConfig, tmp_path: Path) -> None:
    """Catches names of bands that the network does not know, since a header has other decimals."""
    (tmp_path / "own").mkdir()
    values = cube(5, 6, seed=7)
    path = write_envi(tmp_path / "own" / "mine.hdr", values, wavelengths=[w + 0.01 for w in WAVELENGTHS])
    config = asked(trained, path)
    written = prepare_image(config)
    assert ImageStore.open(written).bands == ImageStore.of(trained).bands
    np.testing.assert_allclose(by_image(written, "mine"), values, rtol=1e-6)
    assert prepare_image(config) == written
    assert prepare_image(asked(trained, written)) == written


def test_a_file_of_other_bands_is_refused_or_resampled(trained: ImagingConfig, tmp_path: Path) -> None:
    """Catches another instrument's bands read by their number."""
    (tmp_path / "own").mkdir()
    fine = np.arange(395.0, 470.0, 2.0)
    values = np.broadcast_to((fine / 1000)[:, None, None], (fine.size, 4, 4)).copy()
    path = write_envi(tmp_path / "own" / "fine.hdr", values, wavelengths=fine)
    message = "must have the bands of the model, 6 from 400 to 460 nm, got 38 from 395 to 469 nm; set reconstruct"
    with pytest.raises(ValueError, match=message):
        prepare_image(asked(trained, path))
    found = by_image(prepare_image(asked(trained, path, image_bands="nearest")), "fine")
    nearest = [min(fine, key=lambda nm: abs(nm - w)) for w in WAVELENGTHS]
    np.testing.assert_allclose(found[:, 0, 0], np.array(nearest) / 1000, rtol=1e-6)


def test_the_command_hands_the_store_over(
    trained: ImagingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches --image that is read and then dropped, and an image that is looked for without the option."""
    (tmp_path / "case.yaml").write_text(dump(trained))
    seen: list[Any] = []
    stage = SimpleNamespace(run_reconstruct=lambda config, **options: seen.append(options))
    monkeypatch.setitem(sys.modules, "model.imaging.reconstruct", stage)
    monkeypatch.setattr(running, "_complete", lambda *_: False)
    for more in ([], ["--image", str(tmp_path / "a.hdr"), "--verify"]):
        monkeypatch.setattr(sys, "argv", ["pipeline", "reconstruct", "--config", str(tmp_path / "case.yaml"), *more])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    assert seen[0] == {"verify": False}
    assert seen[1]["verify"] is True
    assert [image.name for image in ImageStore.open(seen[1]["image"]).images] == ["a"]
