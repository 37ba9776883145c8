"""Checkpoints are whole or absent, and only tensors are read from them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.training import checkpoint

OURS: dict[str, Any] = {"contract": {"channels": ["t850", "t2m"], "step_hours": 12}, "normals": "abc"}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {"model.a": torch.randn(3, 5, generator=random), "model.b.c": torch.randn(7, generator=random)}


def empty() -> dict[str, Tensor]:
    return {name: torch.full_like(t, float("nan")) for name, t in tensors().items()}


def save(folder: Path, step: int, *, tag: str = "step", keep: int = 2) -> Path:
    return checkpoint.save(folder, tensors(step), OURS, tag=tag, step=step, keep=keep)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    """Catches a tensor that is skipped, cast or swapped."""
    path, found = save(tmp_path, 40), empty()
    description = checkpoint.load(path, found, expected=OURS)
    assert description["step"] == 40
    assert all(torch.equal(found[name], t) for name, t in tensors(40).items())


def test_newest_by_step_and_only_n_kept_of_each_tag(tmp_path: Path) -> None:
    """Catches text order (9 after 10), and the best checkpoint thrown away as an old one."""
    save(tmp_path, 5, tag="best", keep=1)
    for step in (9, 10, 200):
        save(tmp_path, step)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000200"
    assert checkpoint.newest(tmp_path, tag="best") == tmp_path / "best-000000005"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-000000005", "step-000000010", "step-000000200"]


@pytest.mark.parametrize("moment", ["tensors", "description"])
def test_half_written_is_never_picked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Catches a checkpoint that is visible before all of its files are."""
    save(tmp_path, 1)

    class Killed(BaseException):
        pass

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    monkeypatch.setattr(
        *((checkpoint, "save_tensors") if moment == "tensors" else (checkpoint.files, "write_json")), die
    )
    with pytest.raises(Killed):
        save(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000001"
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.clean(tmp_path, tag="best", step=1)
    assert len(list(tmp_path.iterdir())) == 1


def test_half_deleted_is_never_picked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an old checkpoint that a kill during its deletion leaves without some of its tensors."""
    save(tmp_path, 1)

    class Killed(BaseException):
        pass

    original = checkpoint.shutil.rmtree

    def die(path: Path, **kwargs: Any) -> None:
        if path.exists() and path.suffix == ".old":
            next(p for p in path.iterdir() if p.suffix == ".distcp").unlink()
            raise Killed
        original(path, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", die)
    with pytest.raises(Killed):
        save(tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000002"
    checkpoint.load(tmp_path / "step-000000002", empty(), expected=OURS)


def test_a_full_disk_is_an_error_people_understand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback of torch's own exception, and an older checkpoint lost to a write that failed."""
    save(tmp_path, 1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.FileSystemWriter, "write_data", full)
    with pytest.raises(OSError, match=r"written whole.*No space left"):
        save(tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000001"


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    """Catches a truncated file that surfaces as an unreadable error deep inside torch."""
    path = save(tmp_path, 1)
    file = next(path.glob("*.distcp"))
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=f"must be whole.*{file.name}"):
        checkpoint.load(path, empty(), expected=OURS)


def test_another_contract_is_refused_with_every_difference(tmp_path: Path) -> None:
    """Catches weights used on other channels, another grid or other normals."""
    path = save(tmp_path, 1)
    other = {"contract": {"channels": ["t850", "u10"], "step_hours": 6}, "normals": "xyz"}
    with pytest.raises(ValueError, match="3 difference") as error:
        checkpoint.load(path, empty(), expected=other)
    for word in ("channels", "step_hours: 12 against 6", "normals: abc against xyz"):
        assert word in str(error.value)


def test_other_shapes_are_refused_with_every_difference(tmp_path: Path) -> None:
    """Catches a tensor left at its random start because the checkpoint has none of that name."""
    path = save(tmp_path, 1)
    wanted = {"model.a": torch.zeros(5, 3), "model.x": torch.zeros(2)}
    with pytest.raises(ValueError, match="2 difference") as error:
        checkpoint.load(path, wanted, expected=OURS)
    assert "model.a: (3, 5) against (5, 3)" in str(error.value)
    assert "model.x: absent" in str(error.value)


class Payload:
    """What an attacker would put into an index: it runs a command when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_loading_runs_no_code_from_the_file(tmp_path: Path) -> None:
    """Catches an index read with plain pickle."""
    path = save(tmp_path, 1)
    content = pickle.dumps(Payload(tmp_path / "owned"))
    (path / ".metadata").write_bytes(content)
    description = checkpoint.files.read_json(path / "checkpoint.json")
    description["files"][".metadata"] = len(content)
    checkpoint.files.write_json(path / "checkpoint.json", description)
    with pytest.raises(ValueError, match="known classes"):
        checkpoint.load(path, empty(), expected=OURS)
    assert not (tmp_path / "owned").exists()


def test_optimiser_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    """Catches moments or the step count of Adam lost on the way: the next update would differ."""

    def start() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimiser: torch.optim.AdamW, number: int) -> None:
        torch.manual_seed(number)
        optimiser.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()

    def everything(model: torch.nn.Linear, optimiser: torch.optim.AdamW) -> dict[str, Tensor]:
        named = dict(model.named_parameters())
        return {n: p.detach() for n, p in named.items()} | checkpoint.optimiser_tensors(named, optimiser)

    undisturbed = start()
    for number in range(5):
        step(*undisturbed, number)
    first = start()
    for number in range(3):
        step(*first, number)
    path = checkpoint.save(tmp_path, everything(*first), OURS, tag="step", step=3, keep=1)
    second = start()
    checkpoint.load(path, everything(*second), expected=OURS)
    for number in range(3, 5):
        step(*second, number)
    for a, b in zip(undisturbed[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)
