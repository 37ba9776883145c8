"""Whether a stage of this package has nothing left to do, found out without loading what the work itself needs.

Contract: as in `preprocess.complete`.
"""

from __future__ import annotations

from pipeline.contract import contract_digest
from pipeline.imaging.config import ImagingConfig
from pipeline.manifest import contract_of
from pipeline.opening import finished, read_manifest


def complete_simulate(config: ImagingConfig, *, verify: bool = False) -> str | None:
    """Whether the store of simulated images is there, finished and undamaged."""
    return _store(config, "simulate", verify=verify)


def complete_ingest(config: ImagingConfig, *, verify: bool = False) -> str | None:
    """Whether the store of images is there, finished and undamaged."""
    return _store(config, "ingest", verify=verify)


def complete_normals(config: ImagingConfig) -> str | None:
    """Whether the normals of the store that is there now are there."""
    path = config.paths.normals
    found = contract_of(path)
    if not found or not config.paths.receipt("normals").exists():
        return None
    store = read_manifest(config.paths.store, stage=f"python -m pipeline {config.store_stage}")["contract"]
    return f"normals: complete in {path}" if found.get("store") == contract_digest(store) else None


def _store(config: ImagingConfig, stage: str, *, verify: bool) -> str | None:
    path = config.paths.store
    if not finished(path, verify=verify) or not config.paths.receipt(stage).exists():
        return None
    return f"{stage}: complete in {path}"
