"""Configurations of images: what is refused, and which stage a setting belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from pipeline import workloads
from pipeline.config import dump, load, parse
from pipeline.imaging.config import ImagingPaths
from pipeline.yaml_text import read_yaml

RAW: dict[str, Any] = {"task": "reconstruct", "name": "case", "source": {"kind": "images", "files": ["*.hdr"]}}
CONFIGS = ("plants", "plants_scanner", "jasper")


def with_(section: str, **values: Any) -> dict[str, Any]:
    return {**RAW, section: {**RAW.get(section, {}), **values}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (with_("data", tile=20), "data.tile must be a multiple of model.patch, got 20 and 8 pixels"),
        (with_("data", blocks={"rows": 4, "columns": 30}), "data.blocks must be at least as large as model.patch"),
        (with_("data", bands={"start": 400}), "must be a range with start, stop and step, or a list"),
        (with_("data", bands={"start": 400, "stop": 500, "step": 1, "wavelengths": [400]}), "got both"),
        (with_("data", bands={"wavelengths": [500, 400]}), "must have increasing wavelengths"),
        (with_("source", references={"dark": "d", "white": "w"}, scale=2.0), "scale must be absent where references"),
        ({**RAW, "source": {"kind": "simulation", "size": 9}, "model": {"patch": 16}}, "source.size must be at least"),
        ({**RAW, "source": {"kind": "simulation", "bands": {"start": 300}}}, "must lie within 400 .. 2500 nm"),
        (
            {**RAW, "source": {"kind": "simulation"}, "data": {"blocks": {"rows": 8, "columns": 8}}},
            "must be absent for",
        ),
        ({**RAW, "compute": {"scheduler": "slurm"}}, "compute.scheduler must be threads for images"),
        (with_("masking", patches=0.0), "must hide patches or bands, got neither"),
        (with_("model", decoder={"width": 10, "heads": 4}), "width must be a multiple of heads"),
        (with_("source", filez=["a"]), "did you mean 'files'"),
    ],
)
def test_what_cannot_be_is_refused(raw: dict[str, Any], message: str) -> None:
    """Catches settings that only fail when the data have been read."""
    with pytest.raises(ValueError, match="must describe an experiment") as error:
        parse(raw)
    assert message in str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_our_configurations_are_read_back(name: str, root: Path) -> None:
    """Catches a configuration of ours that cannot be used, or is not what `settings` prints."""
    config = load(root / "workflows" / "config" / f"{name}.yaml")
    assert parse(read_yaml(dump(config), origin="dump")) == config
    assert [stage.name for stage in config.stages][1:] == ["normals", "train", "reconstruct", "score", "report"]


def test_paths_are_those_of_the_table() -> None:
    """Catches an output without an annotation, which mypy would not know, and an annotation of nothing."""
    annotated = set(get_type_hints(ImagingPaths)) - {"root"}
    assert annotated == {name for stage in workloads.stages("reconstruct") for name in stage.outputs}


FROM_SCORE = {"score", "report"}
FROM_RECONSTRUCT = {"reconstruct"} | FROM_SCORE
FROM_TRAIN = {"train"} | FROM_RECONSTRUCT
ALL = {"simulate", "ingest", "normals"} | FROM_TRAIN


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("source.seed", "3", ALL),
        ("data.tile", "32", ALL),
        ("data.bands", "{start: 400, stop: 800, step: 10}", ALL),
        ("data.splits.seed", "3", ALL - {"simulate", "ingest"}),
        ("masking.patches", "0.5", FROM_TRAIN),
        ("model.decoder.depth", "3", FROM_TRAIN),
        ("training.steps", "3", FROM_TRAIN),
        ("reconstruct.repeats", "3", FROM_RECONSTRUCT),
        ("evaluation.few_labels", "[5]", FROM_SCORE),
        ("evaluation.images_shown", "2", {"report"}),
        ("data.slab_tiles", "3", set()),
        ("training.layout", "{channel: 2}", set()),
        ("reconstruct.image", "scan.hdr", set()),
    ],
)
def test_a_setting_moves_what_depends_on_it(setting: str, value: str, expected: set[str], root: Path) -> None:
    """Catches a setting that decides a result and is not in its name, and one of speed that is."""
    plants = root / "workflows" / "config" / "plants.yaml"
    before, after = load(plants), load(plants, [f"{setting}={value}"])
    stages = workloads.stages("reconstruct")
    assert {s.name for s in stages if before.paths.receipt(s.name) != after.paths.receipt(s.name)} == expected
