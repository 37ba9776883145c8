"""The command line: python -m pipeline <stage> --config FILE [--set a.b=c].

Contract: a user's mistake or bad data gives one message on standard error and exit status 2, no
traceback, and nothing lost; anything else is a defect and shows its traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parent.parent
STAGES = {
    "simulate": "preprocess.simulation.stage",
    "fetch": "preprocess.sources.fetch",
    "regrid": "preprocess.ingest.stage",
    "normals": "preprocess.normals.stage",
    "train": "model.training.trainer",
    "forecast": "model.weather.forecast",
    "twins": "preprocess.simulation.twins",
    "baselines": "evaluate.trained",
    "score": "evaluate.scoring.stage",
    "report": "evaluate.report.stage",
}
PLANS = {"preprocess": "preprocess.ingest.plan", "train": "model.training.planner"}
"""Who can say before a run what it will take."""


class Planned(StrEnum):
    """What `plan` looks ahead at."""

    preprocess = "preprocess"
    train = "train"


EXPORTS = {
    "climax": "preprocess.export",
    "weatherbench2": "evaluate.reading.weatherbench",
    "model": "model.weights.plain_file",
}
"""Who writes what others read."""


class Layout(StrEnum):
    """What `export` writes."""

    climax = "climax"
    weatherbench2 = "weatherbench2"
    model = "model"


app = typer.Typer(
    help="From ERA5 to a scored global forecast. Every stage reads one configuration file and can be killed and rerun.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override one setting, e.g. training.steps=200. Repeatable.")
]
LogOption = Annotated[Path | None, typer.Option("--log", help="Keep a copy of all messages in this file.")]


def check_checkout() -> None:
    """Refuse to run on a foreign package that shares one of our folder names.

    Raises:
        ValueError: naming the foreign path.
    """
    for name in ("preprocess", "model", "evaluate"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [Path(p).resolve() for p in spec.submodule_search_locations or []]
        if places != [ROOT / name]:
            found = ", ".join(map(str, places)) or "nothing"
            raise ValueError(
                f"package {name!r} must be the one in {ROOT}, got {found}; "
                "run from the project's root with PYTHONPATH unset"
            )


def _run(
    stage: str, config: Path, overrides: list[str] | None, log: Path | None, *, module_name: str | None = None,
    **options: Any,
) -> None:  # fmt: skip
    from pipeline.config import load
    from pipeline.logs import logged, speaks_first

    check_checkout()
    settings = load(config, overrides or [])
    try:
        with logged(log):
            if stage == "forecast" and settings.forecast.initial is not None:
                options["initial"] = importlib.import_module("preprocess.ingest.initial_states").prepare_initial(
                    settings
                )
            module: Any = importlib.import_module(module_name or STAGES[stage])
            getattr(module, f"run_{stage}")(settings, **options)
    except KeyboardInterrupt:  # caught here, since click would turn it into a bare "Aborted"
        if speaks_first():
            print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


@app.command()
def simulate(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Integrate the embedded atmosphere and stream an ERA5-shaped archive into Zarr."""
    _run("simulate", config, set_, log)


@app.command()
def plan(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    stage: Annotated[Planned, typer.Option("--stage", help="What to look ahead at.")] = Planned.preprocess,
    memory: Annotated[str | None, typer.Option("--memory", help="Of one rank, e.g. 16GB (train).")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda (train); this machine's if absent.")
    ] = None,
) -> None:
    """Say what a run will read, write, need and take, before it starts; status 2 if it does not fit."""
    given = {name: value for name, value in (("memory", memory), ("device", device)) if value is not None}
    if given and stage is not Planned.train:
        raise ValueError(f"--{' and --'.join(given)} must go with --stage train, got --stage {stage.value}")
    _run("plan", config, set_, log, module_name=PLANS[stage.value], **given)


@app.command()
def fetch(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Download ERA5 from the Copernicus Climate Data Store, in monthly requests."""
    _run("fetch", config, set_, log)


@app.command()
def regrid(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Read the source, put it on the target grid, and write the training store."""
    _run("regrid", config, set_, log)


@app.command()
def normals(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Compute means, spreads and the day-of-year x hour climatology of the training periods."""
    _run("normals", config, set_, log)


@app.command()
def train(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Train the model; resumes at the last checkpoint."""
    _run("train", config, set_, log)


@app.command()
def forecast(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    initial: Annotated[
        Path | None, typer.Option("--initial", help="States to go on from: a file, a folder of files, or a store.")
    ] = None,
) -> None:
    """Issue forecasts from every init time of the test period, or from given states."""
    _run("forecast", config, [*(set_ or []), *([f"forecast.initial={initial}"] if initial else [])], log)


@app.command()
def twins(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Forecast simulated data with the simulated atmosphere itself: the perfect-model ceiling and a coarser core."""
    _run("twins", config, set_, log)


@app.command()
def baselines(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Train climate-learn's networks on the same store and issue their forecasts; resumes at the last checkpoint."""
    _run("baselines", config, set_, log)


@app.command()
def score(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    lead: Annotated[str | None, typer.Option(help="Only print the scores at this lead, e.g. 7d or 36h.")] = None,
    variable: Annotated[str | None, typer.Option(help="Only print the scores of this channel, e.g. z500.")] = None,
    region: Annotated[str, typer.Option(help="Of what is printed.")] = "globe",
) -> None:
    """Score the forecasts and the baselines on common init times; with --lead or --variable, print some scores."""
    if lead is None and variable is None:
        _run("score", config, set_, log)
    else:
        _run(
            "quick",
            config,
            set_,
            log,
            module_name="evaluate.scoring.print_scores",
            lead=lead,
            variable=variable,
            region=region,
        )


@app.command()
def animate(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    lead: Annotated[str | None, typer.Option(help="E.g. 7d; the first lead when absent.")] = None,
    variable: Annotated[str | None, typer.Option(help="E.g. t2m; the first drawn channel when absent.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Init times shown.")] = None,
) -> None:
    """Write an animation (GIF) of the forecasts beside the truth."""
    more = {"lead": lead, "channel": variable, "frames": frames}
    _run("animate", config, set_, log, module_name="evaluate.report.animation", **more)


@app.command()
def report(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
    """Draw the figures and write one self-contained report.html."""
    _run("report", config, set_, log)


@app.command()
def export(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    to: Annotated[
        Layout,
        typer.Option(
            "--to",
            help="climax: the training store as .npz files; weatherbench2: forecasts; model: the weights, one file.",
        ),
    ] = Layout.climax,
) -> None:
    """Write the store for ClimaX and climate-learn, forecasts for WeatherBench 2, or the model as one file."""
    _run("export", config, set_, log, module_name=EXPORTS[to.value])


@app.command()
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Stores to look through; those of the configuration if none is given.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file (YAML).")] = None,
    set_: SetOption = None,
    log: LogOption = None,
) -> None:
    """Look through any training store or forecast and list every departure from the contract; status 2 if any."""
    from pipeline.config import load
    from pipeline.logs import logged

    if config is None and not paths:
        raise ValueError("validate must be given stores or --config, got neither")
    check_checkout()
    settings = None if config is None else load(config, set_ or [])
    with logged(log):
        module: Any = importlib.import_module("preprocess.validate")
        module.run_validate(settings, list(paths or []))


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    from pipeline.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def main() -> int:
    """Run a command; user errors become one message and status 2."""
    from pipeline.logs import speaks_first

    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        if os.environ.get("CHAGCAST_TRACEBACK"):
            raise
        if speaks_first(status=2):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception:
        if speaks_first(patience=2.0):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
