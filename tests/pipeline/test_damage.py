"""A store that is not as it was written: refused by every reader, found and set right by its writer."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import __main__
from pipeline.damage import DamagedShardError
from pipeline.store import ArraySpec, SlabStore, finished, manifest_path, open_store, read_manifest, verify_store

pytestmark = pytest.mark.slow

SHAPE, SLAB = (7, 4, 3, 5), 3
DIMS = ("time", "channel", "latitude", "longitude")
VALUES = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)
SPREAD = np.arange(7) / 3.0
COMMAND = "python -m pipeline regrid"


def describe(path: Path, *, start: str = "2001-01-01", title: str = "a test", **contract: Any) -> SlabStore:
    times = np.datetime64(start, "ns") + np.arange(7) * np.timedelta64(12, "h")
    return SlabStore(
        path,
        arrays={"state": ArraySpec(DIMS, SHAPE, (1, 2, 3, 5)), "spread": ArraySpec(DIMS[:1], (7,), (1,), "float64")},
        coords=xr.Dataset(coords={"time": times, "channel": ["z500", "t850", "t2m", "u10"]}),
        slab_dim="time",
        slab_size=SLAB,
        contract={"kind": "training store", "channels": ["z500", "t850", "t2m", "u10"], **contract},
        attrs={"title": title},
        command=COMMAND,
    )


def fill(path: Path, **described: Any) -> list[int]:
    """Write what is missing; returns which slabs that was."""
    with describe(path, **described) as store:
        pending = store.pending()
        for slab in pending:
            store.write(slab, {"state": VALUES[slab.slice], "spread": SPREAD[slab.slice]})
        store.finish({"missing_times": []})
    return [slab.index for slab in pending]


def tree(folder: Path) -> dict[str, bytes]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "x.zarr"
    fill(path)
    return path


@pytest.fixture
def path(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written.parent, tmp_path / "copy")
    return tmp_path / "copy" / "x.zarr"


def in_file(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 8
    file.write_bytes(content)


def shard(path: Path, slab: int, array: str = "state") -> Path:
    return next(p for p in sorted((path / array / "c").rglob("*")) if p.is_file() and p.parts[-4:][0] == str(slab))


def channel(path: Path) -> None:
    zarr.open_group(path, mode="r+")["channel"][:1] = np.array(["z501"])  # type: ignore[index]


def foreign(path: Path) -> None:
    fill(path.parent / "other.zarr", start="2002-01-01")
    manifest_path(path.parent / "other.zarr").replace(manifest_path(path))


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "manifest": (
        lambda path: in_file(manifest_path(path), '"z500"', '"z501"'),
        "checksum of x.manifest.json must be that of its content, got another: it was edited or damaged",
    ),
    "contract": (
        lambda path: in_file(path / "zarr.json", '"z500"', '"z501"'),
        'contract must be that of the manifest, got channels: ["z501", "t850", "t2m", "u10"] against ["z500"',
    ),
    "channel": (channel, "channel/c/0 must be as it was written, got another content"),
    "manifest of another store": (foreign, "must be as it was written, got another content"),
    "cut manifest": (
        lambda path: manifest_path(path).write_text(manifest_path(path).read_text()[:300]),
        "x.manifest.json must be JSON",
    ),
    "not a manifest": (lambda path: manifest_path(path).write_text("[]"), "x.manifest.json must have contract, digest"),
    "no manifest": (
        lambda path: manifest_path(path).unlink(),
        "must have a manifest, got no x.manifest.json beside it",
    ),
    "no shard": (
        lambda path: (path / "state/c/1/0/0/0").unlink(),
        "slab 1 (2001-01-02T12:00 .. 2001-01-03T12:00): there is no state/c/1/0/0/0",
    ),
    "cut shard": (
        lambda path: (path / "spread/c/2").write_bytes(b"short"),
        "slab 2 (2001-01-04T00:00 .. 2001-01-04T00:00): 5 bytes instead of",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_every_stage_notices_and_the_writer_sets_it_right(path: Path, written: Path, what: str, capsys: Any) -> None:
    """Catches a store that is not the one that was written, and is read all the same or has to be made from nothing."""
    edit, message = EDITS[what]
    edit(path)
    for read in (open_store, read_manifest):
        with pytest.raises(ValueError, match="must be as it was written, got") as error:
            read(path, stage=COMMAND)
        assert message in str(error.value)
        assert str(error.value).endswith(f"run {COMMAND} --verify, which writes again what is damaged and nothing else")
    assert not finished(path)
    assert fill(path) == {"no shard": [1], "cut shard": [2]}.get(what, [])
    assert "x.zarr" in capsys.readouterr().err
    shutil.rmtree(path.parent / "other.zarr", ignore_errors=True)
    for file in path.parent.glob("other.*"):
        file.unlink()
    assert tree(path.parent) == tree(written.parent)
    assert finished(path)
    assert verify_store(path) == []


def test_a_flipped_bit_is_found_by_digest_and_alone_is_written_again(path: Path, written: Path, capsys: Any) -> None:
    """Catches a digest that nobody compares, and a whole store made again for one bit."""
    flip(path / "state/c/1/0/0/0")
    assert finished(path)
    assert not finished(path, verify=True, mend=False)
    assert finished(path)
    assert not finished(path, verify=True)
    slab = "slab 1 (2001-01-02T12:00 .. 2001-01-03T12:00)"
    assert f"{slab}: a checksum does not fit in state/c/1/0/0/0; written again" in capsys.readouterr().err
    assert fill(path) == [1]
    assert tree(path.parent) == tree(written.parent)


def test_small_files_come_back_as_they_are_written_today(path: Path) -> None:
    """Catches a store refused for ever, because what was written again is not what was recorded once."""
    (path / "zarr.json").unlink()
    assert fill(path, title="another") == []
    ds = open_store(path)
    assert ds.attrs["title"] == "another"
    np.testing.assert_array_equal(ds["state"].values, VALUES)


def test_a_damaged_slab_that_comes_back_with_other_values_is_said(path: Path, capsys: Any) -> None:
    """Catches a store that is half of one source and half of another without a word."""
    (path / "state/c/1/0/0/0").unlink()
    with describe(path) as store:
        (slab,) = store.pending()
        store.write(slab, {"state": VALUES[slab.slice] + 1, "spread": SPREAD[slab.slice]})
        store.finish()
    assert "slab 1 now holds other values than before it was damaged" in capsys.readouterr().err
    assert "struck" not in read_manifest(path)


def test_a_lost_manifest_and_damaged_shards(path: Path, written: Path, capsys: Any) -> None:
    """Catches damage taken over into a manifest that is made again, and whole slabs that are not."""
    manifest_path(path).unlink()
    flip(path / "state/c/1/0/0/0")
    (path / "spread/c/2").unlink()
    assert fill(path) == [1, 2]
    assert "1 of 3 slabs are whole; written again: 1, 2" in capsys.readouterr().err
    assert tree(path.parent) == tree(written.parent)


def test_another_store_without_a_manifest_is_left_alone(path: Path) -> None:
    """Catches somebody's store deleted because nothing beside it says what it is."""
    manifest_path(path).unlink()
    before = tree(path.parent)
    for other in ({"kind": "another"}, {"start": "2003-01-01"}):
        with pytest.raises(ValueError, match="got one of which neither manifest nor contract says so: must have a"):
            fill(path, **other)
    (path / "zarr.json").unlink()
    del before["x.zarr/zarr.json"]
    with pytest.raises(ValueError, match="move it away, or use another directory"):
        fill(path)
    assert tree(path.parent) == before


