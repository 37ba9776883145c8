"""Where the figures of a page are kept: each as PNG and PDF, with its numbers beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.colors import Colormap

from evaluate.page import style
from evaluate.page.figure_data import Numbers
from evaluate.page.pictures import Picture


@dataclass(frozen=True)
class Keeper:
    """Writes figures.

    Args:
        folder: of the figures.
        note: what the data are called.
        tick: called after every figure, for a progress bar.
        sample: what files of numbers say after the note, where there is more to say.
    """

    folder: Path
    note: str
    tick: Callable[[], None] = lambda: None
    sample: str = ""

    def labels(self, title: str, subtitle: str, unit: str = "1") -> style.Labels:
        """What is written on a panel, with the name of the data."""
        return style.Labels(title, subtitle, self.note, unit)

    def keep(
        self,
        figure: Any,
        name: str,
        numbers: Numbers,
        *,
        alt: str,
        caption: str = "",
        colours: Colormap | None = None,
        photograph: bool = False,
    ) -> Picture:
        """Write a figure with its numbers, and close it.

        Args:
            figure: of matplotlib.
            name: path below the folder, without suffix.
            numbers: what it shows.
            alt: alternative text.
            caption: below it on the page.
            colours: the colour map that fills it.
            photograph: whether it needs more than 256 colours.
        """
        png = style.save(figure, self.folder / name, colours=colours, photograph=photograph)
        numbers.write(self.folder / name, note="; ".join(filter(None, [self.note, self.sample])))
        self.tick()
        return Picture(png, alt, caption)
