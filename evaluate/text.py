"""How leads, dates, numbers and units are written for people: in messages, tables, figures and on the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.words import counted

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def lead_title(hours: int) -> str:
    """A lead time: "6 h", "1 day", "7 days"."""
    if hours < 24 or hours % 24:
        return f"{hours} h"
    return "1 day" if hours == 24 else f"{hours // 24} days"


def lead_titles(leads: Sequence[int]) -> str:
    """Several lead times in a sentence.

    >>> lead_titles([24, 72, 720]), lead_titles([6, 24]), lead_titles([168])
    ('1, 3 and 30 days', '6 h and 1 day', '7 days')
    """
    if len(leads) > 1 and not any(h % 24 for h in leads):
        return f"{join([str(h // 24) for h in leads])} days"
    return join([lead_title(h) for h in leads])


def lead_columns(leads: Sequence[int]) -> list[str]:
    """Lead times as headings of narrow columns: "6 h", "1 d", "30 d"."""
    return [short(lead_title(h)) for h in leads]


def short(words: str) -> str:
    """The same with "d" for days."""
    return words.replace(" days", " d").replace(" day", " d")


def parse_lead(text: str) -> int:
    """A lead in hours: "7d", "36h" or "168".

    >>> parse_lead("7d"), parse_lead("36h"), parse_lead("168")
    (168, 36, 168)

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d+)\s*(d|days?|h|hours?|)", text.strip().lower())
    if not match or int(match[1]) == 0:
        raise ValueError(f"lead must look like 7d or 168h, got {text!r}")
    return int(match[1]) * (24 if match[2].startswith("d") else 1)


def iso_hour(time: Any) -> str:
    """A time to the hour, as messages and facts have it: "2001-02-03T04"."""
    return str(np.datetime64(time, "h"))


def issued(time: Any, *, valid: Any = None) -> str:
    """An init time, and a valid time where there is one, without repeating a common year.

    >>> issued("2004-01-01T00"), issued("2004-01-01T00", valid="2004-01-08T00")
    ('1 Jan 2004 00 UTC', '1 Jan 00 UTC, valid 8 Jan 2004 00 UTC')
    """
    a, b = pd.Timestamp(time), pd.Timestamp(time if valid is None else valid)
    end = f"{b.day} {b:%b} {b.year} {b:%H} UTC"
    return end if valid is None else f"{a.day} {a:%b}{'' if a.year == b.year else f' {a.year}'} {a:%H} UTC, valid {end}"


def period(first: str, last: str) -> str:
    """Two dates, without repeating a common year; with hours where they are less than three days apart; one if equal.

    >>> period("2004-01-01T00", "2004-08-01T12"), period("2004-01-01T00", "2004-01-01T00")
    ('1 Jan – 1 Aug 2004', '1 Jan 2004 00 UTC')
    """
    if first == last:
        return issued(first)
    a, b = pd.Timestamp(first), pd.Timestamp(last)
    hours = [f" {t:%H} UTC" if (b - a).days < 3 else "" for t in (a, b)]
    year = f" {a.year}" if a.year != b.year else ""
    return f"{a.day} {a:%b}{year}{hours[0]} – {b.day} {b:%b} {b.year}{hours[1]}"


def sample(num_init: int, *, of: int, spacing_hours: float, having: str) -> str:
    """Some of the init times, and how far apart they lie where there are several.

    >>> sample(15, of=150, spacing_hours=240.0, having="it has"), sample(1, of=8, spacing_hours=24.0, having="it has")
    ('15 of 150 init times that it has, every 10 days', '1 of 8 init times that it has')
    """
    every = f", every {counted(spacing_hours / 24, 'day')}" if num_init > 1 else ""
    return f"{num_init} of {counted(of, 'init time')} that {having}{every}"


def join(parts: Sequence[str]) -> str:
    """A list in a sentence: "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def pretty_unit(unit: str) -> str:
    """A unit: "m2 s-2" becomes "m² s⁻²"; "1" becomes nothing.

    >>> pretty_unit("m2 s-2"), pretty_unit("kg kg-1"), pretty_unit("1"), pretty_unit("(m s-1)^2")
    ('m² s⁻²', 'kg kg⁻¹', '', '(m s⁻¹)²')
    """
    if unit == "1":
        return ""
    return re.sub(r"(?:(?<=[A-Za-z])|\^)(-?\d+)", lambda m: m.group(1).translate(_RAISED), unit)


def squared(unit: str) -> str:
    """The square of a unit.

    >>> squared("K"), squared("m s-1")
    ('K²', '(m s⁻¹)²')
    """
    return f"{unit}²" if unit.isalpha() else f"({pretty_unit(unit)})²"


def number(value: float, *, digits: int = 3) -> str:
    """A number: three significant digits, a power of ten where it is very large or small, a dash for NaN.

    >>> number(1234.6), number(0.1234), number(-0.00001234), number(float("nan")), number(2)
    ('1235', '0.123', '−1.23 × 10⁻⁵', '–', '2.00')
    """
    if not np.isfinite(value):
        return "–"
    sign, size = ("−" if value < 0 else ""), abs(float(value))
    if size == 0:
        return "0"
    power = int(np.floor(np.log10(float(f"{size:.{digits - 1}e}"))))
    if -4 < power < digits:
        return f"{sign}{size:.{digits - 1 - power}f}"
    if 0 < power < 6:
        return f"{sign}{size:.0f}"
    return f"{sign}{size / 10.0**power:.{digits - 1}f} × 10{str(power).translate(_RAISED)}"


def score(value: float) -> str:
    """A dimensionless score: two decimals, three where it is small, and a true minus sign.

    >>> score(0.4249), score(-0.4249), score(0.0042), score(0.0), score(float("nan"))
    ('0.42', '−0.42', '0.004', '0.00', '–')
    """
    if not np.isfinite(value):
        return "–"
    digits = 3 if 0 < abs(value) < 0.0995 else 2
    text = f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and float(text) > 0 else text


def percent(share: float) -> str:
    """A share.

    >>> percent(0.296), percent(-0.031), percent(-0.001), percent(float("nan"))
    ('30%', '−3%', '0%', '–')
    """
    return f"{round(100 * share)}%".replace("-", "−") if np.isfinite(share) else "–"
