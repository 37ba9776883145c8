"""How the tests start the workflow, and what they read from what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pipeline.config import Config, load

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"


def command(config: Path | None, *arguments: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """The command line of Snakemake on our workflow."""
    given = ["--configfile", str(config)] if config else []
    given += ["--config", f"set={' '.join(overrides)}"] if overrides else []
    return [
        sys.executable, "-m", "snakemake", "-s", str(WORKFLOWS / "Snakefile"), "--cores", "2",
        "--workflow-profile", str(WORKFLOWS / "profiles" / "default"), *given, *arguments,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Ours without PYTHONPATH, which the workflow has to set by itself."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def attempt(
    config: Path | None, folder: Path, *arguments: str, overrides: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder, whatever comes of it; standard output and error are joined in `stdout`."""
    return subprocess.run(
        command(config, *arguments, overrides=overrides), cwd=folder, text=True, check=False, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(config: Path | None, folder: Path, *arguments: str, overrides: tuple[str, ...] = ()) -> str:
    """Run the workflow in a folder to its end; returns what it said."""
    done = attempt(config, folder, *arguments, overrides=overrides)
    assert done.returncode == 0, done.stdout
    return done.stdout


def stages_run(said: str) -> list[str]:
    """Stages that were started, in order."""
    return re.findall(r"(?m)^Job \d+: (\w+):", said)


def planned(said: str) -> dict[str, str]:
    """Stages that a dry run would run, with their command lines."""
    return {m[1]: m[0].strip() for m in re.finditer(r"python -m [^\n]*?pipeline (\w+) --config[^\n]*", said)}


def settings_in(config: Path, folder: Path, *overrides: str) -> Config:
    """The configuration with its outputs inside `folder`."""
    settings = load(config, overrides)
    return settings.model_copy(update={"directory": folder / settings.root})
