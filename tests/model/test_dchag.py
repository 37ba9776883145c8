"""The model as a whole: contract, start, settings and errors."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.dchag import DCHAG, DCHAGConfig
from model.network.head import unpatchify
from model.network.initialise import sincos_2d

NAMES = (*(f"{variable}{level}" for variable in "ztq" for level in (250, 500, 850)), "t2m", "lsm")


def config(**settings: Any) -> DCHAGConfig:
    values = {"image": (4, 6), "width": 16, "heads": 4, "depth": 1, "dropout": 0.0}
    return DCHAGConfig(**({"channels": NAMES, "out_channels": NAMES[:-1]} | values | settings))


def scrambled(model: DCHAG) -> DCHAG:
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double()


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LEADS = torch.tensor([24.0, 720.0], dtype=torch.float64)
SETTINGS = [
    {"groups": "all"},
    {"groups": "all", "tree": "none"},
    {"groups": "variable", "tree": "Tree2", "unit": "L"},
    {"groups": 3, "tree": (3, 2)},
]
OPTIONS = [{"output": "overlap"}, {"output": "smooth"}, {"conditioning": "adaptive_norm"}]


@pytest.mark.parametrize("settings", SETTINGS + OPTIONS, ids=str)
def test_untrained_model_predicts_climatology(settings: dict[str, Any]) -> None:
    """Catches a start that is worse than climatology; and a start from which nothing can be learned."""
    model = DCHAG(config(**settings))
    y = model(fields(2, 11, 4, 6).float(), LEADS.float())
    assert y.shape == (2, 10, 4, 6)
    assert torch.equal(y, torch.zeros_like(y))
    (y - 1).square().mean().backward()
    assert model.head[-1].weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_fused_equals_reference(settings: dict[str, Any]) -> None:
    """Catches a difference of the two forms in the whole model."""
    found = []
    for form in ("fused", "reference"):
        model = scrambled(DCHAG(config(channel_stage=form, **settings)))
        y = model(fields(2, 11, 4, 6), LEADS)
        y.square().sum().backward()
        found.append((y, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (fused, fused_grad), (reference, reference_grad) = found
    torch.testing.assert_close(fused, reference, rtol=1e-12, atol=1e-12)
    assert fused_grad.keys() == reference_grad.keys()
    for name, right in reference_grad.items():
        assert (fused_grad[name] - right).abs().max() < 1e-10 * max(1e-3, right.abs().max().item()), name


def test_flat_has_two_names() -> None:
    """Catches a final cross-attention after a single group, which ClimaX does not have."""
    one, none = DCHAG(config(groups="all", tree="Tree0")), DCHAG(config(groups=4, tree="none"))
    assert one.merge is None
    scrambled(one)
    with torch.no_grad():
        values = dict(one.named_parameters())
        none.double()
        for name, parameter in none.named_parameters():
            parameter.copy_(values[name.replace("merge.", "stage.levels.0.")])
    x = fields(2, 11, 4, 6)
    torch.testing.assert_close(none(x, LEADS), one(x, LEADS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("variable", [["z500", "z850"], ["t500", "t850"], ["u10"], ["t2m"], ["q850"], ["lsm"]]),
        ("level", [["z500", "t500"], ["z850", "t850", "q850"], ["u10", "t2m", "lsm"]]),
    ],
)
def test_groups_by_name(groups: str, expected: list[list[str]]) -> None:
    """Catches 10 m wind taken for wind on 10 hPa, variables split over groups, and fields without a level thrown in
    with one that has."""
    names = ("z500", "t500", "z850", "t850", "u10", "t2m", "q850", "lsm")
    tree = config(channels=names, out_channels=names, groups=groups).channel_tree()
    assert [[names[c] for c in group] for group in tree.groups] == expected


def test_start_is_the_channels_own() -> None:
    """Catches initial values that depend on which other channels a model or a rank has, or on their order."""
    whole = DCHAG(config(), seed=3)
    few = DCHAG(config(channels=("t2m", "z500"), out_channels=("t2m",)), seed=3)
    for name in ("weight", "channel"):
        table = getattr(whole.stage.tokeniser, name)
        rows = getattr(few.stage.tokeniser, name)
        assert torch.equal(rows[0], table[NAMES.index("t2m")])
        assert torch.equal(rows[1], table[NAMES.index("z500")])
        assert not torch.equal(rows[0], rows[1])
    assert torch.equal(whole.trunk.blocks[0].attn.qkv.weight, few.trunk.blocks[0].attn.qkv.weight)


def test_seed_decides_the_start() -> None:
    """Catches a start that depends on torch's global state, and a seed that changes nothing."""
    torch.manual_seed(1)
    settings = config(groups=3, tree="Tree2", output="smooth", conditioning="adaptive_norm")
    one = DCHAG(settings, seed=5)
    torch.manual_seed(2)
    same, other = DCHAG(settings, seed=5), DCHAG(settings, seed=6)
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.unique().numel() <= 2 or name == "position" or not torch.equal(a, c), name


