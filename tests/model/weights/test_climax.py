"""ClimaX weights: the same function as an independent ClimaX, from both layouts of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.dchag import DCHAG, DCHAGConfig
from model.parallel.wrap import plan_for
from model.weights.climax import CLIMAX_CHANNELS, load_climax, read_climax

CHANNELS = ("lsm", "t2m", "u10", "z500", "t500", "q850", "z850")
WIDTH, HEADS, PATCH, IMAGE = 24, 4, 2, (6, 10)


class NaiveBlock(nn.Module):
    """A ViT block with timm's names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 3 * WIDTH), "fc2": nn.Linear(3 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(B, L, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (D // HEADS) ** -0.5).softmax(dim=-1)
        x = x + self.attn["proj"]((weights @ v).transpose(1, 2).reshape(B, L, D))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class NaiveClimaX(nn.Module):
    """ClimaX by its description: a loop over channels, one cross-attention, a ViT; keys as in its files."""

    def __init__(self, *, stacked: bool) -> None:
        super().__init__()
        num = len(CHANNELS)
        if stacked:
            self.token_embeds = nn.ParameterDict(
                {"proj_weights": torch.zeros(num, WIDTH, 1, PATCH, PATCH), "proj_biases": torch.zeros(num, WIDTH)}
            )
        else:
            embed = [nn.ModuleDict({"proj": nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)}) for _ in range(num)]
            self.token_embeds = nn.ModuleList(embed)
        self.stacked = stacked
        self.var_embed = nn.Parameter(torch.zeros(1, num, WIDTH))
        self.var_query = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.var_agg = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.pos_embed = nn.Parameter(torch.zeros(1, IMAGE[0] * IMAGE[1] // PATCH**2, WIDTH))
        self.lead_time_embed = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(NaiveBlock() for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, num * PATCH**2)
        )
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for parameter in self.parameters():
                scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        self.double()

    def embed(self, x: Tensor, i: int) -> Tensor:
        if self.stacked:
            weight, bias = self.token_embeds["proj_weights"][i], self.token_embeds["proj_biases"][i]
            tokens = nn.functional.conv2d(x[:, [i]], weight, bias, stride=PATCH)
        else:
            tokens = self.token_embeds[i]["proj"](x[:, [i]])
        return tokens.flatten(2).transpose(1, 2) + self.var_embed[:, i]

    def forward(self, x: Tensor, hours: Tensor, keep: list[int] | None = None) -> Tensor:
        B, V, H, W = x.shape
        flat = torch.stack([self.embed(x, i) for i in keep or range(V)], dim=2).flatten(0, 1)
        one, _ = self.var_agg(self.var_query.expand(len(flat), 1, WIDTH), flat, flat)
        x = one.view(B, -1, WIDTH) + self.pos_embed
        x = x + self.lead_time_embed(hours[:, None] / 100)[:, None]
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm(x)).view(B, H // PATCH, W // PATCH, PATCH, PATCH, V)
        return torch.einsum("nhwpqc->nchpwq", x).reshape(B, V, H, W)


def file_of(naive: NaiveClimaX, path: Path, *, old: bool) -> Path:
    """A checkpoint as published: prefixed, in the released files with "channel_" for "var_"."""
    renamed = {}
    for name, value in naive.state_dict().items():
        renamed["net." + (name.replace("var_", "channel_") if old else name)] = value
    torch.save({"state_dict": renamed, "epoch": 3}, path)
    return path


def inputs(channels: tuple[str, ...] = CHANNELS, image: tuple[int, int] = IMAGE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, len(channels), *image, generator=generator, dtype=torch.float64)
    return x, torch.tensor([6.0, 720.0], dtype=torch.float64)


def settings(**changes: object) -> DCHAGConfig:
    """The flat model of `NaiveClimax`'s sizes."""
    names = {"channels": CHANNELS, "out_channels": CHANNELS, "image": IMAGE, "dropout": 0.0}
    sizes = {"patch": PATCH, "width": WIDTH, "heads": HEADS, "depth": 3, "mlp_ratio": 3.0, "decoder_depth": 2}
    return DCHAGConfig(**(names | sizes | changes))


@pytest.mark.parametrize("form", ["fused", "reference"])
@pytest.mark.parametrize("tree", ["Tree0", "none"])
@pytest.mark.parametrize("old", [False, True])
def test_same_function(old: bool, tree: str, form: str, tmp_path: Path) -> None:
    """Catches transposed pixels, heads in another order, a lost bias, key biases that matter, lead time in hours."""
    naive = NaiveClimaX(stacked=not old)
    state = read_climax(file_of(naive, tmp_path / "climax.ckpt", old=old))
    config = DCHAGConfig.from_dict(settings().to_dict() | {"tree": tree, "channel_stage": form})
    assert (config.width, config.depth, config.decoder_depth, config.mlp_ratio, config.patch) == (24, 3, 2, 3.0, 2)
    model = DCHAG(config).double()
    found = load_climax(model, state, channels=CHANNELS, image=IMAGE)
    assert found.channels == found.out_channels == CHANNELS
    assert (found.initialised, found.unused, found.out_initialised, found.unused_keys) == ((), (), (), ())
    assert not found.interpolated
    x, hours = inputs()
    assert (model(x, hours) - naive(x, hours)).abs().max() < 1e-10


def test_other_channels_in_another_order() -> None:
    """Catches weights given to the wrong channel, and channels that the file lacks passed over in silence."""
    naive = NaiveClimaX(stacked=False)
    state = dict(naive.state_dict())
    ours = ("z850", "w500", "lsm", "t500")
    model = DCHAG(settings(channels=ours, out_channels=("t500", "w500", "t2m"))).double()
    start = model.stage.tokeniser.weight[1].clone()
    found = load_climax(model, state, channels=CHANNELS, image=IMAGE)
    assert found.channels == ("z850", "lsm", "t500")
    assert found.initialised == ("w500",)
    assert found.unused == ("t2m", "u10", "z500", "q850")
    assert found.out_channels == ("t500", "t2m")
    assert found.out_initialised == ("w500",)
    assert torch.equal(model.stage.tokeniser.weight[1], start)
    for row, name in ((0, "z850"), (2, "lsm"), (3, "t500")):
        embed = naive.token_embeds[CHANNELS.index(name)]["proj"].weight
        x = torch.arange(4.0, dtype=torch.float64)
        torch.testing.assert_close(x @ model.stage.tokeniser.weight[row], embed.view(WIDTH, 4) @ x)

    with torch.no_grad():  # with the fourth channel absent, the predictions of both must agree
        x, hours = inputs()
        few = x[:, [CHANNELS.index(name) for name in ("z850", "lsm", "t500")]]
        y = model(few, hours, channels=("z850", "lsm", "t500"))
        right = naive(x, hours, keep=[CHANNELS.index(name) for name in ("lsm", "t500", "z850")])
    assert (y[:, 0] - right[:, CHANNELS.index("t500")]).abs().max() < 1e-10
    assert (y[:, 2] - right[:, CHANNELS.index("t2m")]).abs().max() < 1e-10
    assert y[:, 1].abs().max() == 0


def test_position_interpolation() -> None:
    """Catches positions of another grid copied row by row: a smooth field of positions must stay the same field."""
    naive = NaiveClimaX(stacked=False)
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    with torch.no_grad():
        naive.pos_embed.copy_((10 * rows + columns).reshape(1, -1, 1).expand_as(naive.pos_embed))
    state = dict(naive.state_dict())
    model = DCHAG(settings(image=(12, 20))).double()
    found = load_climax(model, state, channels=CHANNELS, image=IMAGE)
    assert found.interpolated
    table = model.position.detach().view(6, 10, WIDTH)[..., 0]
    assert table[3, 5].item() == pytest.approx(10 * 1.25 + 2.25, abs=1.0)  # bicubic beside the edge
    assert (table.diff(dim=0) > 0).all()


def test_part_of_a_rank() -> None:
    """Catches a rank that takes the weights of the first channels instead of its own."""
    naive = NaiveClimaX(stacked=True)
    state = dict(naive.state_dict())
    config = DCHAGConfig.from_dict(settings().to_dict() | {"tree": "none", "groups": 2})
    plan = plan_for(config, ranks=2)
    whole, part = DCHAG(config).double(), DCHAG(config, groups=plan.groups[1]).double()
    load_climax(whole, state, channels=CHANNELS, image=IMAGE)
    assert load_climax(part, state, channels=CHANNELS, image=IMAGE).channels == plan.channels[1]
    rows = part.cut_rows()["stage.tokeniser.weight"].rows
    assert torch.equal(part.stage.tokeniser.weight, whole.stage.tokeniser.weight[list(rows)])


def test_unknown_and_missing_keys() -> None:
    """Catches a weight that silently stays at its start, and a file's surplus passed over."""
    state = dict(NaiveClimaX(stacked=False).state_dict())
    config = settings()
    state["net.denormalization.mean"] = torch.zeros(3)
    assert load_climax(DCHAG(config), state, channels=CHANNELS, image=IMAGE).unused_keys == ("denormalization.mean",)
    for name, message in (
        ("blocks.1.attn.qkv.bias", r"must hold blocks\.1\.attn\.qkv\.bias"),
        ("var_query", "must hold var_query"),
    ):
        with pytest.raises(ValueError, match=message):
            load_climax(DCHAG(config), {k: v for k, v in state.items() if k != name}, channels=CHANNELS, image=IMAGE)
    with pytest.raises(ValueError, match="must hold token_embeds, got none; is it a ClimaX checkpoint"):
        load_climax(DCHAG(config), {"weight": torch.zeros(2)}, channels=CHANNELS, image=IMAGE)


def test_wrong_arguments() -> None:
    """Catches names counted wrongly, another grid and a model that is not flat."""
    state = dict(NaiveClimaX(stacked=False).state_dict())
    config = settings()
    with pytest.raises(ValueError, match="must name the 7 of the ClimaX file in its order, got 6"):
        load_climax(DCHAG(config), state, channels=CHANNELS[:6], image=IMAGE)
    with pytest.raises(ValueError, match=r"pos_embed must have shape \(1, 512, 24\)"):
        load_climax(DCHAG(config), state, channels=CHANNELS)
    for changes in ({"groups": 2}, {"tree": "Tree2"}, {"unit": "L"}):
        other = DCHAG(DCHAGConfig.from_dict(config.to_dict() | changes))
        with pytest.raises(ValueError, match="ClimaX weights need a flat model"):
            load_climax(other, state, channels=CHANNELS, image=IMAGE)


class Stranger:
    """An object whose unpickling runs code."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Stranger, "ran", True)


def test_files_of_strangers_run_nothing(tmp_path: Path) -> None:
    """Catches torch.load without weights_only: a checkpoint could run any code."""
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": Stranger()}, path)
    with pytest.raises(ValueError, match="tensors and plain values only"):
        read_climax(path)
    assert not Stranger.ran
    torch.load(path, weights_only=False)
    assert Stranger.ran, "the file above was harmless"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must hold a state dict"):
        read_climax(path)


def test_published_channel_order() -> None:
    """Catches a slip in the list of 48: by default the file's channels are named by it."""
    assert len(CLIMAX_CHANNELS) == len(set(CLIMAX_CHANNELS)) == 48
    assert CLIMAX_CHANNELS[:8] == ("lsm", "orog", "lat", "t2m", "u10", "v10", "z50", "z250")
    assert [CLIMAX_CHANNELS.index(name) for name in ("z500", "u500", "t850", "r500", "q925")] == [8, 15, 32, 36, 47]
