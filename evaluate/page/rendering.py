"""Templates of pages: those of a report beside the style sheet and the macros that every page shares."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

SHARED = Path(__file__).resolve().parent / "templates"


def template(folder: Path, name: str) -> Template:
    """A template of a report; it may include `style.css.j2` and import from `macros.html.j2`.

    Args:
        folder: of the report's own templates.
        name: of the file.
    """
    loader = FileSystemLoader([folder, SHARED])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(name)
