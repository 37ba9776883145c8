"""Sources of atmospheric data, each opened as the same kind of archive.

Contract: `open_source` chooses by `source.kind`; everything behind it is an `Archive`, so that no later
step knows where the data came from.

May import: pipeline, preprocess.decode.
Read first: preprocess/sources/archive.py.
"""

from __future__ import annotations

from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import CdsSource, FilesSource, SimulationSource
from preprocess.decode.identify import Request
from preprocess.sources.archive import Archive
from preprocess.sources.piece import Piece

__all__ = ["Archive", "Piece", "open_source"]


def open_source(config: WeatherConfig, *, growing: bool = False) -> Archive:
    """Open the source of an experiment; reads metadata only.

    Args:
        config: the experiment.
        growing: whether a simulated archive may be one that is still being written.

    Raises:
        ValueError: see `Archive` and the source's own opener.
    """
    source, channels = config.source, config.data.channels
    if isinstance(source, SimulationSource):
        from pipeline import store

        raw = store.open_store(config.paths.simulated, stage="python -m pipeline simulate", growing=growing)
        return Archive(
            [Piece.of(raw, origin=str(config.paths.simulated), request=Request.of(channels))],
            channels=channels,
            label="simulated",
            description={
                **source.model_dump(mode="json"),
                "label": "simulated",
                "archive": store.contract_digest(raw.attrs["contract"]),
            },
        )
    if isinstance(source, FilesSource):
        from preprocess.sources.local_files import open_files

        return open_files(source, channels=channels, index=config.paths.index)
    if isinstance(source, CdsSource):
        from preprocess.sources.cds import open_cds

        return open_cds(config)
    from preprocess.sources.cloud import open_cloud

    return open_cloud(source, channels=channels, data=config.data)
