"""What can be chosen about the simulated images.

Contract: frozen and hashable; together with an index it decides every bit of an image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

FIRST_WAVELENGTH, LAST_WAVELENGTH = 400.0, 2500.0
"""nm; the range of the coefficients of PROSPECT-D."""


@dataclass(frozen=True)
class SceneSettings:
    """A laboratory's plants, lamp and line scanner.

    Args:
        size: pixels along each side of the square image, at least 8.
        wavelengths: centres of the bands in nm, increasing, between 400 and 2500.
        seed: of everything random.
        field_of_view: side of the image on the stage, in mm. A large leaf is 90 mm long.
        plants: number of plants that stand in the image.
        stage: what the plants stand on: `dark` for black cloth, `soil` for dry to moist soil.
        senescence: share of plants that are losing leaves, 0 to 1; their oldest leaves are yellow with brown spots.
        lamp_zenith: angle between the lamp and the vertical, in degrees, 0 to 60.
        diffuse: share of the light that does not come from the lamp and therefore also reaches shadows, 0 to 1.
        unevenness: relative standard deviation of the illumination that the white reference has not corrected, since
            leaves are nearer to the lamp than it is.
        noise: standard deviation of the measured reflectance of a white target at the wavelength where lamp and
            detector are best; it grows towards both ends of the range. 1 / noise is the signal-to-noise ratio there.
        smile: shift of the wavelengths at the left and right edge against the middle of the image, in nm; it needs two
            bands.
        stripes: relative standard deviation of the gain from column to column.

    Raises:
        ValueError: an argument breaks its rule.
    """

    size: int = 64
    wavelengths: tuple[float, ...] = tuple(float(nm) for nm in range(400, 900))
    seed: int = 0
    field_of_view: float = 200.0
    plants: int = 2
    stage: Literal["dark", "soil"] = "dark"
    senescence: float = 0.4
    lamp_zenith: float = 25.0
    diffuse: float = 0.3
    unevenness: float = 0.05
    noise: float = 0.002
    smile: float = 0.0
    stripes: float = 0.0

    def __post_init__(self) -> None:
        first, last = FIRST_WAVELENGTH, LAST_WAVELENGTH
        increasing = all(a < b for a, b in itertools.pairwise(self.wavelengths))
        _rule(self.size >= 8, f"size must be at least 8 pixels, got {self.size}")
        _rule(bool(self.wavelengths), "wavelengths: at least one band is needed, got none")
        _rule(increasing, "wavelengths must increase from band to band; sort them and leave out repetitions")
        for nm in (self.wavelengths[0], self.wavelengths[-1]):
            _rule(first <= nm <= last, f"wavelengths must lie between {first:g} and {last:g} nm, got {nm:g}")
        _rule(not self.smile or len(self.wavelengths) > 1, "smile needs at least two bands, got one; leave it at 0")
        _rule(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        _rule(0 < self.field_of_view < math.inf, f"field_of_view must be positive, in mm, got {self.field_of_view:g}")
        _rule(1 <= self.plants <= 100, f"plants must be between 1 and 100, got {self.plants}")
        _rule(self.stage in ("dark", "soil"), f"stage must be dark or soil, got {self.stage!r}")
        for name, most in (("senescence", 1.0), ("diffuse", 1.0), ("lamp_zenith", 60.0), ("unevenness", 0.3),
                           ("noise", 1.0), ("smile", 20.0), ("stripes", 0.3)):  # fmt: skip
            value = getattr(self, name)
            _rule(0 <= value <= most, f"{name} must be between 0 and {most:g}, got {value:g}")


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"simulation: {message}")
