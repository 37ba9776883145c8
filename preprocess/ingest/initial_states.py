"""Initial states from the user's own files, put on the model's grid.

Contract: the regrid stage does the work, on a configuration that differs in its source, its period and its folder
(<results>/initial/<hash of the files>), so that it has its own checks, resumption and receipts. A store made by this
project is used as it is. Static fields are left out: a forecast takes those of training.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import FilesSource, Period
from preprocess.decode.identify import Request
from preprocess.ingest.stage import run_regrid
from preprocess.sources.local_files import find_files, open_file, open_files


def prepare_initial(config: WeatherConfig, *, verify: bool = False) -> Path:
    """The store of the states that `forecast.initial` names; written now if it is not there.

    Args:
        config: the experiment whose model will forecast from them.
        verify: see `run_regrid`.

    Returns:
        Path of a finished store.

    Raises:
        ValueError: no file, a file that cannot be read or that lacks channels, or no state on a full hour.
    """
    given = Path(config.forecast.initial or "").expanduser()
    if store.manifest_path(given).exists():
        return given
    channels = config.data.channels.model_copy(update={"statics": []})
    label = "ERA5" if config.source.kind == "simulation" else config.source.label
    source = FilesSource(kind="files", paths=[_path(given)], label=label, **_said(config, given))
    try:
        times = open_files(source, channels=channels).times
    except ValueError as error:
        raise ValueError(f"{error}\n  (for initial states, source.* here is forecast.initial_files.*)") from None
    hours = times[times == times.astype("datetime64[h]")]
    if not hours.size:
        raise ValueError(f"initial states must be on the full hour, got {times[0]} .. {times[-1]} in {given}")
    period = Period(start=hours[0].astype("datetime64[s]").item(), end=hours[-1].astype("datetime64[s]").item())
    data = config.data.model_copy(update={"channels": channels, "period": period, "step_hours": 1})
    derived = config.model_copy(update={"source": source, "data": data, "directory": _folder(config, source.paths)})
    if os.environ.get("RANK", "0") == "0":
        run_regrid(derived, verify=verify, command=f"python -m pipeline forecast --initial {given}")
    path, receipt = derived.paths.store, derived.paths.receipt("regrid")
    while not (receipt.exists() and store.finished(path, mend=False)):
        # Another rank writes it; torchrun ends this one if that fails.
        time.sleep(0.2)
    return path


def _path(given: Path) -> str:
    """A file, a Zarr store, a folder of files or a pattern, as the source spells it."""
    if given.is_dir() and not any(given.iterdir()):
        raise ValueError(f"forecast.initial must hold files, got an empty folder {given}")
    if not given.exists() and not glob.has_magic(str(given)):
        raise ValueError(f"forecast.initial must be a file, a folder of files or a store, got nothing at {given}")
    return str(given)


def _said(config: WeatherConfig, given: Path) -> dict[str, Any]:
    """What the user says about the files of the states, or of the training's; of the latter, names that are there."""
    source = config.source
    if config.forecast.initial_files is not None:
        return config.forecast.initial_files.model_dump()
    if not isinstance(source, FilesSource):
        return {}
    names = dict(source.names)
    if names:
        nothing = Request(frozenset())
        pieces = [piece for path in find_files([str(given)]) for piece in open_file(path, request=nothing)]
        names = {short: name for short, name in names.items() if any(piece.mentions(name) for piece in pieces)}
    return {"names": names, "units": source.units, "member": source.member}


def _folder(config: WeatherConfig, paths: list[str]) -> Path:
    """A folder for these files; another one once they have changed under the same names."""
    marks = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in find_files(paths)]
    return config.root / "initial" / hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:8]
