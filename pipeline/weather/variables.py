"""The channel catalogue: every variable the project knows, its spellings, units and plausible range.

Contract: the order of `CATALOGUE` is the channel order, everywhere; a variable on pressure levels
contributes one channel per level, in increasing pressure. Channels are called by ERA5 short names
("z500", "t2m"). How files spell units, and how these convert, is in `pipeline.weather.units`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

STANDARD_GRAVITY = 9.80665
"""m s-2; WMO value that ECMWF uses to turn geopotential height into geopotential."""

LEVELS = (30, 50, 70, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""Default pressure levels, hPa."""


@dataclass(frozen=True)
class Variable:
    """One physical variable.

    Args:
        short: ERA5 short name, e.g. "z".
        long: ERA5 long name, as cloud archives spell it, e.g. "geopotential".
        standard_name: CF standard name.
        unit: canonical unit.
        label: what figures call it.
        levels: whether it lives on pressure levels.
        static: whether it does not depend on time.
        low, high: plausible range in the canonical unit; for geopotential on levels see `plausible_range`.
        param_id: GRIB parameter number of ECMWF.
        other: further names found in files (CDS, GRIB, CMIP, CESM, NCEP, GrADS), compared without case.
        other_standard_names: further standard names, of CF or taken for it, that mean the same.
        height: metres above the ground, where a standard name does not say which level is meant.
    """

    short: str
    long: str
    standard_name: str
    unit: str
    label: str
    levels: bool
    static: bool
    low: float
    high: float
    param_id: int
    other: tuple[str, ...] = ()
    other_standard_names: tuple[str, ...] = ()
    height: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every spelling, most specific first."""
        return (self.short, self.long, *self.other)

    @property
    def standard_names(self) -> tuple[str, ...]:
        """The CF standard name first."""
        return (self.standard_name, *self.other_standard_names)


CATALOGUE: tuple[Variable, ...] = (
    Variable(
        "z", "geopotential", "geopotential", "m2 s-2", "Geopotential", True, False, -1e4, 4.6e5, 129,
        ("gh", "hgt", "geopotential_height", "zg", "z3", "h", "hgtprs", "geopotential_height_isobaric"),
        ("geopotential_height", "edge_heights"),
    ),
    Variable(
        "t", "temperature", "air_temperature", "K", "Temperature", True, False, 150.0, 350.0, 130,
        ("ta", "air", "tmp", "tmpprs", "temperature_isobaric"),
    ),
    Variable(
        "u", "u_component_of_wind", "eastward_wind", "m s-1", "Eastward wind", True, False, -350.0, 350.0, 131,
        ("ua", "uwnd", "ugrd", "ugrdprs", "u-component_of_wind_isobaric"),
    ),
    Variable(
        "v", "v_component_of_wind", "northward_wind", "m s-1", "Northward wind", True, False, -350.0, 350.0, 132,
        ("va", "vwnd", "vgrd", "vgrdprs", "v-component_of_wind_isobaric"),
    ),
    Variable(
        "q", "specific_humidity", "specific_humidity", "kg kg-1", "Specific humidity", True, False, -1e-3, 0.04, 133,
        ("hus", "shum", "spfh", "qv", "spfhprs", "specific_humidity_isobaric"),
    ),
    Variable(
        "r", "relative_humidity", "relative_humidity", "%", "Relative humidity", True, False, -60.0, 200.0, 157,
        ("hur", "rhum", "relhum", "rh", "rhprs", "relative_humidity_isobaric"), ("relative_humidity_after_moist",),
    ),
    Variable(
        "w", "vertical_velocity", "lagrangian_tendency_of_air_pressure", "Pa s-1", "Vertical velocity",
        True, False, -50.0, 50.0, 135, ("wap", "omega", "vvel", "vvelprs"),
        ("vertical_air_velocity_expressed_as_tendency_of_pressure", "vertical_pressure_velocity", "omega"),
    ),
    Variable(
        "t2m", "2m_temperature", "air_temperature", "K", "2 m temperature", False, False, 170.0, 340.0, 167,
        ("2t", "var_2t", "tas", "2 metre temperature", "trefht", "tmp2m", "tmp_2maboveground"), (), 2.0,
    ),
    Variable(
        "u10", "10m_u_component_of_wind", "eastward_wind", "m s-1", "10 m eastward wind", False, False, -350.0, 350.0,
        165, ("10u", "var_10u", "uas", "10 metre u wind component", "u10m", "ugrd10m", "ugrd_10maboveground"), (), 10.0,
    ),
    Variable(
        "v10", "10m_v_component_of_wind", "northward_wind", "m s-1", "10 m northward wind", False, False, -350.0,
        350.0, 166, ("10v", "var_10v", "vas", "10 metre v wind component", "v10m", "vgrd10m", "vgrd_10maboveground"),
        (), 10.0,
    ),
    Variable(
        "d2m", "2m_dewpoint_temperature", "dew_point_temperature", "K", "2 m dew point", False, False, 150.0, 330.0,
        168, ("2d", "tdps", "dpt2m", "dpt_2maboveground"), (), 2.0,
    ),
    Variable(
        "msl", "mean_sea_level_pressure", "air_pressure_at_mean_sea_level", "Pa", "Mean sea level pressure",
        False, False, 8.4e4, 1.12e5, 151, ("prmsl", "psl", "slp", "mslp", "prmslmsl", "prmsl_meansealevel"),
        ("air_pressure_at_sea_level", "sea_level_pressure"),
    ),
    Variable(
        "sp", "surface_pressure", "surface_air_pressure", "Pa", "Surface pressure", False, False, 4e4, 1.12e5, 134,
        ("ps", "pressfc", "pres_surface", "psfc"), ("surface_pressure",),
    ),
    Variable(
        "tcwv", "total_column_water_vapour", "lwe_thickness_of_atmosphere_mass_content_of_water_vapor", "kg m-2",
        "Total column water vapour", False, False, -1.0, 120.0, 137, ("prw", "tmq", "tqv", "pwat", "pr_wtr"),
        ("atmosphere_mass_content_of_water_vapor", "atmosphere_water_vapor_content", "total_precipitable_water_vapor"),
    ),
    Variable(
        "lsm", "land_sea_mask", "land_binary_mask", "1", "Land-sea mask", False, True, -1e-3, 1.001, 172,
        ("sftlf", "landfrac", "landsfc", "land_surface"), ("land_area_fraction",),
    ),
    Variable(
        "orog", "geopotential_at_surface", "surface_geopotential", "m2 s-2", "Surface geopotential", False, True,
        -8e3, 9e4, 129, ("z_sfc", "zs", "orography", "phis", "hgtsfc", "hgt_surface"),
        ("surface_altitude", "geopotential", "geopotential_height", "surface_geopotential_height"),
    ),
)  # fmt: skip
"""Ranges: wide enough for ERA5's all-time extremes (hourly, 0.25 degrees), narrow enough that degrees
Celsius, geopotential height in metres and humidity in g/kg fall outside. Winds reach far: ECMWF's known
issue "large 10m winds" puts up to 300 m/s into single cells of ERA5 before February 2020."""

BY_SHORT = {v.short: v for v in CATALOGUE}
_ON_LEVEL = re.compile(r"^(?P<variable>[a-z]+)(?:@(?P<level>[1-9]\d*)hPa|(?P<plain>[1-9]\d*))$")
DEFAULT_VARIABLES = ("z", "t", "u", "v", "q", "t2m", "u10", "v10")
DEFAULT_STATICS = ("lsm", "orog")


@dataclass(frozen=True, order=True)
class Channel:
    """One input or output plane of the model: a variable, on one pressure level where it has levels.

    Args:
        variable: short name of the variable.
        level: pressure in hPa, or None.
    """

    variable: str
    level: int | None = None

    @property
    def name(self) -> str:
        """Short name, e.g. "z500" or "t2m"; "u@10hPa" where "u10" would be another variable, the wind at 10 m."""
        if self.level is None:
            return self.variable
        plain = f"{self.variable}{self.level}"
        return f"{self.variable}@{self.level}hPa" if plain in BY_SHORT else plain

    @property
    def spec(self) -> Variable:
        """The catalogue entry."""
        return BY_SHORT[self.variable]

    @property
    def title(self) -> str:
        """What figures call it, e.g. "Geopotential at 500 hPa"."""
        return self.spec.label if self.level is None else f"{self.spec.label} at {self.level} hPa"


def _nearest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"


def variable(short: str) -> Variable:
    """The catalogue entry of a short name.

    Raises:
        ValueError: the catalogue does not have it; the message names the nearest.
    """
    if short not in BY_SHORT:
        raise ValueError(f"variable must be in the catalogue, got {short!r}; {_nearest(short, BY_SHORT)}")
    return BY_SHORT[short]


def channels(
    variables: Sequence[str] = DEFAULT_VARIABLES,
    levels: Sequence[int] = LEVELS,
    statics: Sequence[str] = DEFAULT_STATICS,
) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
    """(dynamic, static) channels in catalogue order, whatever the order of the arguments.

    Raises:
        ValueError: an unknown variable, a static one among `variables` or the reverse, or a bad level.
    """
    wanted_dynamic = {variable(v).short for v in variables}
    wanted_static = {variable(v).short for v in statics}
    for name in sorted(wanted_dynamic):
        if BY_SHORT[name].static:
            raise ValueError(f"variables must depend on time, got {name!r}; list it under statics")
    for name in sorted(wanted_static):
        if not BY_SHORT[name].static:
            raise ValueError(f"statics must not depend on time, got {name!r}; list it under variables")
    pressure = sorted({int(p) for p in levels})
    if any(p <= 0 or p > 1100 for p in pressure):
        raise ValueError(f"levels must be pressures in hPa within 1 .. 1100, got {pressure}")
    dynamic: list[Channel] = []
    for v in CATALOGUE:
        if v.short not in wanted_dynamic:
            continue
        if v.levels and not pressure:
            raise ValueError(f"variable {v.short!r} lives on pressure levels, got an empty list of levels")
        dynamic += [Channel(v.short, p) for p in pressure] if v.levels else [Channel(v.short)]
    static = [Channel(v.short) for v in CATALOGUE if v.short in wanted_static]
    names = [channel.name for channel in (*dynamic, *static)]
    assert len(set(names)) == len(names), "channels of one name, before anything is read"
    return tuple(dynamic), tuple(static)


def parse_channel(name: str) -> Channel:
    """The channel of a short name such as "z500", "u10" (the wind at 10 m) or "u@10hPa".

    Raises:
        ValueError: the name is not a channel of the catalogue.
    """
    if name in BY_SHORT and not BY_SHORT[name].levels:
        return Channel(name)
    match = _ON_LEVEL.match(name)
    if match and match["variable"] in BY_SHORT and BY_SHORT[match["variable"]].levels:
        return Channel(match["variable"], int(match["level"] or match["plain"]))
    dynamic, static = channels(tuple(v.short for v in CATALOGUE if not v.static))
    raise ValueError(
        f"channel must be a short name, got {name!r}; {_nearest(name, [c.name for c in dynamic + static])}"
    )


def require_channel_names(ds: xr.Dataset, *, store: object) -> None:
    """Refuse a store whose channels are not called as their variables and levels say.

    Args:
        ds: with the coordinates channel, variable and level [hPa], -1 for none.
        store: named in the message.

    Raises:
        ValueError: every channel that an earlier version called like another variable (u at 10 hPa "u10").
    """
    pairs = zip(ds["variable"].values, ds["level"].values, strict=True)
    expected = [Channel(str(variable), int(level) if level > 0 else None).name for variable, level in pairs]
    require_names([str(name) for name in ds["channel"].values], expected, store=store)


def require_names(names: Sequence[str], expected: Sequence[str], *, store: object) -> None:
    """Refuse a store whose channels have other names than they should, each in its place; errors as above."""
    wrong = [f"{name} is {right}" for name, right in zip(names, expected, strict=True) if name != right]
    if wrong:
        raise ValueError(
            f"store {store} must call its channels by variable and level, got {', '.join(wrong)}: it was written by an "
            "earlier version; move it away and run python -m pipeline regrid again"
        )


def require_names_of_now(names: Sequence[str], *, origin: object) -> None:
    """Refuse the channels of an earlier version's store where they are known by name alone, as a checkpoint has them.

    Such a store had channels in the catalogue's order, which puts levels first: a variable without levels that comes
    before a channel on a level, or twice, was on a level itself.

    Args:
        names: dynamic channels in the store's order.
        origin: named in the message.

    Raises:
        ValueError: naming them.
    """
    last = max((i for i, name in enumerate(names) if parse_channel(name).level is not None), default=-1)
    meant = {}
    for i, name in enumerate(names):
        match = _ON_LEVEL.match(name) if name in BY_SHORT and (i < last or names.count(name) > 1) else None
        if match and match["variable"] in BY_SHORT:
            meant[name] = Channel(match["variable"], int(match["plain"])).name
    if meant:
        raise ValueError(
            f"channels of {origin} must be called by variable and level, got "
            f"{', '.join(f'{name} where {right} is meant' for name, right in meant.items())}: it was trained by an "
            "earlier version; train again on a store written now"
        )


def standard_geopotential(pressure: float) -> float:
    """Geopotential of a pressure surface in the ICAO standard atmosphere, m2 s-2.

    Args:
        pressure: hPa, above 5.
    """
    if pressure > 226.32:
        height = 44330.77 * (1.0 - (pressure / 1013.25) ** 0.190263)
    elif pressure > 54.749:
        height = 11000.0 - 6341.62 * math.log(pressure / 226.32)
    else:
        height = 20000.0 + 216650.0 * ((54.749 / pressure) ** 0.0292712 - 1.0)
    return float(STANDARD_GRAVITY * height)


NOT_NEGATIVE = frozenset({"q", "r", "tcwv"})
"""Variables that cannot be negative, though files hold small negative values of them, which their ranges allow."""


def possible_range(channel: Channel) -> tuple[float, float]:
    """(low, high) in the canonical unit that roll-outs are kept within: the plausible range, no negative moisture."""
    low, high = plausible_range(channel)
    return (0.0 if channel.variable in NOT_NEGATIVE else low), high


def plausible_range(channel: Channel) -> tuple[float, float]:
    """(low, high) in the canonical unit that every value of a channel must lie in.

    Geopotential follows the standard atmosphere of its level, so that a height in metres is caught.
    """
    spec = channel.spec
    if channel.variable == "z" and channel.level is not None:
        middle = standard_geopotential(channel.level)
        return 0.85 * middle - 1e4, 1.08 * middle + 1e4
    return spec.low, spec.high
