"""The stages of masked autoencoding: from hyperspectral images to scores and the report.

Read first: `STAGES`. The functions above it say what each stage's outputs depend on; their content is part of names
that users have on disk, so a setting that is added later must leave them as they are at its default. Simulated images
are written as a store at once, since they need none of what `ingest` does to files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.stages import LONG, MEDIUM, SHORT, WIDE, Output, Stage

if TYPE_CHECKING:
    from pipeline.imaging.config import ImagingConfig as Config


def store(config: Config) -> Any:
    """The store of images."""
    return [config.source.identity, config.data.stored]


def normals(config: Config) -> Any:
    """Means and standard deviations of the bands."""
    return [store(config), config.data.splits.identity]


def train(config: Config) -> Any:
    """The trained model."""
    return [normals(config), config.model.identity, config.masking.identity, config.training.identity]


def reconstruct(config: Config) -> Any:
    """The model's reconstructions."""
    return [train(config), config.reconstruct.identity]


def scores(config: Config) -> Any:
    """Everything that the score stage writes."""
    return [reconstruct(config), config.evaluation.identity]


_STORE = Output("data/images-{digest}.zarr")

STAGES = (
    Stage(
        "simulate",
        "preprocess.imaging.simulate",
        complete="preprocess.imaging.complete",
        identity=store,
        summary="Make images of leaves from leaf optics, with maps of their traits, and write the store.",
        outputs={"simulated": _STORE},
        applies=lambda config: config.simulated,
        resources=MEDIUM,
        verifies=True,
    ),
    Stage(
        "ingest",
        "preprocess.imaging.ingest",
        complete="preprocess.imaging.complete",
        identity=store,
        summary="Read hyperspectral images, calibrate them, map them to the wanted bands, and write the store.",
        outputs={"ingested": _STORE},
        applies=lambda config: not config.simulated,
        resources=MEDIUM,
        verifies=True,
    ),
    Stage(
        "normals",
        "preprocess.imaging.normals",
        complete="preprocess.imaging.complete",
        identity=normals,
        summary="Compute mean and standard deviation of every band over the training images.",
        needs=("simulate", "ingest"),
        outputs={"normals": Output("data/normals-{digest}.zarr")},
        resources=MEDIUM,
    ),
    Stage(
        "train",
        "model.imaging.train",
        complete="model.imaging.complete",
        identity=train,
        summary="Train the masked autoencoder; resumes at the last checkpoint.",
        needs=("simulate", "ingest", "normals"),
        outputs={"train": Output("train-{digest}")},
        on_ranks=True,
        category="Model",
        resources=LONG,
    ),
    Stage(
        "reconstruct",
        "model.imaging.reconstruct",
        complete="model.imaging.complete",
        identity=reconstruct,
        summary="Reconstruct held-out images that are mostly hidden, and keep the features of all images.",
        needs=("simulate", "ingest", "normals", "train"),
        outputs={
            "reconstruct": Output("reconstruct-{digest}.zarr"),
            "features": Output("features-{digest}.zarr", train),
        },
        on_ranks=True,
        category="Model",
        resources=WIDE,
        verifies=True,
    ),
    Stage(
        "score",
        "evaluate.imaging.stage",
        complete="evaluate.imaging.complete",
        identity=scores,
        summary="Score reconstructions, and traits predicted from features, against the baselines.",
        needs=("simulate", "ingest", "normals", "reconstruct"),
        outputs={"scores": Output("scores-{digest}")},
        category="Skill",
        resources=MEDIUM,
    ),
    Stage(
        "report",
        "evaluate.imaging.report.stage",
        complete="evaluate.imaging.complete",
        identity=lambda config: [scores(config), config.evaluation.shown],
        summary="Draw the figures and write one self-contained report.html.",
        needs=("score",),
        outputs={"report": Output("report.html")},
        category="Skill",
        resources=SHORT,
    ),
)
PLANS = {"ingest": "preprocess.imaging.plan", "train": "model.imaging.plan"}
EXPORTS = {"model": "model.imaging.export"}
COMMANDS = {"validate": "preprocess.imaging.validate"}
KINDS = frozenset({"image store", "image normals", "reconstruction", "features"})
