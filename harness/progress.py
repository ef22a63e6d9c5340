"""How far the asking is: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from types import TracebackType
from typing import Any, TextIO

PLAIN_EVERY = 15.0  # seconds between two plain lines: enough to see life, few enough for a log


class Progress:
    """Counts replies of one batch. `stream` None is silence (-q, xdist workers)."""

    def __init__(self, label: str, total: int, stream: TextIO | None,
                 uncaptured: AbstractContextManager[Any] | None = None) -> None:
        self._label, self._total, self._stream = label, total, stream
        self._uncaptured = uncaptured or nullcontext()
        self._done, self._start, self._last = 0, monotonic(), monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._uncaptured.__enter__()
        if self._stream and self._total and self._stream.isatty():
            self._stream.write("\n")  # the bar takes its line away with it, and pytest's would go too
            self._bar = _bar(self._stream)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total)
        return self

    def advance(self) -> None:
        """One more reply is there."""
        self._done += 1
        if self._bar:
            self._bar.advance(self._task)
        elif self._stream and monotonic() - self._last > PLAIN_EVERY:
            self._last = monotonic()
            left = (self._last - self._start) / self._done * (self._total - self._done)
            self._stream.write(f"\n{self._label}: {self._done}/{self._total}, about {left:.0f} s left")
            self._stream.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        self._uncaptured.__exit__(kind, error, trace)


def _bar(stream: TextIO) -> Any:
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    label = progress.TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    return progress.Progress(label, progress.BarColumn(bar_width=None), progress.MofNCompleteColumn(),
                             progress.TimeRemainingColumn(), console=Console(file=stream), transient=True, expand=True)