def test_a_manifest_and_a_contract_edited_alike(path: Path) -> None:
    """Catches the same edit in both, which agree with one another."""
    for file in (manifest_path(path), path / "zarr.json"):
        in_file(file, '"z500"', '"z501"')
    with pytest.raises(ValueError, match=r"checksum of x\.manifest\.json must be that of its content"):
        open_store(path)
    with pytest.raises(ValueError, match=r"neither manifest nor contract says so: .*; move it away"):
        fill(path)


def test_stores_of_before_open_and_their_lost_shards_are_found(path: Path) -> None:
    """Catches a store refused because it was written before manifests had checksums and sizes."""
    place = manifest_path(path)
    old = json.loads(place.read_text())
    for key in ("checksum", "metadata", "shards", "command"):
        del old[key]
    place.write_text(json.dumps(old, indent=1) + "\n")
    np.testing.assert_array_equal(open_store(path)["state"].values, VALUES)
    assert finished(path, verify=True)
    assert fill(path) == []
    (path / "spread/c/2").unlink()
    with pytest.raises(ValueError, match=r"slab 2 .*there is no spread/c/2\nrun python -m pipeline regrid --verify"):
        open_store(path, stage=COMMAND)
    in_file(path / "zarr.json", '"z500"', '"z501"')
    with pytest.raises(ValueError, match="contract must be that of the manifest"):
        open_store(path)
    assert fill(path) == [2]
    np.testing.assert_array_equal(open_store(path)["spread"].values, SPREAD)


