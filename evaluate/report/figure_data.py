"""The numbers behind a figure, beside it: a CSV for people and spreadsheets, a NetCDF for programs.

Contract: `write(path, ...)` adds `<figure>.csv` and `<figure>.nc` to `<figure>.png` and `.pdf`. Both hold exactly
what is drawn, the CSV one row a value in seven digits with the coordinates as columns; the NetCDF says in its
attributes what it is, in which unit, and what the data are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from pipeline import files


def write(path: Path, values: xr.Dataset | pd.DataFrame, *, title: str, note: str, units: Mapping[str, str]) -> None:
    """Write the numbers of a figure as CSV and NetCDF, each atomically.

    Args:
        path: of the figure, without suffix.
        values: what is drawn: labelled arrays, or a table.
        title: what the figure shows.
        note: what the data are called.
        units: by variable.
    """
    if isinstance(values, pd.DataFrame):
        frame = values
        ds = xr.Dataset.from_dataframe(frame.reset_index(drop=True).rename_axis("row"))
    else:
        ds, frame = values, values.to_dataframe().reset_index()
    ds = ds.assign_attrs(title=title, data=note)
    for name, unit in units.items():
        ds[name] = ds[name].assign_attrs(units=unit or "1")
    encoding: dict[str, Any] = {str(v): {"zlib": True} for v in ds.data_vars if ds[v].dtype.kind in "fib"}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.nc.tmp")
    ds.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
    temporary.replace(path.with_name(f"{path.name}.nc"))
    files.write_text(path.with_name(f"{path.name}.csv"), frame.to_csv(index=False, float_format="%.7g"))
