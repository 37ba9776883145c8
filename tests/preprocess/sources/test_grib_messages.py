"""Every field of a GRIB file is found, also where one message holds several."""

from __future__ import annotations

from pathlib import Path

import eccodes
import numpy as np
import pytest

from pipeline.weather.sections import Channels, FilesSource
from preprocess.sources import grib_messages
from preprocess.sources.local_files import open_files
from tests.preprocess.sources.gribs import grib, grib_together

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(2) * np.timedelta64(6, "h")
WINDS = Channels(variables=["u", "v"], levels=[500, 850], statics=[])


def test_messages_of_several_fields(tmp_path: Path) -> None:
    """Catches v lost because it lies behind u in one message, as NCEP writes them, or given u's values."""
    messages = [
        [
            {"name": name, "time": t, "level": p, "value": start + 10 * i + p / 100}
            for name, start in (("u", -20.0), ("v", 20.0))
        ]
        for i, t in enumerate(TIMES)
        for p in (500, 850)
    ]
    path = grib_together(tmp_path / "winds.grib2", messages)
    with path.open("ab") as file:  # and a message of one field behind them
        file.write(grib(tmp_path / "one", [{"name": "2t", "time": TIMES[0], "value": 280.0}]).read_bytes())
    assert len(list(grib_messages.scan(path))) == 9
    source = FilesSource(kind="files", paths=[str(path)])
    for index in (None, tmp_path / "index", tmp_path / "index"):  # scanned, kept, read from the index
        ds = open_files(source, channels=WINDS, index=index).dataset().compute()
        columns = np.arange(84).reshape(7, 12) / 8.0
        for short, start in (("u", -20.0), ("v", 20.0)):
            for i in range(2):
                for j, p in enumerate((500, 850)):
                    np.testing.assert_allclose(ds[short][i, j], start + 10 * i + p / 100 + columns, atol=1e-4)


def test_fields_of_a_message_share_a_bitmap(tmp_path: Path) -> None:
    """Catches missing points of the second field, whose message says "the bitmap of before", read as values."""
    field = {"name": "10u", "time": TIMES[0], "value": 1.0}
    path = grib_together(tmp_path / "gaps.grib2", [[field, field | {"name": "10v"}]], bitmap=True)
    source = FilesSource(kind="files", paths=[str(path)])
    for name in ("u10", "v10"):
        archive = open_files(source, channels=Channels(variables=[name], levels=[], statics=[]))
        with pytest.raises(ValueError, match=rf"'{name}' .* no missing values, got 1 of 84"):
            archive.dataset().compute()


def test_several_fields_cut_short(tmp_path: Path) -> None:
    """Catches the lost second half of a message of two fields taken for a message of one."""
    field = {"name": "10u", "time": TIMES[0], "value": 1.0}
    whole = grib_together(tmp_path / "cut.grib2", [[field, field | {"name": "10v"}]]).read_bytes()
    (tmp_path / "cut.grib2").write_bytes(whole[: len(whole) // 2 + 40])
    with pytest.raises(ValueError, match=r"GRIB file must be whole, got \S+cut.grib2"):
        list(grib_messages.scan(tmp_path / "cut.grib2"))


@pytest.mark.parametrize("left_on", [True, False])
def test_the_switch_of_eccodes_does_not_matter(tmp_path: Path, left_on: bool) -> None:
    """Catches a scan that depends on whether other code of the process has asked ecCodes for several fields."""
    messages = [[{"name": n, "time": TIMES[0], "level": 500, "value": 1.0} for n in ("u", "v", "t")]]
    path = grib_together(tmp_path / "three.grib2", messages)
    (eccodes.codes_grib_multi_support_on if left_on else eccodes.codes_grib_multi_support_off)()
    try:
        found = list(grib_messages.scan(path))
    finally:
        eccodes.codes_grib_multi_support_off()
    assert [(m.name, m.part, m.offset) for m in found] == [("u", 0, 0), ("v", 1, 0), ("t", 2, 0)]
    assert {m.length for m in found} == {path.stat().st_size}
