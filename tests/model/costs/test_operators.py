"""What a step is counted to do, and the seconds that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model.costs import calibrate, clock
from model.costs.collectives import Collective
from model.costs.hardware import HARDWARE, HERE, Hardware, from_dict, known
from model.costs.host import measure_host
from model.costs.operators import OperatorClass, Recorder, Tally, Work
from model.costs.roofline import step_time
from tests.model.parallel.harness import run_distributed


class Shown(TorchDispatchMode):
    """Shows a recorder every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.recorder = Recorder()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.recorder.see(func, args, kwargs or {}, result)
        return result


def seen(function: object, *given: torch.Tensor) -> Work:
    with Shown() as shown:
        function(*given)  # type: ignore[operator]
    return shown.recorder.work


def test_products_and_bytes_are_counted() -> None:
    """Catches views that cost something, a written argument that is only read, broadcast dims that are read often."""
    work = seen(lambda a, b: (a @ b).view(-1).t(), torch.ones(3, 5), torch.ones(5, 7))
    assert work.flops == 2 * 3 * 5 * 7
    (tally,) = work.operators.values()
    assert (tally.count, tally.nbytes) == (1, 4 * (15 + 35 + 21))
    (tally,) = seen(lambda a: a.add_(1), torch.ones(6)).operators.values()
    assert tally.nbytes == 4 * (6 + 6)
    (tally,) = seen(lambda a: a.exp(), torch.ones(1, 6).expand(4, 6)).operators.values()
    assert tally.nbytes == 4 * (6 + 24)


