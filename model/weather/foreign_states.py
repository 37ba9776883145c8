"""Initial states that do not come from the training store: a file of an analysis, say.

Contract: they hold at least the channels that the model reads and predicts, on its grid, and are checked before
anything is computed. Static fields are those of training: the network knows no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract import contract_differences
from pipeline.store import open_store
from pipeline.weather.variables import require_channel_names

if TYPE_CHECKING:
    import xarray as xr


def as_in_training(states: xr.Dataset, *, like: Path, name: str) -> tuple[xr.Dataset, dict[str, Any]]:
    """States with the channels and the static fields of a training store.

    Args:
        states: a store of states.
        like: the training store.
        name: what messages call the states.

    Returns:
        The states, lazily, and the contract of the training store.

    Raises:
        ValueError: channels that are missing, all of them named, or another grid.
    """
    trained = open_store(like, stage="python -m pipeline regrid")
    require_channel_names(trained, store=like)
    wanted, held = ([str(c) for c in ds["channel"].values] for ds in (trained, states))
    if missing := [c for c in wanted if c not in held]:
        raise ValueError(
            f"initial states {name} must hold every channel of the model, got none for {len(missing)} of "
            f"{len(wanted)}: {', '.join(missing)}; the model was trained on {like}"
        )
    if lines := contract_differences(states.attrs["contract"]["grid"], trained.attrs["contract"]["grid"]):
        raise ValueError(
            f"initial states {name} must lie on the model's grid, got {'; '.join(lines)} (states against model)"
        )
    states = states.drop_vars([v for v in states.variables if "static_channel" in states[v].dims])
    statics = [v for v in trained.variables if "static_channel" in trained[v].dims]
    return states.assign({v: trained[v] for v in statics if v not in trained.coords}).assign_coords(
        {v: trained[v] for v in statics if v in trained.coords}
    ), trained.attrs["contract"]
