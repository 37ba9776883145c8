"""The command line: python -m pipeline <stage> --config FILE [--set a.b=c].

Contract: a user's mistake or bad data gives one message on standard error and exit status 2, no
traceback, and nothing lost; anything else is a defect and shows its traceback.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import manifest, workloads
from pipeline.running import ROOT, check_checkout, choice, function_of, load_settings, run, run_stage, stage_of, talking

app = typer.Typer(
    help="From ERA5 to a scored global forecast, or from hyperspectral images to a pretrained model. Every stage reads "
    "one configuration file and can be killed and rerun.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override a setting, e.g. training.steps=200. Repeatable.")
]
VerifyOption = Annotated[
    bool, typer.Option("--verify", help="Check existing outputs against their digests and rewrite what is damaged.")
]
LogOption = Annotated[Path | None, typer.Option("--log", help="Also write all messages to this file.")]


def _plain_command(name: str) -> None:
    """A command for a stage without options of its own."""

    def command(config: ConfigOption, set_: SetOption = None, log: LogOption = None) -> None:
        run_stage(name, config, set_, log)

    def with_verify(
        config: ConfigOption, set_: SetOption = None, log: LogOption = None, verify: VerifyOption = False
    ) -> None:
        run_stage(name, config, set_, log, verify=verify)

    app.command(name, help=workloads.summary(name))(with_verify if STAGES[name].verifies else command)


STAGES = workloads.all_stages()
_WITH_OPTIONS = ("forecast", "reconstruct", "score")
Planned = StrEnum("Planned", sorted({n for task in workloads.WORKLOADS for n in workloads.plans(task)}))  # type: ignore[misc]
Format = StrEnum("Format", sorted({n for task in workloads.WORKLOADS for n in workloads.exports(task)}))  # type: ignore[misc]
for _name in STAGES:
    if _name not in _WITH_OPTIONS:
        _plain_command(_name)


def version() -> str:
    """The version of this checkout, from pyproject.toml, with its commit where that is known."""
    import tomllib

    from pipeline.provenance import commit

    number = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return f"chagcast {number}" + ("" if commit() == "unknown" else f", commit {commit()}")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version())
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before a command."""


@app.command(help=workloads.summary("forecast"))
def forecast(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    initial: Annotated[
        Path | None, typer.Option("--initial", help="States to start from: a file, a folder of files, or a store.")
    ] = None,
    verify: VerifyOption = False,
) -> None:
    """See the table of stages."""
    overrides = [*(set_ or []), *([f"forecast.initial={initial}"] if initial else [])]
    _run_given(
        "forecast", config, overrides, log, option="initial", module="preprocess.ingest.initial_states", verify=verify
    )


@app.command(help=workloads.summary("reconstruct"))
def reconstruct(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    image: Annotated[Path | None, typer.Option("--image", help="Reconstruct this file instead of the split.")] = None,
    verify: VerifyOption = False,
) -> None:
    """See the table of stages."""
    overrides = [*(set_ or []), *([f"reconstruct.image={image}"] if image else [])]
    module = "preprocess.imaging.one_image"
    _run_given("reconstruct", config, overrides, log, option="image", module=module, verify=verify)


def _run_given(
    name: str, config: Path, overrides: list[str], log: Path | None, *, option: str, module: str, verify: bool
) -> None:
    """Run a stage; on the store that `prepare_<option>` makes of the user's own data where its section names some."""
    settings = load_settings(config, overrides)
    stage_of(name, settings)
    if getattr(getattr(settings, name), option) is None:
        run_stage(name, config, overrides, log, verify=verify)
        return
    with talking(log, settings):
        given = function_of(module, f"prepare_{option}")(settings, verify=verify)
        function_of(stage_of(name, settings).module, f"run_{name}")(settings, verify=verify, **{option: given})


@app.command(help=f"{workloads.summary('score')} With --lead or --variable, print some scores.")
def score(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    lead: Annotated[str | None, typer.Option(help="Print only the scores at this lead, e.g. 7d or 36h.")] = None,
    variable: Annotated[str | None, typer.Option(help="Print only the scores of this channel, e.g. z500.")] = None,
    region: Annotated[str, typer.Option(help="Region of the printed scores.")] = "globe",
) -> None:
    """See the table of stages."""
    if lead is None and variable is None:
        run_stage("score", config, set_, log)
    else:
        settings = load_settings(config, set_)
        module = workloads.command(settings.task, "score --lead")
        run(settings, module, "run_print_scores", log, lead=lead, variable=variable, region=region)


