"""The configuration: strict reading, readable faults, and names of outputs that change exactly with their content."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config, dump, json_schema, load, parse, split_settings
from pipeline.sections import Section
from pipeline.weather.config import WeatherConfig

RAW: dict[str, Any] = {
    "name": "case",
    "source": {"kind": "simulation", "seed": 3},
    "data": {
        "channels": {"variables": ["z", "t2m"], "levels": [500, 850], "statics": ["lsm"]},
        "period": {"start": "2001-01-01", "end": "2001-12-31"},
        "step_hours": 12,
        "splits": {
            "train": {"start": "2001-01-01", "end": "2001-06-30"},
            "validation": {"start": "2001-07-01", "end": "2001-08-31"},
            "test": {"start": "2001-09-01", "end": "2001-12-31"},
        },
    },
    "evaluation": {"variables": ["z500", "t2m"]},
}
STAGES = ("simulate", "regrid", "normals", "train", "forecast", "score", "report")


def changed(key: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    *parents, last = key.split(".")
    node = raw
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return raw


def fault(raw: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match="must describe an experiment") as error:
        parse(raw)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.stepz", 3, "training.stepz: unknown key; did you mean 'steps'?"),
        ("modle", {}, "modle: unknown key; did you mean 'model'?"),
        ("source.truncatoin", 21, "source.truncatoin: unknown key; did you mean 'truncation'?"),
        ("data.splits.trian", {}, "data.splits.trian: unknown key; did you mean 'train'?"),
        ("data.regrid.xyzzy", 1, "known keys there are engine, method, resolution"),
        ("source.kind", "simulatoin", "source.kind: must be one of simulation, files, arco, weatherbench2, cds, got"),
        ("source", {}, "source.kind: required, but absent"),
        ("source", 3, "source: must be a section with keys of its own, got 3"),
        ("training", None, "training: must be a section with keys of its own, got nothing"),
        ("training.learning_rate", float("inf"), "training.learning_rate: must be a finite number, got inf"),
        ("model.tree", "Tree3", "model.tree: must be one of none, Tree0, Tree2, Tree4, Tree8 or must be a list"),
        ("model.tree", [1, "a"], "model.tree.1: must be a whole number, got 'a'"),
        ("training.betas", [0.9, 1.5], "training.betas.1: must be less than 1, got 1.5"),
        ("training.steps", 0, "training.steps: must be greater than 0, got 0"),
        ("training.steps", "many", "training.steps"),
        ("training.lead_hours", [], "training.lead_hours"),
        ("training.lead_hours", [30], "training.lead_hours must be multiples of data.step_hours (12), got 30"),
        ("forecast.lead_hours", [168, 171], "forecast.lead_hours must be multiples of data.step_hours (12), got 171"),
        ("training.lead_hours", {"start": 24, "stop": 12, "step": 12}, "training.lead_hours"),
        ("training.lead_hours", {"start": 12, "stop": 48}, "a range of leads must be {start, stop, step}"),
        ("model.history_hours", [12, 18], "model.history_hours must be different multiples of data.step_hours (12)"),
        ("model.history_hours", [12, 12], "model.history_hours must be different multiples of data.step_hours (12)"),
        ("forecast.init_step_hours", 18, "forecast.init_step_hours must be a multiple of data.step_hours (12), got 18"),
        ("training.lead_weights", [1.0], "one entry per lead, got 1 for 3 leads"),
        ("training.seed", -1, "training.seed: must be at least 0, got -1"),
        ("training.layout.data", 3, "batch_size must be a multiple of layout.data, got 16 samples for 3 data ranks"),
        ("training.channel_weights", {"t850": 2.0}, "channel_weights must name channels or variables of the store"),
        ("evaluation.variables", ["z500", "q500"], "evaluation.variables must be channels of the store, got 'q500'"),
        ("evaluation.variables", ["z5oo"], "channel must be a short name, got 'z5oo'"),
        ("data.channels.variables", ["z", "t3m"], "did you mean 't2m'?"),
        ("data.regrid.resolution", 7.0, "must divide 180 degrees, got 7"),
        ("data.period.end", "2000-12-31", "end must not precede start"),
        ("data.period.start", "2001-01-01T00:00+01:00", "without a zone"),
        ("data.period.end", "2001-11-30", "splits.test must lie inside data.period"),
        ("data.splits.validation", {"start": "2001-06-30", "end": "2001-08-31"}, "splits must not overlap"),
        ("data.splits.test", {"start": "2001-08-31T12:00", "end": "2001-12-31"}, "got validation[0] and test sharing"),
        ("model.patch", 5, "model.patch must divide the grid 32 x 64, got 5"),
        ("model.heads", 3, "width must be a multiple of heads, got width 128 and heads 3"),
        ("name", "../elsewhere", "name"),
    ],
)
def test_faults_are_named(key: str, value: Any, message: str) -> None:
    """Catches a fault that passes, or whose message does not say which key, rule and value."""
    assert message in fault(changed(key, value))


PYDANTIC = re.compile(
    r"input should|instance of|dictionary|tag |discriminator|literal\[|list\[|tuple|constrained|after validation|"
    r"unable to|another value",
    re.IGNORECASE,
)
"""Words of pydantic that say nothing to who writes a configuration, and our own where no rule is known."""
SOURCES: tuple[dict[str, Any], ...] = (
    {"kind": "simulation"},
    {"kind": "files", "paths": ["a.nc"]},
    {"kind": "arco"},
    {"kind": "weatherbench2"},
    {"kind": "cds"},
)


def every_key(section: type[Section], prefix: str = "") -> list[str]:
    """All keys of a section and of those inside it, with dots."""
    found = []
    for name, field in section.model_fields.items():
        found.append(prefix + name)
        arguments = (field.annotation, *get_args(field.annotation))
        for inner in (a for a in arguments if isinstance(a, type) and issubclass(a, Section)):
            found += every_key(inner, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source["kind"])
def test_no_fault_of_any_key_is_told_in_words_of_pydantic(source: dict[str, Any]) -> None:
    """Catches a kind of fault that was not thought of, and the names of union members inside a key."""
    values = (None, "x", "", 3, -1.5, 0, True, [], ["x"], [None], [[1]], {}, {"x": 1}, math.inf, 10**40, dt.date.min)
    keys = every_key(WeatherConfig)
    assert {"training.layout.data", "source.kind", "data.splits.test.end", "compute.slurm.queue"} <= set(keys)
    told = 0
    for key in keys if source["kind"] == "simulation" else [k for k in keys if k.startswith("source")]:
        for value in values:
            raw = copy.deepcopy(RAW) | {"source": copy.deepcopy(source)}
            *parents, last = key.split(".")
            node = raw
            for part in parents:
                node = node.setdefault(part, {})
            if not isinstance(node, dict):
                continue  # inside a list, e.g. data.splits.train
            node[last] = value
            try:
                parse(raw)
            except ValueError as error:
                told += 1
                text = str(error)
                assert not PYDANTIC.search(text.replace(repr(value), "")), f"{key} = {value!r}: {text}"
    assert told > 50


def test_all_faults_at_once() -> None:
    """Catches a reader that stops at the first fault."""
    raw = changed("training.stepz", 3)
    raw["model"] = {"widht": 64, "depth": -1}
    del raw["name"]
    text = fault(raw)
    assert "got 4 fault(s)" in text
    for part in ("training.stepz", "model.widht", "model.depth", "name: required, but absent"):
        assert part in text


def test_dates_cover_whole_days() -> None:
    """Catches a bare end date that loses its last day's hours, or touching splits that count as overlapping."""
    config = parse(RAW)
    assert str(config.data.period.start) == "2001-01-01 00:00:00"
    assert str(config.data.period.end) == "2001-12-31 23:00:00"
    assert not config.data.splits.train[0].overlaps(config.data.splits.validation[0])
    assert not config.data.splits.validation[0].overlaps(config.data.splits.test)


