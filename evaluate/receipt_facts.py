"""Facts of a score stage, read back from its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Facts = TypeVar("Facts")


def read_facts(kind: type[Facts], content: Mapping[str, Any]) -> Facts:
    """The facts of a receipt, or of a file of scores.

    Args:
        kind: a dataclass.
        content: as JSON holds it.

    Raises:
        ValueError: something that this version does not write, or lacks what it writes.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        keys = dict.fromkeys(str(item["loc"][0]) for item in error.errors() if item["loc"])
        raise ValueError(
            f"facts of the scores must be as this version writes them, got another {', '.join(keys) or 'content'}; "
            "move the score stage's receipt away and run python -m pipeline score again"
        ) from None
