"""Contracts: what must agree for two stores, or a store and a checkpoint, to belong together.

Contract: a contract is a JSON mapping. It is compared as a whole, all differences at once, both sides named;
the order of keys means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def contract_digest(contract: Mapping[str, Any]) -> str:
    """A short hash of everything a contract says."""
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()[:16]


def contract_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    """Every difference between two contracts, one readable line each."""
    lines = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key, "(absent)"), theirs.get(key, "(absent)")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += contract_differences(a, b, prefix=f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_short(a)} against {_short(b)}")
    return lines


def require_same_contract(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, us: str, them: str, remedy: str
) -> None:
    """Refuse two contracts that differ.

    Raises:
        ValueError: listing every difference at once, both sides named.
    """
    lines = contract_differences(ours, theirs)
    if lines:
        listing = "\n".join(f"  {line}" for line in lines)
        raise ValueError(
            f"{us} must share the contract of {them}, got {len(lines)} difference(s) "
            f"({us} against {them}):\n{listing}\n{remedy}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 120 else f"{text[:80]} … {text[-30:]}"
