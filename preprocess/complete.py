"""Whether a stage of this package has nothing left to do, found out without loading what the work itself needs.

Contract: `complete_<stage>` returns what to tell the user, or None where the stage has to run; it writes nothing. The
command line asks before it loads the stage's module (`Stage.complete`), the stage asks again when it is called. Only
small files are read. The normals stage, which compares times, decides for itself.
"""

from __future__ import annotations

from pipeline.opening import finished, read_manifest
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import CdsSource
from pipeline.weather.variables import require_names


def complete_simulate(config: WeatherConfig, *, verify: bool = False) -> str | None:
    """Whether the simulated archive is there, finished and undamaged; `verify` as for `pipeline.opening.finished`."""
    path = config.paths.simulated
    if not finished(path, verify=verify) or not config.paths.receipt("simulate").exists():
        return None
    return f"simulate: complete in {path}"


def complete_fetch(config: WeatherConfig) -> str | None:
    """Whether every download is there, as long as it was when it was recorded."""
    from preprocess.cds_requests import Folder, needed_requests

    if not isinstance(config.source, CdsSource) or not config.paths.receipt("fetch").exists():
        return None
    folder, requests = Folder.of(config), needed_requests(config)
    return None if folder.missing(requests) else folder.summary(requests)


def complete_regrid(config: WeatherConfig, *, verify: bool = False) -> str | None:
    """Whether the store is finished; not to be known here where the files say which times there are."""
    done = finished_store(config, verify=verify)
    return None if config.data.period is None else done


def finished_store(config: WeatherConfig, *, verify: bool) -> str | None:
    """Whether the store is finished, undamaged, and of the simulated archive that is there now.

    Raises:
        ValueError: an earlier version wrote it, with two channels of one name.
    """
    path, simulated = config.paths.store, config.paths.simulated
    if not finished(path, verify=verify) or not config.paths.receipt("regrid").exists():
        return None
    contract = read_manifest(path)["contract"]
    require_names(contract["channels"], [c.name for c in config.data.channels.dynamic], store=path)
    if config.simulated and simulated.exists():
        archive = read_manifest(simulated, stage="python -m pipeline simulate")["digest"]
        if contract["source"].get("archive") != archive:
            return None
    return f"regrid: complete in {path}"


def complete_twins(config: WeatherConfig, *, verify: bool = False) -> str | None:
    """Whether the forecasts of all twins are there, finished and undamaged."""
    paths = list(config.paths.twins.values())
    done = [finished(path, verify=verify) for path in paths]
    if not paths or not all(done) or not config.paths.receipt("twins").exists():
        return None
    return f"twins: complete in {', '.join(map(str, paths))}"
