"""The stages of forecasting: from a source of atmospheric data to scores and the report.

Read first: `STAGES`. The functions above it say what each stage's outputs depend on; their content is part of names
that users already have on disk, so a setting that is added later must leave them as they are at its default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.stages import LONG, MEDIUM, SHORT, WIDE, Output, Resources, Stage

if TYPE_CHECKING:
    from pipeline.weather.config import WeatherConfig as Config


def simulated(config: Config) -> Any:
    """The source's own fields, before they are regridded."""
    data = config.data.model_dump(mode="json")
    return [config.source.identity, data["channels"], data["step_hours"], data["period"]]


def store(config: Config) -> Any:
    """The training store."""
    return [simulated(config), config.data.regrid.model_dump(mode="json")]


def normals(config: Config) -> Any:
    """Means, standard deviations and climatology."""
    known = [store(config), _splits(config)["train"], config.data.normals.identity]
    steps = sorted(config.training.step_hours)
    return [*known, steps] if steps else known


def train(config: Config) -> Any:
    """The trained model."""
    return [normals(config), config.model.identity, config.training.identity, _splits(config)["validation"]]


def forecast(config: Config) -> Any:
    """The model's forecasts."""
    return [train(config), config.forecast.identity, _splits(config)["test"]]


def free_run(config: Config) -> Any:
    """The long free run of the model."""
    asked = config.forecast
    settings = [asked.free_run_days, asked.rollout_hours, asked.weights]
    return [train(config), _splits(config)["test"], settings, config.evaluation.variables]


def fits(config: Config) -> Any:
    """Baselines fitted on the training periods."""
    return [normals(config), config.forecast.lead_hours]


def twins(config: Config) -> Any:
    """Forecasts by the simulated atmosphere itself."""
    wanted = config.evaluation.twins.model_dump(mode="json")
    return [store(config), _splits(config)["test"], config.forecast.lead_hours, wanted, config.twin_step_hours]


def networks(config: Config) -> Any:
    """climate-learn's networks and their forecasts."""
    budget = config.evaluation.trained_budget.model_dump(mode="json")
    return [train(config), config.forecast.identity, _splits(config)["test"], budget]


def scores(config: Config) -> Any:
    """Everything that the score stage writes."""
    return [forecast(config), config.evaluation.identity]


def report(config: Config) -> Any:
    """The figures and the page."""
    drawn = [scores(config), config.evaluation.shown]
    return [*drawn, free_run(config)] if _has_free_run(config) else drawn


def _splits(config: Config) -> Any:
    splits = config.data.splits
    return dict.fromkeys(("train", "validation", "test")) if splits is None else splits.model_dump(mode="json")


def _has_splits(config: Config) -> bool:
    """Whether there is anything to do with the store; without periods an experiment ends there."""
    return config.data.splits is not None


def _has_free_run(config: Config) -> bool:
    return _has_splits(config) and config.forecast.free_run_days is not None


def _twin_names(config: Config) -> list[str]:
    return [str(name) for name in config.evaluation.twins.models]


def _network_names(config: Config) -> list[str]:
    return [str(name) for name in config.evaluation.trained_baselines]


def _uncalibrated(config: Config) -> list[str]:
    return ["uncalibrated"] if config.calibrates else []


