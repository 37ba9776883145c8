"""Work behind the caller's: in order, with its errors, never two at once."""

from __future__ import annotations

import threading

import pytest

from pipeline.behind import Behind


def test_pieces_run_in_order_while_the_caller_goes_on() -> None:
    """Catches a piece begun before the one before has ended, or run in the caller's thread."""
    done: list[int] = []
    goes_on = threading.Event()

    def piece(number: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if number == 0:
            assert goes_on.wait(timeout=60), "the caller must not wait for the first piece"
        done.append(number)

    with Behind() as behind:
        behind.do(piece, 0)
        goes_on.set()
        for number in (1, 2, 3):
            behind.do(piece, number)
            assert done[:number] == list(range(number))
    assert done == [0, 1, 2, 3]


def fails() -> None:
    raise ValueError("the disk is full")


def test_what_a_piece_raises_reaches_the_next_call() -> None:
    """Catches a slab that was not written and that nobody hears of."""
    behind = Behind()
    behind.do(fails)
    with pytest.raises(ValueError, match="disk is full"):
        behind.do(pytest.fail, "must not begin")


def test_what_the_last_piece_raises_is_raised_at_the_end() -> None:
    """Catches a last slab that was not written."""
    with pytest.raises(ValueError, match="disk is full"), Behind() as behind:
        behind.do(fails)


def fails_itself() -> None:
    with Behind() as behind:
        behind.do(fails)
        raise KeyError("caller")


def test_a_failure_of_the_caller_is_what_is_seen() -> None:
    """Catches an error of the thread that hides the one which came first."""
    with pytest.raises(KeyError, match="caller"):
        fails_itself()