def test_yaml_dates_and_strings_are_the_same(tmp_path: Path) -> None:
    """Catches YAML's own date type meaning another hour than the same date in quotes."""
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(RAW).replace("'", ""))
    assert "'2001-01-01'" not in path.read_text()
    assert load(path) == parse(RAW)


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    """Catches an override that is lost, kept as a string, or that drops its neighbours."""
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(RAW))
    config = load(
        path,
        [
            "training.steps=7",
            "training.lead_hours=[24, 48]",
            "model.groups={by: variable}",
            "source.seed=9",
            "data.splits.test.start=2001-10-01",
            "training.learning_rate=1.0e-3",
        ],
    )
    assert config.training.steps == 7
    assert config.training.lead_hours == [24, 48]
    assert config.training.learning_rate == 1e-3
    assert config.model.groups.by == "variable"
    assert config.source.model_dump()["seed"] == 9
    assert str(config.data.splits.test.start) == "2001-10-01 00:00:00"
    assert config.data.splits.test.end == parse(RAW).data.splits.test.end
    for item, message in (
        ("training.steps", "must look like section.key=value, got 'training.steps'"),
        ("name.first=x", "must name a key inside a section, got a plain value at 'name'"),
        ("training.stepz=1", "did you mean 'steps'?"),
        ("evaluation.variables=[z500", "--set evaluation.variables=[z500, line 1: must be YAML"),
        ("model={width: 3, width: 4}", "key 'width' must be given once"),
        ("data.splits.test.end=2001-02-30", "a date must exist, got 2001-02-30"),
    ):
        with pytest.raises(ValueError, match="must") as error:
            load(path, [item])
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("  ", []),
        ("training.steps=3", ["training.steps=3"]),
        (" a.b=[1, 2]  c=3 ", ["a.b=[1, 2]", "c=3"]),
        ("a={b: [1, c=2], d: 'x e=1'} f=2", ["a={b: [1, c=2], d: 'x e=1'}", "f=2"]),
        ("source.label=my own data x.y=1", ["source.label=my own data", "x.y=1"]),
        ('a="b c=1" d=2', ['a="b c=1"', "d=2"]),
        ("nonsense", ["nonsense"]),
        ("a=[1 b=2", ["a=[1 b=2"]),
    ],
)
def test_settings_are_separated_by_blanks_outside_of_values(text: str, settings: list[str]) -> None:
    """Catches a value that is cut at a blank inside a list, and two settings taken for one."""
    assert split_settings(text) == settings
    assert [part for item in settings for part in split_settings(item)] == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "must be a mapping, got list"),
        ("a: [1\n", "c.yaml, line 2: must be YAML, got a mistake while parsing a flow sequence"),
        ("", "mapping"),
        ("name: a\ntraining:\n  steps: 3\n  seed: 1\n  steps: 4\n", "c.yaml, line 5: key 'steps' must be given once"),
        (
            "name: a\nsource: {kind: files}\nname: b\n",
            "line 3: key 'name' must be given once, got it in line 1",
        ),
        ("name: a\ndata: {period: {start: 2001-02-30}}\n", "c.yaml, line 2: a date must exist, got 2001-02-30"),
        ("name: a\x00\n", "must be YAML, got the character #x00"),
        ("task: [1]\n", "task must be one of forecast, reconstruct, got"),
        (b"name: \xff\xfe\n", "must be text (UTF-8), got"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str | bytes, message: str) -> None:
    """Catches a traceback of the YAML reader, a message without the file, and a key that is silently dropped."""
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match="configuration file must exist"):
        load(tmp_path / "absent.yaml")


