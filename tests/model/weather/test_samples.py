"""Which samples exist, their order, and the batches made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.prefetch import Prefetch
from model.weather.fields import Fields
from model.weather.samples import Items, Order, fixed_items, make_batch
from pipeline.config import Config
from pipeline.weather.climatology import Normals
from pipeline.weather.sections import Period
from pipeline.weather.times import Pairs, find_pairs

pytestmark = pytest.mark.slow

HOUR = np.timedelta64(1, "h")


def axis(start: str, end: str, hours: int = 12) -> np.ndarray:
    return np.arange(start, end, hours * HOUR, dtype="datetime64[h]").astype("datetime64[ns]")


def period(start: str, end: str) -> Period:
    return Period(start=start, end=end)  # type: ignore[arg-type]


def by_hand(
    times: np.ndarray, leads: list[int], periods: list[Period], history: list[int]
) -> set[tuple[np.datetime64, int]]:
    """Pairs by set membership, the slow and obvious way."""
    inside = {t for t in times for p in periods if np.datetime64(p.start) <= t <= np.datetime64(p.end)}
    starts = {t for t in inside if all(t - hours * HOUR in inside for hours in history)}
    return {(t, lead) for t in starts for lead in leads if t + lead * HOUR in inside}


def listed(pairs: Pairs) -> set[tuple[np.datetime64, int]]:
    found = set()
    for row, init in enumerate(pairs.init):
        for column, lead in enumerate(pairs.lead_hours):
            if pairs.valid[row, column] >= 0:
                assert pairs.times[pairs.valid[row, column]] - pairs.times[init] == lead * HOUR
                found.add((pairs.times[init], lead))
    return found


@given(
    missing=st.sets(st.integers(0, 99), max_size=40),
    leads=st.sets(st.sampled_from([12, 36, 168, 240]), min_size=1),
    history=st.sets(st.sampled_from([12, 24, 72]), max_size=2),
    cut=st.integers(30, 70),
)
@settings(max_examples=80, deadline=None)
def test_pairs_are_those_found_by_time_value(missing: set[int], leads: set[int], history: set[int], cut: int) -> None:
    """Catches pairs across a gap (counting steps), across a split (leakage), and pairs lost at either edge.

    With earlier states: starts whose history lies in a gap or outside the period.
    """
    times = np.delete(axis("2000-02-01", "2000-03-22"), sorted(missing))
    everything = axis("2000-02-01", "2000-03-22")
    periods = [
        Period(start=everything[0].astype("datetime64[us]").item(), end=everything[cut - 5].astype("M8[us]").item()),
        Period(start=everything[cut].astype("datetime64[us]").item(), end=everything[90].astype("M8[us]").item()),
    ]
    options = {"lead_hours": sorted(leads), "periods": periods, "history_hours": sorted(history)}
    expected = by_hand(times, sorted(leads), periods, sorted(history))
    if not all(any(lead == e for _, e in expected) for lead in leads):
        with pytest.raises(ValueError, match="at least one pair"):
            find_pairs(times, **options)
        return
    pairs = find_pairs(times, **options)
    assert listed(pairs) == expected
    behind = times[pairs.init][:, None] - np.array(sorted(history), dtype=int) * HOUR
    assert np.array_equal(times[pairs.earlier], behind)
    assert set(pairs.earlier.ravel()) | set(pairs.init) <= set(pairs.used_times)


def test_leap_day_and_new_year_are_starts_and_valid_times() -> None:
    """Catches the reference codes' loss of 29 February and 31 December, and of pairs across a year's edge."""
    pairs = find_pairs(axis("2000-01-01", "2002-01-01"), lead_hours=[24], periods=[period("2000-01-01", "2001-12-31")])
    inits = pairs.times[pairs.init].astype("datetime64[D]").astype(str)
    valid = pairs.times[pairs.valid[:, 0]].astype("datetime64[D]").astype(str)
    for day in ("2000-02-29", "2000-12-31"):
        assert (inits == day).sum() == 2
        assert (valid == day).sum() == 2
    assert len(pairs) == 2 * 731 - 2


def test_lead_without_a_pair_is_named() -> None:
    """Catches a lead that is silently never trained on."""
    with pytest.raises(ValueError, match="720 h"):
        find_pairs(axis("2000-01-01", "2000-01-20"), lead_hours=[24, 720], periods=[period("2000-01-01", "2000-01-19")])


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return find_pairs(
        axis("2000-01-01", "2000-03-01"), lead_hours=[24, 168, 720], periods=[period("2000-01-01", "2000-02-29")]
    )


def test_every_start_once_an_epoch(pairs: Pairs) -> None:
    """Catches sampling with replacement, and starts dropped because a batch does not divide the epoch."""
    order = Order(pairs, seed=3)
    for epoch in range(3):
        items = order.items(epoch * len(pairs), len(pairs))
        assert sorted(items.start.tolist()) == list(range(len(pairs)))
    assert not np.array_equal(order.items(0, len(pairs)).start, order.items(len(pairs), len(pairs)).start)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_out_the_same_global_batch(pairs: Pairs, ranks: int) -> None:
    """Catches ranks that see the same samples, or an order that changes with their number."""
    order = Order(pairs, seed=3, longitudes=64)
    for step in (0, 9, 13):  # batches of 8 out of 117 starts: step 14 spans two epochs
        whole = Order(pairs, seed=3, longitudes=64).batch(step, size=8)
        parts = [order.batch(step, size=8, rank=r, ranks=ranks) for r in range(ranks)]
        for name in ("start", "lead", "roll"):
            assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_a_batch_depends_on_the_step_alone(pairs: Pairs) -> None:
    """Catches hidden state: a resumed run asks for step 40 first."""
    order = Order(pairs, seed=1)
    for step in range(40):
        order.batch(step, size=8)
    assert np.array_equal(order.batch(40, size=8).start, Order(pairs, seed=1).batch(40, size=8).start)
    assert not np.array_equal(order.batch(40, size=8).start, Order(pairs, seed=2).batch(40, size=8).start)


def test_leads_follow_their_weights_and_exist(pairs: Pairs) -> None:
    """Catches weights ignored, and a lead drawn whose valid time is not there."""
    items = Order(pairs, seed=0, lead_weights=[1.0, 0.0, 3.0]).items(0, 200 * len(pairs))
    assert np.all(pairs.valid[items.start, items.lead] >= 0)
    complete = pairs.valid[items.start].min(axis=1) >= 0
    share = np.bincount(items.lead[complete], minlength=3) / complete.sum()
    assert np.allclose(share, [0.25, 0.0, 0.75], atol=0.02)


def test_starts_that_only_have_unweighted_leads_are_still_used(pairs: Pairs) -> None:
    """Catches a division by zero at the end of a period when a lead's weight is zero."""
    items = Order(pairs, seed=0, lead_weights=[0.0, 0.0, 1.0]).items(0, len(pairs))
    assert len(np.unique(items.start)) == len(pairs)
    assert np.all(pairs.valid[items.start, items.lead] >= 0)


