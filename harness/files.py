"""Writing without losing: a file is replaced whole or not at all, and a name never becomes a path unchecked."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write to a temporary file beside `path`, then replace it. Raises OSError; the old file is then untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def slug(name: str) -> str:
    """A model's name as the name of one folder: two names never share one, and none leads outside.

    Names of letters, digits, '.', '_' and '-' stay as they are; any other gets the head of its digest.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:80]
    return plain if plain == name != "" else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
