"""The command line as a user meets it: help, mistakes, and what they must not leave behind."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline import __main__ as cli
from pipeline import running, workloads
from pipeline.config import parse
from tests import forked

pytestmark = pytest.mark.slow

STAGES = ("simulate", "regrid", "normals", "train", "forecast", "score", "report")
RAW: dict[str, Any] = {
    "name": "case",
    "directory": "out",
    "source": {"kind": "simulation"},
    "data": {
        "period": {"start": "2001-01-01", "end": "2001-12-31"},
        "splits": {
            "train": {"start": "2001-01-01", "end": "2001-06-30"},
            "test": {"start": "2001-09-01", "end": "2001-12-31"},
        },
    },
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in an empty folder that holds only a configuration."""
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(RAW))

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked = os.environ | {"COLUMNS": "120", "TERM": "dumb"}
        return forked.run(["pipeline", *arguments], cwd=tmp_path, env=asked)

    return start


def written(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")} - {"case.yaml"}


@pytest.mark.parametrize("stage", [*STAGES, "plan", "export", "validate", "map", None])
def test_help_of_each_stage(stage: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a stage without help, and help that does not name the options everybody needs."""
    from typer.testing import CliRunner

    shown = CliRunner().invoke(cli.app, [stage, "--help"] if stage else ["--help"]).output
    if stage is None:
        for name in (*STAGES, "plan", "export", "validate", "map", "schema"):
            assert f" {name} " in shown
    else:
        for word in ("--config", "--set", "--log", "Repeatable"):
            assert word in shown
        assert len(shown.splitlines()) > 8


def test_each_stage_has_a_module_that_runs_it() -> None:
    """Catches a stage whose module or run function was renamed: only its user would find out."""
    import importlib

    for task in workloads.WORKLOADS:
        for stage in workloads.stages(task):
            assert callable(getattr(importlib.import_module(stage.module), f"run_{stage.name}")), stage
        for module in workloads.plans(task).values():
            assert callable(importlib.import_module(module).run_plan), module
        for module in workloads.exports(task).values():
            assert callable(importlib.import_module(module).run_export), module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "case.yaml", "--set", "training.stepz=3"], "did you mean 'steps'?"),
        (["train", "--config", "absent.yaml"], "configuration file must exist, got absent.yaml"),
        (["train", "--config", "case.yaml", "--set", "nonsense"], "must look like section.key=value"),
        (["train", "--config", "case.yaml"], "run python -m pipeline normals"),
        (["normals", "--config", "case.yaml"], "python -m pipeline regrid"),
        (["forecast", "--config", "case.yaml"], "python -m pipeline train"),
        (["map", "--config", "case.yaml", "--region", "europa"], "region must be one of globe, tropics, "),
        (["settings", "--config", "case.yaml", "--set", "model.widht=3"], "did you mean 'width'?"),
        (["trian", "--config", "case.yaml"], "No such command 'trian'"),
        (["train"], "Missing option"),
    ],
)
def test_mistakes_give_one_message_and_status_2(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    """Catches a traceback for a user's mistake, a wrong exit status, or output left behind."""
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("error: ") <= 1
    assert written(tmp_path) == set()


def test_settings_are_shown_with_their_defaults(run: Run) -> None:
    """Catches a resolved configuration that is not one itself."""
    done = run("settings", "--config", "case.yaml", "--set", "training.steps=7")
    assert parse(yaml.safe_load(done.stdout)) == parse({**RAW, "training": {"steps": 7}})


def test_a_foreign_package_is_named(tmp_path: Path, root: Path) -> None:
    """Catches a stage run on another project's `evaluate`, which fails much later and confusingly, or not at all."""
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").write_text("")
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(RAW))
    command = [sys.executable, "-m", "pipeline", "score", "--config", "case.yaml"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "package 'evaluate' must be the one in" in done.stderr
    assert str(tmp_path / "evaluate") in done.stderr
    assert "PYTHONPATH" in done.stderr


HEAVY = ("torch", "jax", "dask", "matplotlib", "cartopy", "xarray", "pandas", "scipy", "zarr")


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        ("pipeline.__main__, pipeline.config, pipeline.weather.config, pipeline.imaging.config", set()),
        (
            ", ".join(sorted({s.complete for t in workloads.WORKLOADS for s in workloads.stages(t) if s.complete})),
            set(),
        ),
        ("preprocess.cds_requests", set()),
        ("preprocess.normals.stage", {"zarr"}),
    ],
    ids=["help", "what is complete", "downloads", "normals"],
)
def test_what_only_checks_loads_little(modules: str, allowed: set[str], root: Path) -> None:
    """Catches an import that makes help, or a stage with nothing to do, wait for seconds for torch, JAX or xarray."""
    code = f"import sys, {modules}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= allowed


def test_each_stage_says_when_it_is_complete() -> None:
    """Catches a stage that loads all it could need only to find out that nothing is left to do."""
    import importlib

    for task, without in (("forecast", ["normals"]), ("reconstruct", [])):
        for stage in workloads.stages(task):
            if stage.complete:
                assert callable(getattr(importlib.import_module(stage.complete), f"complete_{stage.name}")), stage
        assert [stage.name for stage in workloads.stages(task) if not stage.complete] == without


