"""Whatever happens to a training store, `regrid` finds it and makes again what is damaged, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import store
from pipeline.config import Config
from preprocess.ingest.stage import run_regrid
from preprocess.sources import Archive
from preprocess.validate import run_validate
from tests import forked
from tests.preprocess.stores import command, tree

pytestmark = pytest.mark.slow

SLAB = "slab 1 (2001-01-02T00:00 .. 2001-01-02T18:00)"


def shard(config: Config) -> Path:
    return config.paths.store / "state" / "c" / "1" / "0" / "0" / "0"


def flip(config: Config) -> None:
    content = bytearray(shard(config).read_bytes())
    content[len(content) // 2] ^= 1
    shard(config).write_bytes(content)


def lose_manifest(config: Config) -> None:
    store.manifest_path(config.paths.store).unlink()


@pytest.mark.parametrize(
    ("damage", "verify", "message", "times"),
    [
        (lambda config: shard(config).unlink(), False, f"{SLAB}: there is no state/c/1/0/0/0; written again", [4]),
        (flip, True, f"{SLAB}: a checksum does not fit in state/c/1/0/0/0; written again", [4]),
        (lose_manifest, False, "3 of 3 slabs are whole", []),
        (lambda config: (flip(config), lose_manifest(config)), False, "2 of 3 slabs are whole; written again: 1", [4]),
    ],
)
def test_only_what_is_damaged_is_made_again(
    source: Path,
    configure: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Any,
    verify: bool,
    message: str,
    times: list[int],
) -> None:
    """Catches "complete" said of a damaged store, a dead end, and work done again."""
    config = configure([source])
    run_regrid(config)
    before = tree(config)
    damage(config)
    with pytest.raises(ValueError, match="python -m pipeline regrid --verify, which writes again what is damaged"):
        run_validate(config, [])
    asked: list[int] = []
    original = Archive.dataset
    monkeypatch.setattr(Archive, "dataset", lambda self, times: asked.append(len(times)) or original(self, times))
    run_regrid(config, verify=verify)
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert asked == times
    assert tree(config) == before
    run_validate(config, [])
    run_regrid(config, verify=True)
    assert "complete in" in capsys.readouterr().err


def test_from_the_command_line(source: Path, configure: Callable[..., Config], tmp_path: Path, root: Path) -> None:
    """Catches a command named in messages that does not exist, or does not do what they say."""
    config = configure([source])
    run_regrid(config)
    before = tree(config)
    flip(config)
    done = forked.run([*command(config, tmp_path), "--verify"], cwd=root)
    assert done.returncode == 0, done.stderr
    assert f"{SLAB}: a checksum does not fit in state/c/1/0/0/0; written again" in done.stderr
    assert tree(config) == before


def test_a_store_of_another_experiment_is_not_touched(source: Path, configure: Callable[..., Config]) -> None:
    """Catches a folder deleted since no manifest says what it is."""
    config, other = configure([source]), configure([source], name="other", regrid={"resolution": 30.0})
    run_regrid(other)
    config.paths.store.parent.mkdir(parents=True)
    shutil.copytree(other.paths.store, config.paths.store)
    before = {p: p.read_bytes() for p in config.paths.store.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="neither manifest nor contract says so: must have a manifest"):
        run_regrid(config)
    assert before == {p: p.read_bytes() for p in config.paths.store.rglob("*") if p.is_file()}
