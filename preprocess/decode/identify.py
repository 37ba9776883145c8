"""Which variable of the catalogue a field is: what the user says, then its CF standard name, then its name.

Contract: nothing is guessed. A standard name that the catalogue does not have means another quantity, whatever the
field is called ("t" may be a potential temperature); the user may still name the field in `source.names`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.weather import units
from pipeline.weather.sections import Channels
from pipeline.weather.variables import BY_SHORT, CATALOGUE, Variable

_CF_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NO_NAME = frozenset({"", "unknown", "undefined", "none", "not_defined"})
_ON_LEVELS = frozenset(name for v in CATALOGUE if v.levels for name in v.standard_names)
_OURS = frozenset(name for v in CATALOGUE for name in v.standard_names)
_DIRECTION = re.compile(r"zonal|meridional|eastward|northward|component|\b[uv]\b", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """What an experiment wants of its files, and what the user says about them.

    Args:
        variables: short names wanted, None for all. Of any other field only the name is looked at.
        names: by short name, what the files call a variable; no other field is taken for it.
        units: by short name, the unit, whatever the files say.
        member: of an ensemble, as the files number or call it; None for files without members.
    """

    variables: frozenset[str] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    member: int | str | None = None

    @classmethod
    def of(cls, channels: Channels, **said: Any) -> Request:
        """For the variables of some channels."""
        wanted = frozenset(c.variable for c in (*channels.dynamic, *channels.static))
        return cls(wanted, **said)

    def wants(self, short: str) -> bool:
        """Whether a variable is to be read."""
        return self.variables is None or short in self.variables

    def identify(
        self, name: str, attrs: Mapping[str, Any], *, on_levels: bool, height: float | None = None
    ) -> str | None:
        """The short name of a field, or None; see `identify`."""
        for short, given in self.names.items():
            if given == name and BY_SHORT[short].levels == on_levels:
                return short
        found = identify(name, attrs, on_levels=on_levels, height=height)
        return None if found in self.names else found


def identify(name: str, attrs: Mapping[str, Any], *, on_levels: bool, height: float | None = None) -> str | None:
    """The catalogue short name of a field, or None.

    The CF standard name decides where there is one. Otherwise the name does, then ECMWF's parameter number, then a
    short name among the attributes. Geopotential without levels is that of the surface.

    Args:
        name: name in the file.
        attrs: its attributes.
        on_levels: whether it lies on pressure levels.
        height: of its only level above the ground [m], or None.
    """
    if _is_speed(name, attrs):
        return None
    by_spelling = _by_spelling(name, attrs, on_levels=on_levels)
    standard = standard_name(attrs)
    if not standard:
        return None if by_spelling is None else by_spelling.short
    meant = [v for v in CATALOGUE if v.levels == on_levels and standard in v.standard_names]
    if on_levels or standard not in _ON_LEVELS:
        return meant[0].short if meant else None
    # Off levels "air_temperature" may be that of any height: its name or its height says which.
    if by_spelling is not None:
        return by_spelling.short if by_spelling in meant else None
    at_height = [v for v in meant if v.height is not None and height is not None and abs(v.height - height) <= 1.0]
    return at_height[0].short if at_height else None  # some models have theirs at 1.5 m


def standard_name(attrs: Mapping[str, Any]) -> str:
    """The CF standard name among attributes; "" if there is none, or only another spelling of ours."""
    name = str(attrs.get("standard_name", "")).strip()
    if name in _NO_NAME or not _CF_NAME.fullmatch(name):
        return ""
    return name if name in _OURS or units.variable_named(name) is None else ""


def _by_spelling(name: str, attrs: Mapping[str, Any], *, on_levels: bool) -> Variable | None:
    by_name, *by_attribute = (
        units.variable_named(str(alias))
        for alias in (name, attrs.get("GRIB_shortName", ""), attrs.get("short_name", ""))
    )
    by_number = [v for v in CATALOGUE if str(v.param_id) == str(attrs.get("GRIB_paramId", ""))]
    for variable in (by_name, *by_number, *by_attribute):
        if variable is not None and variable.levels == on_levels:
            return variable
    z = BY_SHORT["z"]  # heights ("gh") without levels may be those of the tropopause or of 0 degrees C
    return BY_SHORT["orog"] if not on_levels and name.lower() in (z.short, z.long) else None


def _is_speed(name: str, attrs: Mapping[str, Any]) -> bool:
    """Whether a field is the speed of the wind, as CESM's U10, and not a component of it."""
    text = str(attrs.get("long_name", ""))
    meant = units.variable_named(name)
    return meant is not None and meant.unit == "m s-1" and "speed" in text.lower() and _DIRECTION.search(text) is None
