"""MATLAB, NetCDF and Zarr: the same image in each, and what of it can be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import xarray as xr

from pipeline.imaging.sections import ImagesSource
from preprocess.imaging.readers.opening import find_images, open_image
from tests.preprocess.imaging.scans import WAVELENGTHS, cube

VALUES = cube().astype(np.float32)


def source(**words: Any) -> ImagesSource:
    return ImagesSource(kind="images", files=["unused"], **words)


def labelled(dims: tuple[str, ...] = ("wavelength", "y", "x")) -> xr.Dataset:
    """The image with its dimensions in some order."""
    coords = {"wavelength": ("wavelength", list(WAVELENGTHS), {"units": "nm"})}
    image = xr.DataArray(VALUES, dims=("wavelength", "y", "x"), coords=coords, name="reflectance")
    return image.transpose(*dims).to_dataset()


def everything(path: Path, words: ImagesSource) -> np.ndarray:
    raw = open_image(path, words)
    assert (raw.rows, raw.columns, raw.bands) == (9, 7, 6)
    np.testing.assert_allclose(raw.wavelengths, WAVELENGTHS)
    np.testing.assert_array_equal(raw.window(slice(1, 8, 3), slice(0, 7, 2), [1, 4]), VALUES[[1, 4], 1:8:3, ::2])
    return raw.window(slice(0, 9), slice(0, 7), range(6))


@pytest.mark.parametrize("dims", [("wavelength", "y", "x"), ("y", "x", "wavelength"), ("x", "wavelength", "y")])
@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_labelled_files_in_any_order(ending: str, dims: tuple[str, ...], tmp_path: Path) -> None:
    """Catches rows taken for columns, and a band axis that is expected in one place."""
    path = tmp_path / f"a{ending}"
    ds = labelled(dims)
    ds.to_zarr(path, zarr_format=3, consolidated=False) if ending == ".zarr" else ds.to_netcdf(path)
    np.testing.assert_array_equal(everything(path, source()), VALUES)


def test_packed_values_and_bad_bands_of_netcdf(tmp_path: Path) -> None:
    """Catches packed integers taken for reflectance, a fill value taken for data, and a list of good bands not read."""
    ds = labelled()
    ds["reflectance"][2, 3, 4] = np.nan
    ds["good_wavelengths"] = ("wavelength", [1, 1, 0, 1, 1, 1])
    packed = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -1}
    ds.to_netcdf(tmp_path / "a.nc", encoding={"reflectance": packed})
    raw = open_image(tmp_path / "a.nc", source())
    values = raw.window(slice(0, 9), slice(0, 7), range(6))
    expected = np.where(np.isnan(ds["reflectance"].values), np.nan, VALUES)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert list(raw.bad) == [2]
    assert raw.dtype.kind == "f", "an integer type would have its largest value for saturation"


def test_a_cube_of_matlab(tmp_path: Path) -> None:
    """Catches axes in another order than rows, columns, bands, and wavelengths that lie beside the cube."""
    content = {"cube": VALUES.transpose(1, 2, 0), "Wavelength": np.array(WAVELENGTHS), "note": np.zeros((2, 2))}
    scipy.io.savemat(tmp_path / "a.mat", content)
    np.testing.assert_array_equal(everything(tmp_path / "a.mat", source()), VALUES)


def test_a_matrix_of_matlab(tmp_path: Path) -> None:
    """Catches pixels that run along the rows: MATLAB's run down the columns."""
    matrix = np.stack([VALUES[:, row, column] for column in range(7) for row in range(9)], axis=1)
    scipy.io.savemat(tmp_path / "a.mat", {"Y": matrix})
    words = source(variable="Y", shape=(9, 7), wavelengths=list(WAVELENGTHS))
    np.testing.assert_array_equal(everything(tmp_path / "a.mat", words), VALUES)


def test_a_file_of_matlab_7_3(tmp_path: Path) -> None:
    """Catches HDF5 given to SciPy, and dimensions that are not turned round: HDF5 has MATLAB's reversed."""
    ds = xr.Dataset(
        {"cube": (("c", "b", "a"), VALUES.transpose(0, 2, 1)), "wavelength": (("c", "one"), np.array([WAVELENGTHS]).T)}
    )
    ds.to_netcdf(tmp_path / "a.mat", engine="netcdf4")
    np.testing.assert_array_equal(everything(tmp_path / "a.mat", source()), VALUES)


