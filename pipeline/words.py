"""How messages, captions and pages count things.

Contract: imports nothing, so that any module may use it, also where a command only checks.
"""

from __future__ import annotations


def counted(number: float, one: str, many: str = "") -> str:
    """A number with what it counts, in the singular for one.

    Args:
        number: how many, whole or not.
        one: what is counted, in the singular, with whatever follows it.
        many: the same in the plural; `one` with an s when absent.

    >>> counted(1, "init time"), counted(12, "init time"), counted(0, "init time"), counted(2.5, "day")
    ('1 init time', '12 init times', '0 init times', '2.5 days')
    >>> counted(1, "value that is not", "values that are not"), counted(1200000, "step")
    ('1 value that is not', '1200000 steps')
    """
    shown = str(number) if isinstance(number, int) else f"{number:.12g}"
    return f"{shown} {one if number == 1 else many or f'{one}s'}"


def spanned(first: str, last: str) -> str:
    """A range with both its ends, or the only thing in it.

    >>> spanned("2001-01-01", "2001-01-31"), spanned("2001-01-01", "2001-01-01")
    ('2001-01-01 .. 2001-01-31', '2001-01-01')
    """
    return first if first == last else f"{first} .. {last}"


def size(count: float) -> str:
    """Bytes as messages print them.

    >>> size(45_600_000_000_000)
    '45.6 TB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
