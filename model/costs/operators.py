"""What a rank's step does, operation by operation: floating-point operations, bytes moved, and by which shapes.

Contract: operations are counted as the rank runs them, below DTensor, FSDP and autograd; recomputation counts each time
it runs. Views and empty tensors do nothing. Operations of one class (a name, a type, sizes to a power of two) are
tallied together with the first of them as example, so that a class can be measured on a machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed._tools.fake_collectives import collective_ops, sync_ops
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from model.costs.collectives import Collective, collective_of
from model.parallel.allocations import tensors_of

_aten = torch.ops.aten
_NOTHING = {
    _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided, _aten.resize_,
    _aten._local_scalar_dense, _aten.set_,
}  # fmt: skip
_WORKING = ("aten", "fsdp")
"""Of all libraries of operations, those that work on tensors."""
_OF_RANKS = collective_ops | sync_ops
_CPU_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class OperatorClass:
    """Operations that a machine does at about the same speed.

    Attributes:
        name: of the operation.
        dtype: of its first tensor.
        sizes: powers of two: of the dims of a matrix product (batch, rows, inner, columns), of the bytes of others.
        order: which operands of a matrix product are transposed or copied first.
    """

    name: str
    dtype: str
    sizes: tuple[int, ...]
    order: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {'x'.join(map(str, self.sizes))}{self.order and ' ' + self.order}"


@dataclass(frozen=True)
class Spec:
    """A tensor as it must be made again to run an operation."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Tally:
    """The operations of a class.

    Attributes:
        count: how many there are.
        flops: of all, 0 where only bytes count.
        nbytes: read and written by all.
        example: the first one's name, arguments and named arguments, with `Spec` for tensors.
        of_example: its FLOPs and bytes.
    """

    count: int = 0
    flops: float = 0.0
    nbytes: float = 0.0
    example: tuple[str, Any, Any] | None = None
    of_example: tuple[float, float] = (0.0, 0.0)

    def add(self, other: Tally, *, times: float = 1.0) -> None:
        """Count another's operations, `times` as many; a negative number takes them away."""
        self.count += round(times * other.count)
        self.flops += times * other.flops
        self.nbytes += times * other.nbytes
        if self.example is None:
            self.example, self.of_example = other.example, other.of_example


@dataclass
class Work:
    """What a rank's step does.

    Attributes:
        operators: by class.
        collectives: how often each happens.
        wrapped: operations on DTensors, each of which torch's Python code turns into those counted here.
    """

    operators: dict[OperatorClass, Tally] = field(default_factory=dict)
    collectives: dict[Collective, float] = field(default_factory=dict)
    wrapped: float = 0.0

    @property
    def flops(self) -> float:
        """Of all operations."""
        return sum(tally.flops for tally in self.operators.values())

    @property
    def calls(self) -> float:
        """Operations."""
        return sum(tally.count for tally in self.operators.values())

    def add(self, other: Work, *, times: float = 1.0) -> None:
        """Count another's work, `times` as often."""
        for key, tally in other.operators.items():
            self.operators.setdefault(key, Tally()).add(tally, times=times)
        for collective, count in other.collectives.items():
            self.collectives[collective] = self.collectives.get(collective, 0.0) + times * count
        self.wrapped += times * other.wrapped


class Recorder:
    """Adds every operation that it is shown to `work`."""

    def __init__(self) -> None:
        self.work = Work()

    def see(self, func: Any, args: Any, named: dict[str, Any], result: Any) -> Collective | None:
        """Count an operation; gives the collective that it is."""
        collective = collective_of(func, args, result)
        if collective is not None:
            self.work.collectives[collective] = self.work.collectives.get(collective, 0.0) + 1
            return collective
        packet = getattr(func, "_overloadpacket", func)
        if func.namespace not in _WORKING or func in _OF_RANKS or packet in _NOTHING or _is_view(func):
            return None
        moved = bytes_moved(func, args, named, result)
        if not moved:
            return None  # tensors without elements
        flops = flops_of(packet, args, named, result)
        tally = self.work.operators.setdefault(_class_of(packet, args, moved, flops), Tally())
        tally.count += 1
        tally.flops += flops
        tally.nbytes += moved
        if tally.example is None:
            tally.example = (str(func), *tree_map(_spec, (tuple(args), dict(named))))
            tally.of_example = (flops, moved)
        return None


def flops_of(packet: Any, args: Any, named: dict[str, Any], result: Any) -> float:
    """Floating-point operations by torch's own formulas; 0 for what has none there."""
    if packet is _CPU_ATTENTION:
        return float(sdpa_flop_count(*(t.shape for t in args[:3])))  # type: ignore[no-untyped-call]
    if packet is _CPU_ATTENTION_BACKWARD:
        return float(sdpa_backward_flop_count(*(t.shape for t in args[:4])))  # type: ignore[no-untyped-call]
    formula = flop_registry.get(packet)
    return 0.0 if formula is None else float(formula(*args, **named, out_val=result))


def bytes_moved(func: Any, args: Any, named: dict[str, Any], result: Any) -> float:
    """Bytes of all tensors read and written: arguments that are written to count twice, broadcast dims once."""
    total = sum(map(_nbytes, tensors_of((args, named))))
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]
    given = [*args, *named.values()]
    total += sum(_nbytes(t) for value, writes in zip(given, written, strict=False) if writes for t in tensors_of(value))
    inputs = {id(t) for t in tensors_of((args, named))}
    return float(total + sum(_nbytes(t) for t in tensors_of(result) if id(t) not in inputs))


def _class_of(packet: Any, args: Any, moved: float, flops: float) -> OperatorClass:
    name = str(packet).removeprefix("aten.")
    tensors = tensors_of(args)
    dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else ""
    if flops and packet in (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm):
        a, b = tensors[-2:]
        sizes = (a.shape[0] if a.ndim == 3 else 1, a.shape[-2], a.shape[-1], b.shape[-1])
        return OperatorClass(name, dtype, tuple(map(_power, sizes)), _order(a) + _order(b))
    return OperatorClass(name, dtype, (_power(flops or moved),), "" if all(_dense(t) for t in tensors) else "strided")


def _order(t: Tensor) -> str:
    """n: rows one after the other; t: columns; c: neither, so it is copied."""
    if t.stride(-1) == 1 or t.shape[-1] == 1:
        return "n"
    return "t" if t.stride(-2) == 1 or t.shape[-2] == 1 else "c"


def _dense(t: Tensor) -> bool:
    return bool(t.is_contiguous() or t.ndim == 0)


def _power(value: float) -> int:
    """Power of two that is nearest, by ratio."""
    return 2 ** round(math.log2(value)) if value >= 1 else 0


def _is_view(func: Any) -> bool:
    returns = func._schema.returns if hasattr(func, "_schema") else ()
    infos = [value.alias_info for value in returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _nbytes(t: Tensor) -> int:
    return math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) * t.element_size()


def _spec(value: Any) -> Any:
    return Spec(tuple(value.shape), tuple(value.stride()), value.dtype) if isinstance(value, Tensor) else value
