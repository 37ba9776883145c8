"""What preprocess's docstrings promise about its own code, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PLANET = {9.80616, 6.37122e6, 7.292e-5, 1004.0, 461.5, 287.0}
"""Constants of the simulated planet."""


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((root / "preprocess").rglob("*.py")):
        yield str(path.relative_to(root)), ast.parse(path.read_text())


def holders(root: Path, numbers: set[float]) -> set[str]:
    """Modules of preprocess in which a number stands."""
    return {
        name
        for name, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in numbers
    }


def test_units_are_converted_in_one_place(root: Path) -> None:
    """Catches a second rule for units: a conversion factor, or a table of spellings, outside pipeline.weather.units."""
    assert holders(root, {9.80665, 273.15}) == set()
    calls = {
        name
        for name, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to_canonical"
    }
    assert calls == {"preprocess/decode/canonical.py"}


def test_constants_of_the_simulated_planet_stand_in_one_place(root: Path) -> None:
    """Catches a constant written again, which would then differ between the core and the fields made of it."""
    assert holders(root, PLANET) == {"preprocess/simulation/forcing.py"}


def test_every_package_says_what_lives_there(root: Path) -> None:
    """Catches a package whose docstring does not say what it may import and what to read first."""
    for name, tree in modules(root):
        if name.endswith("__init__.py"):
            text = ast.get_docstring(tree) or ""
            assert "May import" in text, name
            assert "Read first" in text, name
