"""Training through several steps: against a loop over samples, channels and steps; its schedule; its interruptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import model.weather.train
from model.network import climatelearn
from model.network.cut import Network
from model.parallel.mesh import build_mesh
from model.training.rehearsal import footprint
from model.weather.features import feature_fields
from model.weather.names import channel_and_hours, is_feature
from model.weather.stepping import Stepper
from model.weather.task import Forecasting, ForecastTask
from model.weather.train import run_train
from model.weather.training_data import TrainingData
from model.weather.trajectories import Trajectories
from pipeline.config import Config, parse
from pipeline.weather.config import WeatherConfig
from tests.model.runs import equal_runs, losses
from tests.model.weather.trainers import dying_task, elsewhere, trainer_of, with_steps

pytestmark = pytest.mark.slow

Make = Callable[..., Config]
HOUR = np.timedelta64(1, "h")


def stepping(experiment: Make, **options: Any) -> WeatherConfig:
    """The small experiment with a model of 24 h steps, in double precision."""
    return with_steps(experiment, **{"precision": "float64", **options})


def moved(network: Network) -> Network:
    """Double precision, every parameter away from its start."""
    network = network.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def naive_loss(
    task: ForecastTask, data: TrainingData, network: Network, batch: Trajectories, *, last_only: bool
) -> Tensor:
    """The loss of a batch, sample by sample and step by step, from single fields of the store."""
    fields, config, total = data.fields, task.config, torch.zeros((), dtype=torch.float64)
    channels, normals = task.network.out_channels, fields.normals
    assert task.area_HW is not None
    area = torch.from_numpy(np.cos(np.deg2rad(fields.coords["latitude"].values))).float()[:, None]
    assert torch.allclose(task.area_HW, (area / area.mean()).expand(fields.grid_shape), rtol=1e-6)
    area = task.area_HW.double() / task.area_HW.double().mean()
    at = {time: i for i, time in enumerate(fields.times)}
    assert task.channel_V is not None
    channel_V = task.channel_V.double() / task.channel_V.double().mean()

    def anomaly(time: np.datetime64, roll: int) -> dict[str, Tensor]:
        found = fields.anomalies(np.array([at[time]]))[0].double().roll(roll, dims=-1)
        return dict(zip(fields.channels, found, strict=True))

    for start, which, roll in zip(batch.items.start, batch.items.lead, batch.items.roll, strict=True):
        hours = config.training.step_hours[which]
        init = fields.times[data.pairs.init[start]]
        states = {init - h * HOUR: anomaly(init - h * HOUR, roll) for h in (0, *config.model.history_hours)}
        unit = {
            name: float(np.float32(normals.change_std(hours, channels=[name])[0] / normals.std[i]))
            if config.model.predicts == "change"
            else 1.0
            for i, name in enumerate(channels)
        }
        errors: list[Tensor] = []
        for k in range(batch.marks[-1]):
            now = init + k * hours * HOUR
            x = []
            for name in task.network.channels:
                channel, back = channel_and_hours(name)
                if channel in channels:
                    c, then = channels.index(channel), now - back * HOUR
                    if config.model.network_input == "anomaly":
                        gain = float(np.float32(normals.std[c] / normals.anomaly_std[c]))
                        x.append(states[then][channel] * gain)
                    else:
                        climate = normals.climatology_at(np.array([then]), channels=[channel])[0, 0]
                        standard = (climate - np.float32(normals.mean[c])) / np.float32(normals.std[c])
                        x.append(states[then][channel] + torch.from_numpy(standard).double().roll(roll, dims=-1))
                elif is_feature(name):
                    where = {key: fields.coords[key].values for key in ("latitude", "longitude")}
                    value = feature_fields([name], times=np.array([now]), **where)[0, 0]
                    x.append(torch.from_numpy(value).double().roll(roll, dims=-1))
                else:
                    s = fields.static_channels.index(name)
                    x.append(fields.static_SHW[s].double().roll(roll, dims=-1))
            y = network(torch.stack(x)[None], torch.tensor([float(hours)]))[0]
            following, truth = {}, anomaly(now + hours * HOUR, roll)
            error = torch.zeros((), dtype=torch.float64)
            for v, name in enumerate(channels):
                base = states[now][name] if config.model.predicts == "change" else 0.0
                following[name] = base + unit[name] * y[v]
                squares = ((following[name] - truth[name]) / unit[name]) ** 2
                error = error + channel_V[v] * (squares * area).mean() / len(channels)
            if last_only and k < batch.marks[-1] - 1:
                following = {name: state.detach() for name, state in following.items()}
            states[now + hours * HOUR] = following
            errors.append(error)
        total = total + (errors[-1] if last_only else torch.stack(errors).mean()) / len(batch)
    return total


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"rollout": [[0, 3]]}),
    ({"network_input": "state"}, {"rollout": [[0, 2]], "step_hours": [12, 24, 48]}),
    ({"history_hours": [24, 48], "network_input": "state"}, {"rollout": [[0, 3]]}),
    ({"predicts": "anomaly", "history_hours": [24]}, {"rollout": [[0, 3]]}),
    (
        {"features": ["season", "time_of_day"], "conditioning": "adaptive_norm"},
        {"rollout": [[0, 2]], "step_hours": [12]},
    ),
    ({}, {"rollout": [[0, 3]], "rollout_gradients": "last"}),
    ({}, {"rollout": [[0, 2]], "channel_weights": {"t2m": 3.0}, "roll_longitude": True}),
    ({"architecture": "unet", "features": ["season"]}, {"rollout": [[0, 2]], "step_hours": [12, 24]}),
    ({"architecture": "resnet", "history_hours": [24], "network_input": "state"}, {"rollout": [[0, 3]]}),
]
SMALL = {
    "resnet": {"n_blocks": 1, "hidden_channels": 4},
    "unet": {"ch_mults": [1, 2], "n_blocks": 1, "hidden_channels": 4},
}


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(("model_settings", "training"), CASES)
def test_loss_and_gradients_are_those_of_a_plain_loop(
    experiment: Make, model_settings: dict[str, Any], training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a step that reads another time, another unit or another sample's state, and a gradient cut short.

    climate-learn's networks normalise over a batch while they train, so here they are as in forecasts.
    """
    for name, sizes in SMALL.items():
        monkeypatch.setitem(climatelearn.ARCHITECTURES, name, sizes)
    config = stepping(experiment, model=model_settings, **training)
    task = ForecastTask(config, device=torch.device("cpu"))
    mesh = build_mesh(channel=1, device_type="cpu")
    data = task.data(channels=task.network.channels, rank=0, ranks=1, pin=False)
    batch = data.batch(0)
    assert isinstance(batch, Trajectories)
    found, expected = (moved(task.network.build()).eval() for _ in range(2))
    loss = task.loss(found, batch.to(torch.device("cpu"), torch.float64), mesh=mesh)
    loss.backward()  # type: ignore[no-untyped-call]
    last_only = config.training.rollout_gradients == "last"
    naive = naive_loss(task, data, expected, batch, last_only=last_only)
    naive.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(naive.item(), rel=1e-10)
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert (ours.grad - theirs.grad).abs().max() <= 1e-10 * theirs.grad.abs().max() + 1e-14, name


