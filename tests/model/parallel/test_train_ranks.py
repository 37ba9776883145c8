"""The whole trainer on several ranks: the same losses, and checkpoints that any other number of ranks takes up.

In float64, so that what rounding leaves apart (below 1e-10) cannot hide a mistake.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model.parallel.launch import process_group
from model.parallel.mesh import channel_rank, data_rank
from model.training.metrics_log import read_metrics
from model.training.step import training_step
from model.weather.task import ForecastTask
from model.weather.train import run_train
from pipeline.config import parse
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import raw_config, write_store
from tests.model.parallel.harness import run_distributed
from tests.model.runs import losses, saved_tensors
from tests.model.weather.trainers import elsewhere, trainer_of

pytestmark = pytest.mark.slow

STEPS = 6
CLIP = 0.005
"""Below the norm of every gradient here."""


def raw(
    directory: Path, *, data: int, channel: int, model: dict[str, Any] | None = None, **layout: str
) -> dict[str, Any]:
    """A small experiment with four uneven groups of five channels: the last two hold static fields alone."""
    every = {"checkpoint_every": 3, "validate_every": 3}
    content = raw_config(directory, steps=STEPS, batch_size=8, precision="float64", clip_norm=CLIP, **every)
    content["model"] |= {"groups": {"by": "contiguous", "count": 4}, "dropout": 0.0, "unit": "C", **(model or {})}
    content["training"]["layout"] = {"data": data, "channel": channel, **layout}
    return content


def train(content: dict[str, Any]) -> None:
    run_train(parse(content))


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> WeatherConfig:
    config = parse(raw(tmp_path_factory.mktemp("one") / "results", data=1, channel=1))
    write_store(config)
    run_train(config)
    return config


LAYOUTS = [
    {"data": 2, "channel": 1},
    {"data": 1, "channel": 2},
    {"data": 2, "channel": 2, "sharding": "fsdp"},
    {"data": 1, "channel": 2, "trunk": "tensor"},
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_ranks_give_the_losses_of_one(one_rank: WeatherConfig, tmp_path: Path, layout: dict[str, Any]) -> None:
    """Catches ranks that see the same samples, gradients or targets of other channels, norms of a part of the model,
    and parts of a batch that do not add up on ranks: here they go on in parts of three."""
    content = raw(tmp_path / "ranks", **layout)
    content["training"]["micro_batch"] = 3
    elsewhere(one_rank, tmp_path / "ranks")
    run_distributed(train, layout["data"] * layout["channel"], content)
    config = parse(content)
    assert losses(config.paths.train) == pytest.approx(losses(one_rank.paths.train), rel=1e-10)
    ours, theirs = saved_tensors(config.paths.train), saved_tensors(one_rank.paths.train)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-7) for n in ours if n.startswith("model."))
    moments = [n for n in ours if n.endswith("exp_avg")]  # the parameters do not feel a wrong scale of gradients
    assert all((ours[n] - theirs[n]).abs().max() < 1e-6 * CLIP for n in moments)
    norms = [r["gradient_norm"] for r in read_metrics(config.paths.metrics) if r["kind"] == "train"]
    assert min(norms) > 2 * CLIP


def look(content: dict[str, Any]) -> dict[str, Any]:
    """What a rank reads for a batch, and the target it computes with."""
    rows: set[int] = set()
    trainer = trainer_of(parse(content))
    task, reader = trainer.task, trainer.data.fields._array
    assert isinstance(task, ForecastTask)
    original = reader.pick

    def watched(times: Any, channels: Any, **options: Any) -> Any:
        rows.update(channels.tolist())
        return original(times, channels, **options)

    reader.pick = watched  # type: ignore[method-assign]
    batch = trainer.data.batch(0)
    reader.pick = original  # type: ignore[method-assign]
    learner = trainer.learner
    _, target = task.predicted(learner.predict, batch.to(learner.device, learner.dtype), mesh=trainer.mesh)
    trainer.data.fields.load(trainer.data.pairs.used_times, progress=False)
    sizes = {"input": batch.x.shape[1], "read": batch.target.shape[1]}
    climatology = trainer.data.fields.normals.nbytes
    return {"rows": sorted(rows), "target": target, "climatology": climatology, "start": batch.items.start, **sizes}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channel", "history", "rows", "inputs"),
    [
        (2, [], [[0, 1, 2], []], [3, 2]),
        (4, [], [[0, 1], [2], [], []], [2, 1, 1, 1]),
        (2, [12], [[0, 1, 2], [0, 1, 2]], [4, 4]),
    ],
)
def test_a_rank_reads_its_channels_alone(
    one_rank: WeatherConfig, tmp_path: Path, channel: int, history: list[int], rows: list[list[int]], inputs: list[int]
) -> None:
    """Catches ranks that read every channel, or targets joined in the wrong order where the parts are uneven.

    With history, eight channels in four groups of two: rank 1 reads a static field and what was 12 hours earlier.
    """
    content = raw(tmp_path / "ranks", data=1, channel=channel, model={"history_hours": history})
    elsewhere(one_rank, tmp_path / "ranks")
    seen = run_distributed(look, channel, content)
    alone = raw(tmp_path / "ranks", data=1, channel=1, model={"history_hours": history})
    with process_group(world_size=1):
        whole = look(alone)
    assert [s["rows"] for s in seen] == rows
    assert [s["input"] for s in seen] == inputs
    assert sum(s["read"] for s in seen) == 3
    assert [s["climatology"] * 3 // whole["climatology"] for s in seen] == [len(r) for r in rows]
    for s in seen:
        assert s["start"].tolist() == whole["start"].tolist()
        assert torch.equal(s["target"], whole["target"])


def draw(content: dict[str, Any]) -> tuple[tuple[int, int], list[str], list[float]]:
    """Where a rank lies, its samples of the first step, and the random numbers that come after it."""
    trainer = trainer_of(parse(content))
    batch = trainer.data.batch(0)
    training_step(trainer.learner, trainer.task, batch, step=0)
    named = [trainer.data.pairs.describe(s, e) for s, e in zip(batch.items.start, batch.items.lead, strict=True)]
    return (data_rank(trainer.mesh), channel_rank(trainer.mesh)), named, torch.rand(3).tolist()


@pytest.mark.slow
def test_data_ranks_see_other_samples_and_channel_ranks_the_same(one_rank: WeatherConfig, tmp_path: Path) -> None:
    """Catches a sample seen twice or by nobody, one mask of dropout on all data ranks, two in one channel group."""
    content = raw(tmp_path / "ranks", data=2, channel=2, model={"dropout": 0.1})
    elsewhere(one_rank, tmp_path / "ranks")
    found = {place: (samples, drawn) for place, samples, drawn in run_distributed(draw, 4, content)}
    assert found[0, 0] == found[0, 1]
    assert found[1, 0] == found[1, 1]
    assert found[0, 0][1] != found[1, 0][1]
    with process_group(world_size=1):
        _, whole, _ = draw(raw(tmp_path / "ranks", data=1, channel=1))
    assert found[0, 0][0] + found[1, 0][0] == whole
    assert len(set(whole)) == 8


@pytest.mark.slow
def test_channel_ranks_share_dropout_history_and_start(one_rank: WeatherConfig, tmp_path: Path) -> None:
    """Catches masks that differ inside a channel group, earlier states and loaded rows given to other channels."""
    found = []
    for channel in (1, 2):
        folder = tmp_path / f"ranks{channel}"
        model = {"dropout": 0.2, "history_hours": [24], "features": ["season"], "conditioning": "adaptive_norm"}
        content = raw(folder, data=1, channel=channel, model=model)
        content["training"] |= {"start_from": str(one_rank.paths.train), "steps": 3}
        elsewhere(one_rank, folder)
        _run(content, {"data": 1, "channel": channel})
        found.append(losses(parse(content).paths.train))
    assert found[1] == pytest.approx(found[0], rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(LAYOUTS[2], None), (None, LAYOUTS[2]), (LAYOUTS[1], LAYOUTS[0])])
def test_another_layout_goes_on_where_the_first_stopped(
    one_rank: WeatherConfig, tmp_path: Path, first: dict[str, Any] | None, then: dict[str, Any] | None
) -> None:
    """Catches a checkpoint that only the layout that wrote it can read, or rows given to the wrong channels."""
    single = {"data": 1, "channel": 1}
    folder = tmp_path / "ranks"
    elsewhere(one_rank, folder)
    for layout, steps in ((first or single, 3), (then or single, STEPS)):
        content = raw(folder, **layout)
        if steps == 3:
            _run(content, layout)
            config = parse(content)
            config.paths.receipt("train").unlink()
            for tag, step in (("step", 6), ("best", 6)):
                shutil.rmtree(config.paths.checkpoints / f"{tag}-{step:09d}", ignore_errors=True)
        else:
            _run(content, layout)
    records = read_metrics(parse(content).paths.metrics)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, STEPS + 1))
    assert losses(parse(content).paths.train) == pytest.approx(losses(one_rank.paths.train), rel=1e-10)


def _run(content: dict[str, Any], layout: dict[str, Any]) -> None:
    world = layout["data"] * layout["channel"]
    if world == 1:
        train(content)
    else:
        run_distributed(train, world, content)


def test_layout_that_was_not_started_is_refused(one_rank: WeatherConfig, tmp_path: Path) -> None:
    """Catches a run on one rank whose configuration asks for four: it would train on a quarter of each batch."""
    elsewhere(one_rank, tmp_path / "ranks")
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 4"):
        train(raw(tmp_path / "ranks", data=2, channel=2))
