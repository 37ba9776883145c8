"""ERA5 from the Copernicus Climate Data Store: the downloads of an experiment, opened.

Contract: `preprocess.cds_requests` says what was asked for, `preprocess.sources.fetch` downloads it; opening
reads the files as any others (`preprocess.sources.local_files`), and refuses ERA5T unless it is wanted.
"""

from __future__ import annotations

import numpy as np

from pipeline.console import stamp
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import CdsSource
from preprocess.cds_requests import Folder, needed_requests
from preprocess.decode.identify import Request as Wanted
from preprocess.decode.survey import PRELIMINARY, version_names
from preprocess.sources.archive import Archive
from preprocess.sources.local_files import open_file
from preprocess.sources.piece import Piece


def open_cds(config: WeatherConfig) -> Archive:
    """Open the downloads of an experiment; reads headers only.

    Raises:
        ValueError: downloads are missing or hold ERA5T that is not wanted; see also `Archive`.
    """
    source = config.source
    assert isinstance(source, CdsSource)
    folder, requests = Folder.of(config), needed_requests(config)
    missing = folder.missing(requests)
    if missing:
        raise ValueError(
            f"downloads must be complete in {folder.path}, got {len(requests) - len(missing)} of {len(requests)} files "
            f"(the first that is missing: {missing[0]}); run python -m pipeline fetch"
        )
    pieces: list[Piece] = []
    constants: list[Piece] = []
    wanted = Wanted.of(config.data.channels)
    for request in requests:
        target = constants if request.title == "constants" else pieces
        target += open_file(folder.path / request.file, index=config.paths.index, request=wanted)
    preliminary = [t for piece in pieces for t in preliminary_times(piece)]
    if preliminary and not source.preliminary:
        raise ValueError(
            f"downloads must hold final ERA5, got preliminary ERA5T from {stamp(min(preliminary))} on; end data.period "
            f"earlier, take it with source.preliminary: true, or delete those files in {folder.path} and fetch again"
        )
    version = f"ERA5, and ERA5T from {stamp(min(preliminary))} on" if preliminary else "ERA5"
    return Archive(
        pieces,
        channels=config.data.channels,
        label=source.label,
        description=source.identity | {"version": version},
        constants=constants,
    )


def preliminary_times(piece: Piece) -> list[np.datetime64]:
    """Times of a raw dataset that belong to ERA5T."""
    times, name = piece.survey.times, piece.survey.names.get("expver")
    if name is None or times is None or PRELIMINARY not in piece.survey.versions:
        return []
    values = np.array(version_names(piece.raw[name].values))
    if values.size != times.size:
        return list(times)  # both versions along a dimension: any time may be preliminary
    return list(times[values == PRELIMINARY])
