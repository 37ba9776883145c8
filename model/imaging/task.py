"""Masked autoencoding as a task of the trainer: tiles of images, what is hidden from them, errors of what is predicted.

Letters: B batch, K bands of this rank, C of all ranks, Q patches predicted, P pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.imaging.architecture import hiding_of, network_config, planned_network
from model.imaging.autoencoder import AutoencoderConfig
from model.imaging.loss import hidden_loss
from model.imaging.masks import hidden_count, predicted_count, require_fits
from model.imaging.tiles import Tiles
from model.imaging.training_data import ImagingData
from model.network.cut import Network
from model.parallel import launch, wrap
from model.parallel.mesh import CHANNEL, DATA, DeviceMesh, axis_size, channel_rank
from model.training.task import Predict
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals


class Autoencoding:
    """What training and its plan share: the network, the loss, the shapes.

    Args:
        config: the experiment.
        network: to be trained.
        weight_C: of each band in the loss; None for ones.
    """

    def __init__(self, config: ImagingConfig, network: AutoencoderConfig, *, weight_C: Tensor | None) -> None:
        self.config, self._network, self.weight_C = config, network, weight_C
        self._weights: dict[DeviceMesh, Tensor | None] = {}

    @classmethod
    def planned(cls, config: ImagingConfig) -> Autoencoding:
        """For an experiment whose store need not exist: shapes are right, values are not."""
        network = planned_network(config)
        return cls(config, network, weight_C=torch.ones(len(network.channels)))

    @property
    def network(self) -> AutoencoderConfig:
        """The network: how it is built, and how it may be cut."""
        return self._network

    def loss(self, predict: Predict, batch: Tiles, *, mesh: DeviceMesh) -> Tensor:
        """Mean squared error of what is hidden, over the bands of all ranks."""
        y_BQKP = predict(batch.x, batch.visible, predicted_BQ=batch.predicted, hidden=batch.hidden)
        return hidden_loss(
            y_BQKP,
            batch,
            patch=self.network.patch,
            bands=len(self.network.channels),
            weight_K=self._weight(mesh, device=batch.x.device),
            by_patch=self.config.model.targets == "patch",
            band_weight=self.config.masking.bands.weight if self.config.masking.bands else 1.0,
            group=mesh.get_group(CHANNEL),
        )

    def used(self, batch: Tiles, *, progress: float) -> Tiles:  # noqa: ARG002
        """All of a batch, at any time."""
        return batch

    def passes(self, progress: float) -> int:  # noqa: ARG002
        """One, at any time."""
        return 1

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tiles:
        """A batch of the right shapes; with bands hidden where some are, which takes most memory."""
        config, network = self.config, self.network
        patches = (config.data.tile // config.model.patch) ** 2
        hiding = hiding_of(config.masking)
        visible = patches - hidden_count(hiding, patches=patches)
        hidden = frozenset(network.channels[:1]) if hiding.share else frozenset[str]()
        predicted = predicted_count(hiding, wanted=patches if hidden else patches - visible)
        shape = (samples, len(channels), *network.image)
        positions = torch.arange(patches, device=device)
        return Tiles(
            x=torch.full(shape, 0.5, dtype=dtype, device=device),
            valid=torch.ones(shape, dtype=torch.bool, device=device),
            visible=positions[:visible].repeat(samples, 1),
            predicted=positions[patches - predicted :].repeat(samples, 1),
            hides=torch.ones((samples, predicted), dtype=torch.bool, device=device),
            band_hidden=torch.zeros(len(channels), dtype=torch.bool, device=device),
            hidden=hidden,
        )

    def validation_samples(self) -> int:
        """How many fixed samples there are at most, 0 for none."""
        return self.config.training.validation_samples if self.config.data.splits.validation else 0

    def _weight(self, mesh: DeviceMesh, *, device: torch.device) -> Tensor | None:
        """Of this rank's bands; None for ones."""
        if self.weight_C is None:
            return None
        if mesh not in self._weights:  # once, not every step
            plan = wrap.plan_for(self.network, ranks=axis_size(mesh, CHANNEL))
            place = {name: i for i, name in enumerate(self.network.channels)}
            rows = [place[name] for name in plan.channels[channel_rank(mesh)]]
            self._weights[mesh] = self.weight_C[rows].to(device)
        return self._weights[mesh]


