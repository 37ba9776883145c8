"""The training loop: it learns, resumes bit-identically, and stops where it must."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

from model.parallel.launch import process_group
from model.training import checkpoint, trainer
from model.training.metrics_log import read_metrics
from model.training.trainer import Trainer, run_train
from model.weather import training_data
from pipeline.config import Config, dump, parse
from pipeline.provenance import read_receipt
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from tests.model.dying import kill_at

pytestmark = pytest.mark.slow

Make = Callable[..., Config]


def weights(config: Config, *, tag: str = "step") -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    path = checkpoint.newest(config.paths.checkpoints, tag=tag)
    assert path is not None
    names = checkpoint._SafeReader(path).read_metadata().state_dict_metadata
    found = {name: torch.zeros(entry.size) for name, entry in names.items()}
    checkpoint.load(path, found, expected={})
    return found


def curve(config: Config) -> list[dict[str, Any]]:
    """The metrics without what depends on the clock."""
    clock = ("samples_per_second", "wait_seconds")
    return [{k: v for k, v in r.items() if k not in clock} for r in read_metrics(config.paths.metrics)]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fresh(config: Config, folder: Path) -> Config:
    """The same experiment on the same data in a folder of its own."""
    folder.mkdir()
    (folder / "data").symlink_to(config.root / "data")
    return config.model_copy(update={"directory": folder})


@pytest.fixture(scope="module")
def undisturbed(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run that nothing stopped; shared, only looked at."""
    directory = tmp_path_factory.mktemp("undisturbed") / "results"
    shutil.copytree(synthetic, directory)
    raw = yaml.safe_load((synthetic / "config.yaml").read_text())
    config = parse({**raw, "directory": str(directory)})
    run_train(config)
    return config


def make_trainer(config: Config) -> Trainer:
    return Trainer(config, device=torch.device("cpu"), console=Console(stderr=True))


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of one, for tests that look into a trainer."""
    with process_group(world_size=1):
        yield


def test_run_leaves_what_it_promises(
    undisturbed: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that ends without its checkpoints, metrics, picture or receipt, trains twice, or says all on every
    rank."""
    records = curve(undisturbed)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in records if r["kind"] == "validation"] == [5, 10, 12]
    assert set(records[-1]["leads"]) == {"24", "72"}
    assert set(records[-1]["leads"]["24"]["rmse"]) == {"t850", "t2m"}
    facts = read_receipt(undisturbed, stage="train")["facts"]
    assert facts["steps"] == 12
    assert Path(facts["checkpoint"]).name.startswith("best-")
    assert (undisturbed.paths.train / "curves.png").stat().st_size > 5000
    names = sorted(p.name for p in undisturbed.paths.checkpoints.iterdir())
    assert [n for n in names if n.startswith("step")] == ["step-000000008", "step-000000012"]
    before = undisturbed.paths.metrics.stat().st_mtime_ns
    run_train(undisturbed)
    assert "already complete" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    run_train(undisturbed)
    assert capsys.readouterr().err == ""
    assert undisturbed.paths.metrics.stat().st_mtime_ns == before


