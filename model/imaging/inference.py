"""A trained autoencoder at work: reconstructions and features of the tiles of a store, on any ranks.

Contract: tiles are divided over the data axis in passes, and channel ranks read and predict together. Parameters are
replicated over the data axis whatever the training's sharding, since nothing is kept for a backward.

Letters: N tiles asked for, B of a pass, K bands of this rank, C of all ranks, Y/X pixels of a tile, L patches, P pixels
of a patch, M visible patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.imaging.architecture import hiding_of
from model.imaging.autoencoder import Autoencoder, AutoencoderConfig
from model.imaging.loss import FLOOR
from model.imaging.masks import Index, Windows
from model.imaging.passes import passes
from model.imaging.task import open_images
from model.imaging.tiles import Tiles, cut_patches, join_patches
from model.imaging.training_data import Reflectance, SampleMaker
from model.parallel import launch, wrap
from model.parallel.channels import ChannelPlan
from model.parallel.mesh import CHANNEL, DATA, DeviceMesh, axis_size, build_mesh, channel_rank, data_rank
from model.parallel.targets import whole_target
from model.training import checkpoint
from model.training.load import load_network
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals

_REPEAT = 1 << 40
"""Added to the number of a tile for the masks of every repeat but the first."""
AT_ONCE = 8
"""Most tiles of a pass."""


@dataclass(frozen=True)
class Job:
    """What a rank needs to reconstruct tiles.

    Attributes:
        config: the experiment.
        network: in evaluation mode, this rank's part.
        store: whose tiles are reconstructed.
        own: their reflectance in the bands of this rank.
        maker: of masks.
        tiles: numbers of the tiles to reconstruct, again for every repeat.
        repeats: of each of them, which it is.
        scale: mean and standard deviation of this rank's bands, (K, 1) each.
        mesh: of the ranks.
        plan: which rank holds which bands.
        digest: of the weights.
        trained_on: contract of the training store.
        path: of the reconstructions and of the features.
        facts: for the receipt.
    """

    config: ImagingConfig
    network: Autoencoder
    store: ImageStore
    own: Reflectance
    maker: SampleMaker
    tiles: Index
    repeats: Index
    scale: tuple[Tensor, Tensor]
    mesh: DeviceMesh
    plan: ChannelPlan
    digest: str
    trained_on: dict[str, Any]
    path: tuple[Path, Path]
    facts: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.network.position.device

    @property
    def numbers(self) -> Index:
        """Of the samples, which decide their masks."""
        return self.tiles + self.repeats * _REPEAT

    def windows(self, part: slice) -> list[Windows]:
        """Ranges of wavelengths hidden from some of the tiles [nm]."""
        return [self.maker.windows(int(number)) for number in self.numbers[part]]

    def hidden_patches(self, part: slice) -> NDArray[np.bool_]:
        """Which patches are hidden from some of the tiles, (N, py, px)."""
        empty = torch.empty((len(self.tiles[part]), 0))
        made = self.maker.tiles(empty, empty, numbers=self.numbers[part], windows=())
        hidden = np.ones((len(empty), self.maker.patches), dtype=bool)
        np.put_along_axis(hidden, made.visible.numpy(), False, axis=1)
        return hidden.reshape(len(empty), *self.network.grid)

    @torch.no_grad()
    def reconstructed(self, part: slice) -> NDArray[np.float32]:
        """Reflectance of some of the tiles as the network predicts it, (N, C, Y, X); the same on every rank."""
        tiles, numbers = self.tiles[part], self.numbers[part]
        C, side = len(self.network.config.channels), self.store.tile
        out = torch.zeros((len(tiles), C, side, side), device=self.device)
        group = self.mesh.get_group(CHANNEL)
        for one in passes(self.windows(part), **self._division()):
            x, valid = self.own.read(tiles[one.positions])
            batch = self.maker.tiles(x, valid, numbers=numbers[one.positions], windows=one.windows)
            batch = batch.to(self.device, torch.float32)
            y_BLKP = self._physical(self.network(batch.x, batch.visible, hidden=batch.hidden).float(), batch)
            fields = join_patches(y_BLKP, patch=self.network.config.patch, grid=self.network.grid)
            whole = whole_target(fields, plan=self.plan, channels=self.network.config.channels, group=group)
            if one.counts:
                out[torch.from_numpy(one.positions)] = whole
        return launch.sum_over_ranks(out, group=self.mesh.get_group(DATA)).cpu().numpy()

    @torch.no_grad()
    def features(self, network: Autoencoder, part: slice) -> NDArray[np.float32]:
        """What the encoder gives for some tiles of the store, nothing hidden: (N, py, px, D); the same on every rank.

        Args:
            network: trained or not.
            part: of the tiles of the store.
        """
        tiles = np.arange(len(self.store.places))[part]
        grid, width = network.grid, network.config.width
        out = torch.zeros((len(tiles), *grid, width), device=self.device)
        for one in passes([()] * len(tiles), **self._division()):
            x, _ = self.own.read(tiles[one.positions])
            tokens = network.encode(x.to(self.device)).float()
            if one.counts:
                out[torch.from_numpy(one.positions)] = tokens.view(-1, *grid, width)
        return launch.sum_over_ranks(out, group=self.mesh.get_group(DATA)).cpu().numpy()

    def untrained(self) -> Autoencoder:
        """The network as its training began."""
        seed = self.config.training.seed
        placement = _placement(self.config)
        found = wrap.distribute(self.network.config, mesh=self.mesh, placement=placement, seed=seed, device=self.device)
        assert isinstance(found, Autoencoder)
        return found.eval()

    def _division(self) -> dict[str, int]:
        return {"at_once": AT_ONCE, "rank": data_rank(self.mesh), "ranks": axis_size(self.mesh, DATA)}

    def _physical(self, y_BLKP: Tensor, batch: Tiles) -> Tensor:
        """Predictions in reflectance.

        Where targets were normalised patch by patch, the mean and the standard deviation of a patch are not predicted:
        those of the visible pixels of the tile, band by band, stand in for them.
        """
        if self.config.model.targets == "patch":
            patch = self.network.config.patch
            x = cut_patches(batch.x, patch=patch, wanted_BQ=batch.visible).movedim(2, 1).flatten(2)
            valid = cut_patches(batch.valid, patch=patch, wanted_BQ=batch.visible).movedim(2, 1).flatten(2)
            count = valid.sum(dim=2).clamp(min=1)
            mean = x.sum(dim=2) / count
            variance = ((x - mean.unsqueeze(2)) * valid).square().sum(dim=2) / count
            y_BLKP = y_BLKP * (variance + FLOOR).sqrt()[:, None, :, None] + mean[:, None, :, None]
        mean_K1, std_K1 = self.scale
        return y_BLKP * std_K1 + mean_K1


def prepare(config: ImagingConfig, path: Path, *, device: torch.device, image: Path | None) -> Job:
    """Open everything on this rank.

    Args:
        config: the experiment.
        path: the checkpoint.
        device: of this rank.
        image: see `run_reconstruct`.

    Raises:
        ValueError: the checkpoint belongs to other data, or the images have other bands or tiles than the network.
    """
    ranks = launch.world_size()
    mesh = build_mesh(channel=config.training.layout.channel if ranks > 1 else 1, device_type=device.type)
    trained_on, normals = open_images(config)
    store = trained_on if image is None else ImageStore.open(image)
    shape = AutoencoderConfig.from_dict(checkpoint.describe(path)["model"])
    _check_images(store, shape, normals)
    expected = {"contract": trained_on.contract, "normals": normals.digest}
    network, digest = load_network(
        path, shape, expected=expected, device=device, mesh=mesh, placement=_placement(config)
    )
    assert isinstance(network, Autoencoder)
    plan = wrap.plan_for(shape, ranks=axis_size(mesh, CHANNEL))
    bands = plan.channels[channel_rank(mesh)]
    rows = [normals.bands.index(name) for name in bands]
    scale = [torch.from_numpy(values[rows]).float().unsqueeze(1).to(device) for values in (normals.mean, normals.std)]
    options = config.reconstruct
    tiles = np.arange(len(store.places)) if image else store.tiles_of(normals.splits.of(options.split))
    hiding = hiding_of(config.masking, seed=options.seed)
    paths = (config.paths.reconstruct, config.paths.features)
    facts = {"tiles": len(tiles), "split": options.split, "checkpoint": path.name, "checkpoint_digest": digest}
    return Job(
        config=config,
        network=network,
        store=store,
        own=Reflectance(store, normals, bands=bands),
        maker=SampleMaker(store, hiding, patch=shape.patch, channels=bands),
        tiles=np.tile(tiles, options.repeats),
        repeats=np.repeat(np.arange(options.repeats), len(tiles)),
        scale=(scale[0], scale[1]),
        mesh=mesh,
        plan=plan,
        digest=digest,
        trained_on=dict(trained_on.contract),
        path=paths if image is None else tuple(_of_image(path, store) for path in paths),  # type: ignore[arg-type]
        facts=facts,
    )


def _of_image(path: Path, store: ImageStore) -> Path:
    """Of a store for a user's own file: one of its own for every content."""
    return path.with_name(f"{path.stem}-from-{store.path.stem}-{store.digest[:8]}.zarr")


def _check_images(store: ImageStore, shape: AutoencoderConfig, normals: ImageNormals) -> None:
    if tuple(store.bands) != shape.channels or store.bands != normals.bands:
        raise ValueError(
            f"images must have the {len(shape.channels)} bands of the model, got {len(store.bands)} in {store.path}; "
            "resample them to the wavelengths it was trained on"
        )
    if (store.tile, store.tile) != shape.image:
        raise ValueError(f"tiles must be those of the model, {shape.image[0]} pixels, got {store.tile} in {store.path}")


def _placement(config: ImagingConfig) -> wrap.Placement:
    return wrap.Placement(trunk=config.training.layout.trunk, data="ddp")
