"""The size a classic NetCDF file must have, read from its header.

Contract: the NetCDF library reads the lost end of a classic file (as the CDS delivered until 2024) as
zeros, silently; comparing sizes is the only way to see that a download was cut short. The layout
is that of the NetCDF classic format specification (CDF-1, CDF-2, CDF-5, of which SciPy reads the first two).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Size of a value by type number."""

_STREAMING = (2**32 - 1, 2**64 - 1)
"""Number of records of a file that was never closed."""


def require_whole(path: Path) -> None:
    """Refuse a classic NetCDF file that ends early.

    Raises:
        ValueError: it is shorter than its header says, or the header itself is cut.
    """
    size = path.stat().st_size
    try:
        needed = expected_size(path)
    except (struct.error, KeyError, IndexError) as error:
        raise ValueError(
            f"NetCDF file must be whole, got {path} with a damaged header ({error}); fetch it again"
        ) from None
    if size < needed:
        raise ValueError(f"NetCDF file must be whole, got {size} of {needed} bytes in {path}; fetch it again")


def expected_size(path: Path) -> int:
    """Smallest size in bytes that holds every value the header announces."""
    with path.open("rb") as file:
        version = file.read(4)[3]
        count, offset = ">Q" if version == 5 else ">I", ">I" if version == 1 else ">Q"

        def number(kind: str = count) -> int:
            return int(struct.unpack(kind, file.read(struct.calcsize(kind)))[0])

        def skip(size: int) -> None:
            """Over a value padded to four bytes."""
            file.seek(-(-size // 4) * 4, 1)

        def elements() -> range:
            """Of a list: its tag, then its length."""
            number(">I")
            return range(number())

        def skip_attributes() -> None:
            for _ in elements():
                skip(number())
                kind = number(">I")
                skip(number() * _BYTES[kind])

        def dimension() -> int:
            skip(number())
            return number()

        records = number()
        if records in _STREAMING:
            return 0
        lengths = [dimension() for _ in elements()]
        skip_attributes()
        fixed_end, record_ends, record_sizes = 0, [], []
        for _ in elements():
            skip(number())
            dims = [lengths[number()] for _ in range(number())]
            skip_attributes()
            kind = number(">I")
            number()
            begin = number(offset)
            per_record = bool(dims) and dims[0] == 0
            size = math.prod(dims[per_record:]) * _BYTES[kind]
            if per_record:
                record_ends.append(begin + size)
                record_sizes.append(size)
            else:
                fixed_end = max(fixed_end, begin + size)
    if not record_sizes or not records:
        return fixed_end
    # A single record variable is stored without padding between its records.
    step = record_sizes[0] if len(record_sizes) == 1 else sum(-(-size // 4) * 4 for size in record_sizes)
    return max(fixed_end, max(record_ends) + (records - 1) * step)
