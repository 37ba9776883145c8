"""ENVI images, written by plain loops in every layout that the format has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.imaging.readers.envi import open_envi
from tests.preprocess.imaging.scans import ORDER, TYPES, WAVELENGTHS, cube, write_envi

COUNTS = np.round(cube() * 100)  # 2 .. 90, which every type holds


@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("data_type", TYPES)
@pytest.mark.parametrize("interleave", ORDER)
def test_every_layout_gives_the_same_values(interleave: str, data_type: int, byte_order: int, tmp_path: Path) -> None:
    """Catches axes that are mixed up, bytes in the wrong order, a wrong type, and an offset that is passed over."""
    path = write_envi(
        tmp_path / "a.hdr", COUNTS, interleave=interleave, data_type=data_type, byte_order=byte_order, offset=24
    )
    raw = open_envi(path)
    assert (raw.rows, raw.columns, raw.bands) == (9, 7, 6)
    np.testing.assert_array_equal(raw.window(slice(0, 9), slice(0, 7), range(6)), COUNTS)
    np.testing.assert_array_equal(raw.window(slice(2, 9, 3), slice(1, 6, 2), [0, 3, 4]), COUNTS[[0, 3, 4], 2::3, 1:6:2])


def test_the_header_is_understood(tmp_path: Path) -> None:
    """Catches a scale taken for its inverse, bad bands counted from one, and widths left in micrometres."""
    said = {
        "reflectance scale factor": 10000,
        "data ignore value": -9999,
        "bbl": [1, 0, 1, 1, 1, 0],
        "wavelength units": "Micrometers",
        "wavelength": [w / 1000 for w in WAVELENGTHS],
        "fwhm": [0.005, 0.006, 0.007, 0.008, 0.009, 0.010],
    }
    raw = open_envi(write_envi(tmp_path / "a.hdr", COUNTS, data_type=2, header=said))
    assert raw.wavelengths is not None
    np.testing.assert_allclose(raw.wavelengths, WAVELENGTHS)
    np.testing.assert_allclose(raw.fwhm, [5, 6, 7, 8, 9, 10])
    assert raw.scale == pytest.approx(1e-4)
    assert raw.ignore == -9999
    assert list(raw.bad) == [1, 5]
    assert raw.dtype == np.int16


def test_wavelengths_without_a_unit_are_told_by_their_size(tmp_path: Path) -> None:
    """Catches micrometres read as nanometres where the header has no unit, or says that it is unknown."""
    for i, unit in enumerate(({}, {"wavelength units": "Unknown"})):
        header = {"wavelength": [0.4, 0.5, 0.6, 0.7, 0.8, 2.5], **unit}
        raw = open_envi(write_envi(tmp_path / f"{i}.hdr", COUNTS, header=header, wavelengths=None))
        np.testing.assert_allclose(raw.wavelengths, [400, 500, 600, 700, 800, 2500])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"data type": 6}, r"values of .* must be real, got data type 6"),
        ({"data type": 77}, r"must be the header of an ENVI image, got a fault"),
        ({"interleave": "zigzag"}, r"interleave of .* must be bil, bip or bsq, got 'zigzag'"),
        ({"lines": "many"}, r"must be the header of an ENVI image, got a fault"),
        ({"wavelength": [1, 2, 3]}, r"wavelength of .* must have one number for each of 6 bands, got 3"),
        ({"wavelength": ["a"] * 6}, r"wavelength of .* must be numbers"),
        ({"wavelength units": "furlong"}, r"unit of the wavelengths of .* must be nm, um"),
        ({"reflectance scale factor": 0}, r"reflectance scale factor of .* must be above 0, got 0"),
        ({"data ignore value": "none"}, r"data ignore value of .* must be a number, got 'none'"),
        ({"file compression": 1}, r"must not be compressed"),
        ({"file type": "ENVI Spectral Library"}, r"must be an image, got a spectral library"),
    ],
)
def test_a_header_that_cannot_be_used(header: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Catches a traceback of the library's, and numbers read from what is none."""
    path = write_envi(tmp_path / "a.hdr", COUNTS, data_type=4, header=header)
    with pytest.raises(ValueError, match=message) as error:
        open_envi(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_header(tmp_path: Path) -> None:
    """Catches a traceback for a binary file, a text, and a header that lacks a field."""
    for name, content in (("a.hdr", b"\xff\xfe\x00\x9d"), ("b.hdr", b"samples = 3\n"), ("c.hdr", b"ENVI\nlines = 3\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="must be the header of an ENVI image, got a fault"):
            open_envi(tmp_path / name)
