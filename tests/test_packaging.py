"""What a visitor of the repository finds: one version, a container and continuous integration on the same pins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from pipeline import __main__ as cli

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_version() -> None:
    """Catches a release whose citation, changelog and `--version` name different versions."""
    shown = CliRunner().invoke(cli.app, ["--version"])
    assert shown.exit_code == 0
    assert re.fullmatch(rf"chagcast {re.escape(PROJECT['version'])}(, commit [0-9a-f]+(\+changes)?)?\n", shown.output)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    first = re.search(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert first is not None
    assert first[1] == PROJECT["version"]


def test_every_requirement_is_pinned() -> None:
    """Catches a package that is installed in whatever version there is on that day."""
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").open()}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(text for listed in extras.values() for text in listed)]
    names = {Requirement(text).name.lower().replace("_", "-") for text in wanted}
    assert names - pinned == set()


def test_the_container_is_built_from_what_is_here() -> None:
    """Catches a Python that the project does not support, a file that moved, and an installation without the pins."""
    python = re.search(r"(?m)^FROM python:([\d.]+)", DOCKERFILE)
    assert python is not None
    assert f"{python[1]}.0" in SpecifierSet(PROJECT["requires-python"])
    copied = re.search(r"(?m)^COPY --chown=\S+ (.+) \./$", DOCKERFILE)
    assert copied is not None
    assert copied[1].split() == ["Makefile", "pyproject.toml", "constraints.txt"]
    assert all((ROOT / name).exists() for name in copied[1].split())
    assert "pip install" not in DOCKERFILE, "make setup installs with -c constraints.txt"
    assert re.findall(r"make (\w+)", "\n".join(line for line in DOCKERFILE.splitlines() if line[:1] != "#")) == [
        "setup"
    ]
    assert 'CMD ["make", "demo"]' in DOCKERFILE
    assert ".venv" in (ROOT / ".dockerignore").read_text().splitlines(), "one's own environment would be copied over"


def test_the_linter_accepts_the_dockerfile() -> None:
    """Catches what hadolint knows of Dockerfiles: cached package lists, a pipe whose failure is lost, a wrong word."""
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint is not installed (extra dev)")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_continuous_integration_runs_the_full_suite() -> None:
    """Catches a workflow that passes because it runs something else, or less, than .ci/run."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make lint types imports", ".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    setup = next(step for step in steps if "setup-python" in step.get("uses", ""))
    assert f"{setup['with']['python-version']}.0" in SpecifierSet(PROJECT["requires-python"])
    assert {True, "on"} & set(workflow), "YAML reads the key `on` as true"
