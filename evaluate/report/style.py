"""How weather figures look: the style of every page, and the look of each model.

Contract: the one place that decides the colours of models; everything else is `evaluate.page.style`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.page.style import BIAS as BIAS
from evaluate.page.style import CEILING as CEILING
from evaluate.page.style import COLOURS as COLOURS
from evaluate.page.style import CORRELATION as CORRELATION
from evaluate.page.style import ERROR as ERROR
from evaluate.page.style import FORMATS as FORMATS
from evaluate.page.style import GRID as GRID
from evaluate.page.style import INK as INK
from evaluate.page.style import MAPS as MAPS
from evaluate.page.style import MUTED as MUTED
from evaluate.page.style import PANEL as PANEL
from evaluate.page.style import SKILL as SKILL
from evaluate.page.style import Labels as Labels
from evaluate.page.style import Look as Look
from evaluate.page.style import look as look
from evaluate.page.style import nice_ceiling as nice_ceiling
from evaluate.page.style import replace as replace
from evaluate.page.style import save as save
from evaluate.page.style import save_one as save_one
from evaluate.page.style import shades as shades
from evaluate.page.style import with_palette as with_palette
from evaluate.page.style import write_labels as write_labels
from evaluate.scoring.facts import UNCALIBRATED, uncalibrated_name

LOOKS = {
    "truth": Look(INK, "truth"),
    "climatology": Look("#68717d", "climatology", (4, 2)),
    "persistence": Look("#d1571b", "persistence", (1.2, 1.4)),
    "damped_persistence": Look("#e08a4f", "damped persistence", (3, 1, 1, 1)),
    "linear": Look("#9a6a00", "linear regression", (6, 1.5)),
    "resnet": Look("#7b5ea7", "ResNet"),
    "unet": Look("#b0609a", "U-Net"),
    "coarse": Look("#5f9c3f", "coarse core", (5, 1, 1, 1, 1, 1)),
    "ceiling": Look(CEILING, "ceiling (perfect model)", (2, 1)),
}
"""Models with a look of their own; others take COLOURS in order."""
BASELINES = ("persistence", "climatology")
"""In every table and curve where they were scored."""
FAR = ("coarse", "ceiling")
"""Models whose skill would dwarf that of all others in one panel."""


def looks(models: Sequence[str]) -> dict[str, Look]:
    """The look of every model; forecasts as they were before calibration have their model's colour."""
    as_they_were = {uncalibrated_name(m): m for m in models}
    others = [m for m in models if m not in LOOKS and m not in as_they_were]
    found = {**LOOKS, **{m: Look(COLOURS[i % len(COLOURS)], m) for i, m in enumerate(others)}}
    raw = {name: Look(found[m].colour, UNCALIBRATED, (1.5, 1.2)) for name, m in as_they_were.items() if name in models}
    return found | raw