def fake_stage(monkeypatch: pytest.MonkeyPatch, action: Callable[[Any], None]) -> None:
    monkeypatch.setitem(sys.modules, "model.weather.train", SimpleNamespace(run_train=action))


def in_process(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    (folder / "case.yaml").write_text(yaml.safe_dump(RAW))
    monkeypatch.setattr(sys, "argv", ["pipeline", "train", "--config", str(folder / "case.yaml"), *arguments])
    try:
        return cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)


IMAGES = {"task": "reconstruct", "name": "case", "source": {"kind": "simulation"}}


@pytest.mark.parametrize(
    ("raw", "arguments", "message"),
    [
        (IMAGES, ["map"], "map must be of a configuration of task forecast, got one of task 'reconstruct'"),
        (IMAGES, ["animate"], "animate must be of a configuration of task forecast"),
        (IMAGES, ["score", "--lead", "7d"], "score --lead must be of a configuration of task forecast"),
        (
            IMAGES,
            ["forecast"],
            "stage must be one of task 'reconstruct' (simulate, ingest, normals, train, reconstruct,",
        ),
        (IMAGES, ["regrid"], "stage must be one of task 'reconstruct'"),
        (IMAGES, ["plan", "--stage", "preprocess"], "--stage must be one of ingest, train for task 'reconstruct'"),
        (IMAGES, ["export", "--to", "climax"], "--to must be one of model for task 'reconstruct'"),
        (RAW, ["reconstruct", "--image", "a.hdr"], "case.yaml must describe an experiment"),
        (RAW, ["ingest"], "stage must be one of task 'forecast'"),
        (RAW, ["plan", "--stage", "ingest"], "--stage must be one of preprocess, train for task 'forecast'"),
    ],
)
def test_commands_of_another_workload(
    raw: dict[str, Any],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Catches a command of one workload that meets the configuration of another with a traceback."""
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({**raw, "directory": str(tmp_path / "out")}))
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments, "--config", str(tmp_path / "case.yaml")])
    assert cli.main() == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error: ") == 1


FULL = "got none left; free some space, then the same command resumes\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("times must be sorted, got 2001"), 2, "error: times must be sorted, got 2001\n"),
        (OSError(28, "No space left on device", "x.zarr"), 2, f"error: disk must have room for x.zarr, {FULL}"),
        (OSError(28, "No space left on device"), 2, f"error: disk must have room for out, {FULL}"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: file must be usable, got x: permission denied\n"),
        (OSError("checkpoint must be written whole"), 2, "error: checkpoint must be written whole\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes the run\n"),
    ],
)
def test_what_stages_raise(
    error: BaseException,
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Catches bad data that end in a traceback, and an interrupt that looks like a failure."""

    def stop(_config: Any) -> None:
        raise error

    fake_stage(monkeypatch, stop)
    assert in_process(monkeypatch, tmp_path) == status
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(("rank", "said"), [("0", "train: complete\n"), ("1", "")])
def test_a_complete_stage_is_not_loaded(
    rank: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a stage that is run although it is complete, and a message from every rank."""
    monkeypatch.setenv("RANK", rank)
    done = SimpleNamespace(complete_train=lambda _config: "train: complete")
    monkeypatch.setitem(sys.modules, "model.complete", done)
    fake_stage(monkeypatch, lambda _config: pytest.fail("the stage ran"))
    assert in_process(monkeypatch, tmp_path) == 0
    assert capsys.readouterr().err == said


def test_an_option_of_a_stage_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a stage that is asked for more than usual and answers that it is complete."""
    monkeypatch.setattr(running, "load_settings", lambda *_: parse(RAW))
    monkeypatch.setattr(running, "_complete", lambda *_: True)
    seen: list[Any] = []
    monkeypatch.setitem(
        sys.modules, "model.weather.train", SimpleNamespace(run_train=lambda _config, **options: seen.append(options))
    )
    for options in ({}, {"verify": False}, {"verify": True}):
        running.run_stage("train", Path("case.yaml"), None, None, **options)
    assert seen == [{"verify": True}]


def test_a_defect_of_ours_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a programming error that is dressed up as the user's mistake."""

    def broken(_config: Any) -> None:
        raise KeyError("z500")

    fake_stage(monkeypatch, broken)
    with pytest.raises(KeyError):
        in_process(monkeypatch, tmp_path)


def test_settings_and_log_reach_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an option that is read and then dropped."""
    seen: list[Any] = []

    def stage(config: Any) -> None:
        seen.append(config)
        print("working", file=sys.stderr)

    fake_stage(monkeypatch, stage)
    log = tmp_path / "logs" / "train.log"
    arguments = ("--set", "training.steps=7", "--set", "model.depth=3", "--log", str(log))
    assert in_process(monkeypatch, tmp_path, *arguments) == 0
    assert (seen[0].training.steps, seen[0].model.depth) == (7, 3)
    heading, line = log.read_text().splitlines()
    assert line == "working"
    assert "training.steps=7" in heading
