"""Fine-tuning: weights of a checkpoint or of ClimaX find their channels by name, and what is new is listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.dchag import DCHAG, DCHAGConfig
from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from model.weights.plain_file import write_plain
from model.weights.start import Taken, copy_weights, starting_model
from pipeline.config import Config
from pipeline.weather.climatology import Normals
from tests.model.weather.trainers import with_steps

pytestmark = pytest.mark.slow

Make = Callable[..., Config]
NAMES = ("z500", "z850", "t500", "t850", "u500", "u850", "t2m", "lsm")


def shape(channels: tuple[str, ...], out: tuple[str, ...], **settings: Any) -> DCHAGConfig:
    sizes = {"image": (8, 12), "patch": 2, "width": 16, "depth": 1, "heads": 2, "decoder_depth": 1}
    values: dict[str, Any] = {**sizes, "groups": "variable", "unit": "C", "dropout": 0.0}
    return DCHAGConfig(channels=channels, out_channels=out, **(values | settings))


def scrambled(config: DCHAGConfig, seed: int) -> DCHAG:
    """A model none of whose parameters is zero or like another's."""
    model = DCHAG(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def taken(theirs: DCHAG, ours: DCHAG) -> Taken:
    return copy_weights(theirs, ours, source=Path("file"))


def trained_shape(config: Config) -> DCHAGConfig:
    newest = checkpoint.newest(config.paths.checkpoints)
    assert newest is not None
    return DCHAGConfig.from_dict(checkpoint.describe(newest)["model"])


def images(model: DCHAG, channels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Fields that depend on the channel's name alone."""
    fields = [torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(NAMES.index(c))) for c in channels]
    return torch.stack(fields, dim=1), torch.tensor([24.0, 168.0])


@pytest.mark.parametrize("settings", [{}, {"unit": "L"}, {"tree": "Tree2"}, {"tree": "none"}, {"groups": 3}], ids=str)
def test_the_same_channels_in_another_order_give_the_same_forecast(settings: dict[str, Any]) -> None:
    """Catches rows copied by position: in a store with other channels z500 would get the weights of t2m."""
    order = ("t2m", "z850", "z500", "t850", "t500", "lsm", "u850", "u500")
    if settings == {"groups": 3}:
        settings = {"groups": (("z500", "z850", "t2m"), ("t500", "t850"), ("u500", "u850", "lsm"))}
        order = NAMES
    theirs = scrambled(shape(NAMES, NAMES[:-1], **settings), 1)
    if settings.get("tree") == "Tree2":
        order = NAMES  # two units a group: who shares a unit depends on the order
    out = tuple(reversed(NAMES[:-1]))
    if "groups" in settings:
        settings = {"groups": tuple(reversed(settings["groups"]))}
    ours = scrambled(shape(order, out, **settings), 2)
    found = taken(theirs, ours)
    assert found.initialised == found.unused == ()
    assert (found.inputs, found.outputs) == (8, 7)
    expected = theirs(*images(theirs, NAMES))
    y = ours(*images(ours, order))
    assert torch.allclose(y, expected[:, [NAMES.index(c) for c in out]], atol=1e-5)


def test_new_channels_start_at_random_and_are_listed() -> None:
    """Catches a new channel that silently gets another's weights, or a group that is lost by a new neighbour."""
    theirs = scrambled(shape(("z500", "t2m", "lsm"), ("z500", "t2m")), 1)
    new = shape(("z500", "z500-12h", "u500", "t2m"), ("z500", "u500", "t2m"))
    ours, start = DCHAG(new, seed=5), DCHAG(new, seed=5)
    found = taken(theirs, ours)
    assert found.initialised[:3] == ("z500-12h", "u500", "u500 (predicted)")
    assert found.unused == ("lsm",)
    assert (found.inputs, found.outputs) == (2, 2)
    tokens, before, from_file = ours.stage.tokeniser, start.stage.tokeniser, theirs.stage.tokeniser
    assert torch.equal(tokens.weight[[0, 3]], from_file.weight[[0, 1]])
    assert torch.equal(tokens.weight[[1, 2]], before.weight[[1, 2]])
    query = [m.stage.levels[0].query.view(-1, 16) for m in (ours, start, theirs)]  # type: ignore[union-attr]
    assert torch.equal(query[0][0], query[2][0])  # z
    assert torch.equal(query[0][1], query[1][1])  # u: new
    assert torch.equal(query[0][2], query[2][1])  # t2m
    assert torch.equal(ours.head[-1].weight.view(4, 3, 16)[:, 1], torch.zeros(4, 16))  # type: ignore[union-attr]


def test_another_grid_interpolates_positions_and_other_sizes_are_refused() -> None:
    """Catches positions copied row by row onto another grid, and a width that does not fit named one at a time."""
    theirs = scrambled(shape(NAMES, ("t2m",)), 1)
    finer = scrambled(shape(NAMES, ("t2m",), image=(16, 24)), 2)
    taken(theirs, finer)
    assert finer.position.mean().item() == pytest.approx(theirs.position.mean().item(), abs=2e-2)
    assert torch.equal(finer.lead.weight, theirs.lead.weight)
    other = scrambled(shape(NAMES, ("t2m",), width=32, depth=2, tree="none"), 2)
    with pytest.raises(ValueError, match=r"3 difference\(s\).*\n.*width: 16 against 32\n.*depth: 1 against 2\n.*tree"):
        taken(theirs, other)


def test_options_that_a_file_lacks_start_without_effect() -> None:
    """Catches a smoothed output or a conditioning that cannot begin from a model without, or begins as another
    function, and rows of a window taken for those of a patch."""
    theirs = scrambled(shape(NAMES, ("t2m", "z500")), 1)
    ours = DCHAG(shape(NAMES, ("t2m", "z500"), output="smooth", conditioning="adaptive_norm"), seed=2)
    found = taken(theirs, ours)
    assert {name.split(".")[0] for name in found.initialised} == {"smooth", "trunk"}
    x, lead = torch.randn(2, len(NAMES), *theirs.config.image), torch.tensor([24.0, 48.0])
    torch.testing.assert_close(ours(x, lead), theirs(x, lead))
    assert set(taken(ours, theirs).unused) == set(found.initialised)
    fewer = DCHAG(shape(NAMES, ("t2m",), output="smooth"), seed=2)
    assert "smooth.mix.weight" in taken(ours, fewer).initialised
    wider = DCHAG(shape(NAMES, ("t2m", "z500"), output="overlap"), seed=2)
    found = taken(theirs, wider)
    assert (found.outputs, found.initialised) == (0, ("t2m (predicted)", "z500 (predicted)"))
    assert torch.equal(wider.head[0].weight, theirs.head[0].weight)
    assert wider(x, lead).abs().max() == 0


def test_climax_weights_start_a_model(tmp_path: Path) -> None:
    """Catches a ClimaX file that the configuration cannot reach, or channels listed in another order than its own."""
    from tests.model.weights.test_climax import CHANNELS, HEADS, IMAGE, PATCH, WIDTH, NaiveClimaX

    file = tmp_path / "climax.ckpt"
    state = {f"net.{name}": value for name, value in NaiveClimaX(stacked=False).state_dict().items()}
    torch.save({"state_dict": state}, file)
    sizes: dict[str, Any] = {"image": IMAGE, "patch": PATCH, "width": WIDTH, "heads": HEADS, "mlp_ratio": 3.0}
    config = DCHAGConfig(channels=("z850", "v10", "t2m"), out_channels=("t2m", "v10"), depth=3, **sizes)
    model, found = starting_model(config, file, seed=0, network_input="state", climax_channels=CHANNELS)
    theirs = state[f"net.token_embeds.{CHANNELS.index('z850')}.proj.weight"]
    assert torch.equal(model.stage.tokeniser.weight[0], theirs.flatten(1).T)
    assert found.initialised == ("v10", "v10 (predicted)")
    assert "lsm" in found.unused
    assert (found.inputs, found.outputs) == (2, 1)
    options = {"output": "overlap", "conditioning": "adaptive_norm"}
    config = DCHAGConfig(channels=("z850", "t2m"), out_channels=("t2m",), depth=3, **sizes, **options)
    _, found = starting_model(config, file, seed=0, network_input="state", climax_channels=CHANNELS)
    modulation = [f"trunk.blocks.{i}.modulation.{name}" for i in range(3) for name in ("weight", "bias")]
    assert found.initialised == ("t2m (predicted)", *modulation)


def test_fine_tuning_begins_where_the_first_training_was_best(
    experiment: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a start that is forgotten, loads raw weights instead of averaged ones, or is loaded again at a resume."""
    first = experiment(steps=60, batch_size=8, learning_rate=5e-3, validate_every=60, checkpoint_every=60)
    run_train(first)
    expected = read_metrics(first.paths.metrics)[-1]["leads"]["24"]["loss"]
    second = experiment(start_from=str(first.paths.train), steps=2, learning_rate=1e-12, validate_every=1, seed=7)
    second = second.model_copy(update={"forecast": second.forecast.model_copy(update={"lead_hours": [24]})})
    run_train(second)
    assert "5 input and 3 predicted channels copied" in " ".join(capsys.readouterr().err.split())
    records = [r for r in read_metrics(second.paths.metrics) if r["kind"] == "validation"]
    assert records[0]["leads"]["24"]["loss"] == pytest.approx(expected, rel=0.05)
    newest = checkpoint.newest(second.paths.checkpoints)
    assert newest is not None
    assert checkpoint.describe(newest)["start_from"] == str(first.paths.train)
    best = checkpoint.best_or_last(first.paths.checkpoints)
    assert best is not None
    plain = write_plain(best, tmp_path / "model.safetensors", normals=Normals.open(first.paths.normals))
    models = [starting_model(trained_shape(second), p, seed=3, network_input="state")[0] for p in (best, plain)]
    values = [model.state_dict() for model in models]
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])
    second.paths.receipt("train").unlink()
    run_train(second)
    assert "channels copied" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "path", "message"),
    [
        ({}, "nowhere", "must be a checkpoint, a folder of them or a ClimaX file, got .*nowhere"),
        ({"network_input": "anomaly"}, "", "must fit model.network_input, got a model of 'state'"),
    ],
)
def test_a_start_that_does_not_fit_is_named(
    experiment: Make, settings: dict[str, Any], path: str, message: str
) -> None:
    """Catches a fine-tuning that starts at random because a path was wrong, or from weights for other inputs."""
    first = experiment(steps=1, validate_every=1)
    run_train(first)
    config = experiment(start_from=path or str(first.paths.checkpoints))
    config = config.model_copy(update={"model": config.model.model_copy(update=settings)})
    with pytest.raises(ValueError, match=message):
        run_train(config)


def test_a_direct_model_does_not_start_one_of_changes(experiment: Make) -> None:
    """Catches anomalies taken for changes: the weights fit and the first loss is nonsense."""
    first = experiment(steps=1, validate_every=1)
    run_train(first)
    config = with_steps(experiment, model={"network_input": "state"}, start_from=str(first.paths.checkpoints))
    with pytest.raises(ValueError, match=r"must fit model.predicts, got a model of 'anomaly' .* and 'change' here"):
        run_train(config)
