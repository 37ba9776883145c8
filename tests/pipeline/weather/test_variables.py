"""The channel catalogue: order, names, units and ranges that every stage relies on."""

from __future__ import annotations

import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from model.weather.names import channel_and_hours, earlier_name, variable_and_level
from pipeline.weather.variables import (
    BY_SHORT,
    CATALOGUE,
    LEVELS,
    STANDARD_GRAVITY,
    Channel,
    channels,
    parse_channel,
    plausible_range,
    require_channel_names,
    require_names_of_now,
    standard_geopotential,
)


def test_default_channels_are_the_papers_eighty_in_order() -> None:
    """Catches a reordered, missing or doubled channel: weights of a checkpoint would silently change meaning."""
    dynamic, static = channels()
    levels = [30, 50, 70, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
    expected = [f"{v}{p}" for v in "ztuvq" for p in levels] + ["t2m", "u10", "v10"]
    assert [c.name for c in dynamic] == expected
    assert [c.name for c in static] == ["lsm", "orog"]
    assert len(dynamic) + len(static) == 80


def test_order_is_the_catalogues_whatever_the_request() -> None:
    """Catches an order that follows the configuration file instead of the catalogue."""
    dynamic, static = channels(["v10", "q", "z"], [850, 500, 850], ["orog", "lsm"])
    assert [c.name for c in dynamic] == ["z500", "z850", "q500", "q850", "v10"]
    assert [c.name for c in static] == ["lsm", "orog"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["geopotental"], [500], []), "variable must be in the catalogue, got 'geopotental'"),
        ((["t2n"], [500], []), "did you mean 't2m'"),
        ((["lsm"], [500], []), "variables must depend on time, got 'lsm'; list it under statics"),
        ((["t2m"], [], ["z"]), "statics must not depend on time, got 'z'; list it under variables"),
        ((["z"], [], []), "'z' lives on pressure levels, got an empty list"),
        ((["z"], [50000], []), "pressures in hPa"),
        ((["z"], [0, 500], []), "pressures in hPa"),
    ],
)
def test_bad_requests_name_the_fault(arguments: tuple[list[str], list[int], list[str]], message: str) -> None:
    """Catches a request that is accepted, or refused without saying which name or level is at fault."""
    with pytest.raises(ValueError, match=r"must|lives") as error:
        channels(*arguments)
    assert message in str(error.value)


def test_short_names_read_back() -> None:
    """Catches a parser that trips over names ending in digits (u10 is a variable, not u at 10 hPa)."""
    dynamic, static = channels(tuple(v.short for v in CATALOGUE if not v.static))
    for channel in dynamic + static:
        assert parse_channel(channel.name) == channel
    assert parse_channel("u10") == Channel("u10")
    assert parse_channel("u100") == Channel("u", 100)
    assert parse_channel("u@10hPa") == Channel("u", 10)
    assert parse_channel("u@500hPa").name == "u500"
    for wrong, hint in (("z5000m", "channel must be"), ("z", "channel must be"), ("z501x", "did you mean 'z50")):
        with pytest.raises(ValueError, match="channel must be") as error:
            parse_channel(wrong)
        assert hint in str(error.value)


@given(levels=st.lists(st.integers(1, 1000), min_size=1, max_size=12, unique=True))
def test_names_are_unique_and_read_back(levels: list[int]) -> None:
    """Catches two channels of one name (u at 10 hPa and the wind at 10 m), for any levels that ERA5 has."""
    dynamic, static = channels(tuple(v.short for v in CATALOGUE if not v.static), levels)
    names = [c.name for c in (*dynamic, *static)]
    assert len(set(names)) == len(names)
    assert tuple(map(parse_channel, names)) == (*dynamic, *static)
    assert [variable_and_level(name) for name in names] == [(c.variable, c.level) for c in (*dynamic, *static)]
    later = [earlier_name(name, 12) for name in names]
    assert [channel_and_hours(name) for name in later] == [(name, 12) for name in names]


def test_every_channel_of_every_level_has_a_name_of_its_own() -> None:
    """Catches one colliding pair among all variables and whole levels, which drawn samples may miss."""
    variables = tuple(v.short for v in CATALOGUE if not v.static)
    dynamic, static = channels(variables, range(1, 1101))
    by_name = {c.name: c for c in (*dynamic, *static)}
    assert len(by_name) == len(dynamic) + len(static) == 7 * 1100 + 9
    assert all(parse_channel(name) == channel for name, channel in by_name.items())