@app.command()
def plan(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    stage: Annotated[
        Planned | None, typer.Option("--stage", help="Stage to plan; by default the one that makes the store.")
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Memory limit of one rank, e.g. 16GB (train).")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda (train); by default this machine's.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware", help="Show time and best layouts on h200, mi250x, ... or here: this machine (train)."
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", help="Nodes of --hardware; by default one device per rank of the layout.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first, for --hardware here (train).")
    ] = False,
) -> None:
    """Estimate what a run will read, write and need, and how long it takes; status 2 if it does not fit."""
    asked = {"memory": memory, "device": device, "hardware": hardware, "nodes": nodes, "calibrate": calibrate or None}
    given = {name: value for name, value in asked.items() if value is not None}
    if given and stage != "train":
        got = f"--stage {stage}" if stage else "no --stage"
        raise ValueError(f"--{' and --'.join(given)} must go with --stage train, got {got}")
    settings = load_settings(config, set_)
    known = workloads.plans(settings.task)
    module = choice(known, "stage", stage or next(iter(known)), settings.task)
    run(settings, module, "run_plan", log, **given)


@app.command()
def animate(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    lead: Annotated[str | None, typer.Option(help="E.g. 7d; by default the first lead.")] = None,
    variable: Annotated[str | None, typer.Option(help="E.g. t2m; by default the first drawn channel.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Number of init times shown.")] = None,
) -> None:
    """Write an animation (GIF) of the forecasts beside the truth."""
    settings = load_settings(config, set_)
    more = {"lead": lead, "channel": variable, "frames": frames}
    run(settings, workloads.command(settings.task, "animate"), "run_animate", log, **more)


@app.command(name="map")
def map_(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    variable: Annotated[str | None, typer.Option(help="E.g. t850; by default the first drawn channel.")] = None,
    lead: Annotated[str | None, typer.Option(help="E.g. 7d or 36h; by default the first lead.")] = None,
    metric: Annotated[str | None, typer.Option(help="skill (default), rmse, acc or bias.")] = None,
    region: Annotated[str, typer.Option(help="E.g. europe, tropics or land.")] = "globe",
    model: Annotated[str | None, typer.Option(help="E.g. persistence; by default the experiment's own model.")] = None,
    init: Annotated[
        str | None, typer.Option(help="E.g. 2004-01-15: draw that forecast, truth and error instead of a score.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, .png or .pdf; by default with the figures.")] = None,
) -> None:
    """Draw one map: a score of a variable at a lead, or one forecast beside truth and error."""
    settings = load_settings(config, set_)
    asked = {"variable": variable, "lead": lead, "metric": metric, "region": region, "model": model, "init": init}
    run(settings, workloads.command(settings.task, "map"), "run_map", log, **asked, out=out)


@app.command()
def export(
    config: ConfigOption,
    set_: SetOption = None,
    log: LogOption = None,
    to: Annotated[
        Format | None,
        typer.Option(
            "--to",
            help="climax: the training store as .npz files (default for task forecast); weatherbench2: forecasts; "
            "model: the weights as one file (default for other tasks).",
        ),
    ] = None,
) -> None:
    """Write the store for ClimaX and climate-learn, forecasts for WeatherBench 2, or the model as one file."""
    settings = load_settings(config, set_)
    known = workloads.exports(settings.task)
    run(settings, choice(known, "to", to or next(iter(known)), settings.task), "run_export", log)


@app.command()
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Stores to check; by default those of the configuration.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file (YAML).")] = None,
    set_: SetOption = None,
    log: LogOption = None,
) -> None:
    """Check stores and list every departure from their contract; status 2 if there is any."""
    if config is None and not paths:
        raise ValueError("validate must be given stores or --config, got neither")
    check_checkout()
    settings = None if config is None else load_settings(config, set_)
    given = list(paths or [])
    tasks = {path: workloads.task_of(manifest.contract_of(path)) for path in given}
    for task in [settings.task] if settings else dict.fromkeys(tasks.values()):
        chosen = given if settings else [path for path in given if tasks[path] == task]
        run(settings, workloads.command(task, "validate"), "run_validate", log, paths=chosen)


@app.command()
def settings(config: ConfigOption, set_: SetOption = None) -> None:
    """Check a configuration and print all its settings, including defaults."""
    from pipeline.config import dump

    typer.echo(dump(load_settings(config, set_)), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    import json

    from pipeline.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def main() -> int:
    """Run a command; user errors become one message and status 2."""
    from pipeline.files import describe_error
    from pipeline.logs import speaks_first

    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        if os.environ.get("CHAGCAST_TRACEBACK"):
            raise
        if speaks_first(status=2):
            print(f"error: {describe_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 2
    except Exception:
        if speaks_first(patience=5.0):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
