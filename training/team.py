"""Worker processes that share a training step: each takes micro-batches of its own, and they add up their gradients.

mlx's CPU backend computes everything but matrix products on one thread, so two processes on two cores are faster than
one with two BLAS threads (facts/platform.md). They are forked before mlx is imported, and what they exchange stands in
memory that they share: no socket, no file. With one worker nothing is exchanged.

The optimiser is sharded (ZeRO, Rajbhandari et al. 2020, stage 1): each worker adds up, and updates, its own part of
the weights, and reads the others' new ones.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Floats = NDArray[np.float32]


class WorkerLost(RuntimeError):
    """A worker of the team is gone, killed or out of memory."""


class Team:
    """One worker's side of the team: `rank` of `size`."""

    def __init__(self, rank: int, size: int, links: Sequence[Connection], shared: mmap.mmap | None) -> None:
        self.rank, self.size = rank, size
        self._links, self._shared = links, shared
        self._places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        self._total = 0

    def exchange(self, mine: T) -> list[T]:
        """What every worker gave, by rank. Everyone waits for everyone. Raises WorkerLost."""
        if self.size == 1:
            return [mine]
        try:
            if self.rank:
                self._links[0].send(mine)
                return list(self._links[0].recv())
            everyone = [mine, *(link.recv() for link in self._links)]
            for link in self._links:
                link.send(everyone)
        except (EOFError, OSError):
            raise WorkerLost("a worker process is gone, killed or out of memory; what was saved last stays, train again to resume") from None
        return everyone

    def lay_out(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Where each array stands in the shared memory; the same on every worker. Raises MemoryError."""
        offset = 0
        for name, shape in sizes.items():
            count = int(np.prod(shape))
            self._places[name] = (offset, count, shape)
            offset += count
        self._total = offset
        if self._shared is not None and 4 * offset * (self.size + 1) > len(self._shared):
            raise MemoryError("more weights are trained than the workers have shared memory for; set train.workers = 1")

    def _view(self, slot: int, name: str) -> Floats:
        offset, count, shape = self._places[name]
        assert self._shared is not None
        return np.frombuffer(self._shared, np.float32, count, 4 * (slot * self._total + offset)).reshape(shape)

    def put_gradient(self, name: str, value: Floats) -> None:
        """Show one gradient to the others."""
        np.copyto(self._view(self.rank, name), value)

    def add_others(self, name: str, mine: Floats) -> None:
        """Add the others' gradients to this worker's own, in place and in the order of their ranks: the same bits every time."""
        for rank in range(self.size):
            if rank != self.rank:
                mine += self._view(rank, name)

    def shown(self, name: str) -> Floats:
        """Where a weight's owner puts its new value for the others; a view, which the next step overwrites."""
        return self._view(self.size, name)


def end_with_parent() -> None:
    """On Linux this process is killed when its parent is: an orphan would go on writing beside the next training."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def gather(size: int, numbers: int, run: Callable[[Team], int]) -> int:
    """Run `run` on every worker of a team; returns what the first one's returned.

    `numbers` is the most float32 numbers that will be trained. The others are forked, so nothing that starts threads
    (mlx) may have been imported.
    """
    if size == 1:
        return run(Team(0, 1, [], None))
    if "mlx.core" in sys.modules:
        raise RuntimeError("mlx was imported before the workers were forked")
    # Pages that nobody touches take no memory: the size is only an upper bound.
    shared = mmap.mmap(-1, 4 * numbers * (size + 1), flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    links: list[Connection] = []
    pids: list[int] = []
    for rank in range(1, size):
        ours, theirs = multiprocessing.Pipe()
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            for other in (ours, *links):
                other.close()
            _exit(run, Team(rank, size, [theirs], shared))
        theirs.close()
        links.append(ours)
        pids.append(pid)
    try:
        return run(Team(0, size, links, shared))
    finally:
        for link in links:
            link.close()
        for pid in pids:
            os.waitpid(pid, 0)


def _exit(run: Callable[[Team], int], team: Team) -> None:
    """The end of a forked worker: its parent says what happened, so it goes without a word, and without at-exit hooks."""
    code = 1
    try:
        code = run(team)
    except (WorkerLost, BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        sys.stderr.flush()
        os._exit(code)
