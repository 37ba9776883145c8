"""Figures of a gallery drawn by several processes side by side.

Contract: every part, a section of the page or one channel of it, is drawn from the same gallery whoever draws it, so
files and page do not depend on the number of processes. These end with the report, however it ends.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Literal

from evaluate.page.pictures import Picture, PictureGroup
from evaluate.report.gallery import Gallery
from evaluate.scoring.workers import child_processes, given

Section = Literal["headline", "overview", "curves", "score_maps", "spectra"]
"""Methods of a gallery."""
OF_ONE = ("headline", "overview")
"""Those about the first channel, or all of them together; the others return a list with an entry for each channel."""


class SideBySide:
    """Draws sections of a page.

    Args:
        gallery: that draws; its tick is called after every panel, in this process.
        workers: processes; 1 draws in this one, when a section is asked for.
        stack: ends the processes.
    """

    def __init__(self, gallery: Gallery, *, workers: int, stack: ExitStack) -> None:
        self._gallery = gallery
        self._pool: Any = None
        if workers > 1:
            import cloudpickle

            self._pool = child_processes(workers, cloudpickle.dumps(_to_send(gallery)), stack)

    def start(self, section: Section) -> Callable[[], Any]:
        """Begin a section, in the order of the calls.

        Returns:
            What waits for it and returns what the gallery's method does.
        """
        gallery = self._gallery
        if self._pool is None:
            return lambda: getattr(gallery, section)()
        channels: list[str | None] = [None] if section in OF_ONE else [*gallery.channels]
        waiting = [self._pool.submit(_draw, section, channel) for channel in channels]

        def finish() -> Any:
            parts = []
            for future in waiting:
                parts.append(future.result())
                for _ in range(_num_pictures(parts[-1])):
                    gallery.tick()
            return parts[0] if section in OF_ONE else [entry for part in parts for entry in part]

        return finish


def _to_send(gallery: Gallery) -> Gallery:
    """The same gallery without a progress bar, and with the scores of its own channels only."""
    results, ceiling = gallery.results, gallery.ceiling
    if ceiling is not None:
        ceiling = dataclasses.replace(ceiling, table=ceiling.table.only(gallery.channels))
    sent = copy.copy(gallery)
    sent.results = dataclasses.replace(results, table=results.table.only(gallery.channels), ceiling=ceiling)
    sent.ceiling, sent.tick = ceiling, _nothing
    return sent


def _draw(section: Section, channel: str | None) -> Any:
    """In a child process: a section, or what it has of one channel."""
    gallery = copy.copy(_loaded(given()))
    if channel is not None:
        gallery.channels = [channel]
    return getattr(gallery, section)()


@lru_cache(maxsize=1)
def _loaded(payload: bytes) -> Gallery:
    import cloudpickle

    gallery: Gallery = cloudpickle.loads(payload)
    return gallery


def _num_pictures(drawn: Any) -> int:
    """How many pictures a part has."""
    if isinstance(drawn, Picture):
        return 1
    entries = [*drawn.pictures, *drawn.groups] if isinstance(drawn, PictureGroup) else drawn
    return sum(map(_num_pictures, entries))


def _nothing() -> None:
    """Instead of a tick."""