def test_tokens_start_with_unit_variance() -> None:
    """Catches a channel stage whose output vanishes or explodes with the channels or with the depth of the tree."""
    for settings in ({"groups": "all"}, {"groups": 4, "tree": "Tree4"}, {"groups": 4, "tree": "Tree4", "unit": "L"}):
        names = tuple(f"c{i}x" for i in range(200))
        model = DCHAG(config(channels=names, width=64, **settings))
        spread = model._aggregate(fields(4, 200, 4, 6).float(), model._present(None, ()), None).std(dim=1).mean()
        assert 0.3 < spread < 3, settings


def test_parts_of_a_model() -> None:
    """Catches a rank that holds other channels, units or rows than it says."""
    whole = DCHAG(config(groups=4, tree="Tree2"))
    part = DCHAG(config(groups=4, tree="Tree2"), groups=[1, 3])
    assert part.channels_held == tuple(NAMES[c] for g in (1, 3) for c in whole.tree.groups[g])
    values, rows = dict(whole.named_parameters()), part.cut_rows()
    assert {name for name in values if name.startswith("stage.")} == rows.keys()
    for name, parameter in part.named_parameters():
        if name in rows:
            assert rows[name].total == values[name].shape[0]
            assert torch.equal(parameter, values[name][list(rows[name].rows)]), name
    with pytest.raises(ValueError, match="groups held must be among the 4 groups"):
        DCHAG(config(groups=4), groups=[4])


def test_lead_time_in_hundreds_of_hours() -> None:
    """Catches a lead time in other units, which ClimaX's weights would misread."""
    model = scrambled(DCHAG(config(depth=0, decoder_depth=0)))
    x = fields(1, 11, 4, 6)
    seen: list[Tensor] = []
    model.drop.register_forward_hook(lambda module, args, out: seen.append(out))
    for hours in (0.0, 250.0):
        model(x, torch.tensor([hours], dtype=torch.float64))
    difference = (seen[1] - seen[0])[0]
    torch.testing.assert_close(
        difference, (2.5 * model.lead.weight[:, 0]).expand_as(difference), rtol=1e-12, atol=1e-12
    )


def test_other_images_interpolate_positions() -> None:
    """Catches positions cut off or repeated on another grid: a plane of positions stays a plane away from the edges."""
    model = scrambled(DCHAG(config(image=(12, 20))))
    with torch.no_grad():
        rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(10.0), indexing="ij")
        model.position.copy_((2 * rows + columns).reshape(-1, 1).expand(-1, 16))
    assert model(fields(2, 11, 24, 40), LEADS).shape == (2, 10, 24, 40)
    found = model._position((12, 20)).detach().view(12, 20, 16)[3:-3, 3:-3, 0]
    steps = found.diff(dim=0).mean(), found.diff(dim=1).mean()
    assert steps[0] == pytest.approx(1.0, abs=0.05)
    assert steps[1] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_options_on_other_images_and_in_bfloat16(settings: dict[str, Any]) -> None:
    """Catches an output bound to the image trained on, and a type that autocast does not convert."""
    model = scrambled(DCHAG(config(**settings)))
    x, lead = fields(2, 11, 8, 4), LEADS
    right = model(x, lead)
    assert right.shape == (2, 10, 8, 4)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x.float(), lead.float())
    assert (found.double() - right).abs().max() < 0.1 * right.abs().max()


