"""How the tests start the workflow, and how they read its output."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from pipeline.config import Config, load
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"


def command(config: Path | None, *arguments: str, overrides: tuple[str, ...] = ()) -> list[str]:
    """The command line of Snakemake on our workflow."""
    line = ["snakemake", "--snakefile", str(WORKFLOWS / "Snakefile"), "--cores", "2"]
    line += ["--workflow-profile", str(WORKFLOWS / "profiles" / "default")]
    line += ["--configfile", str(config)] if config else []
    line += ["--config", f"set={' '.join(overrides)}"] if overrides else []
    return [*line, *arguments]


def environment() -> dict[str, str]:
    """Ours without PYTHONPATH, which the workflow has to set itself."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def attempt(
    config: Path | None, folder: Path, *arguments: str, overrides: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in a folder, whether or not it succeeds; standard output and error are joined in `stdout`."""
    done = forked.run(command(config, *arguments, overrides=overrides), cwd=folder, env=environment())
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout + done.stderr)


def run(config: Path | None, folder: Path, *arguments: str, overrides: tuple[str, ...] = ()) -> str:
    """Run the workflow in a folder, which must succeed; returns its output."""
    done = attempt(config, folder, *arguments, overrides=overrides)
    assert done.returncode == 0, done.stdout
    return done.stdout


def stages_run(output: str) -> list[str]:
    """Stages that were started, in order."""
    return re.findall(r"(?m)^Job \d+: (\w+):", output)


def planned(output: str) -> dict[str, str]:
    """Stages that a dry run would run, with their command lines."""
    found = re.finditer(r"(?:env [^\n]*?)?python -m [^\n]*?pipeline (\w+) --config[^\n]*", output)
    return {m[1]: m[0].strip() for m in found}


def settings_in(config: Path, folder: Path, *overrides: str) -> Config:
    """The configuration with its outputs inside `folder`."""
    settings = load(config, overrides)
    return settings.model_copy(update={"directory": folder / settings.root})
