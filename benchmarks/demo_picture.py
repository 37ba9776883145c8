"""The picture of the README and the table of docs/baselines.md, from a finished experiment.

    python benchmarks/demo_picture.py --config workflows/config/demo.yaml

Writes docs/images/skill_map.png: ACC and skill of the first variable against lead, of everything that was scored, above
maps of its skill. Prints the same numbers as a Markdown table, on the init times that all models have, and what to
write as the picture's alternative text. Needs the experiment's score stage; draws with the report's own code.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluate import text
from evaluate.report.gallery import Gallery
from evaluate.report.headline import order
from evaluate.report.stage import open_gallery
from evaluate.report.style import looks
from pipeline import config as configuration
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "skill_map.png"
WIDTH = 1240
"""Pixels; GitHub shows pictures about 850 wide."""
GAP = 12


def compose(rows: list[list[Image.Image]], *, width: int) -> Image.Image:
    """Pictures in rows of one width, white between them."""
    made = []
    for row in rows:
        inner = width - GAP * (len(row) - 1)
        scale = inner / sum(part.width for part in row)
        sizes = [(round(part.width * scale), round(part.height * scale)) for part in row]
        canvas = Image.new("RGB", (width, max(height for _, height in sizes)), "white")
        x = 0
        for part, size in zip(row, sizes, strict=True):
            canvas.paste(part.resize(size, Image.Resampling.LANCZOS), (x, 0))
            x += size[0] + GAP
        made.append(canvas)
    whole = Image.new("RGB", (width, sum(row.height for row in made) + GAP * (len(made) - 1)), "white")
    y = 0
    for canvas in made:
        whole.paste(canvas, (0, y))
        y += canvas.height + GAP
    return whole


def draw(gallery: Gallery) -> tuple[Image.Image, str]:
    """The picture, and its alternative text."""
    first = gallery.channels[0]
    with tempfile.TemporaryDirectory() as folder:
        results = dataclasses.replace(gallery.results, channels=[first])
        maps = gallery.maps.sel(channel=[first])
        alone = dataclasses.replace(gallery, results=results, maps=maps, folder=Path(folder))
        rows = [alone.headline(), [alone.overview()]]
    images = [[Image.open(io.BytesIO(picture.png)).convert("RGB") for picture in row] for row in rows]
    alt = (
        f"How the forecasts of {parse_channel(first).title} fade with lead time: anomaly correlation and skill at "
        f"{text.lead_titles(gallery.results.leads)} beside other forecasts, and maps of the skill; {gallery.note}"
    )
    return compose(images, width=WIDTH), alt


def table(gallery: Gallery) -> str:
    """ACC of the first variable by model and lead in Markdown."""
    results = gallery.results
    scores = results.ceiling.table if results.ceiling else results.table
    channel, leads = results.channels[0], results.leads
    models = order(scores.models, model=results.model)
    named = looks(models)
    lines = [
        f"ACC of {channel}, {int(scores.frame['n_init'].min())} init times:",
        "",
        f"| days | {' | '.join(f'{h / 24:g}' for h in leads)} |",
        "|---" * (len(leads) + 1) + "|",
    ]
    for model in models:
        values = [scores.score(model, channel, h, "acc").value for h in leads]
        cells = [f"{v:.3f}" if np.isfinite(v) else "" for v in values]
        lines.append(f"| {'model' if model == results.model else named[model].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--config", type=Path, default=Path("workflows/config/demo.yaml"))
    command.add_argument("--set", nargs="*", default=[], help="settings as on the command line of the stages")
    command.add_argument("--out", type=Path, default=TARGET)
    given = command.parse_args()
    config = configuration.load(given.config, given.set)
    assert isinstance(config, WeatherConfig)
    gallery, _ = open_gallery(config)
    picture, alt = draw(gallery)
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(given.out, optimize=True)
    print(table(gallery), f"\n\n{given.out}, {picture.width} x {picture.height}; alternative text:\n{alt}")


if __name__ == "__main__":
    main()
