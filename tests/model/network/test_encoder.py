"""Some patches of an image: the tokens of the full pass, from these patches alone, with the gradients of a plain loop.

Letters: B batch, C channels, H/W grid, L patches, M patches read, D width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.network.encoder import Encoder
from model.parallel.channels import channel_plan
from model.parallel.mesh import build_mesh, channel_rank
from model.parallel.wrap import Placement, distribute
from tests.model.naive import naive_twin, pairs
from tests.model.parallel.harness import run_distributed
from tests.model.training.toy import Pixels, PixelsConfig

NAMES = tuple(f"c{i}x" for i in range(11))
UNEVEN = ((0, 2, 4, 6, 8), (1,), (3, 5, 7), (9, 10))
"""Groups of 5, 1, 3 and 2 channels, out of order."""
STAGES: dict[str, dict[str, Any]] = {
    "flat": {},
    "one unit for all tokens": {"tree": "none", "groups": 2},
    "uneven groups": {"groups": UNEVEN},
    "tree": {"groups": UNEVEN, "tree": "Tree2"},
    "linear tree": {"groups": UNEVEN, "tree": "Tree2", "unit": "L"},
}
WIDTHS = {"flat": [], "one unit for all tokens": None, "uneven groups": [], "tree": [2], "linear tree": [2]}
FORMS = pytest.mark.parametrize("form", ["fused", "reference"])
KINDS = pytest.mark.parametrize("kind", STAGES)
SOME = torch.tensor([[5, 0, 3], [1, 4, 2]])
"""Of six patches: not in order, and others in each sample."""
CONDITION = torch.linspace(-1, 1, 32, dtype=torch.float64).view(2, 16)


def config(kind: str, **changes: Any) -> PixelsConfig:
    settings: dict[str, Any] = {"image": (4, 6), "width": 16, "heads": 4, "dropout": 0.0, **STAGES[kind], **changes}
    if isinstance(settings.get("groups"), tuple):
        settings["groups"] = tuple(tuple(NAMES[c] for c in group) for group in settings["groups"])
    return PixelsConfig(channels=NAMES, **settings)


def scrambled(encoder: Encoder) -> Encoder:
    """Random values everywhere, of the parameter's name and shape alone."""
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.3 * noise)
    return encoder.double()


