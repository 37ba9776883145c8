"""Stores survive what happens to them: kills, full disks, flipped bits, second writers, other settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import files
from pipeline.store import (
    ArraySpec,
    SlabStore,
    contract_differences,
    contract_digest,
    open_store,
    read_manifest,
    require_same_contract,
    slabs,
    verify_store,
)
from tests.stores import rewrite_manifest

LENGTH, SLAB, SHAPE = 7, 3, (2, 3, 5)
CONTRACT = {"kind": "test", "channels": ["z500", "t2m"], "grid": {"shape": [3, 5], "digest": "abc"}}


def describe(
    path: Path, *, contract: dict[str, Any] | None = None, length: int = LENGTH, slab: int = SLAB
) -> SlabStore:
    """A store of 7 times in slabs of 3: the last slab is shorter than its shard."""
    dims = ("time", "channel", "latitude", "longitude")
    coords = xr.Dataset(
        {"static": (("latitude", "longitude"), np.arange(15.0, dtype=np.float32).reshape(3, 5))},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(length) * np.timedelta64(12, "h"),
            "channel": ["z500", "t2m"],
            "latitude": [-60.0, 0.0, 60.0],
        },
    )
    return SlabStore(
        path,
        arrays={
            "state": ArraySpec(dims, (length, *SHAPE), (1, 1, 3, 5)),
            "spread": ArraySpec(dims[:1], (length,), (1,), "float64"),
        },
        coords=coords,
        slab_dim="time",
        slab_size=slab,
        contract=contract or CONTRACT,
        attrs={"title": "a test"},
    )


def values(start: int, stop: int) -> dict[str, np.ndarray]:
    state = np.random.default_rng(5).normal(size=(LENGTH, *SHAPE)).astype(np.float32)
    return {"state": state[start:stop], "spread": np.arange(start, stop) / 3.0}


def fill(path: Path, *, most: int = 99) -> None:
    with describe(path) as store:
        for slab in store.pending()[:most]:
            store.write(slab, values(slab.start, slab.stop), note={"times": len(slab)})
        if not store.pending():
            store.finish({"missing_times": ["2001-01-09"]})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "undisturbed" / "x.zarr"
    fill(found)
    return found


def test_what_is_written_is_read(path: Path) -> None:
    """Catches a slab put in the wrong place, a lost coordinate, or a Dask block that is not the shard."""
    ds = open_store(path)
    np.testing.assert_array_equal(ds["state"].values, values(0, LENGTH)["state"])
    np.testing.assert_array_equal(ds["spread"].values, np.arange(LENGTH) / 3.0)
    assert ds["time"].dtype == "datetime64[ns]"
    assert str(ds["time"].values[1]).startswith("2001-01-01T12")
    assert list(ds["channel"].values) == ["z500", "t2m"]
    assert ds["static"].shape == (3, 5)
    assert ds["state"].dims == ("time", "channel", "latitude", "longitude")
    assert ds.attrs["contract"] == {"schema": 1, **CONTRACT}
    assert ds.attrs["title"] == "a test"
    blocks = open_store(path, chunks={})["state"].data
    assert blocks.chunks[0] == (3, 3, 1)
    assert all(len(c) == 1 for c in blocks.chunks[1:])
    manifest = read_manifest(path)
    assert manifest["facts"] == {"missing_times": ["2001-01-09"]}
    assert manifest["slabs"]["1"]["note"] == {"times": 3}
    assert verify_store(path) == []


def test_a_slab_is_one_file_of_each_array(path: Path) -> None:
    """Catches a shard that holds part of a slab or several: a kill could then lose recorded times."""
    for name, below in (("state", "0/0/0"), ("spread", "")):
        found = {str(p.relative_to(path / name / "c")) for p in (path / name / "c").rglob("*") if p.is_file()}
        assert found == {str(Path(str(i)) / below) for i in range(3)}
    assert [(s.start, s.stop) for s in slabs(LENGTH, SLAB)] == [(0, 3), (3, 6), (6, 7)]


DRIVER = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
import test_store as case
import xarray.backends.zarr
import zarr.registry

# Load everything before the forks, so that each costs what it writes; no thread of Zarr runs yet.
xarray.backends.list_engines()
zarr.registry.get_pipeline_class(), zarr.registry.get_buffer_class()
for codec in ("zstd", "crc32c", "bytes", "sharding_indexed", "vlen-utf8"):
    zarr.registry.get_codec_class(codec)
folder = Path(sys.argv[1])
case.describe(folder / "nothing.zarr")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def child(path, deadly):
    '''Fill a store; kill -9 oneself at the nth change to the file system.'''
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.truncate", "fcntl.flock"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        if seen == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
    sys.addaudithook(hook)
    try:
        case.fill(path)
    except BaseException as error:
        print("FAULT", deadly, repr(error), flush=True)
        os._exit(1)
    os._exit(0)

step, deadly, killed = int(sys.argv[4]), 0, 0
undisturbed = case.tree(folder / "undisturbed")
while True:
    path = folder / f"kill-{deadly}" / "x.zarr"
    status = child(path, deadly)
    if not os.WIFSIGNALED(status):
        break
    killed += 1
    if child(path, -1) != 0:
        print("FAULT", deadly, "the second run failed")
    found = case.tree(path.parent)
    if found != undisturbed:
        names = sorted(k for k in set(found) | set(undisturbed) if found.get(k) != undisturbed.get(k))
        print("FAULT", deadly, "differs in", names[:4])
    deadly += step
print("killed", killed)
"""


