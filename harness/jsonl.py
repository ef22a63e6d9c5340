"""Reading data/: JSON lines into frozen rows, and one line that names file, line and field for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class DataError(ValueError):
    """A file of data/ is wrong: one line that names file, line, field and what was allowed."""


class Row(BaseModel):
    """One line of a file. A field that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Parsed = TypeVar("Parsed", bound=Row)


def rows(path: Path, *, hint: str = "") -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with their line numbers; blank lines are skipped.

    Raises DataError; `hint` ends the line for a file that is not there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{hint}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{at(path, line)}: not UTF-8 at byte {error.start} of the file; save it as UTF-8") from None
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    return [(number, _object(line, path, number)) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{at(path, number)}: not JSON at column {error.colno}: {error.msg}; "
                        "a line holds one object") from None
    if not isinstance(row, dict):
        raise DataError(f"{at(path, number)}: {type(row).__name__}, not an object; a line holds one object")
    return row


def parse(cls: type[Parsed], row: dict[str, Any], path: Path, number: int) -> Parsed:
    """The row as a checked, frozen object. Raises DataError with the first thing that is wrong."""
    try:
        return cls.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        known = f"; known fields: {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else ""
        got = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]!r})"
        raise DataError(f"{at(path, number)}: field '{field}': {first['msg']}{got}{known}") from None


def at(path: Path, number: int) -> str:
    """Where a line stands: data/evals/conversation.jsonl:12."""
    return f"{path.parent.parent.name}/{path.parent.name}/{path.name}:{number}"