STAGES = (
    Stage(
        "simulate",
        "preprocess.simulation.stage",
        complete="preprocess.complete",
        identity=simulated,
        summary="Integrate the embedded atmosphere and write its fields as a Zarr archive laid out like ERA5.",
        outputs={"simulated": Output("data/simulated-{digest}.zarr")},
        applies=lambda config: config.simulated,
        verifies=True,
    ),
    Stage(
        "fetch",
        "preprocess.sources.fetch",
        complete="preprocess.complete",
        identity=simulated,
        summary="Download ERA5 from the Copernicus Climate Data Store, in monthly requests.",
        outputs={"downloads": Output("data/downloads"), "index": Output("data/index")},
        applies=lambda config: config.source.kind == "cds",
        resources=Resources(threads=1, runtime="10d"),
    ),
    Stage(
        "regrid",
        "preprocess.ingest.stage",
        complete="preprocess.complete",
        identity=store,
        summary="Read the source, regrid it, and write the training store.",
        needs=("simulate", "fetch"),
        outputs={
            "store": Output("data/store-{digest}.zarr"),
            "weights": Output("data/weights"),
            "export": Output("export-{digest}", lambda config: [store(config), _splits(config)]),
        },
        resources=LONG,
        verifies=True,
    ),
    Stage(
        "normals",
        "preprocess.normals.stage",
        identity=normals,
        summary="Compute means, standard deviations and the day-of-year x hour climatology of the training periods.",
        needs=("regrid",),
        applies=_has_splits,
        outputs={"normals": Output("data/normals-{digest}.zarr")},
        resources=MEDIUM,
    ),
    Stage(
        "train",
        "model.weather.train",
        complete="model.complete",
        identity=train,
        summary="Train the model; resumes at the last checkpoint.",
        needs=("regrid", "normals"),
        applies=_has_splits,
        outputs={"train": Output("train-{digest}")},
        on_ranks=True,
        category="Model",
        resources=LONG,
    ),
    Stage(
        "forecast",
        "model.weather.forecast",
        complete="model.complete",
        identity=forecast,
        summary="Issue forecasts from every init time of the test period, or from states of your own.",
        needs=("regrid", "normals", "train"),
        applies=_has_splits,
        outputs={
            "forecast": Output("forecast-{digest}.zarr"),
            "uncalibrated": Output("{member}-{digest}.zarr", members=_uncalibrated),
        },
        on_ranks=True,
        category="Model",
        resources=WIDE,
        verifies=True,
    ),
    Stage(
        "free_run",
        "model.weather.free_run",
        complete="model.complete",
        identity=free_run,
        summary="Roll out a model with steps for a year or so, to see whether it stays near the climate of the data.",
        needs=("regrid", "normals", "train"),
        applies=_has_free_run,
        outputs={"free_run": Output("free_run-{digest}.zarr")},
        on_ranks=True,
        category="Model",
        resources=WIDE,
        verifies=True,
    ),
    Stage(
        "twins",
        "preprocess.simulation.twins",
        complete="preprocess.complete",
        identity=twins,
        summary="Forecast simulated data with the simulated atmosphere itself: the perfect-model ceiling and a "
        "coarser core.",
        needs=("simulate", "regrid"),
        outputs={"twins": Output("{member}-{digest}.zarr", members=_twin_names)},
        applies=lambda config: _has_splits(config) and bool(config.evaluation.twins.models),
        category="Skill",
        resources=Resources(threads=1),
        verifies=True,
        background=True,
    ),
    Stage(
        "baselines",
        "model.weather.baselines",
        complete="model.complete",
        identity=lambda config: [networks(config), _network_names(config)],
        summary="Train climate-learn's networks on the same store and issue their forecasts; resumes at the last "
        "checkpoint.",
        needs=("regrid", "normals"),
        outputs={
            "networks": Output("baselines-{digest}", networks),
            "network_forecasts": Output("{member}-{digest}.zarr", networks, members=_network_names),
        },
        applies=lambda config: _has_splits(config) and bool(config.evaluation.trained_baselines),
        on_ranks=True,
        category="Skill",
        resources=Resources(threads=16, mem_mb=8000, runtime="5d"),
        verifies=True,
    ),
    Stage(
        "score",
        "evaluate.scoring.stage",
        complete="evaluate.complete",
        identity=scores,
        summary="Score the forecasts and the baselines on common init times.",
        needs=("regrid", "normals", "forecast", "twins", "baselines"),
        applies=_has_splits,
        outputs={"scores": Output("scores-{digest}"), "fits": Output("data/fits-{digest}", fits)},
        category="Skill",
        resources=MEDIUM,
    ),
    Stage(
        "report",
        "evaluate.report.stage",
        complete="evaluate.complete",
        identity=report,
        summary="Draw the figures and write one self-contained report.html.",
        needs=("score", "free_run"),
        applies=_has_splits,
        outputs={"report": Output("report.html")},
        category="Skill",
        resources=SHORT,
    ),
)
PLANS = {"preprocess": "preprocess.ingest.plan", "train": "model.weather.plan"}
EXPORTS = {
    "climax": "preprocess.export",
    "weatherbench2": "evaluate.reading.weatherbench",
    "model": "model.weights.plain_file",
}
COMMANDS = {
    "validate": "preprocess.validate",
    "map": "evaluate.report.one_map",
    "animate": "evaluate.report.animation",
    "score --lead": "evaluate.scoring.print_scores",
}
KINDS = frozenset({"training store", "forecast", "simulated archive", "normals"})
