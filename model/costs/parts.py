"""Which part of a network is at work, forward, backward and while a checkpointed part runs again.

Contract: a part is at work inside its forward (or a method of a unit that replaces it), and in backward while a node
runs that was made there: nodes are numbered in the order in which forward made them, so a part is a range of numbers.
Nothing here changes what is computed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import _current_autograd_node, _current_graph_task_id
from torch._C._autograd import _get_sequence_nr

from model.network.cut import Network
from model.parallel.allocations import COMMUNICATION

ELSEWHERE = "elsewhere"
"""Embeddings of position and condition, the loss, and what no part has made."""
OPTIMISER = "optimiser"
BATCHES = "batches"
_ORDER = ("tokenisation", "aggregation", "merge", "trunk", "head", ELSEWHERE, OPTIMISER, BATCHES, COMMUNICATION)


class Parts:
    """Names the part at work.

    Args:
        network: whose parts are told apart; before it is called.
    """

    def __init__(self, network: Network) -> None:
        self._open: list[str] = []
        self._starts: list[int] = [-1]
        self._names: list[str] = [ELSEWHERE]
        self._last = -1
        methods = {unit.module: unit.methods for unit in network.units()}
        self._by_name: dict[str, str] = {}
        paths = {module: path for path, module in network.named_modules()}
        for part, module in network.parts():
            self._by_name |= {f"{paths[module]}.{name}": part for name, _ in module.named_parameters()}
            module.register_forward_pre_hook(self._enter(part), prepend=True)
            module.register_forward_hook(self._leave, always_call=True)
            for method in methods.get(module, ()):
                setattr(module, method, self._inside(part, getattr(module, method)))

    def of_parameter(self, name: str) -> str:
        """The part that a parameter of the network belongs to."""
        return self._by_name.get(name, ELSEWHERE)

    def now(self) -> str:
        """The part at work."""
        if self._open:
            return self._open[-1]
        if _current_graph_task_id() < 0 or (node := _current_autograd_node()) is None:
            return ELSEWHERE
        number = node._sequence_nr()
        return self._names[bisect_right(self._starts, number) - 1] if number < self._last else ELSEWHERE

    @contextmanager
    def named(self, part: str) -> Iterator[None]:
        """Let everything inside count for a part."""
        self._push(part)
        try:
            yield
        finally:
            self._pop()

    def count_steps(self, optimiser: torch.optim.Optimizer) -> None:
        """Let the steps of an optimiser count as a part of their own."""
        optimiser.register_step_pre_hook(lambda *_: self._push(OPTIMISER))
        optimiser.register_step_post_hook(lambda *_: self._pop())

    def _push(self, part: str) -> None:
        self._open.append(part)
        self._mark()

    def _pop(self) -> None:
        self._open.pop()
        self._mark()

    def _mark(self) -> None:
        """From the next node on, nodes belong to the part that is open now."""
        start, name = int(_get_sequence_nr()), self._open[-1] if self._open else ELSEWHERE
        if start < self._last:  # numbers are those of a thread, and on a GPU backward has one of its own
            return
        self._last = start
        if self._starts[-1] == start:
            self._names[-1] = name
        else:
            self._starts.append(start)
            self._names.append(name)

    def _enter(self, part: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._push(part)

        return enter

    def _leave(self, *_: Any) -> None:
        self._pop()

    def _inside(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*given: Any, **named: Any) -> Any:
            with self.named(part):
                return function(*given, **named)

        return inside


def in_order(by_part: Mapping[str, int]) -> dict[str, int]:
    """Values by part, from the input to the output, then what belongs to no part of the network."""
    known = {part: by_part[part] for part in _ORDER if part in by_part}
    return known | {part: value for part, value in by_part.items() if part not in known}
