"""A page on disk: never larger than it may be, and never half there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluate.page import rendering


def test_a_page_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit in characters instead of bytes, one that is off by one, and a page that is written all the
    same."""
    monkeypatch.setattr(rendering, "LIMIT", 2_000_000)
    config: Any = SimpleNamespace(paths=SimpleNamespace(report=tmp_path / "report.html"))
    with pytest.raises(ValueError, match=r"report must stay under 2 MB, got 2\.0 MB; show fewer images"):
        rendering.write_page(config, "é" * 1_000_001, remedy="show fewer images")
    assert not config.paths.report.exists()
    assert rendering.write_page(config, "é" * 1_000_000, remedy="show fewer images") == 2_000_000
    assert config.paths.report.stat().st_size == 2_000_000
