"""The table of stages: what the command line, paths, receipts, workflow rules and provenance are derived from.

Contract: each workload has one table (`pipeline.workloads`), in the order in which its stages run. A stage's identity
is everything that decides the content of its outputs; a hash of it goes into their names, so another setting makes
another output and leaves the old one, and switching back finds it again. Settings of speed and safety are no part of
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config

Identity = Callable[[Any], Any]
"""Configuration -> JSON-ready content that decides an output."""


@dataclass(frozen=True)
class Output:
    """Where a stage writes something.

    Args:
        pattern: path inside the results folder; {digest} stands for the hash of the identity, {member} for a member.
        identity: what decides the content; None for that of the stage.
        members: configuration -> names, where there is one path for each; None for a single path.
    """

    pattern: str
    identity: Identity | None = None
    members: Callable[[Any], list[str]] | None = None


@dataclass(frozen=True)
class Resources:
    """What one job of a stage asks for in the workflow.

    Args:
        threads: most it can use.
        mem_mb: memory.
        runtime: as Snakemake spells it, e.g. "12h".
    """

    threads: int = 8
    mem_mb: int = 4000
    runtime: str = "12h"


MEDIUM = Resources(threads=8, mem_mb=6000)
WIDE = Resources(threads=16, mem_mb=6000)
LONG = Resources(threads=16, mem_mb=6000, runtime="5d")
SHORT = Resources(threads=2, runtime="1h")
"""What stages of several workloads ask for."""


@dataclass(frozen=True)
class Stage:
    """One stage of a workload: one command, one workflow rule, one receipt.

    Args:
        name: of the command, the rule and the receipt; `run_<name>(config)` in `module` runs it.
        module: loaded only when the stage runs.
        complete: module, light to load, whose `complete_<name>(config)` says that nothing is left to do, or None; ""
            where the stage itself finds out.
        summary: one sentence, shown as help and by the workflow.
        identity: what its outputs depend on.
        needs: stages whose outputs it reads; those that do not apply are passed over.
        outputs: by the attribute of the configuration's paths.
        applies: whether an experiment has this stage.
        on_ranks: whether torchrun starts it with the training's layout.
        verifies: whether its outputs are stores in slabs, so that its command has --verify.
        background: whether the workflow runs it at the lowest priority, on what the stages beside it leave idle.
        category: section of Snakemake's own report.
        resources: of its job.
    """

    name: str
    module: str
    summary: str
    identity: Identity
    needs: tuple[str, ...] = ()
    outputs: Mapping[str, Output] = field(default_factory=dict)
    applies: Callable[[Any], bool] = lambda _config: True
    on_ranks: bool = False
    verifies: bool = False
    background: bool = False
    category: str = "Data"
    resources: Resources = Resources()
    complete: str = ""


class Paths:
    """Every path that the stages of an experiment write; workloads annotate the attributes that their table gives.

    Every workload trains, scores and reports, so these three are here.

    Args:
        config: the experiment.
        stages: table of its workload.
    """

    root: Path
    train: Path
    scores: Path
    report: Path

    def __init__(self, config: Config, stages: tuple[Stage, ...]) -> None:
        self.root = config.root
        self._digests = {stage.name: identity_digest(stage.identity(config)) for stage in stages}
        for stage in stages:
            for attribute, output in stage.outputs.items():
                setattr(self, attribute, self._path(config, stage, output))

    @property
    def checkpoints(self) -> Path:
        """Of the model's training."""
        return self.train / "checkpoints"

    @property
    def metrics(self) -> Path:
        """What the training logged."""
        return self.train / "metrics.jsonl"

    @property
    def figures(self) -> Path:
        """Of the report."""
        return self.scores / "figures"

    def receipt(self, stage: str) -> Path:
        """The small file a stage writes last, when all its outputs are complete; what Snakemake watches."""
        return self.root / "receipts" / f"{stage}-{self._digests[stage]}.json"

    def _path(self, config: Config, stage: Stage, output: Output) -> Path | dict[str, Path]:
        digest = identity_digest(output.identity(config)) if output.identity else self._digests[stage.name]
        if output.members is None:
            return self.root / output.pattern.format(digest=digest)
        return {m: self.root / output.pattern.format(digest=digest, member=m) for m in output.members(config)}


def identity_digest(content: Any) -> str:
    """The short hash that goes into names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
