"""Checkpoints that are whole or absent, and load on any number of ranks.

Contract: a checkpoint is a folder `<tag>-<step>` written under a temporary name and renamed when every file is on
the disk, so a half-written one is never picked up. Tensors (parameters, optimiser state, moving averages) are
stored by name with torch.distributed.checkpoint, which reads them back under another partition;
`checkpoint.json` holds what they belong to: the store's contract, the digest of the normals, the resolved
configuration, the step, the sampler's state. Loading reads tensors only: no code from the file is run, and a
checkpoint that belongs to something else is refused with every difference listed.
"""

from __future__ import annotations

import collections
import io
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from model.network.cut import CutRows
from model.parallel.rows import LoadPlanner, RowPart, SavePlanner
from model.training.saved import DESCRIPTION, saved
from model.training.saved import best_or_last as best_or_last
from model.training.saved import newest as newest
from model.training.saved import to_use as to_use
from pipeline import files
from pipeline.store import require_same_contract

FORMAT = 1
"""Version of the checkpoint layout; another is refused."""


def save(
    folder: Path,
    tensors: Mapping[str, Tensor | RowPart],
    description: Mapping[str, Any],
    *,
    tag: str,
    step: int,
    keep: int,
) -> Path:
    """Write a checkpoint; collective over all ranks.

    Args:
        folder: where a run's checkpoints lie.
        tensors: by name; on several ranks DTensors, parts by rows, or tensors equal on all ranks.
        description: JSON-ready; see the module's contract.
        tag: "step" for those that a run resumes from, "best" for the best by validation.
        step: number of steps done.
        keep: how many of this tag stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the disk is full; older checkpoints stay.
    """
    final = folder / f"{tag}-{step:09d}"
    temporary = folder / f".{final.name}.new"
    if _is_main():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _barrier()
    writer = FileSystemWriter(temporary, sync_files=True)
    try:
        with _quiet():
            save_tensors(dict(tensors), storage_writer=writer, planner=SavePlanner(), no_dist=not _is_distributed())
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        raise OSError(
            f"checkpoint must be written whole, got {type(cause).__name__}: {cause} in {temporary}; "
            "free some space, older checkpoints are untouched"
        ) from error
    if _is_main():
        sizes = {p.name: p.stat().st_size for p in sorted(temporary.iterdir())}
        content = {"format": FORMAT, "step": step, **description, "files": sizes}
        files.write_json(temporary / DESCRIPTION, content)
        if final.exists():
            _remove(final)
        temporary.rename(final)
        files.sync(folder)
        for old in saved(folder, tag=tag)[:-keep]:
            _remove(old)
    _barrier()
    return final


def describe(path: Path) -> dict[str, Any]:
    """What a checkpoint belongs to, without reading its tensors.

    Raises:
        ValueError: another layout version, or a file that is missing or cut short.
    """
    content: dict[str, Any] = files.read_json(path / DESCRIPTION)
    if content.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path} must have layout version {FORMAT}, got {content.get('format')}; retrain")
    for name, size in content["files"].items():
        file = path / name
        found = file.stat().st_size if file.exists() else 0
        if found != size:
            raise ValueError(
                f"checkpoint {path} must be whole, got {found} of {size} bytes in {name}; "
                "remove this folder, an older checkpoint will be used"
            )
    return content


def load(path: Path, into: Mapping[str, Tensor | RowPart], *, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Fill tensors from a checkpoint, in place; collective over all ranks.

    Args:
        path: a checkpoint's folder.
        into: the tensors wanted, by name, with the shapes and the partition wanted. May be fewer than were saved.
        expected: entries of the description that must be equal, e.g. {"contract": ..., "normals": ...}.

    Returns:
        The description.

    Raises:
        ValueError: it belongs to something else, listing every difference, or lacks a tensor wanted.
    """
    description = describe(path)
    found, remedy = (
        {key: description.get(key, "(absent)") for key in expected},
        "use the data it was trained on, or retrain",
    )
    require_same_contract(found, expected, us=f"checkpoint {path}", them="this run", remedy=remedy)
    reader = _SafeReader(path)
    saved = reader.read_metadata().state_dict_metadata
    lines = []
    for name, tensor in into.items():
        shape = getattr(saved.get(name), "size", None)
        if shape is None:
            lines.append(f"  {name}: absent")
        elif tuple(shape) != tuple(tensor.shape):
            lines.append(f"  {name}: {tuple(shape)} against {tuple(tensor.shape)}")
    if lines:
        raise ValueError(
            f"checkpoint {path} must hold this model's tensors, got {len(lines)} difference(s) "
            "(checkpoint against this model):\n" + "\n".join(lines)
        )
    with torch.no_grad(), _quiet():
        load_tensors(dict(into), storage_reader=_SafeReader(path), planner=LoadPlanner(), no_dist=not _is_distributed())
    return description


def optimiser_tensors(named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of Adam by parameter name, made as zeros where there is none yet (as it is before a first step).

    Args:
        named: parameters by name.
        optimiser: torch.optim.Adam or AdamW over the same parameters.

    Returns:
        The very tensors of the optimiser: filling them sets its state. Learning rates and the like are no part
        of it; they follow from the configuration and the step.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in named.items():
        if not parameter.requires_grad:
            continue
        state = optimiser.state[parameter]
        if not state:
            device = parameter.device if optimiser.defaults.get("fused") else None
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            tensors[f"optimiser.{name}.{key}"] = state[key]
    return tensors


def with_rows(tensors: Mapping[str, Tensor], *, cut: Mapping[str, CutRows]) -> dict[str, Tensor | RowPart]:
    """Tensors of the parameters of which this rank holds some rows, marked with which.

    Args:
        tensors: by "<prefix>.<parameter>" or "<prefix>.<parameter>.<moment>".
        cut: by parameter, see `DCHAG.cut_rows`.
    """
    found: dict[str, Tensor | RowPart] = {}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        parameter = rest.rpartition(".")[0] if prefix == "optimiser" else rest
        rows = cut.get(parameter) if tensor.ndim else None
        found[name] = RowPart(tensor, total=rows.total, rows=rows.rows) if rows else tensor
    return found


class _SafeReader(FileSystemReader):
    """Reads the index of tensors with an unpickler that knows the index's own classes and nothing else."""

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata: Metadata = _IndexUnpickler(io.BytesIO(file.read())).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    _MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
    _NAMES = frozenset(
        {
            "torch.Size",
            "torch.device",
            "torch.serialization._get_layout",
            "torch.distributed._shard.metadata.ShardMetadata",
            "pathlib.PosixPath",
            "pathlib.Path",
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if module in self._MODULES:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if f"{module}.{name}" in self._NAMES:
            return super().find_class(module, name)
        raise ValueError(
            f"checkpoint's index must name known classes only, got {module}.{name}; do not use files you do not trust"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remark that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def clean(folder: Path, *, tag: str, step: int) -> None:
    """Remove what a kill left behind: half-written checkpoints, and those of a tag that are ahead of a step.

    Args:
        folder: where a run's checkpoints lie.
        tag: see `save`.
        step: at which the run resumes.
    """
    for path in folder.glob(".*"):
        if path.suffix in (".new", ".old"):
            shutil.rmtree(path)
    for path in saved(folder, tag=tag):
        if int(path.name.rpartition("-")[2]) > step:
            _remove(path)


def _remove(path: Path) -> None:
    """Delete a checkpoint; under another name first, so that a kill leaves no half of it to be found."""
    doomed = path.with_name(f".{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_main() -> bool:
    return not _is_distributed() or dist.get_rank() == 0


def _barrier() -> None:
    if _is_distributed():
        dist.barrier()