def test_weights_that_do_not_fit_are_refused(pairs: Pairs) -> None:
    """Catches weights silently broadcast."""
    with pytest.raises(ValueError, match="one number per lead"):
        Order(pairs, seed=0, lead_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="multiple of the data ranks"):
        Order(pairs, seed=0).batch(0, size=9, ranks=2)


def test_fixed_items_cover_every_lead_evenly(pairs: Pairs) -> None:
    """Catches a validation that never sees the longest lead."""
    items = fixed_items(pairs, count=30)
    assert np.bincount(items.lead).tolist() == [10, 10, 10]
    assert np.all(pairs.valid[items.start, items.lead] >= 0)
    assert len(np.unique(items.start[items.lead == 0])) == 10


@pytest.fixture
def opened(experiment: Callable[..., Config]) -> tuple[Config, Fields]:
    config = experiment()
    return config, Fields(config.paths.store, Normals.open(config.paths.normals))


def test_batch_is_normalised_state_and_anomaly(opened: tuple[Config, Fields]) -> None:
    """Catches input and target swapped, climatology at the init time instead of the valid time, wrong channel order."""
    config, fields = opened
    pairs = find_pairs(fields.times, lead_hours=[24, 72], periods=config.data.splits.train)
    items = Items(np.array([100, 5, 300]), np.array([1, 0, 1]), np.zeros(3, dtype=np.int64))
    batch = make_batch(fields, pairs, items)
    group = zarr.open_group(config.paths.store, mode="r")
    state, normals = group["state"][:], fields.normals
    init, valid = pairs.init[items.start], pairs.valid[items.start, items.lead]
    climatology = normals.climatology_at(fields.times[valid])
    column = np.s_[None, :, None, None]
    assert np.allclose(batch.x[:, :3], (state[init] - normals.mean[column]) / normals.std[column], atol=2e-5)
    assert np.allclose(batch.target, (state[valid] - climatology) / normals.std[column], atol=2e-5)
    static = (group["static"][:] - normals.static_mean[:, None, None]) / normals.static_std[:, None, None]
    assert np.allclose(batch.x[:, 3:], static[None], atol=1e-6)
    assert batch.lead_hours.tolist() == [72.0, 24.0, 72.0]


