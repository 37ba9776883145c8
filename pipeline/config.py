"""Typed configuration, read strictly from YAML.

Contract: one file describes one experiment from source to report. Every key is known, every value
is checked before any work starts, and a mistake gives one readable message that names the key and,
for an unknown one, the nearest valid key. The resolved configuration is what stages receive.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.sections import Compute, Data, RemoteSource, Section, SimulationSource, Source
from pipeline.weather.sections_evaluation import Evaluation, Forecast
from pipeline.weather.sections_model import Model, Training


class Config(Section):
    """One experiment, from source to report."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Names the results folder."""
    directory: Path | None = None
    """Where everything is written; results/<name> when absent."""
    source: Source
    data: Data
    model: Model = Model()
    training: Training = Training()
    forecast: Forecast = Forecast()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for key, leads in (("training", self.training.lead_hours), ("forecast", self.forecast.lead_hours)):
            for hours in leads:
                if hours % self.data.step_hours:
                    raise ValueError(
                        f"{key}.lead_hours must be multiples of data.step_hours ({self.data.step_hours}), got {hours}"
                    )
        for hours in self.model.history_hours:
            if hours % self.data.step_hours or self.model.history_hours.count(hours) > 1:
                raise ValueError(
                    f"model.history_hours must be different multiples of data.step_hours ({self.data.step_hours}), "
                    f"got {self.model.history_hours}"
                )
        if self.forecast.init_step_hours % self.data.step_hours:
            raise ValueError(
                f"forecast.init_step_hours must be a multiple of data.step_hours ({self.data.step_hours}), "
                f"got {self.forecast.init_step_hours}"
            )
        step = self.forecast.rollout_hours
        if step and (step % self.data.step_hours or any(hours % step for hours in self.forecast.lead_hours)):
            raise ValueError(
                f"forecast.rollout_hours must be a multiple of data.step_hours ({self.data.step_hours}) and divide "
                f"every lead of {self.forecast.lead_hours}, got {step}"
            )
        known = [c.name for c in self.data.channels.dynamic]
        for key, names in (("variables", self.evaluation.variables), ("channels", self.evaluation.channels)):
            for name in names:
                if name not in known:
                    raise ValueError(f"evaluation.{key} must be channels of the store, got {name!r}; it has {known}")
        twins = self.evaluation.twins
        if twins.models and not isinstance(self.source, SimulationSource):
            raise ValueError(
                f"evaluation.twins.models must be empty for data that are not simulated, got {twins.models}"
            )
        rows, columns = self.data.regrid.grid.shape
        if rows % self.model.patch or columns % self.model.patch:
            raise ValueError(f"model.patch must divide the grid {rows} x {columns}, got {self.model.patch}")
        for name in self.training.channel_weights:
            if name not in known and name not in {c.variable for c in self.data.channels.dynamic}:
                raise ValueError(f"training.channel_weights must name channels or variables of the store, got {name!r}")
        return self

    @property
    def root(self) -> Path:
        """Folder of all outputs."""
        return self.directory or Path("results") / self.name

    @property
    def paths(self) -> Paths:
        """Where each stage writes."""
        return Paths(self)

    @property
    def simulated(self) -> bool:
        """Whether the data come from the embedded atmosphere."""
        return self.source.kind == "simulation"


