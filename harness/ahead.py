"""Work done ahead: scoring, deciding and drawing need slow imports, and the model has to be waited for anyway.

Never beside a timed request: criteria of latency do not start it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from threading import Thread

_artist: ProcessPoolExecutor | None = None


@cache
def start() -> None:
    """Begin, once: statistics and language identification in a thread, the report's libraries in a process."""
    global _artist
    Thread(target=_import_scoring, daemon=True).start()
    _artist = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_import_drawing)
    _artist.submit(int)


def draw(folders: Sequence[Path], reports: Path) -> None:
    """Draw report.html in each folder and the leaderboard, where it was made ready, or here. Raises OSError."""
    global _artist
    if _artist is None:
        return _draw(folders, reports)
    with _artist:
        _artist.submit(_draw, folders, reports).result()
    _artist = None
    start.cache_clear()
    return None


def _draw(folders: Sequence[Path], reports: Path) -> None:
    from harness import report

    for folder in folders:
        report.write_html(folder)
    report.write_index(reports)


def _import_scoring() -> None:
    import scipy.special  # noqa: F401

    from harness import turkish

    turkish.is_turkish("Sor kanka, dinliyorum, ne oldu anlat bakalım.")


def _import_drawing() -> None:
    Thread(target=_end_with_the_run, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, and the run still wants its report
    import harness.report  # noqa: F401


def _end_with_the_run() -> None:
    """A run that is killed cannot tell its helper to stop."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
