"""The training loop on a task of one weight: it learns, resumes bit-identically, and stops where it must."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import model.training.trainer
from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.training.step import training_step
from tests.forked import forking
from tests.model.parallel.harness import run_distributed
from tests.model.runs import curve, equal_runs, losses, same, saved_tensors
from tests.model.training.stub import (
    FACTOR,
    StubConfig,
    StubTask,
    options,
    raising_at,
    signalling_at,
    train,
    trainer,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing stopped; shared, only looked at."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder)
    return folder


def checkpoints(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


def test_run_leaves_what_it_promises(undisturbed: Path, tmp_path: Path) -> None:
    """Catches a run that ends without its checkpoints, metrics or facts, and data that are never read into memory."""
    records = curve(undisturbed)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in records if r["kind"] == "validation"] == [5, 10, 12]
    assert checkpoints(undisturbed) == ["best-000000010", "best-000000012", "step-000000008", "step-000000012"]
    task = StubTask(options())
    run = train(tmp_path / "run", task)
    assert task.held
    facts = run.facts()
    assert (facts["steps"], facts["parameters"], facts["starts"], facts["epochs"]) == (12, 1, 40, 2.4)
    assert facts["best_validation"] == {"step": 12, "loss": losses(undisturbed, "validation")[-1]}
    assert Path(facts["checkpoint"]).name == "best-000000012"
    assert equal_runs(tmp_path / "run", undisturbed)


def test_it_learns(tmp_path: Path) -> None:
    """Catches a loop that runs but does not learn, and an average that does not follow."""
    train(tmp_path, StubTask(options(steps=100, validate_every=100), network=StubConfig(dropout=0.0)))
    found = saved_tensors(tmp_path)
    assert found["model.weight"].item() == pytest.approx(FACTOR, abs=0.1)
    assert found["average.weight"].item() == pytest.approx(FACTOR, abs=0.1)
    assert losses(tmp_path, "train")[-1] < 0.05 < losses(tmp_path, "train")[0]


@pytest.mark.parametrize("step", range(12))
def test_resume_is_bit_identical(undisturbed: Path, tmp_path: Path, step: int) -> None:
    """Catches optimiser moments, average, order, dropout or schedule that start anew, and metrics held twice."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StubTask(options(), in_step=raising_at(step, KeyboardInterrupt())))
    train(tmp_path)
    assert equal_runs(tmp_path, undisturbed)


def train_and_die(folder: Path, moment: str, step: int) -> None:
    """A training that ends by SIGKILL: in a step, or when a checkpoint's tensors are on the disk and no more."""
    torch.set_num_threads(1)
    if moment == "step":
        train(folder, StubTask(options(), in_step=signalling_at(step, signal.SIGKILL)))
    original = checkpoint.save_tensors

    def dying(tensors: Any, **settings: Any) -> None:
        original(tensors, **settings)
        signalling_at(step, signal.SIGKILL)(int(tensors["optimiser.weight.step"]))

    checkpoint.save_tensors = dying  # type: ignore[assignment]
    train(folder)