def test_shards_that_are_longer_than_slabs_are_not_taken_for_damage(tmp_path: Path) -> None:
    """Catches a size recorded of a shard that the next slab completes, as archives of before have them."""
    values = np.random.default_rng(1).normal(size=(7, 40)).astype(np.float32)
    times = np.datetime64("2001-01-01", "ns") + np.arange(7) * np.timedelta64(12, "h")
    spec = ArraySpec(("time", "cell"), values.shape, (2, 40))  # three times in a slab, four in a shard
    axis: dict[str, Any] = {"slab_dim": "time", "slab_size": SLAB, "contract": {"kind": "training store"}}
    path = tmp_path / "a.zarr"
    with SlabStore(path, arrays={"state": spec}, coords=xr.Dataset(coords={"time": times}), **axis) as store:
        for slab in store.pending():
            store.write(slab, {"state": values[slab.slice]})
        store.finish()
    assert finished(path)
    assert verify_store(path) == []
    assert np.array_equal(open_store(path)["state"].values, values)


def test_reading_a_damaged_shard_names_file_slab_times_and_remedy(path: Path) -> None:
    """Catches a codec's complaint shown to a user, or a message that is lost on the way from another process."""
    flip(path / "state/c/1/0/0/0")
    ds = open_store(path)
    np.testing.assert_array_equal(ds["state"][:3].values, VALUES[:3])
    with pytest.raises(DamagedShardError) as error:
        ds["state"][3:6].load()
    assert str(error.value) == (
        f"store {path} must be as it was written, got 1 fault(s):\n"
        "  slab 1 (2001-01-02T12:00 .. 2001-01-03T12:00): a checksum does not fit in state/c/1/0/0/0\n"
        f"run {COMMAND} --verify, which writes again what is damaged and nothing else"
    )
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    (path / "state/c/1/0/0/0").unlink()
    with pytest.raises(DamagedShardError, match="there is no state/c/1/0/0/0"):
        ds["state"][3:6].load()


@given(data=st.data())
@settings(max_examples=60)
def test_any_selection_is_what_zarr_gives(written: Path, data: st.DataObject) -> None:
    """Catches an axis turned round, dropped or taken for another, where xarray asks our reader."""
    ours, plain = open_store(written)["state"], xr.open_zarr(written, chunks=None)["state"]

    def selection(size: int) -> Any:
        index, step = st.integers(-size, size - 1), st.sampled_from([None, 1, 2, -1, -3])
        end = st.none() | index
        some = st.builds(slice, end, end, step).filter(lambda s: range(size)[s] or s.step in (None, 1))
        return data.draw(index | st.lists(index, max_size=5) | some)  # xarray fails on an empty slice that runs back

    wanted: Any = {dim: selection(size) for dim, size in zip(DIMS, SHAPE, strict=True)}
    xr.testing.assert_identical(ours.isel(wanted).load(), plain.isel(wanted).load())


def test_the_command_of_every_slab_store_has_verify() -> None:
    """Catches a remedy in a message that the command line does not know."""
    commands = typer.main.get_command(__main__.app).commands  # type: ignore[attr-defined]
    known = {name for name in __main__.STAGES if "verify" in [p.name for p in commands[name].params]}
    assert known == {"simulate", "regrid", "forecast", "free_run", "twins", "baselines", "ingest", "reconstruct"}