@given(
    steps=st.integers(1, 10**6),
    rate=st.floats(1e-8, 1.0),
    leads=st.lists(st.integers(1, 60).map(lambda n: 12 * n), min_size=1, max_size=4),
    label=st.text(min_size=1, max_size=20),
    levels=st.lists(st.sampled_from([30, 500, 850, 1000]), min_size=1),
)
@pytest.mark.slow
def test_round_trip(steps: int, rate: float, leads: list[int], label: str, levels: list[int]) -> None:
    """Catches a dumped configuration that reads back different: the copy beside an output would not reproduce it."""
    raw = changed("training", {"steps": steps, "learning_rate": rate, "lead_hours": leads})
    raw["source"] = {"kind": "files", "paths": ["a/*.nc"], "label": label}
    raw["data"]["channels"]["levels"] = levels
    raw["evaluation"] = {"variables": ["t2m"]}
    config = parse(raw)
    again = parse(yaml.safe_load(dump(config)))
    assert again == config
    assert [again.paths.receipt(s) for s in STAGES] == [config.paths.receipt(s) for s in STAGES]


def reruns(key: str, value: Any) -> set[str]:
    """Stages whose receipt gets another name when one setting changes."""
    before, after = parse(RAW), parse(changed(key, value))
    return {s for s in STAGES if before.paths.receipt(s) != after.paths.receipt(s)}


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("source.seed", 4, "simulate"),
        ("data.channels.levels", [500, 850, 1000], "simulate"),
        ("data.period", {"start": "2001-01-01", "end": "2002-01-31"}, "simulate"),
        ("data.regrid.method", "conservative", "regrid"),
        ("data.normals.window_days", 31, "normals"),
        ("data.splits.train", {"start": "2001-01-02", "end": "2001-06-30"}, "normals"),
        ("training.steps", 999, "train"),
        ("training.seed", 1, "train"),
        ("model.depth", 3, "train"),
        ("data.splits.validation", [], "train"),
        ("data.splits.test", {"start": "2001-09-02", "end": "2001-12-31"}, "forecast"),
        ("forecast.lead_hours", [168], "forecast"),
        ("evaluation.variables", ["t2m"], "score"),
    ],
)
def test_a_setting_names_what_follows_it_anew(key: str, value: Any, first: str) -> None:
    """Catches a result that is taken for another experiment's, and work that is redone for nothing."""
    assert reruns(key, value) == set(STAGES[STAGES.index(first) :])


