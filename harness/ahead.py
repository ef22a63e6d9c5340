"""Work done ahead: scoring, deciding and drawing need slow imports, and a model has to be waited for anyway.

Run as a program it draws reports: it imports what that takes, reads one JSON line of folders, draws, answers.
Timed requests wait until it is ready, so that nothing else runs beside them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Thread

_artist: subprocess.Popen[str] | None = None


def start() -> None:
    """Begin to make the drawing of the report ready, in a process of its own."""
    global _artist
    # Its complaints are nobody's: a run that ends early breaks its pipe, and what it cannot draw is drawn here.
    _artist = subprocess.Popen([sys.executable, "-m", "harness.ahead"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
                               cwd=Path(__file__).resolve().parent.parent)


@cache
def wait() -> None:
    """Return when it is ready. A program that died will show when it is asked to draw."""
    if _artist and _artist.stdout:
        _artist.stdout.readline()


@cache
def import_scoring() -> None:
    """Load language identification and the intents beside the asking. Not for timed requests."""
    Thread(target=_warm, daemon=True).start()


def _warm() -> None:
    from harness import cases, intents, language

    language.is_turkish("Sor kanka, dinliyorum, ne oldu anlat bakalım.")
    if (cases.DATA / "evals" / "intents.jsonl").is_file():
        intents.prepare()


def draw(folders: Sequence[Path], reports: Path) -> str:
    """Draw report.html in each folder and the leaderboard, where it was made ready, or else here. Raises OSError.

    Several folders are compared too: a line that says where, or why not.
    """
    wait()
    drawn, _, compared = (_answer(_artist, [str(path) for path in (reports, *folders)]) if _artist else "").partition(" ")
    return compared if drawn == "drawn" else _draw(folders, reports)


def stop() -> None:
    """Let the process go, whether it drew anything or not."""
    global _artist
    if _artist:
        _artist.kill()
        _artist.communicate()
    _artist = None


def _answer(artist: subprocess.Popen[str], folders: list[str]) -> str:
    try:
        assert artist.stdin and artist.stdout
        artist.stdin.write(json.dumps(folders) + "\n")
        artist.stdin.flush()
        return artist.stdout.readline().strip()
    except BrokenPipeError:
        return ""


def _draw(folders: Sequence[Path], reports: Path) -> str:
    from harness import report

    for folder in folders:
        report.write_html(folder)
    report.write_index(reports)
    if len(folders) < 2:
        return ""
    from harness import compare, compare_page, saved

    try:
        return f"side by side: {compare_page.of_folders(folders, reports)}"
    except (compare.NotComparable, saved.ReportError) as error:
        return f"not compared: {'; '.join(str(error).splitlines())}"


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, and the run still wants its report
    import harness.report  # noqa: F401

    print("ready", flush=True)
    if line := sys.stdin.readline():  # none: the run was killed
        reports, *folders = map(Path, json.loads(line))
        print("drawn", _draw(folders, reports), flush=True)


if __name__ == "__main__":
    _serve()