@pytest.mark.parametrize(("moment", "step"), [("step", 7), ("checkpoint", 8), ("checkpoint", 10), ("checkpoint", 12)])
def test_sigkill_then_the_same_command(undisturbed: Path, tmp_path: Path, moment: str, step: int) -> None:
    """Catches state that only an orderly exit writes: SIGKILL in a step and inside the writing of a checkpoint."""
    process = forking().Process(target=train_and_die, args=(tmp_path, moment, step))
    process.start()
    process.join(timeout=400)
    assert process.exitcode == -signal.SIGKILL
    assert any((tmp_path / "checkpoints").glob(".*")) == (moment == "checkpoint")
    train(tmp_path)
    assert equal_runs(tmp_path, undisturbed)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_sigterm_saves_first(undisturbed: Path, tmp_path: Path) -> None:
    """Catches steps lost when SLURM takes the machine away, and a signal handler left behind."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, StubTask(options(), in_step=signalling_at(5, signal.SIGTERM)))
    assert stopped.value.code == 143
    assert checkpoint.newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-000000007"
    assert signal.getsignal(signal.SIGTERM) == handler
    train(tmp_path)
    assert equal_runs(tmp_path, undisturbed)


class Poisoned(StubTask):
    """One batch makes the loss infinite."""

    step = 6

    def loss(self, predict: Any, batch: Any, *, mesh: Any) -> torch.Tensor:
        return super().loss(predict, batch, mesh=mesh) * (float("inf") if batch.step == self.step else 1.0)


def test_not_finite_stops_and_names_the_batch(undisturbed: Path, tmp_path: Path) -> None:
    """Catches parameters poisoned by one bad batch, and a message that does not say which."""
    with pytest.raises(ValueError, match=r"must be finite.*numbers of step 6.*step-000000006"):
        train(tmp_path, Poisoned(options()))
    assert checkpoint.newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-000000006"
    assert all(torch.isfinite(t).all() for t in saved_tensors(tmp_path).values())
    train(tmp_path)
    assert same(saved_tensors(tmp_path), saved_tensors(undisturbed))
    first = Poisoned(options())
    first.step = 0
    with pytest.raises(ValueError, match=r"numbers of step 0.*kept in their initial state"):
        train(tmp_path / "first", first)


def test_validation_does_not_touch_training(undisturbed: Path, tmp_path: Path) -> None:
    """Catches averaged weights left in the model, random numbers drawn or dropout switched off by looking at the
    score, and a score of other weights than those that will be used."""
    seen = []

    def scores(factor: float) -> dict[str, float]:
        seen.append(factor)
        return {"loss": torch.rand(1).item() + 1 / len(seen)}  # it draws random numbers

    train(tmp_path, StubTask(options(validate_every=1, checkpoint_every=1), scores=scores))
    assert same(saved_tensors(tmp_path), saved_tensors(undisturbed))
    assert [r for r in curve(tmp_path) if r["kind"] == "train"] == [
        r for r in curve(undisturbed) if r["kind"] == "train"
    ]
    assert len(seen) == 12
    assert seen[-1] == saved_tensors(tmp_path)["average.weight"].item()
    assert seen[-1] != saved_tensors(tmp_path)["model.weight"].item()


@pytest.mark.parametrize(
    ("changes", "within"),
    [
        ({"micro_batch": 3}, 1e-5),
        ({"recompute": True}, 1e-7),
        ({"compile": True}, 1e-7),
        ({"precision": "bfloat16"}, 1e-2),
        ({"precision": "float64"}, 1e-5),
    ],
    ids=str,
)
def test_how_a_batch_is_computed_does_not_move_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], within: float
) -> None:
    """Catches gradients of parts that do not add up to the batch's (an uneven last part), or lose their weight.

    And a network that the compiler cannot follow through training and validation, or options that do nothing.
    """
    compiled, compile_ = [], torch.compile

    def trace_only(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", trace_only)
    calls: dict[str, list[int]] = {}

    def train_with(name: str, **more: Any) -> list[float]:
        steps = calls[name] = []
        task = StubTask(options(steps=5, **more), network=StubConfig(dropout=0.0), in_step=steps.append)
        run = train(tmp_path / name, task)
        assert run.learner.network.recompute == more.get("recompute", False)
        return losses(tmp_path / name)

    found, plain = train_with("found", **changes), train_with("plain")
    assert found == pytest.approx(plain, rel=within)
    assert len(compiled) == ("compile" in changes)
    assert len(calls["found"]) == (3 if "micro_batch" in changes else 1) * len(calls["plain"])
    if "precision" in changes:
        assert found != pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_gradients_are_clipped(tmp_path: Path, group_of_one: None, clip: float) -> None:
    """Catches clipping that is left out, or cuts what is short enough: the first moment is a tenth of the gradient."""
    run = trainer(tmp_path, StubTask(options(clip_norm=clip)))
    norm = training_step(run.learner, run.task, run.data.batch(0), step=0).gradient_norm
    (state,) = run.learner.optimiser.state.values()
    assert state["exp_avg"].item() == pytest.approx(-0.1 * min(norm, clip), rel=1e-4)
    assert 1e-3 < norm < 1e3


@pytest.mark.parametrize(("micro", "most"), [(3, 3), (None, 8)])
def test_validation_takes_no_more_at_once_than_training(tmp_path: Path, micro: int | None, most: int) -> None:
    """Catches a validation that needs more memory than the training which was made to fit."""
    task = StubTask(options(steps=1, micro_batch=micro))
    train(tmp_path, task)
    assert task.at_once == [most]


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    """Catches a run that stops at once, never, or continues after a restart."""
    rising = iter([1.0, 0.9, 0.95, 0.97, 0.1])
    task = StubTask(
        options(steps=40, validate_every=2, patience=2, checkpoint_every=100), scores=lambda _: {"loss": next(rising)}
    )
    train(tmp_path, task)
    assert [r["step"] for r in curve(tmp_path) if r["kind"] == "validation"] == [2, 4, 6, 8]
    assert checkpoints(tmp_path)[-1] == "step-000000008"
    again = train(tmp_path, task)
    assert again.step == curve(tmp_path)[-1]["step"] == 8
    assert again.facts()["checkpoint"].endswith("best-000000004")


def test_without_validation_the_last_checkpoint_is_used(tmp_path: Path) -> None:
    """Catches a workload without validation samples that fails, or ends without a checkpoint for its forecasts."""
    facts = train(tmp_path, StubTask(options(), scores=lambda _: None)).facts()
    assert facts["best_validation"] is None
    assert facts["checkpoint"].endswith("step-000000012")
    assert [r["kind"] for r in curve(tmp_path)] == ["train"] * 12


MINUTES = 0.2 / 60
"""A limit of 0.2 seconds, which thousands of steps take much longer than."""


def test_minutes_end_a_run_early(tmp_path: Path) -> None:
    """Catches a limit that is not kept, a rate that does not follow the time spent, an end without a validation and a
    checkpoint, and a run that goes on when it is resumed."""
    limited = options(steps=100_000, minutes=MINUTES, validate_every=100_000, checkpoint_every=100_000)
    first = train(tmp_path, StubTask(limited))
    assert first.finished
    assert 0 < first.step < 50_000
    assert first.seconds >= 60 * MINUTES
    records = read_metrics(tmp_path / "metrics.jsonl")
    rates = [r["learning_rate"] for r in records if r["kind"] == "train"]
    assert rates[-1] < 0.3 * max(rates) == pytest.approx(0.3 * limited.learning_rate, rel=0.3)
    assert records[-1]["kind"] == "validation"
    assert checkpoints(tmp_path) == [f"best-{first.step:09d}", f"step-{first.step:09d}"]
    before = curve(tmp_path)
    again = train(tmp_path, StubTask(limited))
    assert (again.step, again.finished) == (first.step, True)
    assert curve(tmp_path) == before


def train_with_another_clock(folder: Path) -> tuple[int, int]:
    """On rank 1 time passes a hundred times as fast."""
    if torch.distributed.get_rank() == 1:
        clock = SimpleNamespace(perf_counter=lambda: 100 * time.perf_counter())
        model.training.trainer.time = clock  # type: ignore[assignment]
    limited = options(steps=100_000, minutes=MINUTES, validate_every=100_000, layout={"data": 2})
    first = train(folder, StubTask(limited)).step
    return first, train(folder, StubTask(limited)).step


def test_minutes_stop_all_ranks_together(tmp_path: Path) -> None:
    """Catches ranks that each look at their own clock: one would leave, and the others wait for it for ever."""
    (first, again), other = run_distributed(train_with_another_clock, 2, tmp_path)
    assert first == again
    assert other == (first, again)
    assert 0 < first < 50_000
