"""The tags of a page."""

from __future__ import annotations

import html.parser


class Outline(html.parser.HTMLParser):
    """Collects tags, and checks that they close."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    """The parsed page."""
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser
