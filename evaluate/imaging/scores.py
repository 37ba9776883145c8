"""What the scores of reconstructed images are: functions of arrays, and the table of the metrics.

Contract: pure. Errors are reconstruction minus truth, in reflectance; pixels and bands that are not valid, or that the
network saw, count nowhere. Sums are per image, so that roots and ratios are taken last and images can be resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]
Region = Literal["hidden", "window", "both"]

REGIONS: dict[Region, str] = {
    "hidden": "hidden patches",
    "window": "hidden bands of visible patches",
    "both": "hidden bands of hidden patches",
}
"""hidden: patches that were hidden, in bands that the visible patches show; window: bands that were hidden, in patches
whose other bands were seen; both: what neither position nor wavelength gave away."""


@dataclass(frozen=True)
class Metric:
    """A score in tables.

    Args:
        title: for people.
        unit: as in scores.csv.
        better: "low" or "high" values.
        regions: where it is given.
    """

    title: str
    unit: str
    better: Literal["low", "high"] = "low"
    regions: tuple[Region, ...] = ("hidden", "window", "both")


METRICS = {
    "rmse": Metric("RMSE", "reflectance"),
    "mae": Metric("MAE", "reflectance"),
    "psnr": Metric("PSNR", "dB", "high"),
    "ssim": Metric("SSIM", "1", "high", ("hidden",)),
    "spectral_angle": Metric("Spectral angle", "degrees", regions=("hidden", "window")),
}


def spectral_angle(one: NDArray[np.floating], other: NDArray[np.floating], *, valid: NDArray[np.bool_]) -> Array:
    """Angle between two spectra of each pixel, arccos(<a, b> / |a||b|).

    Args:
        one: shape (band, ...).
        other: the same shape.
        valid: values that count, the same shape.

    Returns:
        Degrees, without the first dim; NaN where `other` is zero or nothing is valid, 90 where only `one` is zero.
    """
    a, b = (np.where(valid, x, 0.0).astype(np.float64, copy=False) for x in (one, other))
    return angle_of_sums((a * b).sum(axis=0), (a * a).sum(axis=0), (b * b).sum(axis=0))


def angle_of_sums(product: Array, one: Array, other: Array) -> Array:
    """The spectral angle [degrees] of sums over bands: of a b, of a squared and of b squared; see `spectral_angle`."""
    norms = np.sqrt(one * other)
    cosine = np.divide(product, norms, out=np.where(other > 0, 0.0, np.nan), where=norms > 0)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def psnr(mse: Array, *, value_range: float) -> Array:
    """Peak signal-to-noise ratio, 10 log10(range^2 / MSE) [dB].

    Args:
        mse: mean squared error.
        value_range: largest minus smallest reflectance of the held-out images.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(10.0 * np.log10(value_range**2 / mse))


def ssim_map(one: Array, other: Array) -> Array:
    """Structural similarity around every pixel (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    Gaussian window of 11 x 11 pixels with a standard deviation of 1.5, K1 = 0.01, K2 = 0.03, mirrored at the edges.

    Args:
        one: pictures with values between 0 and 1, shape (y, x, colour).
        other: the same shape.

    Returns:
        Mean over the colours, shape (y, x).
    """
    c1, c2 = 0.01**2, 0.03**2

    def local(values: Array) -> Array:
        return np.asarray(gaussian_filter(values, sigma=(1.5, 1.5, 0.0), truncate=3.5, mode="mirror"))

    a, b = local(one), local(other)
    aa, bb, ab = local(one * one) - a * a, local(other * other) - b * b, local(one * other) - a * b
    found = (2 * a * b + c1) * (2 * ab + c2) / ((a * a + b * b + c1) * (aa + bb + c2))
    return np.asarray(found.mean(axis=-1))