def kill_everywhere(folder: Path, root: Path, *, step: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(root), str(Path(__file__).parent), str(step)],
        cwd=root, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert not faults, "\n".join(faults[:20])
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_killed_at_many_moments_and_resumed(path: Path, root: Path) -> None:
    """Catches a moment between two file operations where a kill -9 loses something or leaves litter (1 tries all)."""
    assert kill_everywhere(path.parent.parent, root, step=3) >= 30


def test_resume_goes_on_at_the_first_unrecorded_slab(tmp_path: Path) -> None:
    """Catches a resume that writes recorded slabs again, or forgets them."""
    path = tmp_path / "x.zarr"
    fill(path, most=2)
    with describe(path) as store:
        assert [s.index for s in store.pending()] == [2]
        assert not store.complete
    with pytest.raises(
        ValueError, match=r"must be finished, got 2 slabs recorded; run python -m pipeline regrid again"
    ):
        open_store(path, stage="python -m pipeline regrid")


def test_a_half_written_shard_is_written_anew(path: Path) -> None:
    """Catches a resume that reads the leftovers of the unrecorded slab, which need not be readable."""
    whole = tree(path.parent)

    def forget(content: dict[str, Any]) -> None:
        for index in ("2", "1"):
            del content["slabs"][index], content["shards"][index]
        content.update(complete=False, facts={})

    rewrite_manifest(path, forget)
    for shard in (path / "state" / "c" / "2" / "0" / "0" / "0", path / "spread" / "c" / "1"):
        shard.write_bytes(shard.read_bytes()[:-7])
    fill(path)
    assert tree(path.parent) == whole


def test_another_contract_is_refused_with_every_difference(path: Path) -> None:
    """Catches a store reused for other settings, or a message that names only the first difference."""
    before = tree(path.parent)
    other = {**CONTRACT, "channels": ["z500"], "grid": {"shape": [3, 5], "digest": "xyz"}, "step_hours": 6}
    with pytest.raises(ValueError, match="must share the contract") as error, describe(path, contract=other):
        pass
    text = str(error.value)
    assert "got 3 difference(s)" in text
    assert 'channels: ["z500", "t2m"] against ["z500"]' in text
    assert "grid.digest: abc against xyz" in text
    assert "step_hours: (absent) against 6" in text
    assert str(path) in text
    assert "move the old store away" in text
    assert tree(path.parent) == before


def test_another_time_axis_is_refused(path: Path) -> None:
    """Catches slabs of another length, or of a longer or shorter axis, mixed with those a store holds."""
    before = tree(path.parent)
    for other in ({"length": LENGTH - 1}, {"length": LENGTH + 4}, {"slab": SLAB + 1}):
        with pytest.raises(ValueError, match="must have the same time and slabs"), describe(path, **other):
            pass
    assert tree(path.parent) == before