def test_anomaly_input_is_in_units_of_its_own_spread(opened: tuple[Config, Fields]) -> None:
    """Catches the climatology of the valid time taken from the input, and the state's spread used for the anomaly."""
    config, _ = opened
    normals = Normals.open(config.paths.normals)
    fields = Fields(config.paths.store, normals, network_input="anomaly")
    times = np.array([100, 7])
    state = zarr.open_group(config.paths.store, mode="r")["state"][:]
    expected = (state[times] - normals.climatology_at(fields.times[times])) / normals.anomaly_std[:, None, None]
    assert np.allclose(fields.inputs(times)[:, :3], expected, atol=2e-5)
    assert not np.allclose(normals.anomaly_std, normals.std, rtol=0.01)


def test_reading_from_memory_or_disk_gives_the_same_bits(opened: tuple[Config, Fields]) -> None:
    """Catches a large store, read as needed, that trains on other numbers than a small one."""
    config, fields = opened
    pairs = find_pairs(fields.times, lead_hours=[24, 72], periods=config.data.splits.train)
    items = Order(pairs, seed=0, longitudes=12).items(0, 9)
    before = make_batch(fields, pairs, items)
    fields.load(pairs.used_times, progress=False)
    after = make_batch(fields, pairs, items)
    assert fields.in_memory
    assert torch.equal(before.x, after.x)
    assert torch.equal(before.target, after.target)


def test_a_rank_reads_its_own_channels_in_store_order(opened: tuple[Config, Fields]) -> None:
    """Catches a channel subset read, or scaled, as if it were the first channels."""
    config, fields = opened
    some = Fields(config.paths.store, Normals.open(config.paths.normals), channels=["t2m", "t500"])
    times = np.array([3, 40])
    assert some.channels == ("t500", "t2m")
    assert torch.equal(some.anomalies(times), fields.anomalies(times)[:, [0, 2]])


def test_earlier_states_are_read_by_time_value(opened: tuple[Config, Fields]) -> None:
    """Catches the state a number of steps back (wrong next to a gap), or earlier channels in another order."""
    config, _ = opened
    names = ("t500", "t850", "t2m", "lsm", "orog", "t850-12h", "t2m-12h", "t500-36h")
    fields = Fields(config.paths.store, Normals.open(config.paths.normals), channels=names)
    assert fields.input_channels == names
    assert fields.history_hours == (12, 36)
    pairs = find_pairs(fields.times, lead_hours=[24], periods=config.data.splits.train, history_hours=[12, 36])
    when = fields.times[pairs.init]
    after_gap = np.flatnonzero(np.diff(when) > 12 * HOUR)[0] + 1
    start = np.array([after_gap, 0, 40])
    state = zarr.open_group(config.paths.store, mode="r")["state"][:]
    normals = fields.normals
    standard = (state - normals.mean[:, None, None]) / normals.std[:, None, None]
    at = {h: np.array([list(fields.times).index(t - h * HOUR) for t in when[start]]) for h in (0, 12, 36)}
    columns = [(0, 0), (0, 1), (0, 2), (12, 1), (12, 2), (36, 0)]
    expected = np.stack([standard[at[h]][:, c] for h, c in columns], axis=1)
    for _ in range(2):  # from disk, then from memory
        batch = make_batch(fields, pairs, Items(start, np.zeros(3, dtype=np.int64), np.array([0, 3, 0])))
        x = batch.x.clone()
        x[1] = x[1].roll(-3, dims=-1)
        assert np.allclose(x[:, [0, 1, 2, 5, 6, 7]], expected, atol=2e-5)
        assert batch.target.shape[1] == 3
        fields.load(pairs.used_times, progress=False)


def test_a_rank_with_earlier_states_alone_predicts_nothing(opened: tuple[Config, Fields]) -> None:
    """Catches targets of channels that a rank reads at an earlier time only: they would be counted twice."""
    config, _ = opened
    fields = Fields(config.paths.store, Normals.open(config.paths.normals), channels=["t2m-24h", "lsm"])
    assert fields.channels == ("t2m",)
    assert fields.target_channels == ()
    assert fields.targets(np.array([5, 9])).shape == (2, 0, 6, 12)
    assert fields.inputs(np.array([5, 9])).shape == (2, 2, 6, 12)
    fields.load(np.arange(20), progress=False)
    assert fields.normals.nbytes * 3 == Normals.open(config.paths.normals).nbytes


