"""The copy of what a stage says: readable, complete, and invisible on the terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

from pipeline.logs import logged


def lines(path: Path) -> list[str]:
    """Without the heading of each run."""
    return [line for line in path.read_text().splitlines() if not line.startswith("-- ")]


def test_terminal_sees_all_and_the_file_only_finished_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a log full of progress frames and colour codes, and a terminal that loses them."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = tmp_path / "logs" / "train.log"
    with logged(log):
        console = Console(stderr=True, force_terminal=True, width=60)
        with Progress(console=console, refresh_per_second=1000) as bar:
            task = bar.add_task("steps", total=50)
            for i in range(50):
                bar.update(task, advance=1, refresh=True)
                if i == 20:
                    console.print("[red]checkpoint[/red] 20")
        for _ in tqdm(range(30), mininterval=0, desc="slabs"):
            pass
        sys.stderr.write("no newline")
    kept = lines(log)
    assert "checkpoint 20" in kept
    assert sum(line.startswith("steps") for line in kept) == 1, kept
    assert "100%" in next(line for line in kept if line.startswith("steps"))
    assert sum(line.startswith("slabs") for line in kept) == 1
    assert kept[-1] == "no newline"
    assert "\x1b" not in log.read_text()
    assert "\r" not in log.read_text()
    assert terminal.getvalue().count("steps") > 10
    assert "\x1b[31mcheckpoint" in terminal.getvalue()


def test_an_error_leaves_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a log that ends without the reason, and one that forgets the run before."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = tmp_path / "x.log"
    with logged(log):
        print("first run", file=sys.stderr)
    with pytest.raises(ValueError, match="grid must"), logged(log):
        raise ValueError("grid must be global")
    kept = lines(log)
    assert kept[0] == "first run"
    assert kept[-1] == "ValueError: grid must be global"
    assert any("Traceback" in line for line in kept)
    assert sys.stderr.getvalue() == "first run\n"  # type: ignore[attr-defined]


def test_streams_are_given_back(tmp_path: Path) -> None:
    """Catches a log that goes on growing after its stage, and a rank that writes into the first one's file."""
    before = sys.stdout, sys.stderr
    with logged(tmp_path / "x.log"):
        assert sys.stdout is not before[0]
        assert sys.stderr.isatty() == before[1].isatty()
    assert (sys.stdout, sys.stderr) == before
    with logged(None):
        assert sys.stdout is before[0]


def test_only_the_first_rank_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ranks that write over one another."""
    monkeypatch.setenv("RANK", "1")
    with logged(tmp_path / "x.log"):
        print("rank 1")
    assert not (tmp_path / "x.log").exists()
