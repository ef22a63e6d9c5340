"""The folder of a run: made and locked, or an unfinished one that is gone on with."""

from __future__ import annotations

import json
from pathlib import Path

from filelock import FileLock, Timeout

from harness.engines.replay import Replay
from harness.files import read_json, slug
from harness.session import SEALED, Settings, Target


class NotWritable(Exception):
    """The reports folder cannot be written: one line with the reason."""


def claim(settings: Settings, target: Target) -> tuple[Target, FileLock]:
    """The folder of a target's run, made and locked: an unfinished run of the model is gone on with, if there is one.

    Raises NotWritable.
    """
    home = settings.reports / slug(target.model)
    journals = (path for path in sorted(home.glob("*/journal.jsonl"), reverse=True)
                if path.parent.name.endswith(SEALED) == bool(settings.ending) and not _is_rescored(path.with_name("report.json")))
    newest = None if target.engine == Replay.name else next(journals, None)
    unfinished = [newest.parent] if newest and _is_unfinished(newest.with_name("report.json")) else []
    for folder in [*unfinished, home / target.run]:
        lock = FileLock(folder / "run.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            (folder / "journal.jsonl").open("a").close()
        except Timeout:
            continue
        except OSError as error:
            raise NotWritable(f"cannot write to {folder}: {error.strerror}; name another folder with --reports") from None
        return Target(target.model, target.engine, target.host, folder.name, target.baseline), lock
    raise NotWritable(f"every run of {home} is locked")


def _is_rescored(report: Path) -> bool:
    """Whether a run only scored the replies of another again, so that there is nothing to go on with."""
    return bool((read_json(report).get("provenance") or {}).get("rescored"))


def _is_unfinished(report: Path) -> bool:
    """A run that was killed has no report; one that was interrupted, or lost its server, says so in it."""
    if not report.is_file():
        return True
    try:
        said = json.loads(report.read_text(encoding="utf-8"))
        return bool(said["interrupted"]) or said["status"] == "NOT MEASURED"
    except (ValueError, KeyError, TypeError):
        return False  # somebody's own file: not ours to go on with
