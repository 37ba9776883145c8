"""Steps modelled from shallow rehearsals against the rehearsal of the whole step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.support import modelled, scale
from benchmarks.support.scale import ALONE, TREES, Forecast, Setting
from model.costs.roofline import step_time
from model.training.rehearsal import rehearse

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "setting",
    [
        Setting(ALONE, "tiny", 32, 2),
        Setting(TREES["C"][1], "tiny", 32, 2, data=2, sharding="fsdp", recompute=True),
    ],
    ids=lambda setting: setting.method.name,
)
def test_a_deep_step_follows_from_shallow_ones(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a block counted once too often, a peak that lies in another part of the step at depth, groups of ranks
    mixed up between rehearsals, and samples that are not those of a data rank."""
    monkeypatch.setitem(scale.SIZES, "tiny", (256, 5))
    found = modelled.Model(setting).at(12)
    whole = rehearse(Forecast(setting.network(depth=5)), setting.options(batch=12), device_type="cuda")
    assert whole.work is not None
    assert found.peak == pytest.approx(whole.footprint.peak, rel=0.01)
    assert found.flops == pytest.approx(whole.work.flops, rel=1e-6)
    times = step_time(whole.work, scale.MACHINE, ranks=setting.ranks, data=whole.data)
    assert found.waiting == pytest.approx(times.communication, rel=0.02, abs=1e-9)
    assert found.seconds == pytest.approx(times.total, rel=0.03)


def test_more_data_ranks_follow_from_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches sums of gradients over another number of ranks, or over links that they do not cross."""
    monkeypatch.setitem(scale.SIZES, "tiny", (256, 3))
    two = Setting(TREES["L"][0], "tiny", 32, 2, data=2)
    eight = replace(two, data=8)  # on two nodes
    found = modelled.Model(two).at(12, data=8)
    whole = rehearse(Forecast(eight.network(depth=3)), eight.options(batch=12), device_type="cuda")
    assert whole.work is not None
    times = step_time(whole.work, scale.MACHINE, ranks=eight.ranks, data=whole.data)
    assert found.peak == pytest.approx(whole.footprint.peak, rel=0.01)
    assert found.seconds == pytest.approx(times.total, rel=0.03)
    assert found.waiting == pytest.approx(times.communication, rel=0.15)  # scalars of all ranks cross nodes too