def test_attention_counts_forward_and_backward() -> None:
    """Catches the CPU's attention, for which torch has no formula, counted as nothing."""
    q, k, v = (torch.ones(2, 3, 8, 4, requires_grad=True) for _ in range(3))
    work = seen(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    product = 2 * (2 * 3) * 8 * 8 * 4
    assert work.flops == 2 * product + 5 * product  # scores and mix; backward makes the scores again, and four more


def test_more_micro_batches_add_what_a_second_one_adds() -> None:
    """Catches a fixed part of the step that is counted once for every micro-batch."""
    key = OperatorClass("mm", "float32", (1, 1, 1, 1))
    gather = Collective("all-gather", (0, 1), "g", 10)
    one, two = (
        Work({key: Tally(3, 30.0, 300.0)}, {gather: 1.0}, 4),
        Work({key: Tally(5, 50.0, 500.0)}, {gather: 2.0}, 6),
    )
    total = Work()
    total.add(one)
    total.add(two, times=3)
    total.add(one, times=-3)
    tally = total.operators[key]
    assert (tally.count, tally.flops, tally.nbytes) == (3 + 3 * 2, 30 + 3 * 20, 300 + 3 * 200)
    assert total.collectives[gather] == 4
    assert total.wrapped == 10


MACHINE = Hardware(
    "toy", "a toy", {"float32": 100.0, "bfloat16": 400.0}, bandwidth=10.0, memory=1.0, per_node=2, node_link=5.0,
    network=1.0, watts=1.0, source="made up", latency=(0.0, 0.0), product_share=0.5, bandwidth_share=0.25,
    overhead=0.0, host=(0.0, 0.0, 0.0),
)  # fmt: skip


def test_roofline_takes_the_slower_of_the_two() -> None:
    """Catches shares that multiply instead of dividing, and bytes added to operations."""
    product, copy = OperatorClass("mm", "bfloat16", (1, 1, 1, 1)), OperatorClass("copy_", "float32", (1,))
    work = Work({product: Tally(1, 800.0, 1.0), copy: Tally(2, 0.0, 50.0)})
    time = step_time(work, MACHINE, ranks=1)
    assert time.operations == 800 / (400 * 0.5) + 50 / (10 * 0.25)
    assert time.share_of_peak == 800 / (24 * 400)
    measured = replace(MACHINE, efficiencies={str(product): 0.8, "copy_ float32 4": 0.5})
    assert step_time(work, measured, ranks=1).operations == pytest.approx(800 / (400 * 0.8) + 50 / (10 * 0.5))


def test_only_transfers_of_the_data_axis_hide() -> None:
    """Catches tensor parallelism that hides, transfers that hide behind more work than there is, and sums of gradients
    behind work that is done before there are any."""
    shards = Collective("all-gather", (0, 2), "data", 10)  # over two nodes: 5 bytes at 1 byte/s
    tokens = Collective("all-gather", (0, 1), "channel", 50)  # in a node: 25 bytes at 5 bytes/s
    copy = OperatorClass("copy_", "float32", (1,))
    work = Work({copy: Tally(1, 0.0, 7.5)}, {shards: 1.0, tokens: 1.0})  # 3 s
    time = step_time(work, MACHINE, ranks=4, data="data")
    assert (time.operations, time.hidden, time.communication) == (3.0, 3.0, 5.0 + 5.0 - 3.0)
    assert step_time(work, MACHINE, ranks=4).communication == 10.0
    sums = Work(work.operators, {Collective("all-reduce", (0, 2), "data", 10): 1.0, tokens: 1.0})  # 10 and 5 s
    time = step_time(sums, MACHINE, ranks=4, data="data")
    assert (time.hidden, time.communication) == (pytest.approx(2.0), pytest.approx(10.0 + 5.0 - 2.0))
    both = Work(work.operators, {**work.collectives, Collective("all-reduce", (0, 2), "data", 10): 1.0})
    assert step_time(both, MACHINE, ranks=4, data="data").hidden == pytest.approx(3.0)
    behind = replace(MACHINE, runs_ahead=False, cores=2, per_node=4)
    crowded = step_time(work, behind, ranks=4, data="data")
    assert (crowded.operations, crowded.hidden) == (6.0, 0.0)  # four ranks on two cores


def test_what_torch_takes_is_counted_by_kind() -> None:
    """Catches gathers of channels that count as FSDP's, and ranks on few cores that do not take turns."""
    copy = OperatorClass("copy_", "float32", (1,))
    gathers = {Collective("all-gather", (0, 1), group, 0): n for group, n in (("data", 4.0), ("channel", 5.0))}
    sums = {Collective("all-reduce", (0, 1), "data", 0): 6.0}
    work = Work({copy: Tally(2, 0.0, 0.0)}, gathers | sums, wrapped=3.0)
    machine = replace(MACHINE, host=(1.0, 10.0, 100.0), runs_ahead=False)
    assert step_time(work, machine, ranks=2, data="data").host == 2 * 1 + 3 * 10 + 4 * 100
    assert step_time(work, machine, ranks=2).host == 2 * 1 + 3 * 10
    crowded = replace(machine, cores=2, per_node=4)
    assert step_time(work, crowded, ranks=4, data="data").host == 2 * 432


def host_measured() -> tuple[float, ...]:
    """What torch takes, as rank 0 measures it beside one that has no core; the second time."""
    measure_host(torch.device("cpu"), idle=dist.get_rank() == 1)
    return measure_host(torch.device("cpu"), idle=dist.get_rank() == 1)


@pytest.mark.slow
def test_what_torch_takes_is_measured_without_waiting() -> None:
    """Catches collectives of the real group, for which the idle rank never comes, and operations that cost nothing."""
    measured, idle = run_distributed(host_measured, 2)
    assert idle == (0.0, 0.0, 0.0)
    alone = [measure_host(torch.device("cpu")) for _ in range(2)]
    assert all(min(seconds) > 0 for seconds in (measured, *alone))
    assert not dist.is_initialized()


def test_machines_are_known_by_name() -> None:
    """Catches a machine of another name, and figures that do not survive a file."""
    assert from_dict(HARDWARE["h200"].to_dict()) == HARDWARE["h200"]
    with pytest.raises(ValueError, match="hardware must be one of mi250x, a100"):
        known("abacus", measured=None)
    with pytest.raises(ValueError, match=r"must be measured first.*--calibrate"):
        known(HERE, measured=None)


def test_figures_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """Catches a file without what a gather of FSDP's takes, which would fail only where the step is timed."""
    path = tmp_path / "hardware.json"
    path.write_text(json.dumps(MACHINE.to_dict() | {"host": [8e-6, 1e-4]}))
    with pytest.raises(ValueError, match=r"another version; run plan --stage train --calibrate again"):
        known(HERE, measured=path)


def test_calibration_measures_what_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches classes that cannot run by themselves, and efficiencies that are not those of the clock."""
    monkeypatch.setattr(calibrate, "_LARGE", 64)
    monkeypatch.setattr(calibrate, "FLUSH", 2**16)
    monkeypatch.setattr(calibrate, "seconds_of", lambda call, _device, **_: [9.0, 0.25 if call() is None else 0.5])
    monkeypatch.setattr(clock, "seconds_of", lambda call, _device, **_: [9.0, 0.25 if call() is None else 0.5])
    work = seen(lambda a, b: (a.t() @ b).softmax(0).sum(), torch.ones(64, 96), torch.ones(64, 64))
    machine = calibrate.measure([work], device=torch.device("cpu"), cores=2)
    # every call takes .5 s, one without a result .25 s: what is left is the operation's
    peak, flops = 2 * 64**3 / 0.5, 2 * 96 * 64 * 64
    assert machine.peak("float32") == peak
    assert machine.efficiencies["mm float32 1x128x64x64 tn"] == pytest.approx(flops / peak / 0.25, rel=0.01)
    assert step_time(work, machine, ranks=1).operations == pytest.approx(0.25 * work.calls, rel=0.01)


def test_only_what_no_cache_holds_starts_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches small operations that pay for cold caches, and large ones that find their operands there."""
    asked = []

    def times(call: object, _device: torch.device, *, cold: bool, group: object) -> list[float]:
        asked.append(cold)
        return [1.0]

    monkeypatch.setattr(calibrate, "seconds_of", times)
    small, large = seen(torch.exp, torch.ones(2**10)), seen(torch.exp, torch.ones(2**20))
    for work, cold in ((small, False), (large, True)):
        asked.clear()
        (tally,) = work.operators.values()
        calibrate._measured(tally, torch.device("cpu"), None)
        assert asked == [cold, cold]


def measured_on_one_core() -> tuple[int, dict[str, float], int | None]:
    """Operations that this rank measured, and what it holds in the end."""
    calls = []
    calibrate._LARGE, calibrate.FLUSH, calibrate._BEFORE, calibrate._LINK = 64, 2**16, 64, (2**8, 2**9, 2**10)
    measured = calibrate._measured

    def counted(tally: Tally, device: torch.device, group: dist.ProcessGroup | None) -> float | None:
        calls.append(tally)
        return measured(tally, device, group)

    calibrate._measured = counted
    work = seen(lambda a, b: (a @ b).softmax(0), torch.ones(64, 64), torch.ones(64, 64))
    machine = calibrate.measure([work], device=torch.device("cpu"), ranks=2, cores=1)
    return len(calls), dict(machine.efficiencies), machine.cores


@pytest.mark.slow
def test_ranks_beyond_the_cores_wait_while_others_measure() -> None:
    """Catches operations timed on a core that two ranks share, for which `step_time` reckons once more."""
    (measured, held, cores), (waited, same, _) = run_distributed(measured_on_one_core, 2)
    assert (measured, waited, cores) == (2, 0, 1)
    assert held == same
    assert len(held) == 2


def measured_together() -> list[float | None]:
    """Seconds of an operation that is fast once, and of one that rank 1 cannot run."""
    group, cpu = dist.new_group([0, 1]), torch.device("cpu")
    (tally,) = seen(torch.exp, torch.ones(4)).operators.values()
    seconds = iter([0.0, 0.0, 1.0, 3.0, 3.0, 2.0, 0.5])  # the first two: whether it runs, and to warm up
    now = [0.0]

    def exp(_: torch.Tensor) -> None:
        now[0] += next(seconds)

    def refused(_: torch.Tensor) -> None:
        if dist.get_rank() == 1:
            raise RuntimeError("no kernel")

    packet = torch.ops.aten.exp
    with mock.patch.object(clock, "time") as stopped:
        stopped.perf_counter.side_effect = lambda: now[0]
        with mock.patch.object(packet, "default", exp):
            usual = calibrate._measured(tally, cpu, group)
        with mock.patch.object(packet, "default", refused):
            return [usual, calibrate._measured(tally, cpu, group)]


@pytest.mark.slow
def test_ranks_that_measure_together_take_the_median() -> None:
    """Catches the time of a moment in which the other rank waits, and a rank that waits for one that cannot run."""
    for rank in run_distributed(measured_together, 2):
        assert rank == [2.0, None]
