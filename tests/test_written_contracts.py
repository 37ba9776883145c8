"""Contracts that the import linter cannot hold: they are about parts of a package, or about one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("pipeline", "preprocess", "model", "evaluate")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("torch.distributed", ("model/parallel/", "model/training/checkpoint.py", "model/costs/")),
        ("climate_learn", ("model/network/climatelearn.py",)),
    ],
)
def test_only_some_files_import(root: Path, module: str, allowed: tuple[str, ...]) -> None:
    """Catches ranks that talk to each other behind the mesh's back, and climate-learn without its repair.

    What communication costs is counted in model/costs, which recognises collectives and measures them.
    """
    users = {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }
    assert users
    assert {user for user in users if not user.startswith(allowed)} == set()
