"""The train stage on a small store: it learns, resumes bit-identically after a kill, and is the same on any ranks."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from model.imaging import task as task_module
from model.imaging.export import read_plain, run_export
from model.imaging.plan import run_plan
from model.imaging.task import Autoencoding, AutoencodingTask
from model.imaging.train import run_train
from model.parallel.launch import process_group
from model.training.rehearsal import footprint
from model.training.run import trained
from model.training.trainer import RunFolder, Trainer
from pipeline.imaging.config import ImagingConfig
from tests.forked import forking
from tests.model.imaging.cases import BANDS, imaging_config
from tests.model.imaging.conftest import in_folder
from tests.model.parallel.harness import run_distributed
from tests.model.runs import equal_runs, losses, saved_tensors, training_peak

pytestmark = pytest.mark.slow

SHORT = {"steps": 6, "validate_every": 3, "checkpoint_every": 2, "ema_decay": 0.9}


def train(folder: Path, config: ImagingConfig) -> None:
    """Train, or resume, in a folder beside the store."""
    with process_group(world_size=None) as device:
        trained(
            lambda _device: AutoencodingTask(config),
            config.training,
            folder=RunFolder(folder),
            device=device,
            console=Console(quiet=True),
        )


def train_and_die(folder: Path, config: ImagingConfig, step: int) -> None:
    """A training that ends by SIGKILL in a step."""
    torch.set_num_threads(1)
    seen: list[int] = []
    loss = AutoencodingTask.loss

    def dying(self: Any, predict: Any, batch: Any, *, mesh: Any) -> torch.Tensor:
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(step)
        return loss(self, predict, batch, mesh=mesh)

    task_module.AutoencodingTask.loss = dying  # type: ignore[method-assign]
    train(folder, config)


def kill(folder: Path, config: ImagingConfig, *, step: int) -> None:
    """Train, or resume, until the loss has been computed so many times; then die."""
    process = forking().Process(target=train_and_die, args=(folder, config, step))
    process.start()
    process.join(timeout=600)
    assert process.exitcode == -signal.SIGKILL


def test_it_resumes_bit_identically(made: Path, tmp_path: Path) -> None:
    """Catches masks, windows or an order that follow from what was drawn before."""
    config = in_folder(made, training=SHORT)
    train(tmp_path / "whole", config)
    kill(tmp_path / "killed", config, step=5)
    train(tmp_path / "killed", config)
    assert equal_runs(tmp_path / "killed", tmp_path / "whole")


def test_several_kills_leave_the_run_of_none(made: Path, tmp_path: Path) -> None:
    """Catches what a checkpoint lacks at some moment of a run: between steps, in a validation, right after a resume."""
    config = in_folder(made, training=SHORT | {"steps": 18, "validate_every": 5, "checkpoint_every": 2})
    train(tmp_path / "whole", config)
    random = np.random.default_rng(0)
    for _ in range(6):
        kill(tmp_path / "killed", config, step=int(random.integers(0, 5)))
    train(tmp_path / "killed", config)
    assert equal_runs(tmp_path / "killed", tmp_path / "whole")


def test_a_run_goes_on_under_another_layout(made: Path, tmp_path: Path) -> None:
    """Catches rows of the output layer or of the tokeniser that are saved or read as those of other bands."""

    def config(steps: int, **layout: Any) -> ImagingConfig:
        return in_folder(made, training={**SHORT, "steps": 6, "layout": layout} | {"steps": steps})

    train(tmp_path / "one", config(6))
    run_distributed(train, 2, tmp_path / "two", config(6, channel=2, trunk="sequence"), timeout=600.0)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-10)
    for old in (tmp_path / "two" / "checkpoints").glob("*-000000006"):
        shutil.rmtree(old)
    train(tmp_path / "two", config(6))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-10)
    ours, theirs = saved_tensors(tmp_path / "two"), saved_tensors(tmp_path / "one")
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-8) for n in theirs if n.startswith("model."))


def test_the_plan_agrees_with_a_real_run(made: Path) -> None:
    """Catches a planner that rehearses other shapes than the loader gives."""
    sizes = {"width": 128, "depth": 3, "decoder": {"width": 64, "depth": 2, "heads": 4}}
    config = in_folder(made, model=sizes, training={"steps": 2, "batch_size": 8, "validate_every": 2})

    def make() -> Trainer[Any]:
        folder, console = RunFolder(made / "planned"), Console(quiet=True)
        return Trainer(
            AutoencodingTask(config), config.training, folder=folder, device=torch.device("cpu"), console=console
        )

    planned = footprint(Autoencoding.planned(config), config.training)
    assert planned.peak == pytest.approx(training_peak(make), rel=0.15)


def test_a_plan_needs_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a plan that asks for what it is made before; four channel ranks hold a quarter of what is cut."""
    config = imaging_config(training={"layout": {"channel": 4}}).model_copy(update={"directory": tmp_path})
    run_plan(config, device="cpu")
    assert "every tile of the training images" in capsys.readouterr().err
    assert (tmp_path / "plan-train.json").exists()


def test_what_is_exported_is_the_network_with_its_bands(folder: Path) -> None:
    """Catches scales of other bands, and weights that are not those that reconstructions use."""
    config = in_folder(folder, training={**SHORT, "precision": "float32"})
    run_train(config)
    run_export(config)
    plain = read_plain(config.paths.train / "few-bands.safetensors")
    assert plain.bands == BANDS
    assert plain.scales["wavelength"].tolist() == [400, 410, 420, 430, 440, 450, 460]
    saved = saved_tensors(config.paths.train, tag="best")
    for name, value in plain.model.named_parameters():
        assert torch.equal(value, saved[f"average.{name}"]), name


def test_targets_by_patch_cannot_start_from_an_interpolation() -> None:
    """Catches predictions in two units that are added up."""
    with pytest.raises(ValueError, match="starts_from must be mean with targets: patch"):
        imaging_config(model={"starts_from": "interpolation", "targets": "patch"})