@pytest.mark.parametrize("block", ["training", "forecast"])
def test_a_range_of_leads_is_the_list(block: str) -> None:
    """Catches a range without its last lead, and one that is another experiment than the list it means."""
    listed, ranged = (
        parse(changed(f"{block}.lead_hours", v)) for v in ([12, 36, 60], {"start": 12, "stop": 60, "step": 24})
    )
    assert listed == ranged
    assert listed.paths.receipt("score") == ranged.paths.receipt("score")


def test_another_period_is_another_store() -> None:
    """Catches two time axes under one name: the second would be refused, or written over the first."""
    longer = parse(changed("data.period", {"start": "2001-01-01", "end": "2002-01-31"})).paths
    assert longer.simulated != parse(RAW).paths.simulated
    assert longer.store != parse(RAW).paths.store


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.checkpoint_every", 7),
        ("training.keep_checkpoints", 5),
        ("training.layout", {"data": 2, "channel": 2}),
        ("training.tensorboard", False),
    ],
)
def test_speed_and_safety_change_no_name(key: str, value: Any) -> None:
    """Catches training that starts over because a checkpoint is wanted more often or ranks are arranged anew."""
    assert reruns(key, value) == set()


def test_outputs_lie_under_the_experiment(tmp_path: Path) -> None:
    """Catches an output outside results/<name>, or two stages writing the same path."""
    config = parse(RAW)
    paths = config.paths
    written = [paths.simulated, paths.store, paths.normals, paths.train, paths.forecast, paths.scores, paths.report]
    written += [paths.receipt(s) for s in STAGES]
    assert len(set(written)) == len(written)
    assert all(p.is_relative_to(Path("results") / "case") for p in written)
    moved = parse({**RAW, "directory": str(tmp_path)})
    assert moved.paths.store == tmp_path / "data" / paths.store.name


def test_configuration_cannot_be_changed() -> None:
    """Catches a stage that edits the settings other stages will see."""
    config = parse(RAW)
    with pytest.raises(ValueError, match="frozen"):
        config.training.steps = 3


def test_schema_accepts_what_we_resolve_and_refuses_unknown_keys() -> None:
    """Catches a schema that is looser or tighter than the typed configuration."""
    from jsonschema import Draft202012Validator

    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    resolved = parse(RAW).model_dump(mode="json")
    assert not list(validator.iter_errors(resolved))
    for bad in (changed("training.stepz", 1), changed("model.width", "wide"), changed("source.kind", "magic")):
        assert list(validator.iter_errors(bad))
    for leads, fits in (({"start": 12, "stop": 60, "step": 24}, True), ({"from": 12, "to": 60}, False)):
        errors = list(validator.iter_errors({**resolved, "forecast": {"lead_hours": leads}}))
        assert (not errors) == fits
    name = next(name for name in schema["$defs"] if name.endswith("Training"))  # both workloads have one
    described = schema["$defs"][name]["properties"]["ema_decay"]
    assert "moving average" in described["description"], "keys lose their meaning in editors"
    assert json.loads(json.dumps(schema)) == schema


def test_config_is_one_type() -> None:
    """Catches a source kind that the reader accepts and the type does not distinguish."""
    kinds = {"simulation": {}, "files": {"paths": ["x.nc"]}, "arco": {}, "weatherbench2": {}, "cds": {}}
    for kind, extra in kinds.items():
        config = parse({**RAW, "source": {"kind": kind, **extra}})
        assert isinstance(config, Config)
        assert config.source.kind == kind
        assert config.simulated == (kind == "simulation")
    assert "paths" in fault({**RAW, "source": {"kind": "files"}})
