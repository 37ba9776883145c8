"""What a run tells while it trains: the waiting, the metrics file, TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import model.training.trainer
from model.training.metrics_log import MetricsLog, read_metrics
from tests.model.training.stub import StubTask, options, raising_at, train


def test_waiting_is_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a share of waiting that misses the steps after the first."""
    run = train(tmp_path, StubTask(options(steps=6), in_batch=lambda _: time.sleep(0.1)))
    waits = [r["wait_seconds"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    facts = run.facts()
    assert min(waits) >= 0
    assert sum(waits) > 0
    assert sum(waits) == pytest.approx(facts["share_waiting_for_data"] * run.seconds, rel=0.2, abs=0.02)
    assert "waiting for data" in capsys.readouterr().err


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: values by tag and step, those after a restarted step hidden.

    Its own reader fails beside NumPy 2 in the pinned version; a file is records of length, checksum, event, checksum.
    """
    event = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            entry = event.Event.FromString(content[place + 12 : place + 12 + size])
            place += 16 + size
            if entry.session_log.status == event.SessionLog.START:
                found = {tag: {s: v for s, v in values.items() if s < entry.step} for tag, values in found.items()}
            for value in entry.summary.value:
                assert entry.step not in found.get(value.tag, {})
                found.setdefault(value.tag, {})[entry.step] = value.simple_value
    return found


def test_tensorboard_sees_the_metrics_of_a_resumed_run_once(tmp_path: Path) -> None:
    """Catches scalars under no name, lost at a kill, or shown twice after it."""
    settings = options(tensorboard=True)

    def scores(factor: float) -> dict[str, object]:
        return {"loss": factor, "leads": {"72": {"skill": factor}}}

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, StubTask(settings, scores=scores, in_step=raising_at(7, KeyboardInterrupt())))
    train(tmp_path, StubTask(settings, scores=scores))
    found = scalars(tmp_path / "tensorboard")
    records = {r["step"]: r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "train"}
    assert found["train/loss"] == pytest.approx(records)
    assert list(found["train/loss"]) == list(records)
    assert list(found["validation/leads/72/skill"]) == [5, 10, 12]


def test_a_missing_tensorboard_is_mentioned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a demo that fails, or says nothing, because an extra is not installed."""
    monkeypatch.setattr(model.training.trainer, "has_tensorboard", lambda: False)
    train(tmp_path, tensorboard=True, steps=2)
    assert capsys.readouterr().err.count("TensorBoard is not installed") == 1
    assert not (tmp_path / "tensorboard").exists()


def test_metrics_are_cut_to_a_step(tmp_path: Path) -> None:
    """Catches a step that is in the file twice, and a line cut short by a kill that breaks the reader."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write("train", step=step, loss=float(step))
    log.flush()
    with log.path.open("a") as file:
        file.write('{"kind": "train", "st')
    MetricsLog(log.path).cut(2)
    assert [r["step"] for r in read_metrics(log.path)] == [1, 2]
