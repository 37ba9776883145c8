"""Opens a page in headless Chromium and reports what a reader would see."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SPY = """<script>addEventListener("load", () => setTimeout(() => {
  const images = [...document.images];
  const shown = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll,.panels,nav,pre"));
  parent.postMessage(JSON.stringify({
    images: images.length,
    broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    requests: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    wide: shown.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className),
  }), "*");
}, 200));</script>"""

FRAME = """<html><body><iframe src="spied.html" style="width:{width}px;height:900px;border:0"></iframe>
<p id="report"></p><script>
addEventListener("message", e => document.getElementById("report").textContent = e.data);
</script></body></html>"""

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"),
    *("--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom"),
)


def browse(page: str, tmp_path: Path, *, width: int) -> dict[str, Any]:
    """Open a page in headless Chromium, and check that it is whole."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "spied.html").write_text(page.replace("</body>", f"{SPY}</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path}/profile", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<p id="report">(\{.*?\})</p>', done.stdout)
    assert found, done.stdout[-500:]
    seen: dict[str, Any] = json.loads(found.group(1))
    assert seen["broken"] == 0
    assert seen["requests"] == []
    assert seen["wide"] == []
    assert seen["scroll"] <= seen["width"] == width
    assert "CONSOLE" not in done.stderr
    return seen
