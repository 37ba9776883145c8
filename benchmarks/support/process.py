"""Variants measured in processes of their own, and the peak memory of such a process. Imports no library of ours."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a script, described by its docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--one", help=argparse.SUPPRESS)
    return made


def options(given: argparse.ArgumentParser, one: Callable[[dict[str, Any]], dict[str, Any]]) -> argparse.Namespace:
    """What was given on the command line.

    A process started by `in_fresh_process` does not return from here: it measures its variant with `one` and exits.
    """
    parsed = given.parse_args()
    if parsed.one:
        print(json.dumps(one(json.loads(parsed.one))))
        raise SystemExit(0)
    return parsed


def in_fresh_process(script: str, case: dict[str, Any], *, timeout: float = 3600) -> dict[str, Any]:
    """The case with what `one` of a script measures for it; after a failure, with an error instead."""
    command = [sys.executable, script, "--one", json.dumps(case)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    if done.returncode:
        return {**case, "error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "killed"}
    return {**case, **json.loads(done.stdout.strip().splitlines()[-1])}


def part(script: str, **case: Any) -> dict[str, Any]:
    """What `one` of a script measures for a case, in a process of its own; a failure ends the script."""
    row = in_fresh_process(script, case)
    if "error" in row:
        raise SystemExit(f"error: {Path(script).stem} {json.dumps(case)}: {row['error']}")
    return {key: value for key, value in row.items() if key not in case}


def peak_bytes() -> int:
    """Largest resident memory of this process since its start, or since the last reset [bytes].

    `ru_maxrss` is only the fallback: a process started by a large one begins with the peak of that one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
