"""torchrun that ends with the ranks' own exit status and adds no report to the message that a rank has shown.

Contract: options are those of torchrun. A user's mistake on any rank ends the run with status 2, an error with 1, a
signal with 128 plus its number; SIGTERM (preemption) reaches every rank and waits for their checkpoint. Of the
messages that ranks show when they fail, the first counts (`pipeline.logs.speaks_first`); of a rank that a signal ended
(no memory left, a lost GPU) the launcher speaks. CPU threads are shared out.

    python -m model.parallel.torchrun --standalone --nproc-per-node=2 -m pipeline train --config FILE
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from pipeline.logs import RANKS_FOLDER, has_spoken, spoken_status

_SECONDS_TO_SAVE = "600"
"""How long ranks may take to save after SIGTERM before they are killed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the ranks of this machine and wait for them; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "-m" in given:  # what follows is the ranks' own: without the dashes torchrun takes --log for one of its options
        given.insert(given.index("-m") + 1, "--")
    options = parse_args(given)  # type: ignore[no-untyped-call]
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SECONDS_TO_SAVE)
    if options.nproc_per_node.isdigit():
        share = max(1, len(os.sched_getaffinity(0)) // int(options.nproc_per_node))
        os.environ.setdefault("OMP_NUM_THREADS", str(share))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="chagcast-") as folder:
        os.environ[RANKS_FOLDER] = folder
        try:
            run(options)  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            rank, first = error.get_first_failure()
            if first.exitcode < 0 and not has_spoken(Path(folder)):
                print(_lost(rank, first.exitcode), file=sys.stderr)
                return 128 - first.exitcode
            seen = [failure.exitcode for failure in error.failures.values()]
            return _status([*seen, *spoken_status(Path(folder))])
        except SignalException as error:
            return 128 + int(error.sigval)
    return 0


def _lost(rank: int, exitcode: int) -> str:
    """What to say of a rank that a signal ended, which could not say anything itself."""
    name = signal.Signals(-exitcode).name
    why = ", as happens where memory runs out" if name == "SIGKILL" else ""
    return (
        f"error: rank {rank} was ended by {name}{why}; the other ranks were stopped. The same command resumes; a "
        "training may also resume with another training.layout"
    )


def _status(codes: Sequence[int]) -> int:
    """One status for all ranks: a user's mistake before an error, an error before a signal."""
    statuses = [code if code >= 0 else 128 - code for code in codes if code]
    return next((s for wanted in (2, 1) for s in statuses if s == wanted), max(statuses, default=1))


if __name__ == "__main__":
    sys.exit(main())
