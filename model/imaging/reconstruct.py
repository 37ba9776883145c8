"""The reconstruct stage: held-out tiles of which most is hidden, as the network sees them, and the features of all.

Contract: the store of reconstructions has every pixel of every tile of a split, in physical reflectance, predicted from
what the mask leaves: (tile, band, y, x), with `hidden` (tile, py, px) over the patches and `band_window` (tile, 2)
[nm], NaN where no bands are hidden. Masks follow from (seed, number of the tile, repeat) alone. The store of features
has what the encoder gives for every patch of every tile of the images, nothing hidden: (tile, py, px, feature); and the
same of the network before training. The order of work is fixed, so a run that was killed ends bit-identical to one that
was not. Rank 0 alone writes.

Letters: N tiles of a slab, C bands of all ranks, K of this rank, Y/X pixels of a tile, L patches, P pixels of a patch,
D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console

from model.imaging.complete import complete_reconstruct
from model.imaging.inference import Job, prepare
from model.imaging.stores import features_store, reconstruction_store
from model.parallel import launch
from model.training import checkpoint
from pipeline import provenance
from pipeline.console import terminal_progress
from pipeline.imaging.config import ImagingConfig
from pipeline.store import SlabStore, finished
from pipeline.words import counted


def run_reconstruct(config: ImagingConfig, *, image: Path | None = None, verify: bool = False) -> None:
    """Reconstruct the images of a configuration, or resume where an earlier call was stopped.

    Args:
        config: the experiment.
        image: a store of images to reconstruct instead of the split's, with the bands of the model.
        verify: where stores are there, compare every slab with its digest; damaged ones are written again.

    Raises:
        ValueError: an earlier stage is missing, or the checkpoint or the images belong to something else.
    """
    console, main = Console(stderr=True, soft_wrap=True, quiet=not launch.is_main()), launch.is_main()
    if image is None and (done := complete_reconstruct(config, verify=verify, mend=main)):
        console.print(done, markup=False)
        return
    provenance.read_receipt(config, stage="train")
    trained = checkpoint.to_use(config.paths.checkpoints)
    with launch.process_group(world_size=None) as device:
        job = prepare(config, trained, device=device, image=image)
        written = [_reconstruct(job, verify=verify, console=console)]
        if config.reconstruct.features:
            written.append(_features(job, verify=verify, console=console))
        if main and image is None:
            provenance.write_receipt(config, stage="reconstruct", outputs=written, facts=job.facts)


def _reconstruct(job: Job, *, verify: bool, console: Console) -> Path:
    store = reconstruction_store(job)

    def values(part: slice) -> Mapping[str, NDArray[Any]]:
        return {"reconstruction": job.reconstructed(part), "hidden": job.hidden_patches(part)}

    return _fill(store, values, what="reconstruct", verify=verify, console=console)


def _features(job: Job, *, verify: bool, console: Console) -> Path:
    store, networks = features_store(job), {"features": job.network, "features_untrained": job.untrained()}

    def values(part: slice) -> Mapping[str, NDArray[Any]]:
        return {name: job.features(network, part) for name, network in networks.items()}

    return _fill(store, values, what="features", verify=verify, console=console)


def _fill(
    store: SlabStore,
    values: Callable[[slice], Mapping[str, NDArray[Any]]],
    *,
    what: str,
    verify: bool,
    console: Console,
) -> Path:
    """Write what a store lacks; all ranks compute, rank 0 writes."""
    main = launch.is_main()
    if main:
        finished(store.path, verify=verify)
    progress = terminal_progress("tiles", on=console)
    with store if main else nullcontext(), progress:
        pending = launch.from_main(store.pending() if main else [])
        task = progress.add_task(what, total=store.length, completed=store.length - sum(map(len, pending)))
        for slab in pending:
            arrays = values(slab.slice)
            if main:
                store.write(slab, arrays)
            progress.advance(task, len(slab))
        if main:
            store.finish({})
    console.print(f"{what}: {counted(store.length, 'tile')}, {store.path}")
    return store.path
