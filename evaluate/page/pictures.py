"""Figures as a page holds them: drawn, described, and inlined.

Contract: a picture carries its own text for those who cannot see it; nothing here knows what is drawn.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its alternative text and caption, ready to be inlined."""

    png: bytes = field(repr=False)
    alt: str
    caption: str = ""

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return Image.open(io.BytesIO(self.png)).size


@dataclass(frozen=True)
class PictureGroup:
    """Pictures side by side under one title, or groups of them below one another; the name is for links."""

    title: str
    pictures: list[Picture] = field(default_factory=list)
    groups: list[PictureGroup] = field(default_factory=list)
    name: str = ""