def images() -> Tensor:
    return torch.randn(2, 11, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def pick(tokens_BLD: Tensor, patches_BM: Tensor) -> Tensor:
    return torch.stack([tokens[patches] for tokens, patches in zip(tokens_BLD, patches_BM, strict=True)])


def weighted(tokens: Tensor) -> Tensor:
    """A sum in which no two values count alike."""
    return (tokens * torch.linspace(-1.0, 2.0, tokens.numel(), dtype=torch.float64).view_as(tokens)).sum()


@FORMS
@KINDS
def test_tokens_are_those_of_the_full_pass(kind: str, form: str) -> None:
    """Catches patches read at the wrong place, of the wrong sample, or given the position of another."""
    encoder = scrambled(Encoder(config(kind, depth=0, channel_stage=form)))
    x = images()
    whole = encoder.encode(x, condition_BD=CONDITION)
    for patches in (SOME, SOME[:, [0]], torch.arange(6).expand(2, 6), torch.arange(5, -1, -1).expand(2, 6)):
        found = encoder.encode(x, condition_BD=CONDITION, patches_BM=patches)
        torch.testing.assert_close(found, pick(whole, patches), rtol=1e-12, atol=1e-12)
    few = (NAMES[9], NAMES[0], NAMES[3])
    some = encoder.encode(x[:, [9, 0, 3]], channels=few, patches_BM=SOME)
    torch.testing.assert_close(some, pick(encoder.encode(x[:, [9, 0, 3]], channels=few), SOME), rtol=1e-12, atol=1e-12)


@FORMS
@KINDS
def test_what_is_not_read_has_no_influence(kind: str, form: str) -> None:
    """Catches a masked patch that is tokenised all the same, or seen by the trunk, forward or backward."""
    encoder = scrambled(Encoder(config(kind, depth=2, channel_stage=form)))
    x = images()
    outside = torch.ones(2, 6, dtype=torch.bool).scatter(1, SOME, False).view(2, 1, 2, 3)
    outside = outside.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).expand_as(x)
    found = []
    for fields in (x, x.masked_fill(outside, float("nan"))):
        encoder.zero_grad()
        leaf = fields.clone().requires_grad_()
        tokens = encoder.encode(leaf, patches_BM=SOME)
        weighted(tokens).backward()
        found.append([tokens.detach(), leaf.grad, *(p.grad.clone() for p in used(encoder))])
    for plain, poisoned in zip(*found, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(plain, poisoned)
    assert found[0][1][outside].abs().max() == 0
    assert (found[0][1][~outside] != 0).all()


def used(encoder: Encoder) -> list[Tensor]:
    return [p for p in encoder.parameters() if p.grad is not None]


@FORMS
@KINDS
def test_gradients_are_those_of_a_plain_loop(kind: str, form: str) -> None:
    """Catches gradients that miss a path or go to another patch: against one patch at a time, by the naive stage."""
    encoder = scrambled(Encoder(config(kind, depth=1, channel_stage=form)))
    members = [list(group) for group in encoder.tree.groups]
    twin = naive_twin(encoder, members, WIDTHS[kind])
    position = encoder.position.detach().clone().requires_grad_()
    x = images()
    tokens = encoder.encode(x, condition_BD=CONDITION, patches_BM=SOME)
    weighted(tokens).backward()
    trunk = [p.grad.clone() for p in encoder.trunk.parameters()]
    encoder.trunk.zero_grad()

    samples = []
    for b, patches in enumerate(SOME.tolist()):
        alone = []
        for patch in patches:
            row, column = 2 * (patch // 3), 2 * (patch % 3)
            token_D = twin(x[[b], :, row : row + 2, column : column + 2])[0, 0]
            alone.append(token_D + position[patch] + CONDITION[b])
        samples.append(encoder.trunk(torch.stack(alone)[None])[0])
    right = torch.stack(samples)
    torch.testing.assert_close(tokens, right, rtol=1e-12, atol=1e-12)
    weighted(right).backward()
    matched = [*((b, a) for a, b in pairs(twin, encoder, lambda p: p.grad)), (encoder.position.grad, position.grad)]
    matched += list(zip(trunk, [p.grad for p in encoder.trunk.parameters()], strict=True))
    largest = max(expected.abs().max().item() for _, expected in matched)
    for value, expected in matched:
        # a bias or query whose gradient vanishes (a single member) is compared with the largest gradient instead
        assert (value - expected).abs().max() < 1e-10 * max(1e-3 * largest, expected.abs().max().item())


@FORMS
@KINDS
def test_recomputation_changes_nothing(kind: str, form: str) -> None:
    """Catches a second forward pass in backward that forgets which patches were read."""
    found = []
    for recompute in (False, True):
        encoder = scrambled(Encoder(config(kind, depth=1, channel_stage=form)))
        encoder.set_recompute(recompute)
        tokens = encoder.encode(images(), patches_BM=SOME)
        weighted(tokens).backward()
        found.append([tokens.detach(), *(p.grad for p in used(encoder))])
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))


def tokens_and_gradients(kind: str, trunk: str) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Of a rank's part of a network: its output, and its gradients beside those that the whole network gives."""
    shape, mesh = config(kind, depth=1, groups=UNEVEN), build_mesh(channel=2)
    whole = scrambled(shape.build())
    placement = Placement(trunk=trunk, data="ddp")
    part = distribute(shape, mesh=mesh, placement=placement, seed=None, dtype=torch.float64, start=whole)
    assert isinstance(part, Pixels)
    held = channel_plan(shape.channel_tree(), ranks=2).channels[channel_rank(mesh)]
    x = images()
    out = part(x[:, [NAMES.index(name) for name in held]], SOME)
    weighted(out).backward()
    right = whole(x, SOME)
    weighted(right).backward()
    values, rows = dict(whole.named_parameters()), part.cut_rows()
    gradients = {}
    for name, parameter in part.named_parameters():
        grad, expected = parameter.grad, values[name].grad
        full = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        gradients[name] = (full, expected[list(rows[name].rows)] if name in rows else expected)
    return (out - right).detach(), gradients


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["replicated", "sequence"])
@pytest.mark.parametrize("kind", ["uneven groups", "linear tree"])
def test_channel_ranks_read_the_same_patches(kind: str, trunk: str) -> None:
    """Catches a rank that reads other patches, or an odd number of patches cut over two ranks."""
    for difference, gradients in run_distributed(tokens_and_gradients, 2, kind, trunk):
        assert difference.abs().max() < 1e-12
        largest = max(expected.abs().max().item() for _, expected in gradients.values())
        for name, (value, expected) in gradients.items():
            assert (value - expected).abs().max() < 1e-10 * largest, name
