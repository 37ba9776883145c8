"""Typed configuration, read strictly from YAML.

Contract: one file describes one experiment from source to report; its key `task` says of which workload
(`pipeline.workloads`). Every key is known, every value is checked before any work starts, and a mistake gives one
readable message that names the key and, for an unknown one, the nearest valid key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from pipeline import files, workloads
from pipeline.faults import explain
from pipeline.sections import Compute, Section, Training
from pipeline.stages import Paths, Stage
from pipeline.yaml_text import read_yaml


class Config(Section):
    """The part of an experiment that every workload has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the results folder."""
    directory: Path | None = None
    """Where everything is written; by default results/<name>."""
    task: str
    training: Training = Training()
    compute: Compute = Compute()

    @property
    def root(self) -> Path:
        """Folder of all outputs."""
        return self.directory or Path("results") / self.name

    @property
    def paths(self) -> Paths:
        """Where each stage writes."""
        return Paths(self, workloads.stages(self.task))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this experiment, in order of running."""
        return tuple(stage for stage in workloads.stages(self.task) if stage.applies(self))


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: YAML file.
        overrides: "a.b=value" settings that win over the file; the value is YAML. One text may hold several, see
            `split_settings`.

    Raises:
        ValueError: the file is absent, not YAML, or does not describe an experiment; one message lists every fault.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"configuration file must exist, got {path}")
    raw = read_yaml(files.read_text(path), origin=str(path))
    if not isinstance(raw, dict):
        raise ValueError(f"configuration must be a mapping, got {type(raw).__name__} in {path}")
    for item in (item for text in overrides for item in split_settings(text)):
        _override(raw, item)
    return parse(raw, origin=str(path))


def split_settings(text: str) -> list[str]:
    """Settings that stand in one text, separated by blanks; blanks inside a value, its brackets or quotes stay.

    >>> split_settings("evaluation.variables=[z500, t850] training.steps=3")
    ['evaluation.variables=[z500, t850]', 'training.steps=3']
    """
    found: list[str] = []
    for part in re.split(r"\s+(?=[A-Za-z_][\w.]*=)", text.strip()):
        if found and _open(found[-1]):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return found


def _open(text: str) -> bool:
    """Whether a bracket or a quotation mark of a text is not closed yet."""
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)
    return any(outside.count(a) > outside.count(b) for a, b in ("[]", "{}")) or any(mark in outside for mark in "'\"")


def parse(raw: Mapping[str, Any], *, origin: str = "configuration") -> Config:
    """Check a mapping and build the configuration.

    Raises:
        ValueError: every fault in one message.
    """
    task = raw.get("task", workloads.DEFAULT)
    if not isinstance(task, str) or task not in workloads.WORKLOADS:
        raise ValueError(f"{origin}: task must be one of {', '.join(workloads.WORKLOADS)}, got {task!r}")
    kind = workloads.config_class(task)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ValueError(explain(error, origin=origin, kind=kind)) from None


def dump(config: Config) -> str:
    """The resolved configuration as YAML; `parse` reads it back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the configuration, for Snakemake and editors."""
    kinds = [workloads.config_class(task) for task in workloads.WORKLOADS]
    union: Any = Union[tuple(kinds)]  # noqa: UP007 - of as many as there are
    schema = TypeAdapter(union).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _override(raw: dict[str, Any], item: str) -> None:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ValueError(f"--set must look like section.key=value, got {item!r}")
    *parents, last = key.split(".")
    node: Any = raw
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ValueError(f"--set {key} must name a key inside a section, got a plain value at {part!r}")
    node[last] = read_yaml(text, origin=f"--set {item}")