def test_adaptive_norm_starts_as_conditioning_by_tokens() -> None:
    """Catches modulation that changes an untrained trunk, and one that no gradient reaches."""
    x, condition = fields(2, 11, 4, 6).float(), fields(2, 16).float()
    plain, adaptive = DCHAG(config(), seed=4), DCHAG(config(conditioning="adaptive_norm"), seed=4)
    tokens = adaptive.encode(x, condition_BD=condition)
    torch.testing.assert_close(tokens, plain.encode(x, condition_BD=condition))
    tokens[..., ::2].square().sum().backward()
    assert adaptive.trunk.blocks[0].modulation.weight.grad.abs().max() > 1e-4
    with pytest.raises(ValueError, match="needs a condition for every sample"):
        adaptive.encode(x)


def test_smoothing_starts_as_the_identity() -> None:
    """Catches a convolution that disturbs a network which was trained without it; zero fields alone do not show it."""
    model, y = DCHAG(config(output="smooth")), fields(2, 10, 4, 6).float()
    assert model.smooth is not None
    assert torch.equal(model.smooth(y), y)


def test_windows_that_overlap_leave_no_edges() -> None:
    """Catches a sum of windows with steps at the edges of patches: smooth windows must give smooth fields."""
    generator, patch, grid = torch.Generator().manual_seed(6), 8, (4, 6)
    side = torch.arange(16.0)
    modes = torch.stack([torch.cos(torch.pi * k * (side + 0.5) / 16) for k in range(3)])  # slow within a window
    amplitude = torch.randn(5, 24, 3, 3, generator=generator)
    windows = torch.einsum("bpkl,ky,lx->bpyx", amplitude, modes, modes)
    joined = unpatchify(windows.reshape(5, 24, -1), patch=patch, grid=grid, margin=4)
    beside = unpatchify(windows[:, :, 4:12, 4:12].reshape(5, 24, -1), patch=patch, grid=grid)
    for axis in (2, 3):
        jump = [f.diff(dim=axis).square().movedim(axis, 0).flatten(1).mean(dim=1) for f in (joined, beside)]
        ratio = [j[7::8].mean() / j[[i for i in range(len(j)) if i % 8 != 7]].mean() for j in jump]
        assert ratio[0] < 1.5
        assert ratio[1] > 10


def test_options_that_came_later_are_named_only_where_they_are_used() -> None:
    """Catches an older checkpoint that cannot be resumed because its description lacks a key."""
    late = {"output", "output_margin", "conditioning"}
    assert late.isdisjoint(config().to_dict())
    used = config(patch=4, image=(8, 8), output="overlap", output_margin=1, conditioning="adaptive_norm")
    assert late < set(used.to_dict())
    assert DCHAGConfig.from_dict(json.loads(json.dumps(used.to_dict()))) == used
    assert (used.window, config(output="overlap").window, config().window) == (6, 4, 2)


def test_sincos_positions() -> None:
    """Catches sines of latitude where longitude belongs, and two patches with the same position."""
    table = sincos_2d((3, 5), 16)
    columns = torch.arange(5.0).repeat(3)
    torch.testing.assert_close(table[:, 0], columns.sin())
    torch.testing.assert_close(table[:, 4], columns.cos())
    torch.testing.assert_close(table[:, 8], torch.arange(3.0).repeat_interleave(5).sin())
    assert torch.unique(table, dim=0).shape[0] == 15


