"""From a template to the page on disk: what every report's page says, and how large it may be.

Contract: a report's template extends `page.html.j2`, in whose folder the style sheet and the shared macros lie too; it
has the blocks `kind`, `top`, `content` and `numbers`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluate.page.receipts import receipts, relative
from pipeline import config as configuration
from pipeline import files, provenance
from pipeline.config import Config
from pipeline.words import counted

SHARED = Path(__file__).resolve().parent / "templates"
LIMIT = 10_000_000
"""Bytes of a page."""


def render_page(config: Config, template: Path, **shown: Any) -> str:
    """The page of an experiment.

    Args:
        config: the experiment.
        template: of the report.
        shown: what the template reads beside the experiment, its receipts and its settings; `header` (name, value,
            detail) and `formulas` (name: text) among it.
    """
    loader = FileSystemLoader([template.parent, SHARED])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template.name).render(
        config=config,
        counted=counted,
        stages=receipts(config),
        configuration=configuration.dump(config),
        written=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=provenance.commit(),
        folder=relative(config, config.paths.scores),
        **shown,
    )


def write_page(config: Config, page: str, *, remedy: str) -> int:
    """Write the page of an experiment.

    Args:
        config: the experiment.
        page: its HTML.
        remedy: what makes it smaller.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: it would be larger than LIMIT.
    """
    size = len(page.encode())
    if size > LIMIT:
        raise ValueError(f"report must stay under {LIMIT / 1e6:.0f} MB, got {size / 1e6:.1f} MB; {remedy}")
    files.write_text(config.paths.report, page)
    return size
