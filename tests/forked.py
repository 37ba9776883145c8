"""Processes forked from a server that has imported our packages once, so that they start in milliseconds.

Contract: `run` gives what `subprocess.run` of `python -m MODULE` gives, for tests of what a command says and leaves
behind. A forked process ends without `atexit` and without the last words of objects that nobody closed: tests of those,
of imports or of the environment start a new interpreter. A server is started by each worker of the test run and has
done nothing but import.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORTED = (
    "pyproj",  # before ecCodes, as in tests/conftest.py
    "torch",
    "torch.distributed",
    "torch.distributed.fsdp",
    "model.weather.train",
    "model.weather.forecast",
    "preprocess.ingest.stage",
    "pipeline.__main__",
    "snakemake.cli",
)
MAINS = {"pipeline": "pipeline.__main__", "snakemake": "snakemake.cli"}
"""What `python -m` takes -> the module whose `main` it calls."""


def forking() -> Any:
    """Processes from the server; one server for a whole test run, so all must ask for the same imports."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def start(
    command: Sequence[str], *, cwd: Path, output: Path, env: Mapping[str, str] | None = None, file_size: int = -1
) -> BaseProcess:
    """Start a command.

    Args:
        command: one of MAINS and its arguments.
        cwd: its folder.
        output: where it writes `stdout` and `stderr`.
        env: its environment; that of the test run when absent.
        file_size: of the largest file that it can write [bytes]; any when below zero.
    """
    environment = dict(os.environ if env is None else env)
    process: BaseProcess = forking().Process(target=_begin, args=(list(command), cwd, output, environment, file_size))
    process.start()
    return process


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    file_size: int = -1,
    timeout: float = 600.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; arguments as for `start`.

    Raises:
        subprocess.TimeoutExpired: it took longer than this many seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = start(command, cwd=cwd, output=Path(folder), env=env, file_size=file_size)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(command), timeout)
        said = [Path(folder, name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(list(command), process.exitcode, *said)


def _begin(command: list[str], cwd: Path, output: Path, environment: dict[str, str], file_size: int) -> None:
    """In the child: become what a shell would have started."""
    if file_size >= 0:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    module, *sys.argv[1:] = command
    sys.exit(importlib.import_module(MAINS[module]).main())