def test_stores_of_before_are_refused() -> None:
    """Catches winds at 10 hPa of a store written earlier that are read, scored and printed as 10 m winds."""

    def holding(names: list[str], variables: list[str], levels: list[int]) -> xr.Dataset:
        return xr.Dataset(coords={"channel": names, "variable": ("channel", variables), "level": ("channel", levels)})

    require_channel_names(holding(["u@10hPa", "u10", "z500"], ["u", "u10", "z"], [10, -1, 500]), store="new.zarr")
    with pytest.raises(ValueError, match=r"store old.zarr .* got u10 is u@10hPa, v10 is v@10hPa: .* regrid again"):
        require_channel_names(holding(["u10", "v10", "z500"], ["u", "v", "z"], [10, 10, 500]), store="old.zarr")


def test_checkpoints_of_before_are_refused() -> None:
    """Catches weights for the wind at 10 hPa, trained when it was called u10, that start the wind at 10 m."""
    dynamic = [c.name for c in channels(("z", "u", "v", "t2m", "u10", "v10"), (10, 500))[0]]
    assert "u@10hPa" in dynamic
    require_names_of_now(dynamic, origin="new")
    require_names_of_now(["z500", "t2m", "u10"], origin="new")
    for before in ([name.replace("@10hPa", "10") for name in dynamic], ["z500", "u10", "u500"]):
        with pytest.raises(ValueError, match=r"channels of old must be .* got u10 where u@10hPa is meant.*train again"):
            require_names_of_now(before, origin="old")


def test_titles_tell_the_level_from_the_height() -> None:
    """Catches winds of 10 hPa under the title of 10 m winds."""
    titles = {name: parse_channel(name).title for name in ("u@10hPa", "u10", "v@10hPa", "v10")}
    assert titles == {
        "u@10hPa": "Eastward wind at 10 hPa",
        "u10": "10 m eastward wind",
        "v@10hPa": "Northward wind at 10 hPa",
        "v10": "10 m northward wind",
    }


def test_no_spelling_names_two_variables_of_one_kind() -> None:
    """Catches a spelling that would let a file's field be taken for another variable."""
    seen: dict[str, str] = {}
    for v in CATALOGUE:
        for name in {n.lower() for n in v.names}:
            assert seen.setdefault(name, v.short) == v.short, name
    assert len(BY_SHORT) == len(CATALOGUE)


def test_standard_atmosphere_against_published_heights() -> None:
    """Catches a wrong layer or constant: ICAO heights [m] of 1013.25, 500, 226.32, 100 and 30 hPa."""
    for pressure, height in ((1013.25, 0.0), (500, 5574.0), (226.32, 11000.0), (100, 16180.0), (30, 23849.0)):
        assert standard_geopotential(pressure) / STANDARD_GRAVITY == pytest.approx(height, abs=15.0)


def test_ranges_refuse_the_usual_wrong_units() -> None:
    """Catches a range so wide that Celsius, geopotential height, g/kg or hPa would pass as canonical."""
    low, high = plausible_range(Channel("t2m"))
    assert not low <= 25.0 <= high
    assert low <= 298.15 <= high
    for level in LEVELS:
        low, high = plausible_range(Channel("z", level))
        value = standard_geopotential(level)
        assert low <= value <= high
        if level < 900:
            assert not low <= value / STANDARD_GRAVITY <= high, f"height in metres passes at {level} hPa"
    low, high = plausible_range(Channel("q", 850))
    assert not low <= 8.0 <= high
    low, high = plausible_range(Channel("msl"))
    assert not low <= 1013.0 <= high


def test_ranges_hold_the_reanalysis(shared_reference: object) -> None:
    """Catches a range narrower than forty years of ERA5: means +- 2 standard deviations and the lowest temperature."""
    folder = shared_reference / "real" / "era5_level_statistics"  # type: ignore[operator]
    with xr.open_dataset(folder / "mean_by_level.nc") as mean, xr.open_dataset(folder / "stddev_by_level.nc") as std:
        checked = 0
        for v in ("z", "t", "u", "v", "q"):
            name = BY_SHORT[v].long
            for level in set(LEVELS) & set(mean.level.values.tolist()):
                low, high = plausible_range(Channel(v, int(level)))
                middle = float(mean[name].sel(level=level))
                spread = 2.0 * float(std[name].sel(level=level))
                floor = max(middle - spread, 0.0) if v == "q" else middle - spread
                assert low <= floor, (v, level)
                assert middle + spread <= high, (v, level)
                checked += 1
    assert checked >= 50
