"""What an experiment can be known to lack before the long work: leads, baselines and variables that do not fit.

Contract: what a user asked for and cannot have is refused, by the configuration where that suffices, and with the times
of the store at the start of training otherwise. A default that does not fit is left out, and `left_out` has a line for
it. Nothing is left out or refused that later stages could do: a configuration is judged by the times that a store
without gaps would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pipeline.sections import Section
from pipeline.weather.sections import Period, Splits
from pipeline.weather.sections_evaluation import Baseline, TwinName
from pipeline.weather.times import Times, coverage, init_times
from pipeline.words import counted, spanned

if TYPE_CHECKING:
    from pipeline.weather.config import WeatherConfig

FEWEST_STATES = 30
"""Training states that a linear regression needs."""
STATE_BYTES = 1_500_000_000
"""Memory for the training states that patterns are made from."""
_FITTED = ("damped_persistence", "linear")
RESERVED = (*get_args(Baseline), "truth")
"""Names that no model may have."""
TWINS = get_args(TwinName)
"""Names that no forecast from elsewhere may have either."""


def settle(config: WeatherConfig) -> None:
    """Leave out defaults that do not fit, in a configuration that is being made."""
    forecast, evaluation, training = config.forecast, config.evaluation, config.training
    judged = _judged(config)
    if judged and _by_default(forecast, "lead_hours") and forecast.initial is None:
        _replace(config, "forecast", "lead_hours", [h for h in forecast.lead_hours if _fits_test(config, h)])
    if judged and _by_default(training, "lead_hours") and not (training.lead_weights or training.step_hours):
        _replace(config, "training", "lead_hours", [h for h in training.lead_hours if _fits_train(config, h)])
    if judged and _by_default(evaluation, "baselines"):
        unfit = _unfit_baselines(config, evaluation.baselines, _training_times(config))
        _replace(config, "evaluation", "baselines", [name for name in evaluation.baselines if name not in unfit])
    if _by_default(evaluation, "variables"):
        known = [
            c.name for c in config.data.channels.dynamic if not evaluation.channels or c.name in evaluation.channels
        ]
        drawn = [name for name in evaluation.variables if name in known] or known[:1]
        _replace(config, "evaluation", "variables", drawn)


def left_out(config: WeatherConfig) -> list[str]:
    """A line for each default that the configuration leaves out."""
    lines = []
    for name, period in (("forecast", "data.splits.test"), ("training", "data.splits.train")):
        if gone := _gone(getattr(config, name), "lead_hours"):
            hours = ", ".join(f"{h} h" for h in gone)
            verb = "does" if len(gone) == 1 else "do"
            lines.append(f"{name}.lead_hours: {hours} {verb} not fit into {period}; left out")
    if gone := _gone(config.evaluation, "baselines"):
        unfit = _unfit_baselines(config, gone, _training_times(config))
        lines += [f"evaluation.baselines: {name} {reason}; left out" for name, (reason, _) in unfit.items()]
    if gone := _gone(config.evaluation, "variables"):
        names = " and ".join(filter(None, [", ".join(gone[:-1]), gone[-1]]))
        verb = "is" if len(gone) == 1 else "are"
        drawn = ", ".join(config.evaluation.variables)
        lines.append(f"evaluation.variables: {names} {verb} not among the channels; drawn: {drawn}")
    return lines


def refusals(config: WeatherConfig) -> Iterator[str]:
    """What the configuration asks for and cannot have, one message each."""
    judged, evaluation = _judged(config), config.evaluation
    if judged:
        yield from _refused_leads(config)
    yield from _refused_names(config)
    if judged and not _by_default(evaluation, "baselines"):
        for name, (reason, remedy) in _unfit_baselines(config, evaluation.baselines, _training_times(config)).items():
            yield f"evaluation.baselines: {name} {reason}; {remedy}"
    absent = [h for h in evaluation.map_lead_hours if h not in config.forecast.lead_hours]
    if absent:
        leads = config.forecast.lead_hours
        yield f"evaluation.map_lead_hours must be among forecast.lead_hours {leads}, got {absent[0]}"
    if judged:
        yield from _refused_cases(config)


def usable_baselines(config: WeatherConfig, times: Times) -> tuple[list[str], list[str]]:
    """Baselines that can be fitted on a store.

    Args:
        config: the experiment.
        times: of its store.

    Returns:
        Their names, and a line for each that is among them by default and cannot.

    Raises:
        ValueError: one was asked for and cannot.
    """
    names = [str(name) for name in config.evaluation.baselines]
    unfit = _unfit_baselines(config, names, times)
    if unfit and not _by_default(config.evaluation, "baselines"):
        name, (reason, remedy) = next(iter(unfit.items()))
        raise ValueError(f"evaluation.baselines: {name} {reason}; {remedy}")
    lines = [f"evaluation.baselines: {name} {reason}; left out" for name, (reason, _) in unfit.items()]
    return [name for name in names if name not in unfit], lines


def require(config: WeatherConfig, times: Times) -> list[str]:
    """Check against the times of the store that forecasts can be issued and scored, before a model is trained.

    Args:
        config: the experiment.
        times: of its store.

    Returns:
        A line for everything that is left out.

    Raises:
        ValueError: no init time qualifies, or a baseline that was asked for cannot be fitted.
    """
    if config.forecast.initial is None:
        init_times(
            times,
            lead_hours=config.forecast.lead_hours,
            period=_splits(config).test,
            step_hours=config.forecast.init_step_hours,
            setting="forecast.init_step_hours",
            history_hours=config.model.history_hours,
        )
    return [*left_out(config), *usable_baselines(config, times)[1]]


def look_ahead(config: WeatherConfig) -> list[str]:
    """What `require` says of the store where there is a finished one, else `left_out`; errors as there."""
    from pipeline import store  # not needed where a configuration is only read

    path = config.paths.store
    try:
        store.read_manifest(path)
    except ValueError:
        return left_out(config)
    return require(config, store.open_store(path)["time"].values)


def most_states(available: int, *, values: int) -> int:
    """How many training states of so many values can be used for patterns: those that there are and memory holds."""
    return min(available, STATE_BYTES // (4 * max(values, 1)))


def _refused_leads(config: WeatherConfig) -> Iterator[str]:
    splits, period, history = _splits(config), _period(config), max(config.model.history_hours, default=0)
    behind = f" and states {history} h earlier" if history else ""
    remedy = "lengthen the period or drop the lead"
    forecast, training = config.forecast, config.training
    if forecast.initial is None:
        hours = config.data.step_hours
        if (_time(splits.test.start) - _time(period.start)) % np.timedelta64(hours, "h"):
            every = f"every {hours} h from {_hour(period.start)}"
            yield f"data.splits.test must start at a time of the store, {every}, got {_hour(splits.test.start)}"
    asked: list[tuple[str, str, Sequence[Period], Any, Callable[[WeatherConfig, int], bool]]] = [
        ("forecast", "test", [splits.test] if forecast.initial is None else [], forecast, _fits_test),
        ("training", "train", [] if training.step_hours else splits.train, training, _fits_train),
    ]
    for step in training.step_hours:
        if not _fits_train(config, step * training.most_steps):
            where = f"data.splits.train, {', '.join(map(_span, splits.train))}"
            many = f"{counted(training.most_steps, 'step')} of {step} h"
            yield f"training.rollout must fit into {where}, got {many}{behind}; lengthen the period or take fewer steps"
    for name, split, periods, section, fits in asked:
        for hours in [] if _by_default(section, "lead_hours") or not periods else section.lead_hours:
            if not fits(config, hours):
                where = f"data.splits.{split}, {', '.join(map(_span, periods))}"
                yield f"{name}.lead_hours must fit into {where}, got {hours} h{behind}; {remedy}"


def _refused_names(config: WeatherConfig) -> Iterator[str]:
    evaluation = config.evaluation
    taken = {*RESERVED, *evaluation.twins.models, *evaluation.trained_baselines}
    if config.name in taken:
        yield f"name must differ from the models it is compared with, got {config.name!r}; rename the experiment"
    for entry in evaluation.compare:
        if entry.name in {*taken, *TWINS, config.name}:
            yield f"evaluation.compare: name {entry.name!r} must differ from the models it is compared with; rename it"


def _refused_cases(config: WeatherConfig) -> Iterator[str]:
    test, forecast = _splits(config).test, config.forecast
    if forecast.initial is not None or not config.evaluation.cases:
        return
    step = np.timedelta64(forecast.init_step_hours, "h")
    first = _time(test.start) + np.timedelta64(_first_init(config), "h")
    end = _time(test.end) - np.timedelta64(max(forecast.lead_hours), "h")
    last = first + (end - first) // step * step
    for case in map(_time, config.evaluation.cases):
        if not first <= case <= last or (case - first) % step:
            inits = f"every {forecast.init_step_hours} h within {spanned(_hour(first), _hour(last))}"
            yield f"evaluation.cases must be init times of the forecasts, {inits}, got {_hour(case)}"


def _unfit_baselines(config: WeatherConfig, names: Sequence[str], times: Times) -> dict[str, tuple[str, str]]:
    """Why baselines cannot be fitted on training periods, and what to do about it."""
    wanted = [name for name in _FITTED if name in names]
    if not wanted:
        return {}
    channels = config.evaluation.channels or config.data.channels.dynamic
    values, unfit = len(channels) * config.data.regrid.grid.size, {}
    found = coverage(times, lead_hours=config.forecast.lead_hours, periods=_splits(config).train)
    shorter = "lengthen data.splits.train, shorten forecast.lead_hours or leave it out"
    for name in wanted:
        none = [f"{h} h" for h, count in found.by_lead.items() if not count]
        if none:
            unfit[name] = f"needs a pair of training times at every lead, got none for {', '.join(none)}", shorter
        elif name == "linear" and found.with_all < FEWEST_STATES:
            what = counted(FEWEST_STATES, "training time")
            unfit[name] = f"needs {what} that have a later one at every lead, got {found.with_all}", shorter
        elif name == "linear" and most_states(found.with_all, values=values) < FEWEST_STATES:
            memory = f"{STATE_BYTES / 1e9:g} GB"
            unfit[name] = f"needs {FEWEST_STATES} states in {memory}, got states of {values} values", "leave it out"
    return unfit


def _training_times(config: WeatherConfig) -> Times:
    """Times of the training periods in a store without gaps; of a long one only as many as any rule asks for."""
    longest, step = max(config.forecast.lead_hours), np.timedelta64(config.data.step_hours, "h")
    for period in _splits(config).train:
        first = _on_axis(config, period.start)
        enough = first + np.timedelta64(longest, "h") + (FEWEST_STATES + 1) * step
        if enough <= _time(period.end):
            return np.arange(first, enough, step)
    return _axis(config)


def _on_axis(config: WeatherConfig, time: Any) -> Any:
    """The first time of the store that is not before another."""
    start, step = _time(_period(config).start), config.data.step_hours
    hours = math.ceil((_time(time) - start) / np.timedelta64(1, "h") / step) * step
    return start + np.timedelta64(hours, "h")


def _fits_test(config: WeatherConfig, hours: int) -> bool:
    test = _splits(config).test
    return (test.end - test.start).total_seconds() / 3600 >= _first_init(config) + hours


def _first_init(config: WeatherConfig) -> int:
    """Hours from the start of the test period to the first init time: enough for the earlier states."""
    step = config.forecast.init_step_hours
    return -(-max(config.model.history_hours, default=0) // step) * step


def _fits_train(config: WeatherConfig, hours: int) -> bool:
    """Whether a store without gaps has training times that far apart, with the earlier states."""
    periods = _splits(config).train
    needed = np.timedelta64(hours + max(config.model.history_hours, default=0), "h")
    if any(_on_axis(config, p.start) + needed <= _time(p.end) for p in periods):
        return True
    found = coverage(_axis(config), lead_hours=[hours], periods=periods, history_hours=config.model.history_hours)
    return found.with_all > 0


def _axis(config: WeatherConfig) -> Times:
    """Times of a store without gaps."""
    period, step = _period(config), np.timedelta64(config.data.step_hours, "h")
    axis: Times = np.arange(_time(period.start), _time(period.end) + np.timedelta64(1, "ns"), step)
    return axis


def _judged(config: WeatherConfig) -> bool:
    """Whether the configuration says which times a store has, and what they are for."""
    return None not in (config.data.splits, config.data.period)


def _splits(config: WeatherConfig) -> Splits:
    splits: Splits | None = config.data.splits
    assert splits is not None, "without periods there is nothing to forecast or score"
    return splits


def _period(config: WeatherConfig) -> Period:
    period: Period | None = config.data.period
    assert period is not None, "only the source knows the times"
    return period


def _time(time: Any) -> Any:
    return np.datetime64(time, "ns")


def _hour(time: Any) -> str:
    return str(np.datetime64(time, "h"))


def _span(period: Period) -> str:
    return spanned(_hour(period.start), _hour(period.end))


def _by_default(section: Section, key: str) -> bool:
    return key not in section.model_fields_set


def _gone(section: Section, key: str) -> list[Any]:
    """Entries of a default that are left out."""
    default = type(section).model_fields[key].default
    return [entry for entry in default if entry not in getattr(section, key)] if _by_default(section, key) else []


def _replace(config: WeatherConfig, name: str, key: str, value: list[Any]) -> None:
    """Give a section another default; one that would be empty stays, and is refused when it is needed."""
    section: Section = getattr(config, name)
    if not value or value == getattr(section, key):
        return
    changed = section.model_copy(update={key: value})
    changed.model_fields_set.discard(key)
    config.__dict__[name] = changed  # sections are frozen for their readers, and this one has none yet
