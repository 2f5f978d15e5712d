"""
How is compiled work spread over threads?

The kernels of this package are compiled with ``nogil``, so that plain threads run them side by side:
the pieces are handed out one by one as threads become free, the process stays safe to fork and to call
from several threads at once, and the number of threads never changes a result.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

PIECES_PER_THREAD = 16


def thread_count(n_threads: int) -> int:
    """Give the number of threads to use: ``n_threads``, or one per usable CPU where it is 0."""
    return n_threads or len(os.sched_getaffinity(0))


def map_in_threads(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], *, n_threads: int = 0
) -> list[Result]:
    """Apply ``function`` to every piece, started in the given order, and give the results in that order."""
    n_threads = min(thread_count(n_threads), len(pieces))
    if n_threads <= 1:
        return [function(piece) for piece in pieces]
    with _pool(n_threads) as pool:
        return list(pool.map(function, pieces))


def iterate_in_threads(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], *, n_threads: int = 0, n_ahead: int = 2
) -> Iterator[Result]:
    """
    Apply ``function`` to every piece and give the results in order, as they are asked for.

    At most ``n_ahead`` pieces per thread are worked on or wait to be taken, so that memory stays bounded.
    """
    n_threads = min(thread_count(n_threads), len(pieces))
    if n_threads <= 1:
        yield from map(function, pieces)
        return
    with _pool(n_threads) as pool:
        waiting = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(function, piece))
                if len(waiting) == n_threads * n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def row_ranges(n_rows: int, *, n_threads: int = 0, largest: int | None = None) -> list[tuple[int, int]]:
    """Cut ``n_rows`` rows into ``(first, last)`` ranges, last excluded, of at most ``largest`` rows each."""
    rows = max(1, -(-n_rows // (thread_count(n_threads) * PIECES_PER_THREAD)))
    if largest is not None:
        rows = max(1, min(rows, largest))
    return list(pairwise([*range(0, n_rows, rows), n_rows]))


def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="tributary", initializer=_tell_torch)


def _tell_torch() -> None:
    """
    Let torch, where it is loaded, look at its number of threads before it computes in a new thread.

    By itself it does so at the thread's first parallel loop alone: a matrix product before it would run on
    all CPUs, and add up in another order.
    """
    if torch := sys.modules.get("torch"):
        torch.get_num_threads()
