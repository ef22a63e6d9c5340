"""metrics.jsonl: what a training measured, a line an event, appended as it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness.files import write_text

METRICS = "metrics.jsonl"


def append(path: Path, event: dict[str, Any]) -> None:
    """Add what an event says; a value that is not known is left out. Raises OSError."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({key: value for key, value in event.items() if value is not None}) + "\n")


def truncate(path: Path, iteration: int) -> None:
    """Drop the lines of steps after `iteration`: what is done again is measured again. Raises OSError."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        write_text(path, "".join(f"{line}\n" for line in lines if _iteration(line) <= iteration))


def _iteration(line: str) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize  # the last line of a process that was killed while it wrote
