"""The journal: every reply of a run, one JSON line each, written as it comes, so that a killed run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.engines import Card, Message, Options, Reply, Timing


def key(card: Card, messages: Sequence[Message], options: Options, trial: int) -> str:
    """What makes two requests the same: model digest, full request, trial, engine and its version."""
    asked = [card.digest, card.system, card.engine, card.engine_version, card.thinks, trial,
             options.request(), list(messages)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


class Journal:
    """Appends replies to a file and knows those that an earlier, killed run left there."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be written."""
        self.path = path
        self._known = _read(path)
        self.kept = len(self._known)
        self._file = path.open("a", encoding="utf-8")

    def find(self, key: str) -> Reply | None:
        """The reply that was journaled under this key, marked as replayed."""
        return self._known.get(key)

    def add(self, key: str, model: str, messages: Sequence[Message], trial: int, reply: Reply) -> None:
        """One line, handed to the operating system at once: it outlives a kill of this process."""
        row = {"key": key, "model": model, "trial": trial, "messages": list(messages),
               "reply": asdict(replace(reply, earlier=()))}
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def rows_of(path: Path) -> list[tuple[dict[str, Any], Reply]]:
    """The lines of a journal and their replies, marked as replayed, without a torn last one; none where there is no file."""
    whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
    rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines() if line.strip()]
    return [(row, _reply(row["reply"])) for row in rows]


def _read(path: Path) -> dict[str, Reply]:
    whole, newline, torn = path.read_bytes().rpartition(b"\n") if path.is_file() else (b"", b"", b"")
    if torn:  # the kill came in the middle of a line
        path.write_bytes(whole + newline)
    return {row["key"]: reply for row, reply in rows_of(path)}


def _reply(row: dict[str, Any]) -> Reply:
    return Reply(**{**row, "timing": Timing(**row["timing"]), "earlier": (), "replayed": True})
