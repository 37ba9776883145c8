"""The configuration sections that every workload has: the encoder, its training, and where stages run.

Contract: a section is immutable and refuses unknown keys. If it affects the content of an output, its `identity` says
by which keys; docs/decisions.md has the reason. `pipeline.config` joins the sections.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import to_jsonable_python

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the configuration: immutable, refusing unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    FREE: ClassVar[frozenset[str]] = frozenset()
    """Keys that change only speed, safety or looks, and so are left out of `identity`."""
    ADDED: ClassVar[frozenset[str]] = frozenset()
    """Keys added later: left out of `identity` at their default, so that older outputs keep their names."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that determine what is made from this section, JSON-ready."""
        content = self.model_dump(mode="json", exclude=set(self.FREE))
        fields = type(self).model_fields.items()
        default = {key: to_jsonable_python(field.default) for key, field in fields if key in self.ADDED}
        return {key: value for key, value in content.items() if key not in default or value != default[key]}


class Encoder(Section):
    """The vision transformer and its channel stage."""

    patch: Positive = 2
    width: Positive = 128
    depth: Annotated[int, Field(ge=0)] = 4
    heads: Positive = 4
    mlp_ratio: float = 4.0
    dropout: Fraction = 0.0
    tree: Literal["none", "Tree0", "Tree2", "Tree4", "Tree8"] | list[int] = "Tree0"
    """Aggregation inside a group: none keeps the tokens of all channels, TreeN has N units in a first level, a list
    gives the number of units in every level but the last."""
    unit: Literal["C", "L"] = "C"
    """Kind of aggregation unit: C cross-attention with a learned query, L linear over channels."""
    channel_stage: Literal["fused", "reference"] = "fused"

    @model_validator(mode="after")
    def _heads(self) -> Encoder:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width {self.width} and heads {self.heads}")
        return self


class Layout(Section):
    """How ranks are arranged; data x channel is the number of processes that torchrun starts."""

    data: Positive = 1
    channel: Positive = 1
    trunk: Literal["replicated", "tensor", "sequence"] = "replicated"
    sharding: Literal["ddp", "fsdp"] = "ddp"
    auto: bool = False
    """Let training choose the layout: of those for `ranks` that fit into `memory`, the one expected to be fastest here.
    `layout: auto` is short for this. The settings above must then be absent; results do not depend on the choice."""
    ranks: Positive | None = None
    """Number of ranks when the layout is chosen automatically; one by default."""
    memory: str | None = None
    """Memory of one rank when the layout is chosen automatically, e.g. 16GB; by default what the device has."""

    @model_validator(mode="after")
    def _chosen(self) -> Layout:
        fields = type(self).model_fields
        given = [
            name for name in ("data", "channel", "trunk", "sharding") if getattr(self, name) != fields[name].default
        ]
        if self.auto and given:
            raise ValueError(
                f"{' and '.join(given)} must be absent where the layout is chosen, got "
                f"{' and '.join(str(getattr(self, name)) for name in given)}; say how many ranks there are with ranks"
            )
        if not self.auto and (self.ranks is not None or self.memory is not None):
            raise ValueError(
                "ranks and memory are for a layout that is chosen: add auto: true, or give data and channel"
            )
        return self

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.ranks or 1 if self.auto else self.data * self.channel


def _spelled_out(given: Any) -> Any:
    """A layout given as the single word auto."""
    return {"auto": True} if given == "auto" else given


class Training(Section):
    """Optimisation."""

    FREE = frozenset(
        {"layout", "checkpoint_every", "keep_checkpoints", "micro_batch", "recompute", "compile", "tensorboard"}
    )
    ADDED = frozenset({"minutes", "matmul_precision"})

    steps: Positive = 1000
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop training after this long, on any machine; the learning rate follows the clock where that is ahead of the
    steps. None sets no limit."""
    batch_size: Positive = 16
    """Global batch size, over all ranks."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Fraction = 0.0
    """Decay of the moving average of weights that forecasts use; 0 switches it off."""
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    """bfloat16: autocast around the model, for GPUs; float64: for comparing layouts."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products, in torch's terms: high multiplies in TensorFloat-32, medium in bfloat16, if
    the processor has units for it (many GPUs; CPUs with AMX), and sums in float32; otherwise float32 throughout."""
    start_from: str | None = None
    """Fine-tuning: start from one of our checkpoints (its folder, or a training's), one of our .safetensors files, or a
    file of ClimaX weights. Channels missing from it start at random and are listed."""
    micro_batch: Positive | None = None
    """Samples per forward pass on one rank; gradients are accumulated over the global batch. None: all at once."""
    recompute: bool = False
    """Activation checkpointing: less memory, about a third more work."""
    compile: bool = False
    """torch.compile; worth it on a GPU and in long runs."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations in a row without improvement; 0 never stops early."""
    validate_every: Positive = 100
    validation_samples: Positive = 128
    checkpoint_every: Positive = 100
    keep_checkpoints: Positive = 2
    tensorboard: bool = True
    """Also write the metrics for TensorBoard, if it is installed."""
    seed: Annotated[int, Field(ge=0)] = 0
    layout: Annotated[Layout, BeforeValidator(_spelled_out, json_schema_input_type=Layout | Literal["auto"])] = Layout()

    @model_validator(mode="after")
    def _batch(self) -> Training:
        if self.batch_size % self.layout.data:
            raise ValueError(
                f"batch_size must be a multiple of layout.data, got {self.batch_size} samples for {self.layout.data} "
                "data ranks"
            )
        return self


class Slurm(Section):
    """What the SLURM job of each worker requests; see docs/cluster.md."""

    queue: str | None = None
    """Partition."""
    account: str | None = None
    walltime: str = "08:00:00"
    interface: str | None = None
    """Network interface of the compute nodes, e.g. ib0."""
    directives: list[str] = []
    """Extra #SBATCH lines, e.g. --constraint=cpu."""
    prologue: list[str] = []
    """Shell commands to run before the worker starts, e.g. module load."""


class Compute(Section):
    """Where the stage that writes the store runs; results do not depend on it."""

    scheduler: Annotated[str, Field(pattern=r"^(threads|processes|slurm|(tcp|tls|ws|wss|ucx)://\S+)$")] = "threads"
    """threads: this process; processes: workers on this machine; slurm: one job per worker; or the address of a dask
    scheduler, e.g. tcp://10.0.0.1:8786."""
    workers: Positive | None = None
    """Number of workers; by default one per core for `processes`, 8 for `slurm`. A given scheduler has its own."""
    threads: Positive | None = None
    """Threads per worker; by default all cores for `threads`, one otherwise."""
    memory: str = "4 GB"
    """Memory per worker."""
    slurm: Slurm = Slurm()
