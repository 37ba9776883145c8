"""Whether a stage of this package has nothing left to do, found out without loading torch.

Contract: as in `preprocess.complete`.
"""

from __future__ import annotations

from model.training.saved import newest
from pipeline.imaging.config import ImagingConfig
from pipeline.opening import finished


def complete_train(config: ImagingConfig) -> str | None:
    """Whether the training has ended and its last checkpoint is there."""
    found = newest(config.paths.checkpoints)
    if found is None or not config.paths.receipt("train").exists():
        return None
    return f"train: already complete, {found}"


def complete_reconstruct(config: ImagingConfig, *, verify: bool = False, mend: bool = True) -> str | None:
    """Whether reconstructions and features are there, finished and undamaged.

    Those of a file that the user gives are always looked at.

    Args:
        config: the experiment.
        verify: as for `pipeline.opening.finished`.
        mend: likewise; False on every rank but the one that writes.
    """
    paths = [config.paths.reconstruct, *([config.paths.features] if config.reconstruct.features else [])]
    done = [finished(path, verify=verify, mend=mend) for path in paths]
    if config.reconstruct.image is not None or not all(done) or not config.paths.receipt("reconstruct").exists():
        return None
    return f"reconstruct: already complete, {paths[0]}"