def twin_step_hours(config: Config) -> int:
    """Spacing of the twins' init times: what is asked for, rounded up so that each is one of the forecasts'."""
    asked, step = config.evaluation.twins.init_step_hours, config.forecast.init_step_hours
    return -(-asked // step) * step


class Paths:
    """Every path a stage writes, so that no two stages spell one differently.

    A name carries a hash of all settings that decide its content, so another setting makes another
    output and leaves the old one, and switching back finds it again. Settings that change only speed
    or safety (ranks, checkpoint spacing) are not part of it.
    """

    def __init__(self, config: Config) -> None:
        self.root = config.root
        data = self.root / "data"
        parts = config.model_dump(mode="json")
        d, training = parts["data"], dict(parts["training"])
        for key in ("layout", "checkpoint_every", "keep_checkpoints", "micro_batch", "recompute", "compile",
                    "tensorboard"):  # fmt: skip
            training.pop(key)
        source = config.source.identity if isinstance(config.source, RemoteSource) else parts["source"]
        simulated = [source, d["channels"], d["step_hours"], d["period"]]
        store = [simulated, d["regrid"]]
        normals = [store, d["splits"]["train"], {k: v for k, v in d["normals"].items() if k != "keep_sums"}]
        train = [normals, parts["model"], training, d["splits"]["validation"]]
        for key, default in (("rollout_hours", None), ("weights", "average"), ("initial", None)):
            if parts["forecast"][key] == default:  # as before they could be chosen
                parts["forecast"].pop(key)
        forecast = [train, parts["forecast"], d["splits"]["test"]]
        evaluation = dict(parts["evaluation"])
        for key in ("workers", "scheduler"):
            evaluation.pop(key)
        shown = [evaluation.pop(key) for key in ("cases", "animation_frames")]
        scores = [forecast, evaluation]
        self.simulated = data / f"simulated-{_digest(simulated)}.zarr"
        self.store = data / f"store-{_digest(store)}.zarr"
        self.weights = data / "weights"
        self.downloads = data / "downloads"
        self.index = data / "index"
        self.fitted = data / f"baselines-{_digest([normals, parts['forecast']['lead_hours']])}"
        self.normals = data / f"normals-{_digest(normals)}.zarr"
        self.train = self.root / f"train-{_digest(train)}"
        self.checkpoints = self.train / "checkpoints"
        self.metrics = self.train / "metrics.jsonl"
        self.forecast = self.root / f"forecast-{_digest(forecast)}.zarr"
        twins = [store, d["splits"]["test"], parts["forecast"]["lead_hours"], parts["evaluation"]["twins"]]
        twins.append(twin_step_hours(config))
        self.twins = {str(m): self.root / f"{m}-{_digest(twins)}.zarr" for m in config.evaluation.twins.models}
        networks = [train, parts["forecast"], d["splits"]["test"], parts["evaluation"]["trained_budget"]]
        names = [str(name) for name in config.evaluation.trained_baselines]
        self.trained_folder = self.root / f"baselines-{_digest(networks)}"
        self.trained = {name: self.root / f"{name}-{_digest(networks)}.zarr" for name in names}
        self.scores = self.root / f"scores-{_digest(scores)}"
        self.figures = self.scores / "figures"
        self.report = self.root / "report.html"
        self.export = self.root / f"export-{_digest([store, d['splits']])}"
        self._done = {
            "simulate": _digest(simulated),
            "fetch": _digest(simulated),
            "regrid": _digest(store),
            "normals": _digest(normals),
            "train": _digest(train),
            "forecast": _digest(forecast),
            "twins": _digest(twins),
            "baselines": _digest([networks, names]),
            "score": _digest(scores),
            "report": _digest([scores, shown]),
        }

    def receipt(self, stage: str) -> Path:
        """The small file a stage writes last, when all its outputs are complete; what Snakemake watches."""
        return self.root / "receipts" / f"{stage}-{self._done[stage]}.json"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


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
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError(_explain(error, origin)) from None


def dump(config: Config) -> str:
    """The resolved configuration as YAML; `parse` reads it back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the configuration, for Snakemake and editors."""
    schema = Config.model_json_schema()
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


def _explain(error: ValidationError, origin: str) -> str:
    lines = []
    for item in error.errors():
        where = [part for part in item["loc"] if part not in {"simulation", "files", "arco", "weatherbench2", "cds"}]
        key = ".".join(str(part) for part in where)
        if item["type"] == "extra_forbidden":
            known = _keys_at(where[:-1])
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


def _keys_at(where: Iterable[Any]) -> list[str]:
    """Keys valid at a location, the union over the members of a tagged union."""
    models: list[type[Section]] = [Config]
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
