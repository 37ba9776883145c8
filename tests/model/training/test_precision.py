"""The precision of matrix products, in training and outside of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from model.network import trunk
from model.training.precision import matmul_precision
from tests.model.training import stub


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Catches a precision that stays behind for everything else in the process."""
    assert torch.get_float32_matmul_precision() == "highest"
    yield
    assert torch.get_float32_matmul_precision() == "highest"


def test_is_put_back_after_an_error() -> None:
    """Catches a setting of the process that a failure leaves changed."""

    def fail() -> None:
        with matmul_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()


@contextmanager
def named(names: list[str], backend: Any) -> Iterator[None]:
    """Instead of torch's choice of a backend: note its name."""
    names.append(backend.name)
    yield


def test_attention_of_few_patches_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches plain attention without its scale or over the wrong axis, and a limit that is not looked at."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 8, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    weights = torch.einsum("baie,baje->baij", q, k).div(2.0).softmax(dim=3)
    right = torch.einsum("baij,baje->baie", weights, v)
    with matmul_precision("medium"):
        torch.testing.assert_close(trunk.attention(q, k, v), right, rtol=1e-12, atol=1e-12)
        chosen: list[str] = []
        monkeypatch.setattr(trunk, "sdpa_kernel", lambda backend: named(chosen, backend))
        trunk.attention(q, k, v)
        assert chosen == ["MATH"]
        monkeypatch.setattr(trunk, "FEW_PATCHES", 7)
        trunk.attention(q, k, v)
    trunk.attention(q, k, v)
    assert chosen == ["MATH"]
    torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v), right, rtol=1e-12, atol=1e-12)


def test_holds_in_forward_backward_and_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a setting that is read and not used, or only where the loss is computed."""
    seen: dict[str, set[str]] = {"step": set(), "backward": set(), "validation": set()}

    def note(where: str) -> None:
        seen[where].add(torch.get_float32_matmul_precision())

    def scores(_factor: float) -> dict[str, float]:
        note("validation")
        return {"loss": 1.0}

    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, *a, **k: (note("backward"), backward(self, *a, **k))[1])
    options = stub.options(steps=2, matmul_precision="medium")
    stub.train(tmp_path, stub.StubTask(options, in_step=lambda _step: note("step"), scores=scores))
    assert seen == {where: {"medium"} for where in seen}
