"""GRIB files made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eccodes
import numpy as np

from tests.preprocess.stores import global_grid

Field = dict[str, Any]
"""{name, time, lead, level, value, number, keys}; the last three may be absent, and so may lead and level."""


def grib(path: Path, fields: list[Field], **options: Any) -> Path:
    """GRIB messages of one field each, on a global grid from 90 to -90."""
    with path.open("wb") as file:
        for field in fields:
            handle = _handle(field, **options)
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return path


def grib_together(path: Path, messages: list[list[Field]], **options: Any) -> Path:
    """GRIB 2 messages of several fields each, as NCEP writes u and v; they share all but sections 4 to 7."""
    with path.open("wb") as file:
        for fields in messages:
            together = eccodes.codes_grib_multi_new()
            for field in fields:
                handle = _handle(field, **options)
                eccodes.codes_grib_multi_append(handle, 4, together)
                eccodes.codes_release(handle)
            eccodes.codes_grib_multi_write(together, file)
            eccodes.codes_grib_multi_release(together)
    return path


def _handle(field: Field, *, edition: int = 2, bitmap: bool = False, rows: int = 7, columns: int = 12) -> int:
    kind = "pl" if "level" in field else "sfc"
    handle: int = eccodes.codes_grib_new_from_samples(f"regular_ll_{kind}_grib{edition}")
    start = field["time"] - np.timedelta64(field.get("lead", 0), "h")
    text = str(start.astype("datetime64[m]"))
    keys = {
        **global_grid(rows, columns),
        "dataDate": int(text[:10].replace("-", "")),
        "dataTime": int(text[11:13] + text[14:16]),
        "bitsPerValue": 24,
    }
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set(handle, "stepRange", str(field.get("lead", 0)))
    eccodes.codes_set(handle, "shortName", field["name"])
    for key, value in field.get("keys", {}).items():
        eccodes.codes_set(handle, key, value)
    if "level" in field:
        eccodes.codes_set(handle, "level", field["level"])
    values = field["value"] + np.arange(rows * columns) / 8.0
    if bitmap:
        eccodes.codes_set(handle, "bitmapPresent", 1)
        eccodes.codes_set(handle, "missingValue", 9999.0)
        values[5] = 9999.0
    eccodes.codes_set_values(handle, values)
    return handle
