"""The numbers behind a figure, beside it: a CSV for people and spreadsheets, a NetCDF for programs.

Contract: `Numbers.write` adds `<figure>.csv` and `<figure>.nc` to `<figure>.png` and `.pdf`. Both hold exactly what is
drawn, the CSV one row per value in seven digits with the coordinates as columns; the NetCDF says in its attributes what
it is, in which unit, and what the data are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from pipeline import files


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a figure shows: labelled arrays or a table, what they are, and the units of variables."""

    values: xr.Dataset | pd.DataFrame
    title: str
    units: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path, *, note: str) -> None:
        """Write CSV and NetCDF, each atomically.

        Args:
            path: of the figure, without suffix.
            note: what the data are called.
        """
        if isinstance(self.values, pd.DataFrame):
            frame = self.values
            ds = xr.Dataset.from_dataframe(frame.reset_index(drop=True).rename_axis("row"))
        else:
            ds, frame = self.values, self.values.to_dataframe().reset_index()
        ds = ds.assign_attrs(title=self.title, data=note)
        for name, unit in self.units.items():
            ds[name] = ds[name].assign_attrs(units=unit or "1")
        encoding: dict[str, Any] = {str(v): {"zlib": True} for v in ds.data_vars if ds[v].dtype.kind in "fib"}
        with files.replacing(path.with_name(f"{path.name}.nc")) as temporary:
            ds.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
        files.write_text(path.with_name(f"{path.name}.csv"), frame.to_csv(index=False, float_format="%.7g"))