@pytest.mark.parametrize("step", [5, 11])
def test_resume_is_bit_identical(undisturbed: Config, tmp_path: Path, step: int) -> None:
    """Catches optimiser moments, average, order, dropout or schedule that start anew, and metrics held twice."""
    config = fresh(undisturbed, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(KeyboardInterrupt):
            run_train(config)
    assert not config.paths.receipt("train").exists()
    run_train(config)
    assert same(weights(config), weights(undisturbed))
    assert same(weights(config, tag="best"), weights(undisturbed, tag="best"))
    assert curve(config) == curve(undisturbed)


_SCRIPT = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from model.training import checkpoint, trainer
from model.weather import training_data
from pipeline.config import load

config, moment, step = load(sys.argv[1]), sys.argv[2], int(sys.argv[3])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if moment == "step":
    original = trainer.Trainer._train_step
    def dying(self, batch, **options):
        if self.step == step:
            die()
        return original(self, batch, **options)
    trainer.Trainer._train_step = dying
else:
    original = checkpoint.save_tensors
    def dying(tensors, **options):
        original(tensors, **options)
        if tensors["optimiser.lead.weight.step"] == step:
            die()
    checkpoint.save_tensors = dying
trainer.run_train(config)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "step"), [("step", 7), ("checkpoint", 8), ("checkpoint", 12)])
def test_sigkill_then_the_same_command(undisturbed: Config, tmp_path: Path, root: Path, moment: str, step: int) -> None:
    """Catches state that only an orderly exit writes: SIGKILL in a step and inside the writing of a checkpoint."""
    config = fresh(undisturbed, tmp_path / "killed")
    (tmp_path / "small.yaml").write_text(dump(config))
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "small.yaml"), moment, str(step)]
    killed = subprocess.run(command, cwd=root, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    run_train(config)
    assert same(weights(config), weights(undisturbed))
    assert curve(config) == curve(undisturbed)
    assert not list(config.paths.checkpoints.glob(".*"))


def test_sigterm_saves_first(undisturbed: Config, tmp_path: Path) -> None:
    """Catches steps lost when SLURM takes the machine away, and a signal handler left behind."""
    config, handler = fresh(undisturbed, tmp_path / "again"), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(5, patch, signal_number=signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            run_train(config)
    assert stopped.value.code == 143
    assert checkpoint.newest(config.paths.checkpoints) == config.paths.checkpoints / "step-000000007"
    assert signal.getsignal(signal.SIGTERM) == handler
    run_train(config)
    assert same(weights(config), weights(undisturbed))
    assert curve(config) == curve(undisturbed)


def test_not_finite_stops_and_names_the_batch(
    undisturbed: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_rank: None
) -> None:
    """Catches parameters poisoned by one bad batch, and a message that does not say which."""
    config, original = fresh(undisturbed, tmp_path / "again"), training_data.make_batch
    expected: list[str] = []

    def poisoned(fields: Any, pairs: Any, items: Any, **options: Any) -> Any:
        batch = original(fields, pairs, items, **options)
        if np.array_equal(items.start, trainer.data.order.batch(6, size=4).start):
            batch.target[2, 1, 3, 4] = float("inf")
            expected.append(pairs.describe(items.start[2], items.lead[2]))
        return batch

    trainer = make_trainer(config)
    monkeypatch.setattr(training_data, "make_batch", poisoned)
    with pytest.raises(ValueError, match="must be finite") as error:
        trainer.run()
    assert expected[0] in str(error.value)
    kept = weights(config)
    assert checkpoint.newest(config.paths.checkpoints) == config.paths.checkpoints / "step-000000006"
    assert all(torch.isfinite(t).all() for t in kept.values())
    monkeypatch.undo()
    run_train(config)
    assert same(weights(config), weights(undisturbed))


def test_validation_does_not_touch_training(undisturbed: Config, experiment: Make) -> None:
    """Catches averaged weights left in the model, or random numbers drawn, by looking at the score."""
    config = experiment(validate_every=1, keep_checkpoints=3)
    run_train(config)
    assert same(weights(config), weights(undisturbed))


@pytest.mark.parametrize(
    ("options", "within"),
    [({"micro_batch": 3}, 1e-5), ({"recompute": True}, 1e-5), ({"compile": True}, 1e-5),
     ({"precision": "bfloat16"}, 1e-2)],
    ids=str,
)  # fmt: skip
def test_how_a_batch_is_computed_does_not_move_the_losses(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], within: float
) -> None:
    """Catches gradients of parts that do not add up to the batch's (an uneven last part), or lose their weight.

    And a model that the compiler cannot follow through training and validation, or options that do nothing.
    """
    compiled, compile_ = [], torch.compile

    def trace_only(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", trace_only)

    def train_with(**more: Any) -> list[float]:
        config = experiment(steps=5, batch_size=8, checkpoint_every=5, validate_every=5, **more)
        plain = config.model.model_copy(update={"dropout": 0.0})
        config = config.model_copy(update={"model": plain})
        shutil.rmtree(config.paths.train, ignore_errors=True)
        config.paths.receipt("train").unlink(missing_ok=True)
        run_train(config)
        return [r["loss"] for r in curve(config)]

    found, plain = train_with(**options), train_with()
    assert found == pytest.approx(plain, rel=within)
    assert len(compiled) == ("compile" in options)
    if "precision" in options:
        assert found != pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_gradients_are_clipped(experiment: Make, one_rank: None, clip: float) -> None:
    """Catches clipping that is left out, or cuts what is short enough: the first moment is a tenth of the gradient."""
    trainer = make_trainer(experiment(clip_norm=clip))
    _, norm, _ = trainer._train_step(trainer.data.batch(0), stop=False)
    moments = [state["exp_avg"] for state in trainer.optimiser.state.values()]
    found = torch.stack([m.double().square().sum() for m in moments]).sum().sqrt().item()
    assert found == pytest.approx(0.1 * min(norm, clip), rel=1e-4)
    assert 1e-3 < norm < 1e3


@pytest.mark.parametrize(("micro", "most"), [(3, 3), (None, 8)])
def test_validation_takes_no_more_at_once_than_training(
    experiment: Make, one_rank: None, monkeypatch: pytest.MonkeyPatch, micro: int | None, most: int
) -> None:
    """Catches a validation that needs more memory than the training which was made to fit."""
    sizes, original = [], training_data.TrainingData.fixed

    def counted(self: training_data.TrainingData, items: Any) -> Any:
        sizes.append(len(items))
        return original(self, items)

    monkeypatch.setattr(training_data.TrainingData, "fixed", counted)
    trainer = make_trainer(experiment(batch_size=8, micro_batch=micro))
    assert trainer.data.validation is not None
    trainer._validate(*trainer.data.validation)
    assert max(sizes) == most


def test_patience_ends_a_run_that_no_longer_improves(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that stops at once, never, or goes on after a restart."""
    rising = iter([1.0, 0.9, 0.95, 0.97, 0.1])
    original = trainer.Sums.scores
    monkeypatch.setattr(trainer.Sums, "scores", lambda self, **o: original(self, **o) | {"loss": next(rising)})
    config = experiment(steps=40, validate_every=2, patience=2, checkpoint_every=100)
    run_train(config)
    assert [r["step"] for r in curve(config) if r["kind"] == "validation"] == [2, 4, 6, 8]
    assert checkpoint.newest(config.paths.checkpoints) == config.paths.checkpoints / "step-000000008"
    config.paths.receipt("train").unlink()
    run_train(config)
    assert curve(config)[-1]["step"] == 8
    facts = read_receipt(config, stage="train")["facts"]
    assert facts["checkpoint"].endswith("best-000000004")


def test_no_training_pair_leaves_the_training_period(experiment: Make, one_rank: None) -> None:
    """Catches leakage: a valid time in validation or test, or a pair over the gap in the store."""
    config = experiment(lead_hours=[12, 24, 168])
    config = config.model_copy(update={"model": config.model.model_copy(update={"history_hours": [12, 24]})})
    trainer = make_trainer(config)
    used = trainer.data.pairs.times[trainer.data.pairs.used_times]
    assert used.min() == np.datetime64("2000-01-01T00")
    assert used.max() == np.datetime64("2000-12-31T12")
    assert trainer.data.pairs.times[trainer.data.pairs.init].min() == np.datetime64("2000-01-02T00")
    assert trainer.data.validation is not None
    pairs = trainer.data.validation[0]
    seen = pairs.times[pairs.used_times]
    assert seen.min() >= np.datetime64("2001-01-01T00")
    assert seen.max() <= np.datetime64("2001-01-20T12")


def test_validation_shorter_than_a_lead_is_refused(experiment: Make, one_rank: None) -> None:
    """Catches a best checkpoint chosen on some of the leads only."""
    config = experiment()
    config = config.model_copy(update={"forecast": config.forecast.model_copy(update={"lead_hours": [24, 720]})})
    with pytest.raises(ValueError, match="720 h"):
        make_trainer(config)


def test_another_normals_digest_is_refused(undisturbed: Config, one_rank: None) -> None:
    """Catches a resume on data that are no longer those of the checkpoint."""
    trainer = make_trainer(undisturbed)
    object.__setattr__(trainer.fields.normals, "digest", "0000")
    with pytest.raises(ValueError, match=r"normals: .* against 0000"):
        trainer.resume()


@pytest.mark.parametrize("network_input", ["state", "anomaly"])
def test_it_learns_the_travelling_wave(experiment: Make, network_input: str) -> None:
    """Catches a loop that runs but does not learn: the wave is predictable, so climatology must be beaten."""
    config = experiment(steps=120, batch_size=8, learning_rate=5e-3, validate_every=120, checkpoint_every=120)
    config = config.model_copy(update={"model": config.model.model_copy(update={"network_input": network_input})})
    run_train(config)
    last = curve(config)[-1]
    assert all(lead["skill"] > 0.25 for lead in last["leads"].values())


def test_losses_count_in_units_of_anomalies(experiment: Make, one_rank: None) -> None:
    """Catches channel weights that never reach the loss, or the spread of the wrong channel."""
    plain, weighted = (make_trainer(experiment(anomaly_weighted=on)) for on in (False, True))
    normals = weighted.fields.normals
    ratio = torch.from_numpy((normals.std / normals.anomaly_std) ** 2).float()
    assert torch.allclose(weighted.channel_V, ratio / ratio.mean())
    assert ratio.max() > 1.5 * ratio.min()
    batch = plain.data.batch(0)
    expected = (batch.target.square() * weighted.area_HW / weighted.area_HW.mean()).mean(dim=(0, 2, 3))
    for one, weights in ((plain, torch.ones(3)), (weighted, weighted.channel_V)):
        loss, _, _ = one._train_step(batch, stop=False)  # an untrained model predicts zero
        assert loss == pytest.approx((expected * weights).mean().item(), rel=1e-5)


def test_earlier_states_help_where_the_wave_moves(experiment: Make) -> None:
    """Catches history that training, validation and forecast read differently."""
    from model.weather.forecast import run_forecast

    config = experiment(steps=120, batch_size=8, learning_rate=5e-3, validate_every=120, checkpoint_every=120)
    config = config.model_copy(update={"model": config.model.model_copy(update={"history_hours": [12]})})
    run_train(config)
    assert all(lead["skill"] > 0.25 for lead in curve(config)[-1]["leads"].values())
    run_forecast(config)
    facts = read_receipt(config, stage="forecast")["facts"]
    assert "2001-01-21T00" in facts["missing_init_times"]  # its earlier state lies in the validation period
    forecast, truth = open_store(config.paths.forecast)["state"], open_store(config.paths.store)["state"]
    valid = forecast["init_time"].values + np.timedelta64(24, "h")
    error = forecast.isel(lead_time=0).values - truth.sel(time=valid).values
    nothing = Normals.open(config.paths.normals).climatology_at(valid) - truth.sel(time=valid).values
    assert np.square(error).mean() < 0.9 * np.square(nothing).mean()
