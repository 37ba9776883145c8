"""Typed configuration, read strictly from YAML.

Contract: one file describes one experiment from source to report; its key `task` says of which workload
(`pipeline.workloads`). Every key is known, every value is checked before any work starts, and a mistake gives one
readable message that names the key and, for an unknown one, the nearest valid key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from pipeline import workloads
from pipeline.sections import Compute, Section, Training
from pipeline.stages import Paths, Stage


class Config(Section):
    """The part of an experiment that every workload has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Names the results folder."""
    directory: Path | None = None
    """Where everything is written; results/<name> when absent."""
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
        overrides: "a.b=value" settings that win over the file; the value is YAML.

    Raises:
        ValueError: the file is absent, not YAML, or does not describe an experiment; one message lists every fault.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"configuration file must exist, got {path}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"configuration must be YAML, got {path}: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"configuration must be a mapping, got {type(raw).__name__} in {path}")
    for item in overrides:
        _override(raw, item)
    return parse(raw, origin=str(path))


def parse(raw: Mapping[str, Any], *, origin: str = "configuration") -> Config:
    """Check a mapping and build the configuration.

    Raises:
        ValueError: every fault in one message.
    """
    task = raw.get("task", workloads.DEFAULT)
    if task not in workloads.WORKLOADS:
        raise ValueError(f"{origin}: task must be one of {', '.join(workloads.WORKLOADS)}, got {task!r}")
    kind = workloads.config_class(task)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ValueError(_explain(error, origin, kind)) from None


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
    node[last] = yaml.safe_load(text)


def _explain(error: ValidationError, origin: str, kind: type[Config]) -> str:
    lines = []
    tags = set(_tags(kind))
    for item in error.errors():
        where = [part for part in item["loc"] if part not in tags]
        key = ".".join(str(part) for part in where)
        if item["type"] == "extra_forbidden":
            known = _keys_at(kind, where[:-1])
            close = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys there are {', '.join(sorted(known))}"
            lines.append(f"{key}: unknown key; {hint}")
        elif item["type"] == "missing":
            lines.append(f"{key}: required, but absent")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"]))
        else:
            lines.append(f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
    return f"{origin} must describe an experiment, got {len(lines)} fault(s):\n" + "\n".join(f"  {x}" for x in lines)


def _keys_at(kind: type[Config], where: Iterable[Any]) -> list[str]:
    """Keys valid at a location, the union over the members of a tagged union."""
    models: list[type[Section]] = [kind]
    for part in where:
        if isinstance(part, int):
            continue
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [found for a in annotations for found in _sections(a)]
    return sorted({key for m in models for key in m.model_fields})


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _sections(argument)]


def _tags(section: type[Section]) -> Iterable[str]:
    """Values of `kind` inside a section: pydantic puts the one of a tagged union into the location of a fault."""
    for field in section.model_fields.values():
        for inner in _sections(field.annotation):
            if "kind" in inner.model_fields:
                yield from get_args(inner.model_fields["kind"].annotation)
            yield from _tags(inner)