@pytest.mark.usefixtures("group_of_one")
def test_an_untrained_model_of_changes_is_persistence_of_the_anomaly(experiment: Make) -> None:
    """Catches a state that is not added, and one that is taken from another time."""
    config = stepping(experiment, rollout=[[0, 2]])
    task = ForecastTask(config, device=torch.device("cpu"))
    mesh = build_mesh(channel=1, device_type="cpu")
    data = task.data(channels=task.network.channels, rank=0, ranks=1, pin=False)
    batch = data.batch(0)
    assert isinstance(batch, Trajectories)
    stepper = Stepper(task.network, task.stepper(mesh, device=mesh_device()).units, mesh=mesh)
    start = stepper.whole(batch.states[:, -1:])[:, 0]
    for state in stepper.roll(task.network.build(), start, batch, steps=2):
        assert torch.equal(state, batch.states[:, -1])
    assert not torch.equal(batch.targets[:, 0], batch.states[:, -1])


def mesh_device() -> torch.device:
    return torch.device("cpu")


def test_one_step_of_anomalies_is_a_direct_forecast(experiment: Make, tmp_path: Path) -> None:
    """Catches samples in another order, other inputs or another loss where a single step is trained."""
    model_settings = {"predicts": "anomaly", "network_input": "state"}
    direct = stepping(experiment, model=model_settings, step_hours=[], lead_hours=[24])
    run_train(direct)
    steps = elsewhere(stepping(experiment, model=model_settings), tmp_path / "steps")
    run_train(steps)
    expected = losses(direct.paths.train, "train")  # there, states are put together in single precision
    assert losses(steps.paths.train, "train") == pytest.approx(expected, rel=1e-8)


def test_the_schedule_decides_what_a_step_uses(experiment: Make) -> None:
    """Catches a schedule that is off by a step, and a loader that reads more times than the step needs."""
    schedule = {"rollout": [[0, 1], [0.5, 2], [0.75, 3]], "steps": 8}
    config = stepping(experiment, **schedule)
    counts: list[tuple[int, int]] = []

    class Watched(ForecastTask):
        def used(self, batch: Any, *, progress: float) -> Any:
            part = super().used(batch, progress=progress)
            counts.append((batch.marks[-1], part.marks[-1]))
            return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.weather.train, "ForecastTask", Watched)
        run_train(config)
    assert counts == [(n, n) for n in (1, 1, 1, 1, 2, 2, 3, 3)]
    for minutes in (1e-6, 1e6):  # by the clock: what is read cannot know it, what is used does
        counts.clear()
        limited = elsewhere(stepping(experiment, **schedule, minutes=minutes), config.root.parent / str(minutes))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.weather.train, "ForecastTask", Watched)
            run_train(limited)
        assert counts == ([(3, 1), (3, 1)] if minutes < 1 else [(3, n) for n in (1, 1, 1, 1, 2, 2, 3, 3)])


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_training_stopped_inside_the_schedule_resumes_bit_identical(
    experiment: Make, tmp_path: Path, stop: int
) -> None:
    """Catches a schedule that starts anew, and noise that depends on what was drawn before."""
    options = {"rollout": [[0, 1], [0.5, 2], [0.75, 3]], "steps": 8, "checkpoint_every": 2, "input_noise": 0.1}
    config = stepping(experiment, model={"dropout": 0.1}, **options)
    run_train(config)
    again = elsewhere(config, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.weather.train, "ForecastTask", dying_task(stop))
        with pytest.raises(KeyboardInterrupt):
            run_train(again)
    run_train(again)
    assert equal_runs(again.paths.train, config.paths.train)


