"""Other starting points for the same planet: a state with an analysis error, and a state for a coarser core.

Contract: every function takes states and gives new ones at the same date; nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from preprocess.simulation.atmosphere import REFERENCE_TEMPERATURE, SPECTRAL, Atmosphere, State
from preprocess.simulation.forcing import GAS_CONSTANT, GRAVITY

Values = NDArray[Any]


def perturbed(
    state: Mapping[str, Values], first: Mapping[str, Values], second: Mapping[str, Values], *, size: float
) -> State:
    """A state plus the scaled difference of two others of the same season.

    The difference of two independent states of the same season has the standard deviation, the structure and
    the balance of weather, times the root of two; `size` of that stands for the error of an analysis
    (Magnusson, Nycander and Källén 2009, Tellus A 61, 194-209).

    Args:
        state: where the forecast starts.
        first: a state of another year.
        second: a state of a third.
        size: standard deviation of the perturbation over that of the weather; 0 changes nothing.
    """
    out = {name: np.array(values) for name, values in state.items()}
    if size:
        scale = np.float32(size / np.sqrt(2.0))
        for name in out:
            if name != "minutes":
                out[name] = out[name] + scale * (first[name] - second[name])
    return out


def coarsened(state: Mapping[str, Values], fine: Atmosphere, coarse: Atmosphere) -> State:
    """A state of one core as the starting point of another of lower truncation, on the same layers.

    Spectral coefficients beyond the lower truncation are cut off; the pressure at the ground follows the coarser
    mountains hydrostatically; the older time level is moved to one step of the coarse core before.

    Raises:
        ValueError: the second core is not coarser, or has other layers.
    """
    if coarse.truncation >= fine.truncation or coarse.levels != fine.levels:
        raise ValueError(
            f"coarse core must have a truncation below T{fine.truncation} and {fine.levels} layers, got "
            f"T{coarse.truncation} with {coarse.levels}; set evaluation.twins.coarse_truncation"
        )

    def cut(values: Values) -> Values:
        rows, columns = coarse.grid.modal_shape
        kept = np.asarray(values)[..., :rows, :columns]
        inside = coarse.grid.mask & (coarse.wavenumbers <= coarse.truncation)
        return np.where(inside, kept, 0.0).astype(np.float32)

    def nodal(values: Values) -> Values:
        return np.asarray(coarse.grid.to_nodal(jnp.asarray(values, jnp.float32)))

    out = {name: cut(state[name]) for name in SPECTRAL}
    lowest = nodal(out["temperature"][-1]) + REFERENCE_TEMPERATURE
    deeper = nodal(cut(fine.orography) - coarse.orography)
    shift = GRAVITY * deeper / (GAS_CONSTANT * lowest)
    out["pressure"] = out["pressure"] + cut(np.asarray(coarse.grid.to_modal(jnp.asarray(shift[None], jnp.float32))))
    longer = coarse.time_step_minutes / fine.time_step_minutes
    for name in SPECTRAL:
        change = cut(state[name]) - cut(state[f"previous_{name}"])
        out[f"previous_{name}"] = (out[name] - longer * change).astype(np.float32)
    skin = cut(np.asarray(fine.grid.to_modal(jnp.asarray(state["skin"][None], jnp.float32))))
    out["skin"] = nodal(skin)[0]
    out["minutes"] = np.asarray(state["minutes"])
    return out