class AutoencodingTask(Autoencoding):
    """Masked autoencoding of the images of a store.

    Args:
        config: the experiment.

    Raises:
        ValueError: the store or its normals are missing or do not fit the configuration.
    """

    def __init__(self, config: ImagingConfig) -> None:
        self.store, self.normals = open_images(config)
        wavelengths = [float(value) for value in self.store.wavelengths]
        require_fits(hiding_of(config.masking), wavelengths=wavelengths)
        network = network_config(config.model, bands=self.store.bands, wavelengths=wavelengths, tile=self.store.tile)
        variance = torch.from_numpy(np.square(self.normals.std)).float()
        weight_C = variance / variance.mean() if config.model.targets == "reflectance" else None
        super().__init__(config, network, weight_C=weight_C)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a checkpoint must agree with to be resumed here; JSON-ready."""
        return {
            "contract": self.store.contract,
            "normals": self.normals.digest,
            "masking": self.config.masking.identity,
            "targets": self.config.model.targets,
        }

    @property
    def description(self) -> Mapping[str, Any]:
        """The wavelengths and the resolved configuration."""
        return {
            "wavelengths": [float(value) for value in self.store.wavelengths],
            "config": self.config.model_dump(mode="json"),
        }

    def start(self) -> tuple[Network, str] | None:
        """Random numbers; another start is refused.

        Raises:
            ValueError: `training.start_from` is given.
        """
        if self.config.training.start_from is not None:
            raise ValueError(
                "training.start_from is for task: forecast, got "
                f"{self.config.training.start_from}; an autoencoder starts at random: leave it out"
            )
        return None

    def data(self, *, channels: Sequence[str], rank: int, ranks: int, pin: bool) -> ImagingData:
        """The tiles of the training images, as one rank reads them."""
        where = {"rank": rank, "ranks": ranks}
        return ImagingData(self.config, store=self.store, normals=self.normals, channels=channels, pin=pin, **where)

    def validate(self, predict: Predict, data: ImagingData, *, mesh: DeviceMesh, at_once: int) -> dict[str, Any] | None:
        """Mean loss of the fixed tiles, each with the mask and the hidden bands that belong to it."""
        if not len(data.validation):
            return None
        precise = self.config.training.precision == "float64"
        device, dtype = torch.device(mesh.device_type), torch.float64 if precise else torch.float32
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for one in data.fixed_passes(at_once=at_once):
            loss = self.loss(predict, data.fixed(one).to(device, dtype), mesh=mesh)
            if one.counts:
                sums += torch.stack([loss.double() * len(one.positions), sums.new_tensor(float(len(one.positions)))])
        total, count = launch.sum_over_ranks(sums, group=mesh.get_group(DATA)).tolist()
        return {"loss": total / count}

    def summary(self, scores: Mapping[str, Any]) -> str:
        """Scores of a validation in one line."""
        return f"validation loss {scores['loss']:.4f}"


def open_images(config: ImagingConfig) -> tuple[ImageStore, ImageNormals]:
    """The store of an experiment and its normals.

    Raises:
        ValueError: one is missing, or they do not belong together.
    """
    store, normals = ImageStore.of(config), ImageNormals.open(config.paths.normals)
    if normals.contract["store"] != store.digest:
        raise ValueError(
            f"normals {config.paths.normals} must be those of the store {config.paths.store}, got those of another "
            "one; run python -m pipeline normals again"
        )
    return store, normals