def test_noise_moves_the_start_alone(experiment: Make) -> None:
    """Catches noise on the truth, in other units, or the same for every sample."""
    config = stepping(experiment, input_noise=0.5)
    task = trainer_task(config)
    seen: list[Tensor] = []
    predict = lambda x, hours: seen.append(x) or torch.zeros_like(x[:, : len(task.network.out_channels)])  # noqa: E731
    from model.parallel.launch import process_group

    with process_group(world_size=1):
        mesh = build_mesh(channel=1, device_type="cpu")
        data = task.data(channels=task.network.channels, rank=0, ranks=1, pin=False)
        parts = list(data.batch(0).split(2))
        for part in parts:
            task.loss(predict, part, mesh=mesh)
        with torch.no_grad():
            for part in parts:
                task.loss(predict, part, mesh=mesh)
    noisy, clean = torch.cat(seen[: len(parts)]), torch.cat(seen[len(parts) :])
    V = len(task.network.out_channels)
    normals = data.fields.normals
    noise = (noisy - clean)[:, :V] * torch.from_numpy(normals.anomaly_std / normals.change_std(24))[:, None, None]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noisy[:, V:], clean[:, V:])
    assert not torch.allclose(noise[0], noise[1])


def trainer_task(config: WeatherConfig) -> ForecastTask:
    return ForecastTask(config, device=torch.device("cpu"))


def test_the_plan_counts_the_longest_roll_out(experiment: Make) -> None:
    """Catches a plan of a single step: memory grows with every one that gradients flow through."""

    def peak(**training: Any) -> int:
        config = stepping(experiment, batch_size=16, **training)
        return footprint(Forecasting.planned(config), config.training).peak

    one, three = peak(), peak(rollout=[[0, 1], [0.5, 3]])
    assert three > 1.5 * one
    assert peak(rollout=[[0, 1], [0.5, 3]], rollout_gradients="last") < three


BAD: list[tuple[str, dict[str, Any], Sequence[str]]] = [
    ("training", {"rollout": [[0.2, 1]]}, ["start at 0"]),
    ("training", {"rollout": [[0, 1], [0.5, 2], [0.5, 3]]}, ["increase"]),
    ("training", {"step_hours": [], "rollout": [[0, 2]]}, ["step_hours"]),
    ("training", {"step_hours": [18]}, ["multiples of data.step_hours", "18"]),
    ("training", {"step_hours": [24, 24]}, ["once"]),
    ("training", {"anomaly_weighted": True}, ["anomaly_weighted"]),
    ("forecast", {"lead_hours": [36]}, ["multiples of a step", "36"]),
    ("forecast", {"rollout_hours": 12}, ["one of training.step_hours"]),
    ("model", {"history_hours": [12]}, ["last few steps"]),
    ("model", {"history_hours": [48]}, ["last few steps"]),
]


@pytest.mark.parametrize(("block", "settings", "words"), BAD)
def test_settings_that_cannot_be_are_refused(
    experiment: Make, block: str, settings: dict[str, Any], words: Sequence[str]
) -> None:
    """Catches a training that finds out after hours, or never."""
    content = experiment(step_hours=[24]).model_dump(mode="json")
    content["model"]["predicts"] = "change"
    content[block] |= settings
    with pytest.raises(ValueError) as error:
        parse(content)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_steps_on_the_trainer(experiment: Make) -> None:
    """Catches a validation that does not roll out to the leads it names, or another length of step."""
    config = stepping(experiment, validate_every=12)
    from model.parallel.launch import process_group

    with process_group(world_size=1):
        trainer = trainer_of(config)
        with trainer.learner.evaluating():
            scores = trainer.task.validate(trainer.learner.predict, trainer.data, mesh=trainer.mesh, at_once=3)
    assert scores is not None
    assert list(scores["leads"]) == ["24", "72"]
    data = trainer.data
    pairs, items = data.validation
    fields, channel = data.fields, data.fields.channels.index("t850")
    rows = pairs.init[items.start]
    area = np.cos(np.deg2rad(fields.coords["latitude"].values))[:, None]
    for hours, steps in (("24", 0), ("72", 2)):
        error = fields.anomalies(pairs.path[items.start, 0, steps]) - fields.anomalies(rows)
        square = (error[:, channel].numpy() ** 2 * area / area.mean()).mean()
        rmse = np.sqrt(square) * fields.normals.std[channel]
        assert scores["leads"][hours]["rmse"]["t850"] == pytest.approx(rmse, rel=1e-5)