def test_equal_contracts_pass_whatever_the_order_of_keys() -> None:
    """Catches a comparison or hash that depends on the order of keys."""
    turned = dict(reversed(list(CONTRACT.items())))
    require_same_contract(CONTRACT, turned, us="a", them="b", remedy="none")
    assert contract_digest(CONTRACT) == contract_digest(turned)
    assert contract_digest(CONTRACT) != contract_digest({**CONTRACT, "kind": "other"})
    assert contract_differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: 2 against 3"]


def test_a_second_writer_is_refused(path: Path) -> None:
    """Catches two processes that write the same store."""
    with (
        describe(path),
        pytest.raises(ValueError, match=r"one writer at a time, got a second for .*x"),
        describe(path),
    ):
        pass
    with describe(path) as store:
        assert store.complete


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_byte_is_found(path: Path, place: float) -> None:
    """Catches damage that is read as data: by the check of the whole store, and by reading that slab."""
    shard = path / "state" / "c" / "1" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[int(place * len(content))] ^= 0x10
    shard.write_bytes(content)
    faults = verify_store(path)
    assert len(faults) == 1
    assert "slab 1 (2001-01-02T12:00 .. 2001-01-03T12:00): a checksum does not fit in state/c/1/0/0/0" in faults[0]
    state = open_store(path)["state"]
    np.testing.assert_array_equal(state[:3].values, values(0, 3)["state"])
    with pytest.raises(ValueError, match="a checksum does not fit in state/c/1/0/0/0"):
        state[3:6].values  # noqa: B018


def test_a_lost_shard_is_found(path: Path) -> None:
    """Catches a missing file that Zarr silently reads as NaN."""
    (path / "state" / "c" / "2" / "0" / "0" / "0").unlink()
    assert ["slab 2" in fault for fault in verify_store(path)] == [True]


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
import test_store as case
with case.describe(Path(sys.argv[1])) as store:
    first, second, third = store.pending()
    store.write(first, case.values(first.start, first.stop), note={"times": len(first)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    try:
        store.write(second, case.values(second.start, second.stop), note={"times": len(second)})
    except OSError as error:
        print("refused", error.errno)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_a_store_that_can_go_on(path: Path, root: Path) -> None:
    """Catches a failed write that is recorded, or that leaves a store nobody can resume."""
    full = path.parent.parent / "full" / "x.zarr"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(full), str(root), str(Path(__file__).parent)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("refused"), done.stdout + done.stderr
    with describe(full) as store:
        assert [s.index for s in store.pending()] == [1, 2]
    fill(full)
    assert tree(full.parent) == tree(path.parent)


def test_too_little_space_is_said_before_the_work(tmp_path: Path) -> None:
    """Catches a job of days that could have known on the first second that its output does not fit."""
    with pytest.raises(ValueError, match=r"disk must hold 1000000000\.00 GB for .*new/x\.zarr, got .* GB free"):
        files.free_space_check(tmp_path / "new" / "x.zarr", 10**18)
    files.free_space_check(tmp_path / "new" / "x.zarr", 10)
    assert not (tmp_path / "new").exists()


def test_wrong_data_are_refused_and_not_recorded(tmp_path: Path) -> None:
    """Catches a slab with a missing array or another shape, which Zarr would broadcast."""
    with describe(tmp_path / "x.zarr") as store:
        slab = store.pending()[0]
        good = values(0, 3)
        with pytest.raises(ValueError, match="slab must hold"):
            store.write(slab, {"state": good["state"]})
        with pytest.raises(ValueError, match=r"slab of 'state' must have shape \(3, 2, 3, 5\), got \(1, 2, 3, 5\)"):
            store.write(slab, {**good, "state": good["state"][:1]})
        assert [s.index for s in store.pending()] == [0, 1, 2]


def test_absent_and_foreign_stores(tmp_path: Path, path: Path) -> None:
    """Catches a traceback of Zarr where the stage to run should be named."""
    with pytest.raises(ValueError, match=r"store must exist, got nothing at .*y\.zarr; run python -m pipeline regrid"):
        open_store(tmp_path / "y.zarr", stage="python -m pipeline regrid")
    rewrite_manifest(path, lambda content: content["contract"].update(schema=0))
    with pytest.raises(ValueError, match="must have layout version 1, got 0"):
        open_store(path)
