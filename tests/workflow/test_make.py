"""Settings and configurations given to make: told as by the commands, whatever blanks and quotes they hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.test_cli import RAW
from tests.workflow.runner import ROOT, WORKFLOWS, environment, planned

pytestmark = pytest.mark.slow


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that make takes for the finished virtual environment; the running Python's is used."""
    files = ("constraints.txt", "pyproject.toml")
    content = b"".join((ROOT / name).read_bytes() for name in files)
    checksum = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.decode().strip()
    for name in ("bin/pip", f".demo-{checksum.replace(' ', '-')}"):
        path = tmp_path / "venv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "venv"


def make_run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make run` with some variables, whether or not it succeeds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    options: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "env": environment() | {"PATH": path}}
    return subprocess.run(["make", "run", f"VENV={installed}", "CORES=2", *arguments], check=False, **options)


def test_settings_and_paths_with_blanks_arrive(installed: Path, tmp_path: Path) -> None:
    """Catches a setting or a path that is cut at a blank, and a mapping that Snakemake's reader takes apart."""
    config = tmp_path / "my case.yaml"
    config.write_text(yaml.safe_dump(RAW | {"directory": str(tmp_path / "out")}))
    given = "evaluation.variables=[z500, t850] model.groups={by: variable} name='a-b'"
    done = make_run(installed, f"CONFIG={config}", f"SET={given}", "ARGS=--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    line = planned(done.stdout)["train"]
    assert f"--config '{config}'" in line
    assert "--set 'evaluation.variables=[z500, t850]' --set 'model.groups={by: variable}' --set 'name=" in line


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        ("absent.yaml", "", "error: configuration file must exist, got absent.yaml"),
        ("not here.yaml", "", "error: configuration file must exist, got not here.yaml"),
        (str(WORKFLOWS), "", f"error: file must be usable, got {WORKFLOWS}: is a directory"),
        ("workflows/config/demo.yaml", "training.stepz=3", "training.stepz: unknown key; did you mean 'steps'?"),
        ("workflows/config/demo.yaml", "evaluation.variables=[z500", "line 1: must be YAML, got a mistake"),
        ("workflows/config/demo.yaml", "nonsense", "error: --set must look like section.key=value, got 'nonsense'"),
    ],
)
def test_mistakes_are_told_as_by_the_commands(installed: Path, config: str, given: str, message: str) -> None:
    """Catches a mistake that ends in a traceback or words of Snakemake, or with another status than the commands'."""
    done = make_run(installed, f"CONFIG={config}", f"SET={given}")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "Snakefile" not in done.stderr + done.stdout


def shown_by_make(venv: Path, *arguments: str) -> str:
    """The commands that `make run` would run."""
    line = ["make", "-n", "run", f"VENV={venv}", *arguments]
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "ARGS")}
    return subprocess.run(line, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout


def test_the_first_stage_of_a_fresh_clone_does_not_wait_for_torch(installed: Path, tmp_path: Path) -> None:
    """Catches a stage begun before what it needs is installed, and one begun twice where everything is installed."""
    fresh = shown_by_make(tmp_path / "fresh")
    first, begun = fresh.index("grep -vE '^(cartopy|"), fresh.index("--until")
    assert first < fresh.index("pipeline settings") < begun < fresh.rindex("snakemake -s")
    assert fresh.count("-m pip install") == 2
    assert "--until" not in shown_by_make(installed)
    told = shown_by_make(tmp_path / "fresh", "ARGS=--until train")
    assert told.count("--until") == 1, "another stage was begun than the user asked for"


def test_the_first_stage_does_without_what_is_installed_later() -> None:
    """Catches an import, also an optional one, that a fresh clone meets while the package is half there."""
    later = re.search(r"grep -vE '\^\(([\w|]+)\)'", (ROOT / "Makefile").read_text())
    assert later
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {later[1].split("|")}:
            asked.append(name)
asked = []
sys.meta_path.insert(0, Absent())
import pipeline.__main__, preprocess.ingest.stage, preprocess.simulation.stage, preprocess.sources.fetch
print(asked)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("cores", "given"), [("2", "--cores 3 --max-threads 2"), ("1", "--cores 1 --max-threads 1")])
def test_one_core_is_given_away_twice(cores: str, given: str, installed: Path) -> None:
    """Catches stages that wait for one another although a core idles, and two stages at once on a single one."""
    options = re.search(r"--cores .*?--max-threads \d+", shown_by_make(installed, f"CORES={cores}"))
    assert options
    told = subprocess.run(["bash", "-c", f"echo {options[0]}"], capture_output=True, text=True, check=True).stdout
    assert told.strip() == given
