"""Small files are replaced whole or not at all, and one writer holds a lock until it dies."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import files
from pipeline import running as commands


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a writer that truncates the file first: a kill in between would lose the manifest."""
    path = tmp_path / "deep" / "manifest.json"
    files.write_json(path, {"slabs": 1})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        files.write_json(path, {"slabs": 2})
    assert error.value.filename == str(path), "nobody knows which disk is full"
    monkeypatch.undo()
    assert files.read_json(path) == {"slabs": 1}
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"], "a temporary file stays behind"


def test_the_new_content_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a rename before the flush: after a power cut the name would point at an empty file."""
    steps: list[str] = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: (steps.append("flush"), flush(d))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append("rename"), rename(a, b))[1])
    files.write_text(tmp_path / "x", "text")
    assert steps == ["flush", "rename", "flush"]


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    """Catches a bare decoder error that does not say which file."""
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match=r"file must exist, got .*x\.json"):
        files.read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"file must be JSON, got .*x\.json"):
        files.read_json(path)


HOLD = """
import sys, time
from pathlib import Path
from pipeline import files
with files.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_refuses_a_second_writer_and_dies_with_the_first(tmp_path: Path, root: Path) -> None:
    """Catches two writers in one store, and a lock that a kill -9 leaves behind for ever."""
    path = tmp_path / "store.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=root, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="one writer at a time") as error, files.lock(path):
            pass
        assert f"process {holder.pid} holds it" in str(error.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with files.lock(path):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_what_is_not_text_is_named(tmp_path: Path) -> None:
    """Catches the words of Python's decoder, which name no file."""
    path = tmp_path / "receipt.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=rf"must be text \(UTF-8\), got {path} with the byte 0xff at position 7"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk must have room for a.zarr, got none left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk must have room for a.zarr, got a used-up quota"),
        (OSError(errno.EROFS, "Read-only file system"), "file must be usable, got a.zarr: read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "b"), "file must be usable, got b: permission denied"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (OSError("checkpoint must be whole"), "checkpoint must be whole"),
    ],
)
def test_errors_of_the_system_are_told_with_a_path(error: OSError, text: str) -> None:
    """Catches a full disk without the path that is on it, and a lost connection that is blamed on a file."""
    with pytest.raises(OSError) as seen, files.named_in_errors(Path("a.zarr")):
        raise error
    assert text in files.describe_error(seen.value)


HALF = """
import sys, time
from pathlib import Path
from pipeline import files
with files.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of it")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def test_what_killed_runs_left_half_written_is_cleared_and_nothing_else(tmp_path: Path, root: Path) -> None:
    """Catches litter that stays for ever, and a file taken away from a process that still writes it."""
    folder = tmp_path / "results" / "data"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, str(folder / name)],
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("killed.csv", "running.csv")
    ]  # fmt: skip
    killed, running = writers
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (folder / "store.zarr" / ".inside.tmp").mkdir(parents=True)
        (folder / ".mine.tmp").write_text("not a folder of ours")
        assert len(list(folder.glob(".*.csv.*.tmp"))) == 2
        commands.run(SimpleNamespace(root=tmp_path), "builtins", "repr", None)
        assert [p.name.split(".")[1] for p in folder.glob(".*.csv.*.tmp")] == ["running"]
        assert (folder / "store.zarr" / ".inside.tmp").exists()
        assert (folder / ".mine.tmp").exists()
        running.communicate("\n", timeout=60)
        assert (folder / "running.csv").read_text() == "half of it"
        assert not list(folder.glob(".*.csv.*.tmp"))
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_writer_survives_whoever_clears_meanwhile(tmp_path: Path) -> None:
    """Catches a temporary folder that is taken for an abandoned one before its owner has locked it."""
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            files.clear_abandoned(tmp_path)

    with ThreadPoolExecutor(5) as pool:
        clearing = pool.submit(clear)
        try:
            list(pool.map(lambda i: files.write_text(tmp_path / f"{i}.txt", str(i)), range(300)))
        finally:
            stop.set()
        clearing.result()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {f"{i}.txt": str(i) for i in range(300)}


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Catches an old folder that is gone because the new one failed, and files of both in one."""
    path = tmp_path / "a.zarr"
    for name in ("old", "new"):
        with files.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
        assert [p.name for p in path.iterdir()] == [name]
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zarr", "new"]


def test_temporary_names_are_made_in_one_place(root: Path) -> None:
    """Catches a writer with a temporary name of its own, which nobody clears after a kill."""
    own = re.compile(r'with_name\(f"\.|/ f"\.\{|\.tmp"|\.part"|mkstemp|NamedTemporaryFile')
    packages = ("pipeline", "preprocess", "model", "evaluate")
    modules = (p for name in packages for p in (root / name).rglob("*.py"))
    found = {str(p.relative_to(root)) for p in modules if own.search(p.read_text())}
    assert found == {
        "pipeline/files.py",
        "model/training/checkpoint.py",  # written by all ranks; cleared when the training resumes
        "evaluate/reading/weatherbench.py",  # an export resumes from it
    }
