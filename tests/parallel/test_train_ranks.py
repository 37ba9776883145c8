"""The whole trainer on several ranks: the same losses, and checkpoints that any other number of ranks takes up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model import checkpoint
from model.metrics_log import read_metrics
from model.train import run_train
from pipeline.config import Config, parse
from tests.parallel.harness import run_distributed

STEPS = 6


def raw(directory: Path, *, data: int, channel: int, **layout: str) -> dict[str, Any]:
    """A small experiment with eight uneven groups, so that every layout divides them."""
    from tests.model.conftest import raw_config

    content = raw_config(directory, steps=STEPS, checkpoint_every=3, validate_every=3, batch_size=8)
    content["model"] |= {"groups": {"by": "contiguous", "count": 4}, "dropout": 0.0, "unit": "C"}
    content["training"]["layout"] = {"data": data, "channel": channel, **layout}
    return content


def train(content: dict[str, Any]) -> None:
    run_train(parse(content))


def losses(config: Config) -> list[float]:
    return [r["loss"] for r in read_metrics(config.paths.metrics)]


def weights(config: Config) -> dict[str, torch.Tensor]:
    path = checkpoint.newest(config.paths.checkpoints)
    assert path is not None
    names = checkpoint._SafeReader(path).read_metadata().state_dict_metadata
    found = {name: torch.zeros(entry.size) for name, entry in names.items()}
    checkpoint.load(path, found, expected={})
    return found


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Config:
    from tests.model.conftest import write_store

    config = parse(raw(tmp_path_factory.mktemp("one") / "results", data=1, channel=1))
    write_store(config)
    run_train(config)
    return config


def elsewhere(one_rank: Config, folder: Path) -> None:
    folder.mkdir()
    (folder / "data").symlink_to(one_rank.root / "data")


LAYOUTS = [
    {"data": 2, "channel": 1},
    {"data": 1, "channel": 2},
    {"data": 2, "channel": 2, "sharding": "fsdp"},
    {"data": 1, "channel": 2, "trunk": "tensor"},
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_ranks_give_the_losses_of_one(one_rank: Config, tmp_path: Path, layout: dict[str, Any]) -> None:
    """Catches ranks that see the same samples, gradients or targets of other channels, norms of a part of the model."""
    content = raw(tmp_path / "ranks", **layout)
    elsewhere(one_rank, tmp_path / "ranks")
    run_distributed(train, layout["data"] * layout["channel"], content)
    config = parse(content)
    assert losses(config) == pytest.approx(losses(one_rank), rel=2e-4)
    ours, theirs = weights(config), weights(one_rank)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[n], theirs[n], atol=2e-3) for n in ours if n.startswith("model."))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(LAYOUTS[2], None), (None, LAYOUTS[2]), (LAYOUTS[1], LAYOUTS[0])])
def test_another_layout_goes_on_where_the_first_stopped(
    one_rank: Config, tmp_path: Path, first: dict[str, Any] | None, then: dict[str, Any] | None
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
    assert losses(parse(content)) == pytest.approx(losses(one_rank), rel=2e-4)


def _run(content: dict[str, Any], layout: dict[str, Any]) -> None:
    world = layout["data"] * layout["channel"]
    if world == 1:
        train(content)
    else:
        run_distributed(train, world, content)


def test_layout_that_was_not_started_is_refused(one_rank: Config, tmp_path: Path) -> None:
    """Catches a run on one rank whose configuration asks for four: it would train on a quarter of each batch."""
    elsewhere(one_rank, tmp_path / "ranks")
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 4"):
        train(raw(tmp_path / "ranks", data=2, channel=2))
