"""climate-learn for benchmarks: importable on a machine without torchvision's compiled operators."""

from __future__ import annotations

from model.network.climatelearn import repair_torchvision


def import_climate_learn() -> None:
    """Make `import climate_learn` work."""
    repair_torchvision()
    import climate_learn  # noqa: F401
