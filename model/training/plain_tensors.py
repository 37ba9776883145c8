"""A network as one plain file, whatever it was trained for: named tensors and a text, nothing that is code.

Contract: a safetensors file; weights are called `model.<name in the network>`, and the text says the format and, as
JSON, what the file is about. Reading it runs nothing. Source of the format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.network.cut import Network
from model.training.learner import weights_of
from pipeline import files

_PREFIX = "model."


def write_tensors(
    target: Path, weights: Mapping[str, Tensor], others: Mapping[str, Tensor], *, kind: str, about: Mapping[str, Any]
) -> Path:
    """Write a file, replacing one that is there.

    Args:
        target: the file.
        weights: of the network, by name.
        others: more tensors, by name.
        kind: name of the format.
        about: JSON-ready.
    """
    tensors = {f"{_PREFIX}{name}": p.contiguous() for name, p in weights.items()} | dict(others)
    with files.replacing(target) as temporary:
        save_file(tensors, temporary, metadata={"format": kind, "description": json.dumps(dict(about))})
    return target


def read_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what it is about.

    Raises:
        ValueError: not such a file, cut short, or another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"model file must be a whole safetensors file, got {path}: {error}") from error
    if text.get("format") != kind:
        raise ValueError(f"model file must be a {kind!r}, got {text.get('format')!r} in {path}")
    return tensors, json.loads(text["description"])


@torch.no_grad()
def take_weights(network: Network, tensors: dict[str, Tensor]) -> list[str]:
    """Move weights from the tensors of a file into a network; what is left stays in `tensors`.

    Returns:
        A line for every weight that is absent or has another shape.
    """
    lines = []
    for name, parameter in weights_of(network).items():
        found = tensors.pop(f"{_PREFIX}{name}", None)
        if found is None or found.shape != parameter.shape:
            lines.append(f"  {name}: {'absent' if found is None else tuple(found.shape)}, not {tuple(parameter.shape)}")
        else:
            parameter.copy_(found)
    return lines


def refuse(path: Path, lines: list[str]) -> None:
    """Refuse a file with other tensors than its network needs.

    Raises:
        ValueError: there are lines.
    """
    if lines:
        raise ValueError(f"model file must hold this model's tensors, got in {path}:\n" + "\n".join(lines))
