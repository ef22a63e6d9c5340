"""Writing without losing: a file is replaced whole or not at all, and a name never becomes a path unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def write_text(path: Path, text: str) -> None:
    """Write to a temporary file beside `path`, then replace it. Raises OSError; the old file is then untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def alone(lock: Path, busy: Exception) -> Iterator[None]:
    """Hold a lock file, or raise `busy` at once where another process holds it. Raises OSError."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        held.release()


def slug(name: str) -> str:
    """A model's name as the name of one folder: two names never share one, and none leads outside.

    Names of letters, digits, '.', '_' and '-' stay as they are; any other gets the head of its digest.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:80]
    return plain if plain == name != "" else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
