"""A checkpoint as one plain file: the same function, and nothing that is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.training import checkpoint
from model.weather.fields import Fields
from model.weather.forecast import run_forecast
from model.weather.predict import load_model
from model.weather.train import run_train
from model.weights.plain_file import FORMAT, read_plain, write_plain
from pipeline.config import Config, dump
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from tests import forked
from tests.model.weather.trainers import with_steps

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(experiment: Callable[..., Config]) -> Config:
    config = experiment(steps=3, validate_every=3)
    run_train(config)
    return config


def test_the_file_is_the_forecast_model(trained: Config, tmp_path: Path) -> None:
    """Catches raw weights in place of averaged ones, scales in another order, a lost description."""
    normals = Normals.open(trained.paths.normals)
    source = checkpoint.best_or_last(trained.paths.checkpoints)
    assert source is not None
    plain = read_plain(write_plain(source, tmp_path / "model.safetensors", normals=normals))
    fields = Fields(trained.paths.store, normals)
    model, _ = load_model(source, fields, device=torch.device("cpu"))
    x, lead = fields.inputs(np.array([3, 40])), torch.tensor([24.0, 72.0])
    with torch.inference_mode():
        assert torch.equal(plain.model(x, lead), model(x, lead))
        assert model(x, lead).abs().max() > 0
    assert plain.scales["std"].tolist() == normals.std.tolist()
    assert plain.scales["static_mean"].tolist() == normals.static_mean.tolist()
    assert (plain.step, plain.normals, plain.network_input) == (3, normals.digest, "state")
    assert plain.contract == fields.contract
    raw = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    checkpoint.load(source, {f"model.{name}": p for name, p in raw.items()}, expected={})
    assert any(not torch.equal(raw[name], p) for name, p in plain.model.named_parameters())


def test_a_model_of_changes_comes_with_their_scale(experiment: Callable[..., Config], tmp_path: Path) -> None:
    """Catches a file whose outputs nobody can turn into states."""
    config = with_steps(experiment, steps=2, step_hours=[12, 24])
    run_train(config)
    normals, source = Normals.open(config.paths.normals), checkpoint.best_or_last(config.paths.checkpoints)
    assert source is not None
    plain = read_plain(write_plain(source, tmp_path / "model.safetensors", normals=normals))
    assert (plain.predicts, plain.step_hours) == ("change", (12, 24))
    assert plain.scales["change_std"][1].tolist() == normals.change_std(24).tolist()


def test_calibration_goes_along(experiment: Callable[..., Config], tmp_path: Path) -> None:
    """Catches factors of another model or another list of leads, axes exchanged, digits lost, and a file that says
    nothing of a tensor that is missing."""
    config = with_steps(experiment, steps=2, forecast={"lead_hours": [24, 72]})
    run_train(config)
    normals, source = Normals.open(config.paths.normals), checkpoint.best_or_last(config.paths.checkpoints)
    target = tmp_path / "model.safetensors"
    assert source is not None
    assert read_plain(write_plain(source, target, normals=normals, config=config)).calibration is None
    run_forecast(config)
    plain = read_plain(write_plain(source, target, normals=normals, config=config))
    assert plain.calibration is not None
    issued, raw = open_store(config.paths.forecast), open_store(config.paths.uncalibrated["uncalibrated"])
    assert plain.calibration.lead_hours == config.forecast.lead_hours
    assert plain.calibration.channels == issued["channel"].values.tolist()
    assert np.array_equal(plain.calibration.array, issued["calibration"].values)
    climatology = normals.climatology_at(raw["init_time"].values[:, None] + raw["lead_time"].values)
    assert np.allclose(plain.calibration.applied(raw["state"].values, climatology), issued["state"].values, atol=1e-4)
    (kept,) = config.paths.train.glob("calibration-*.json")
    assert plain.calibration.factors == json.loads(kept.read_text())["factors"]
    assert read_plain(write_plain(source, tmp_path / "plain", normals=normals)).calibration is None
    other = with_steps(experiment, steps=2, forecast={"lead_hours": [24, 48, 72]})
    assert read_plain(write_plain(source, tmp_path / "other", normals=normals, config=other)).calibration is None
    tensors = load_file(target)
    with safe_open(target, framework="pt") as file:
        text = file.metadata()
    tensors["calibration.factors"] = tensors["calibration.factors"].transpose(0, 1).contiguous()
    save_file(tensors, target, metadata=text)
    with pytest.raises(ValueError, match=r"calibration.factors: \(3, 2, 6\), not \(2, 3, 6\)"):
        read_plain(target)
    del tensors["calibration.factors"]
    save_file(tensors, target, metadata=text)
    with pytest.raises(ValueError, match=r"calibration.factors: absent"):
        read_plain(target)


def test_the_command_writes_it(trained: Config, tmp_path: Path, root: Path) -> None:
    """Catches a command that names no file, and one that leaves a user without training with a traceback."""
    path = tmp_path / "experiment.yaml"
    path.write_text(dump(trained))
    command = ["pipeline", "export", "--to", "model", "--config", str(path)]
    done = forked.run(command, cwd=root)
    assert done.returncode == 0, done.stderr
    target = trained.paths.train / "small.safetensors"
    assert str(target) in done.stderr.replace("\n", "")
    assert read_plain(target).step == 3
    done = forked.run([*command, "--set", "training.seed=9"], cwd=root)
    assert done.returncode == 2
    assert "run python -m pipeline train" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_normals_are_refused(trained: Config, tmp_path: Path) -> None:
    """Catches a file whose scales are not those of training."""
    source = checkpoint.best_or_last(trained.paths.checkpoints)
    normals = Normals.open(trained.paths.normals)
    object.__setattr__(normals, "digest", "other")
    assert source is not None
    with pytest.raises(ValueError, match="normals"):
        write_plain(source, tmp_path / "model.safetensors", normals=normals)
    assert not (tmp_path / "model.safetensors").exists()


def test_wrong_files_are_named(trained: Config, tmp_path: Path) -> None:
    """Catches a pickle that is run, half a file, another program's tensors, and a tensor that is missing."""
    source, target = checkpoint.best_or_last(trained.paths.checkpoints), tmp_path / "model.safetensors"
    assert source is not None
    write_plain(source, target, normals=Normals.open(trained.paths.normals))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        read_plain(bad)
    bad.write_bytes(target.read_bytes()[:-8])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        read_plain(bad)
    save_file({"a": torch.ones(2)}, bad)
    with pytest.raises(ValueError, match=FORMAT):
        read_plain(bad)
    tensors = load_file(target)
    with safe_open(target, framework="pt") as file:
        text = file.metadata()
    del tensors["model.position"], tensors["normals.std"]
    save_file({**tensors, "more": torch.ones(1)}, bad, metadata=text)
    with pytest.raises(ValueError, match=r"(?s)position: absent.*normals.std: absent.*more: unknown"):
        read_plain(bad)
    with pytest.raises(ValueError, match=r"got .*nowhere"):
        read_plain(tmp_path / "nowhere")