def test_wavelengths_from_a_text_file(tmp_path: Path) -> None:
    """Catches numbers with commas that are not read, and a word that ends in a traceback."""
    scipy.io.savemat(tmp_path / "a.mat", {"cube": VALUES.transpose(1, 2, 0)})
    (tmp_path / "nm.txt").write_text("400, 410\n421,433\n446\n460\n")
    words = source(wavelengths=str(tmp_path / "nm.txt"))
    np.testing.assert_array_equal(everything(tmp_path / "a.mat", words), VALUES)
    (tmp_path / "nm.txt").write_text("400 nm")
    with pytest.raises(ValueError, match=r"nm.txt must hold wavelengths \[nm\] and nothing else, got"):
        open_image(tmp_path / "a.mat", words)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ({"a": (4, 3, 2), "b": (4, 3, 2)}, {}, "must have one array that is a cube .* got 2 among a 4 x 3 x 2, b"),
        ({"a": (4, 3)}, {}, "got 0 among a 4 x 3; for a matrix .* give source.shape"),
        ({"a": (4, 3, 2)}, {"variable": "b"}, "source.variable must name a cube .* got 'b'; it has a 4 x 3 x 2"),
        ({"a": (2, 12)}, {"shape": (4, 4)}, "source.shape must be rows and columns of 'a' .* 12 pixels, got 4 x 4"),
        ({"a": (4, 3, 2)}, {}, r"a\.mat must have wavelengths, got none; give them in source.wavelengths"),
        ({"a": (4, 3, 2)}, {"wavelengths": [400.0]}, "source.wavelengths must have one number for each of 2 bands"),
        (
            {"a": (4, 3, 2)},
            {"wavelengths": "gone.txt"},
            "must be a list or a text file of numbers .* got nothing at gone",
        ),
    ],
)
def test_what_matlab_files_lack(
    content: dict[str, tuple[int, ...]], words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Catches the wrong one of two arrays, taken without asking, and a traceback for a wrong name or shape."""
    scipy.io.savemat(tmp_path / "a.mat", {name: np.ones(shape) for name, shape in content.items()})
    with pytest.raises(ValueError, match=message):
        open_image(tmp_path / "a.mat", source(**words))


def test_what_labelled_files_lack(tmp_path: Path) -> None:
    """Catches a traceback for a damaged file, for no cube, for two of them, and for one without an axis of bands."""
    (tmp_path / "broken.nc").write_bytes(b"CDF\x01 and nothing more")
    labelled().isel(y=0).to_netcdf(tmp_path / "flat.nc")
    labelled().assign(second=labelled()["reflectance"]).to_netcdf(tmp_path / "two.nc")
    xr.Dataset({"a": (("p", "q", "r"), VALUES)}).to_netcdf(tmp_path / "nameless.nc")
    for name, message in (
        ("broken.nc", "must be a readable image, got"),
        ("flat.nc", "must have one array of three dimensions, got 0: none"),
        ("two.nc", "got 2: reflectance, second; name one in source.variable"),
        ("nameless.nc", "must have a dimension with a coordinate 'wavelength', or one called 'band', got p, q, r"),
    ):
        with pytest.raises(ValueError, match=message):
            open_image(tmp_path / name, source())


def test_files_that_are_named(tmp_path: Path) -> None:
    """Catches a pattern that fits nothing and is passed over, the raw file of a header, and a file read twice."""
    for name in ("b.hdr", "a.hdr", "a.raw"):
        (tmp_path / name).touch()
    assert [p.name for p in find_images([str(tmp_path / "*.hdr"), str(tmp_path / "a.hdr")])] == ["a.hdr", "b.hdr"]
    with pytest.raises(ValueError, match=r"source.files must name files that exist, got nothing at"):
        find_images([str(tmp_path / "*.mat")])
    with pytest.raises(ValueError, match=r"must be ENVI headers \(.hdr\), .mat, .nc or .zarr, got .*a.raw"):
        find_images([str(tmp_path / "*")])
