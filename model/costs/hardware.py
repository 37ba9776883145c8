"""What machines can do, by their makers' data sheets, or as measured here.

Contract: figures are of one device (the unit that one rank drives), peaks are dense, links are in one direction and of
one device. What is not measured on the machine is modelled: shares of peak and bandwidth that are reached in practice
are assumptions, named below with their reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_LIBRARIES = "modelled: 0.65 of peak in large matrix products and 0.8 of bandwidth, as vendors' libraries reach"


@dataclass(frozen=True)
class Hardware:
    """A device and how it is connected.

    Attributes:
        name: as `--hardware` takes it.
        title: as people know it.
        flops: peak by type of the operands [FLOP/s]; "tfloat32" is float32 with matmul_precision high.
        bandwidth: of its memory [bytes/s].
        memory: bytes.
        per_node: devices that share a node.
        node_link: between devices of a node [bytes/s].
        network: between nodes, a device's share [bytes/s].
        latency: of a message inside a node and between nodes [s].
        watts: power of a device at full load; hosts, network and cooling are not in it.
        source: where the figures are from.
        product_share: of peak that large matrix products reach.
        bandwidth_share: of bandwidth that other operations reach.
        overhead: of an operation on the device [s].
        host: torch's own time for an operation, for one on DTensors, and for a gather of FSDP's [s].
        runs_ahead: the host prepares operations while the device works, and transfers may hide behind work.
        cores: that ranks of a node share where each needs one; None where each has a device of its own.
        efficiencies: share of the roofline by class of operation, measured.
        links: bandwidth [bytes/s] and latency [s] by kind of collective, measured; others follow from the links above.
    """

    name: str
    title: str
    flops: Mapping[str, float]
    bandwidth: float
    memory: float
    per_node: int
    node_link: float
    network: float
    watts: float
    source: str
    latency: tuple[float, float] = (5e-6, 15e-6)
    product_share: float = 0.65
    bandwidth_share: float = 0.8
    overhead: float = 4e-6
    host: tuple[float, float, float] = (8e-6, 120e-6, 600e-6)
    runs_ahead: bool = True
    cores: int | None = None
    efficiencies: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether its speed was measured rather than modelled."""
        return bool(self.efficiencies)

    def peak(self, dtype: str) -> float:
        """Of a type, or of float32 where there is no figure of its own [FLOP/s]."""
        return self.flops.get(dtype, self.flops["float32"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def _gpu(name: str, title: str, *, source: str, tflops: tuple[float, float, float, float], **more: Any) -> Hardware:
    """A GPU; peaks of bfloat16, TensorFloat-32, float32 and float64 in TFLOP/s."""
    names = ("bfloat16", "tfloat32", "float32", "float64")
    flops = {kind: 1e12 * value for kind, value in zip(names, tflops, strict=True)}
    return Hardware(name, title, flops, source=f"{source}; {_LIBRARIES}", **{"per_node": 8, **more})


GB = 1e9
HARDWARE = {
    machine.name: machine
    for machine in (
        _gpu(
            "mi250x", "AMD MI250X, one of its two dies (GCD), as on Frontier",
            tflops=(191.5, 47.9, 47.9, 47.9), bandwidth=1600 * GB, memory=64 * GB, node_link=50 * GB,
            network=12.5 * GB, watts=280, product_share=0.5,
            source="AMD data sheet and OLCF Frontier user guide; halves of a module, 4 x 25 GB/s a node; half of peak "
            "in matrix products, since 38% of it is reached in whole trainings there (arXiv 2312.12705)",
        ),
        _gpu(
            "a100", "NVIDIA A100 SXM 80 GB", tflops=(312, 156, 19.5, 19.5), bandwidth=2039 * GB, memory=80 * GB,
            node_link=300 * GB, network=25 * GB, watts=400, source="NVIDIA data sheets of A100 and DGX A100",
        ),
        _gpu(
            "h100", "NVIDIA H100 SXM", tflops=(989, 494, 67, 67), bandwidth=3350 * GB, memory=80 * GB,
            node_link=450 * GB, network=50 * GB, watts=700, source="NVIDIA data sheets of H100 and DGX H100",
        ),
        _gpu(
            "h200", "NVIDIA H200 SXM", tflops=(989, 494, 67, 67), bandwidth=4800 * GB, memory=141 * GB,
            node_link=450 * GB, network=50 * GB, watts=700, source="NVIDIA data sheets of H200 and DGX H200",
        ),
        _gpu(
            "gh200", "NVIDIA GH200 96 GB, four a node, as on Alps", tflops=(989, 494, 67, 67), bandwidth=4000 * GB,
            memory=96 * GB, per_node=4, node_link=150 * GB, network=25 * GB, watts=1000,
            source="NVIDIA data sheet, CSCS on Alps; watts with the processor",
        ),
        _gpu(
            "b200", "NVIDIA B200", tflops=(2250, 1125, 75, 37), bandwidth=7700 * GB, memory=180 * GB,
            node_link=900 * GB, network=50 * GB, watts=1000, source="NVIDIA data sheet of DGX B200, an eighth of it",
        ),
    )
}  # fmt: skip
"""Machines by name, by their makers' figures."""
HERE = "here"
"""This machine, as `--calibrate` has measured it."""


def known(name: str, *, measured: Path | None) -> Hardware:
    """A machine by name.

    Args:
        name: in `HARDWARE`, or `HERE`.
        measured: the file of this machine's figures.

    Raises:
        ValueError: no such machine, or this one has not been measured, or its file cannot be read.
    """
    if name in HARDWARE:
        return HARDWARE[name]
    if name != HERE:
        raise ValueError(f"hardware must be one of {', '.join([*HARDWARE, HERE])}, got {name!r}")
    if measured is None or not measured.exists():
        raise ValueError(f"hardware {HERE!r} must be measured first, got no {measured}; add --calibrate")
    try:
        return from_dict(json.loads(measured.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{measured} must hold this machine's figures, got something else or those of another version; run "
            "plan --stage train --calibrate again"
        ) from None


def from_dict(values: Mapping[str, Any]) -> Hardware:
    """The hardware of `to_dict`.

    Raises:
        ValueError: figures of a version that measured less of torch's own time.
    """
    operation, wrapped, gather = values["host"]
    known_as = {"latency": tuple(values["latency"]), "host": (operation, wrapped, gather)}
    links = {kind: tuple(link) for kind, link in values["links"].items()}
    return Hardware(**{**values, **known_as, "links": links})