def test_roll_turns_input_statics_and_target_together(opened: tuple[Config, Fields]) -> None:
    """Catches statics left behind (land under another sky) or a target turned the other way."""
    config, fields = opened
    pairs = find_pairs(fields.times, lead_hours=[24], periods=config.data.splits.train)
    start, lead = np.array([8, 9, 10]), np.zeros(3, dtype=np.int64)
    plain = make_batch(fields, pairs, Items(start, lead, np.zeros(3, dtype=np.int64)))
    turned = make_batch(fields, pairs, Items(start, lead, np.array([0, 5, 11])))
    for i, cells in enumerate((0, 5, 11)):
        assert torch.equal(turned.x[i], plain.x[i].roll(cells, dims=-1))
        assert torch.equal(turned.target[i], plain.target[i].roll(cells, dims=-1))


def test_features_are_read_between_statics_and_earlier_states(opened: tuple[Config, Fields]) -> None:
    """Catches features of another time, left behind by a turn, or a rank that holds nothing else."""
    config, plain = opened
    features = ("sin_season", "cos_season", "sin_time_of_day", "cos_time_of_day")
    names = ("t500", "lsm", *features, "sin_longitude", "t500-12h")
    normals = Normals.open(config.paths.normals)
    fields = Fields(config.paths.store, normals, channels=names[::-1])
    assert fields.input_channels == names
    times, roll = np.array([40, 7]), np.array([3, 0])
    x = fields.inputs(times, roll=roll)
    days = (fields.times[times] - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    longitude = np.deg2rad(plain.coords["longitude"].values)
    for i, (day, cells) in enumerate(zip(days, roll, strict=True)):
        season, clock = 2 * np.pi * day / 366, 2 * np.pi * day + np.roll(longitude, cells)
        flat = [np.sin(season), np.cos(season), np.sin(clock), np.cos(clock), np.sin(np.roll(longitude, cells))]
        for channel, expected in enumerate(flat, start=2):
            assert np.allclose(x[i, channel], expected, atol=1e-6)
    assert torch.equal(fields.features(fields.times[times], roll=roll), x[:, 2:7])
    alone = Fields(config.paths.store, normals, channels=features)
    assert torch.equal(alone.inputs(times, roll=roll), x[:, 2:6])
    assert alone.targets(times).shape == (2, 0, 6, 12)


def test_a_missing_value_is_named(opened: tuple[Config, Fields]) -> None:
    """Catches NaNs that reach the loss without a name."""
    config, fields = opened
    array = zarr.open_group(config.paths.store, mode="r+")["state"]
    array[40, 1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"t850.*2000-01-21T00:00"):
        fields.load(np.arange(60), progress=False)


def test_normals_of_another_store_are_refused(opened: tuple[Config, Fields]) -> None:
    """Catches anomalies from the climatology of other data."""
    config, _ = opened
    normals = Normals.open(config.paths.normals)
    normals.contract["store"] = "0123456789abcdef"
    with pytest.raises(ValueError, match="0123456789abcdef"):
        Fields(config.paths.store, normals)


def test_prefetch_keeps_order_and_hands_over_errors() -> None:
    """Catches steps out of order, and a loader's error that would leave the trainer waiting for ever."""

    def make(step: int) -> int:
        if step == 5:
            raise ValueError("broken at 5")
        return step * step

    seen: list[int] = []

    def consume(source: Iterator[int]) -> None:
        seen.extend(source)

    source = Prefetch(make, range(2, 9))
    with pytest.raises(ValueError, match="broken at 5"):
        consume(iter(source))
    source.close()
    assert seen == [4, 9, 16]


def test_prefetch_can_be_closed_while_it_waits() -> None:
    """Catches threads that outlive the training loop and keep the store's memory."""

    before = set(threading.enumerate())
    source = Prefetch(lambda step: step, range(1000))
    assert next(iter(source)) == 0
    started = set(threading.enumerate()) - before
    assert started
    source.close()
    assert not any(thread.is_alive() for thread in started)


def test_prefetch_makes_no_more_than_its_depth_ahead() -> None:
    """Catches a loader that fills the memory with batches while a step takes long."""
    made: list[int] = []
    source = Prefetch(lambda step: made.append(step) or step, range(100), depth=3)  # type: ignore[func-returns-value]
    taken = iter(source)
    assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.2)
    assert max(made) <= 8
    source.close()