def test_config_survives_json() -> None:
    """Catches a checkpoint's config that comes back with lists where tuples were, and compares unequal."""
    original = config(groups=(NAMES[:5], NAMES[5:]), tree=(3, 2))
    assert DCHAGConfig.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    with pytest.raises(ValueError, match="known keys only, got colour"):
        DCHAGConfig.from_dict(original.to_dict() | {"colour": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "width must be a multiple of heads, got 16 and 3"),
        ({"width": 18, "heads": 3}, "multiple of 4 for the position embedding, got 18"),
        ({"image": (5, 6)}, "divisible by the patch of 2, got"),
        ({"image": (4,)}, "image must be two sizes"),
        ({"patch": 0}, "patch must be positive, got 0"),
        ({"depth": -1}, "depth must not be negative, got -1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be positive"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"out_channels": ()}, "out_channels must be unique and at least one"),
        ({"unit": "c"}, "unit must be 'C' or 'L', got 'c'"),
        ({"channel_stage": "fast"}, "channel_stage must be 'fused' or 'reference', got 'fast'"),
        ({"conditioning": "film"}, "conditioning must be 'token' or 'adaptive_norm', got 'film'"),
        ({"output": "pixels"}, "output must be one of patches, overlap, smooth, got 'pixels'"),
        ({"output": "overlap", "output_margin": 2}, "output_margin of at most half of it, got 2 and 2"),
        ({"output": "overlap", "patch": 1}, "needs a patch of at least 2 cells .* got 1 and 0"),
        ({"output_margin": 1}, "output_margin is for output 'overlap', got 1 with 'patches'"),
        ({"groups": 12}, "between 1 and the 11 channels, got 12"),
    ],
)
def test_wrong_config(settings: dict[str, Any], message: str) -> None:
    """Catches a wrong setting that fails later, in a matrix product."""
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_all_problems_at_once() -> None:
    """Catches a user sent round once per mistake."""
    with pytest.raises(ValueError, match=r"unit must .*; channel_stage must .*; tree must"):
        config(unit="X", channel_stage="Y", tree="Z")


@pytest.mark.parametrize(
    ("x", "leads", "channels", "message"),
    [
        (fields(2, 10, 4, 6), LEADS, None, "the 11 channels held, got 10; name the ones present"),
        (fields(2, 11, 5, 6), LEADS, None, "divisible by the patch of 2, got 5 x 6"),
        (fields(2, 11, 4, 6), LEADS[:1], None, r"one value per sample \(2\)"),
        (fields(2, 2, 4, 6), LEADS, ("z500",), "the 1 channels named, got 2"),
        (fields(2, 2, 4, 6), LEADS, ("z500", "sst"), "among the 11 of the model, got sst"),
        (fields(2, 2, 4, 6), LEADS, ("z500", "z500"), "unique"),
    ],
)
def test_wrong_input(x: Tensor, leads: Tensor, channels: tuple[str, ...] | None, message: str) -> None:
    """Catches fields that fit by accident of broadcasting."""
    with pytest.raises(ValueError, match=message):
        scrambled(DCHAG(config()))(x, leads, channels=channels)


def test_copies_are_independent() -> None:
    """Catches a copy that shares its caches of channel subsets with the original."""
    model = scrambled(DCHAG(config(groups=3)))
    twin = copy.deepcopy(model)
    few = ("z500", "t2m")
    before = model(fields(2, 2, 4, 6), LEADS, channels=few)
    with torch.no_grad():
        twin.stage.tokeniser.weight.zero_()
    assert torch.equal(model(fields(2, 2, 4, 6), LEADS, channels=few), before)
    assert not torch.equal(twin(fields(2, 2, 4, 6), LEADS, channels=few), before)


@pytest.mark.slow
def test_learns_a_shift() -> None:
    """Catches a model whose parts do not learn together: it must predict the neighbouring cell of another channel."""
    torch.manual_seed(0)
    model = DCHAG(config(groups=2, tree="Tree2", depth=2, image=(4, 6), width=32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        x = torch.randn(16, 11, 4, 6)
        target = x[:, [3]].roll(1, dims=3).expand(-1, 10, -1, -1)
        loss = (model(x, torch.full((16,), 24.0)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]


@pytest.mark.slow
def test_core_needs_torch_only(root: Path) -> None:
    """Catches an import that a bare GPU machine cannot satisfy."""
    code = """
import sys, model.dchag, model.weather.loss, model.weights.climax, model.parallel.wrap
found = {"xarray", "zarr", "pydantic", "pandas", "dask", "pipeline", "scipy"} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)
