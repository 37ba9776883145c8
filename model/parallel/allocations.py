"""How many bytes of tensors live on a device, op by op, in a real run or in one with fake tensors.

Contract: counts every storage that an operation gives out, once, until nothing holds it; storages that are resized
in place (as sharding does) count what they hold now. What an operation allocates inside itself and frees again
(scratch of matrix libraries, buffers of the network) is not seen, unless whoever watches says how much it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

Owner = Callable[[], str]
Watch = Callable[[Any, Any, dict[str, Any], Any], tuple[int, Sequence[Tensor]]]
COMMUNICATION = "communication"
"""What buffers of collectives, and bytes beside tensors, count for."""


def tensors_of(values: Any) -> list[Tensor]:
    """Tensors among the arguments or results of an operation, in order; ten times as fast as torch's own trees."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in tensors_of(value)]


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while entered; enter it after the fake mode, if there is one.

    Args:
        device_type: of the tensors to count.
        block: bytes that the device's allocator gives out multiples of.
        owner: names what a new storage counts for; asked once for each.
        watch: called with every operation, its arguments and its result; gives the bytes that it takes beside them
            while it runs, and the tensors that count for communication from now on.

    Attributes:
        peak: most bytes that lived at once since the start, or since it was last set to zero.
        at_peak: the same by owner, with what was taken beside tensors under "communication".
        wrapped: operations on DTensors so far.
    """

    def __init__(
        self, device_type: str, *, block: int = 1, owner: Owner = lambda: "", watch: Watch | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device_type, self.block = device_type, block
        self.owner, self.watch = owner, watch
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.wrapped = 0
        self._held: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}
        self._owners: dict[int, str] = {}
        self._total = 0
        self._fake_mode: Any = None

    def assign(self, tensors: Iterable[Tensor], owner: str) -> None:
        """Let the storages of tensors that are counted belong to somebody from now on."""
        for tensor in tensors:
            key = id(tensor.untyped_storage())
            if key in self._held:
                self._owners[key] = owner

    def __enter__(self) -> Allocations:
        self._fake_mode = active_fake_mode()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(t, DTensor) for t in types):
            self.wrapped += 1
            return NotImplemented  # DTensor turns it into operations on local tensors, which come here
        fake = self._fake_mode is not None
        if fake and self._real(args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if fake and func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # a fake tensor has no value; any finite one will do
        if fake and func is torch.ops._c10d_functional.wait_tensor.default:
            return args[0]  # as in a real run, where it makes no copy
        result = func(*args, **(kwargs or {}))
        if active_fake_mode() is self._fake_mode:  # another one: DTensor works out shapes, and allocates nothing
            tensors = tensors_of((args, kwargs, result))
            beside, moved = (0, ()) if self.watch is None else self.watch(func, args, kwargs or {}, result)
            self._note(tensors)
            self.assign(moved, COMMUNICATION)
            self._judge(beside)
        return result

    def _real(self, args: Any, kwargs: Any) -> bool:
        """Whether an operation is on real tensors only: those of the mesh, whose numbers matter."""
        tensors = tensors_of((args, kwargs))
        return bool(tensors) and not any(isinstance(t, FakeTensor) for t in tensors)

    def _note(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if tensor.device.type == self.device_type:
                storage = tensor.untyped_storage()
                key = id(storage)
                if key not in self._held:
                    self._held[key] = (weakref.ref(storage, self._forget(key)), 0)
                    self._owners[key] = self.owner()
                self._resize(key, storage)

    def _judge(self, beside: int) -> None:
        """Keep the most that was ever there at once."""
        if self._total + beside > self.peak:  # a storage may have been emptied since it was last seen
            for key, (reference, _) in list(self._held.items()):
                if (storage_there := reference()) is not None:
                    self._resize(key, storage_there)
            if self._total + beside > self.peak:
                self.peak = self._total + beside
                self._snapshot(beside)

    def _snapshot(self, beside: int) -> None:
        found = {COMMUNICATION: beside} if beside else {}
        for key, (_, size) in self._held.items():
            owner = self._owners[key]
            found[owner] = found.get(owner, 0) + size
        self.at_peak = found

    def _resize(self, key: int, storage: torch.UntypedStorage) -> None:
        reference, before = self._held[key]
        size = -(-int(storage.nbytes()) // self.block) * self.block
        self._held[key] = reference, size
        self._total += size - before

    def _forget(self, key: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            _, size = self._held.pop(key, (None, 0))
            self._owners.pop(key, None)
            self._total -= size

        return forget
