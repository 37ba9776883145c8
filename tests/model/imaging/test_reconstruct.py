"""The reconstruct stage against the network called by hand; kills, ranks and the user's own images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.imaging.autoencoder import Autoencoder, AutoencoderConfig
from model.imaging.masks import in_windows
from model.imaging.reconstruct import run_reconstruct
from model.imaging.task import open_images
from model.imaging.train import run_train
from model.training import checkpoint
from pipeline.imaging.config import ImagingConfig
from pipeline.store import open_store
from tests.model.imaging.cases import BANDS
from tests.model.imaging.conftest import in_folder, reflectance
from tests.model.parallel.harness import run_distributed
from tests.stores import interrupted

pytestmark = pytest.mark.slow

SHORT = {"steps": 6, "validate_every": 3, "checkpoint_every": 3, "precision": "float32"}


def experiment(folder: Path, **training: Any) -> ImagingConfig:
    """Trained for a few steps; all images are reconstructed twice."""
    config = in_folder(folder, training={**SHORT, **training})
    asked = config.reconstruct.model_copy(update={"split": "train", "repeats": 2, "seed": 7})
    return config.model_copy(update={"reconstruct": asked})


@pytest.fixture(scope="module")
def done(made: Path, tmp_path_factory: pytest.TempPathFactory) -> ImagingConfig:
    """An experiment with its reconstructions."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(made / "data", folder / "data")
    config = experiment(folder)
    run_train(config)
    run_reconstruct(config)
    return config


def trained_network(config: ImagingConfig) -> Autoencoder:
    path = checkpoint.best_or_last(config.paths.checkpoints)
    assert path is not None
    network = AutoencoderConfig.from_dict(checkpoint.describe(path)["model"]).build(seed=None)
    checkpoint.load(path, {f"model.{name}": p.detach() for name, p in network.named_parameters()}, expected={})
    return network.eval()


def test_every_pixel_is_what_the_network_predicts_from_what_is_left(done: ImagingConfig) -> None:
    """Catches masks that are not those written down, bands or patches in another order, and other units."""
    store, normals = open_images(done)
    ds, network = open_store(done.paths.reconstruct), trained_network(done)
    tiles = store.tiles_of(normals.splits.train)
    assert ds["tile"].values.tolist() == [*tiles, *tiles]
    assert ds["band"].values.tolist() == list(BANDS)
    windows = ds["band_window"].values
    assert np.isnan(windows).any()
    assert np.isfinite(windows).any()
    mean, std = (values[:, None, None] for values in (normals.mean, normals.std))
    for row in (0, 3, len(tiles), len(tiles) + 4):
        hidden = ds["hidden"].values[row]
        assert hidden.sum() == 12
        x = np.nan_to_num((reflectance()[ds["tile"].values[row]] - mean) / std)
        names = [b for b, out in zip(BANDS, in_windows(store.wavelengths, (tuple(windows[row]),)), strict=True) if out]
        visible = torch.from_numpy(np.flatnonzero(~hidden))
        with torch.no_grad():
            y = network(torch.from_numpy(x).float().unsqueeze(0), visible.unsqueeze(0), hidden=names)[0]
        wanted = y.view(4, 4, 7, 2, 2).permute(2, 0, 3, 1, 4).reshape(7, 8, 8).numpy() * std + mean
        np.testing.assert_allclose(ds["reconstruction"].values[row], wanted, atol=2e-5)
    assert not np.array_equal(ds["hidden"].values[0], ds["hidden"].values[len(tiles)])


def test_features_are_tokens_of_the_whole_tile(done: ImagingConfig) -> None:
    """Catches features of masked tiles, of other tiles, and an untrained network that is the trained one."""
    store, normals = open_images(done)
    ds, network = open_store(done.paths.features), trained_network(done)
    assert ds["features"].shape == (12, 4, 4, 16)
    x = np.nan_to_num((reflectance()[[5]] - normals.mean[:, None, None]) / normals.std[:, None, None])
    with torch.no_grad():
        for name, found in (("features", network), ("features_untrained", network.config.build(seed=0))):
            tokens = found.eval().encode(torch.from_numpy(x).float()).view(4, 4, 16).numpy()
            np.testing.assert_allclose(ds[name].values[5], tokens, atol=2e-5)
    assert [str(name) for name in ds["image"].values] == [place.image for place in store.places]


def test_a_run_that_was_stopped_ends_with_the_same_bytes(done: ImagingConfig, folder: Path) -> None:
    """Catches slabs that depend on which were made in the same run."""
    shutil.rmtree(folder)
    shutil.copytree(done.root, folder)
    config = done.model_copy(update={"directory": folder})
    for path in (config.paths.reconstruct, config.paths.features):
        shutil.rmtree(path)
        path.with_name(f"{path.stem}.manifest.json").unlink(missing_ok=True)
    with interrupted(at_slab=3):
        run_reconstruct(config)
    run_reconstruct(config)
    for ours, theirs in (
        (config.paths.reconstruct, done.paths.reconstruct),
        (config.paths.features, done.paths.features),
    ):
        a, b = open_store(ours), open_store(theirs)
        assert all(np.array_equal(a[n].values, b[n].values, equal_nan=a[n].dtype.kind == "f") for n in b.data_vars)


def test_four_ranks_write_what_one_writes(done: ImagingConfig, tmp_path: Path) -> None:
    """Catches bands of other ranks in the wrong place, and tiles that two data ranks add up."""
    shutil.copytree(done.root, tmp_path / "ranks", ignore=shutil.ignore_patterns("reconstruct-*", "features-*"))
    layout = done.training.layout.model_copy(update={"data": 2, "channel": 2})
    training = done.training.model_copy(update={"layout": layout})
    config = done.model_copy(update={"directory": tmp_path / "ranks", "training": training})
    run_distributed(run_reconstruct, 4, config, timeout=600.0)
    for ours, theirs in (
        (config.paths.reconstruct, done.paths.reconstruct),
        (config.paths.features, done.paths.features),
    ):
        a, b = open_store(ours), open_store(theirs)
        for name in ("reconstruction", "features", "features_untrained"):
            if name in b:
                np.testing.assert_allclose(a[name].values, b[name].values, atol=2e-5)


def test_images_of_the_users_own_get_a_store_of_their_own(done: ImagingConfig) -> None:
    """Catches reconstructions that overwrite those of the split; here the store itself is given."""
    before = open_store(done.paths.reconstruct).attrs["contract"]
    run_reconstruct(done, image=done.paths.store)
    found = list(done.root.glob("reconstruct-*-from-images-*.zarr"))
    assert len(found) == 1
    assert open_store(found[0]).sizes["tile"] == 24
    assert open_store(done.paths.reconstruct).attrs["contract"] == before
