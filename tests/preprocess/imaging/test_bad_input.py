"""Scans that cannot be used: each gives one message and status 2, and nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import __main__ as cli
from pipeline.config import dump
from tests.preprocess.imaging.scans import WAVELENGTHS, cube, experiment, write_envi

GOOD = cube(6, 7)
Case = Callable[[Path], dict[str, Any] | None]
"""Writes x.hdr beside a good scan; returns settings of the source."""


def no_data_file(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD).with_suffix(".raw").unlink()


def short_data_file(folder: Path) -> None:
    data = write_envi(folder / "x.hdr", GOOD).with_suffix(".raw")
    data.write_bytes(data.read_bytes()[:-4])


def no_wavelengths(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD, wavelengths=None)


def decreasing_wavelengths(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD, wavelengths=WAVELENGTHS[::-1])


def other_bands(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD[:5], wavelengths=WAVELENGTHS[:5])


def other_wavelengths(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD, wavelengths=[w + 1 for w in WAVELENGTHS])


def smaller_than_a_patch(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD[:, :1])


def all_masked(folder: Path) -> None:
    write_envi(folder / "x.hdr", np.full_like(GOOD, -1.0), header={"data ignore value": -1})


def references_of_another_size(folder: Path) -> dict[str, Any]:
    write_envi(folder / "x.hdr", GOOD * 100)
    (folder / "ref").mkdir()
    write_envi(folder / "ref" / "d.hdr", GOOD[:, :, :5])
    write_envi(folder / "ref" / "w.hdr", GOOD * 200)
    return {"references": {"dark": str(folder / "ref" / "d.hdr"), "white": str(folder / "ref" / "w.hdr")}}


def no_reference(folder: Path) -> dict[str, Any]:
    write_envi(folder / "x.hdr", GOOD)
    return {"references": {"dark": str(folder / "gone.hdr"), "white": str(folder / "gone.hdr")}}


def references_for_reflectance(folder: Path) -> dict[str, Any]:
    path = write_envi(folder / "x.hdr", GOOD, header={"reflectance scale factor": 1})
    return {"files": [str(path)], "references": {"dark": "d.hdr", "white": "w.hdr"}}


def mixed_scales(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD * 10000)


def no_scale(folder: Path) -> dict[str, Any]:
    return {"files": [str(write_envi(folder / "x.hdr", GOOD * 10000))]}


def undeclared_no_data(folder: Path) -> None:
    values = GOOD.copy()
    values[:, :3] = -9999
    write_envi(folder / "x.hdr", values)


def every_band_bad(folder: Path) -> None:
    write_envi(folder / "x.hdr", GOOD, header={"bbl": [0] * 6})


def one_name_twice(folder: Path) -> None:
    import scipy.io

    write_envi(folder / "x.hdr", GOOD)
    scipy.io.savemat(folder / "x.mat", {"cube": GOOD.transpose(1, 2, 0), "wavelength": np.array(WAVELENGTHS)})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (no_data_file, "x.hdr must have its data file beside it"),
        (short_data_file, "6 lines x 7 samples x 6 bands in 1008 bytes, got 1004 bytes"),
        (no_wavelengths, "x.hdr must have wavelengths, got none; give them in source.wavelengths"),
        (decreasing_wavelengths, "must increase from band to band, got 460 nm and then 446 nm (bands 1 and 2)"),
        (other_bands, "images must have the same bands, got 5 bands, 400 .. 446 nm, in"),
        (other_wavelengths, "6 bands, 401 .. 461 nm"),
        (smaller_than_a_patch, "x.hdr, which has 1 x 7 pixels, less than model.patch (2)"),
        (all_masked, "x.hdr, which has no valid pixel: all are NaN, no data or saturated"),
        (references_of_another_size, "d.hdr must have the columns and bands of"),
        (no_reference, "source.references must name files that exist, got nothing at"),
        (references_for_reflectance, "source.references must be absent for images of reflectance"),
        (mixed_scales, "images must have one scale of reflectance, got values up to 8"),
        (no_scale, "reflectance must be about 0 to 1, got values up to 8"),
        (undeclared_no_data, "reflectance must be about 0 to 1, got -9999 in"),
        (every_band_bad, "must have a good band, got 6 that headers mark as bad"),
        (one_name_twice, "images must have names that differ, got"),
    ],
)
def test_scans_that_cannot_be_used(
    case: Case, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a traceback, a wrong status, half a store left behind, and a fault that is not told at all."""
    write_envi(tmp_path / "a.hdr", GOOD)
    words = case(tmp_path) or {}
    files = words.pop("files", [str(tmp_path / "*.hdr"), *map(str, tmp_path.glob("*.mat"))])
    config = experiment(tmp_path, files, **words)
    (tmp_path / "case.yaml").write_text(dump(config))
    monkeypatch.setattr(sys, "argv", ["pipeline", "ingest", "--config", str(tmp_path / "case.yaml")])
    assert cli.main() == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out" / "data").exists()
