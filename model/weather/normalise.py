"""Between physical fields and what the network sees.

Contract: the network reads (state - mean) / std and predicts (state - climatology) / std, per channel, both in float32.
Zero out of the network is the climatology, to the last bit. Means, standard deviations and the climatology come from
the training years only (`pipeline.climatology`).

Letters: T times, V dynamic channels, S static channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each channel.

    Args:
        channels: short names, V of them.
        mean: canonical units, shape (V,).
        std: canonical units, shape (V,), positive.

    Raises:
        ValueError: shapes that do not fit the names, or a standard deviation that is not a positive number.
    """

    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def __init__(self, channels: Sequence[str], mean: NDArray[np.floating], std: NDArray[np.floating]) -> None:
        object.__setattr__(self, "channels", tuple(channels))
        object.__setattr__(self, "mean", np.asarray(mean, dtype=np.float64))
        object.__setattr__(self, "std", np.asarray(std, dtype=np.float64))
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values.shape != (len(self.channels),):
                raise ValueError(f"{what} must have one value per channel ({len(self.channels)}), got {values.shape}")
        bad = [
            name
            for name, mean_, std_ in zip(self.channels, self.mean, self.std, strict=True)
            if not (np.isfinite(mean_) and np.isfinite(std_) and std_ > 0)
        ]
        if bad:
            raise ValueError(
                f"normals must have a finite mean and a positive standard deviation in every channel, got none for "
                f"{', '.join(bad)}; a constant channel cannot be predicted, leave it out of data.channels"
            )

    def standardise(self, state: Fields) -> Fields:
        """(state - mean) / std; shapes (..., V, H, W), canonical units in, dimensionless out."""
        return (state - self._column(self.mean)) / self._column(self.std)

    def anomaly(self, state: Fields, climatology: Fields, *, out: Fields | None = None) -> Fields:
        """(state - climatology) / std; shapes (..., V, H, W), canonical units in, dimensionless out.

        Args:
            state: fields.
            climatology: of the same times.
            out: where to write, a new array for None.
        """
        result: Fields = np.subtract(state, climatology, out=out)
        return np.divide(result, self._column(self.std), out=result)

    def physical(self, anomaly: Fields, climatology: Fields) -> Fields:
        """The inverse of `anomaly`: climatology + std * anomaly, canonical units. A zero anomaly is exact."""
        return climatology + self._column(self.std) * anomaly

    def _column(self, values: NDArray[np.float64]) -> Fields:
        return values.astype(np.float32)[:, None, None]


def standardise_static(fields: Fields, *, mean: NDArray[np.floating], std: NDArray[np.floating]) -> Fields:
    """Static fields for the network: (field - mean) / std, a constant one becomes zero.

    Args:
        fields: shape (S, H, W).
        mean: shape (S,).
        std: shape (S,).
    """
    scale = np.where(np.asarray(std) > 0, std, 1.0)
    shifted = fields.astype(np.float64) - np.asarray(mean)[:, None, None]
    return np.asarray(shifted / scale[:, None, None], dtype=np.float32)
