"""Cases: the prompts of the suites, each with what is expected of the reply.

One JSON object a line in data/evals/<kind>.jsonl; the format is documented in data/README.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

DATA = Path(__file__).resolve().parent.parent / "data"

Kind = Literal["conversation", "technical", "philosophy", "iterations", "persona", "multiturn", "emotion"]
Complexity = Literal["low", "medium", "high"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Words in the visible answer (facts/turkish.md 5.2, m_len).
WORDS: dict[Complexity, tuple[int, int]] = {"low": (1, 25), "medium": (20, 150), "high": (60, 300)}
COMPLEXITY: dict[str, Complexity] = {"conversation": "low", "emotion": "low", "multiturn": "low",
                                     "persona": "low", "technical": "medium", "philosophy": "high"}
REQUIRED: dict[str, tuple[str, ...]] = {
    "conversation": ("prompt", "intent"),
    "technical": ("prompt", "facts"),
    "philosophy": ("prompt", "concepts"),
    "iterations": ("prompt", "pair", "complexity"),
    "persona": ("prompt", "persona"),
    "multiturn": ("turns",),
    "emotion": ("prompt", "emotion", "polarity", "cause"),
}


class DataError(ValueError):
    """A file of data/ is wrong: one line that names file, line, field and what was allowed."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Row = TypeVar("Row", bound=_Row)


class Fact(_Row):
    """One thing that a technical answer has to say. `any` are patterns on folded text; one hit is enough."""

    name: str
    any: tuple[Pattern, ...]
    critical: bool = False


class Turn(_Row):
    """One user turn of a dialogue, and what the answer to it must and must not contain (folded text)."""

    user: Annotated[str, Field(min_length=1)]
    must: tuple[Pattern, ...] = ()
    must_not: tuple[Pattern, ...] = ()
    max_words: int | None = None


class Case(_Row):
    """A prompt, or a dialogue, with what is expected of the reply."""

    id: Slug
    kind: Kind
    category: Slug
    prompt: Annotated[str, Field(min_length=1)] | None = None
    turns: tuple[Turn, ...] = ()
    group: str = ""
    half: Literal["open", "sealed"] = "open"
    seen: bool = False
    complexity: Complexity = "low"
    words: tuple[int, int] = (1, 25)
    tags: tuple[str, ...] = ()
    pair: Slug | None = None
    intent: Slug | None = None
    echo_ok: bool = False
    contradict: tuple[Pattern, ...] = ()
    facts: tuple[Fact, ...] = ()
    concepts: tuple[Pattern, ...] = ()
    persona: Literal["opinion", "fact", "identity"] | None = None
    emotion: Literal["sadness", "joy", "anger", "fear", "loneliness", "loss"] | None = None
    polarity: Literal["negative", "positive"] | None = None
    cause: tuple[Pattern, ...] = ()
    crisis: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, row: Any) -> Any:
        """Complexity follows the kind, the word window follows the complexity, a case is its own group."""
        if isinstance(row, dict):
            row.setdefault("complexity", COMPLEXITY.get(str(row.get("kind")), "low"))
            row.setdefault("words", WORDS.get(row["complexity"], (1, 25)))
            row.setdefault("group", row.get("pair") or row.get("id", ""))
        return row

    @property
    def prompts(self) -> tuple[str, ...]:
        """The user's side, turn by turn."""
        return (self.prompt,) if self.prompt is not None else tuple(turn.user for turn in self.turns)


class Intent(_Row):
    """What an everyday prompt asks for, and how answers to it look.

    `accept` and `contradict` are patterns on folded text; `examples` are good answers, for the similarity.
    """

    intent: Slug
    accept: tuple[Pattern, ...]
    contradict: tuple[Pattern, ...] = ()
    examples: tuple[str, ...] = ()


class Gold(_Row):
    """A reply written by a person, labelled good or bad: what scorers are certified with."""

    case: Slug
    replies: tuple[str, ...]
    thinking: str = ""
    good: bool = True
    held_out: bool = False


def load_cases(kind: Kind, *, half: str = "open", data: Path | None = None) -> tuple[Case, ...]:
    """The cases of one kind and one half, in the order of the file.

    Raises DataError, naming file, line and field, for anything that the format does not allow.
    """
    path = (data or DATA) / "evals" / f"{kind}.jsonl"
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        if missing := [name for name in REQUIRED[kind] if name not in row]:
            raise DataError(f"{_at(path, number)}: field '{missing[0]}' is missing; a {kind} case needs "
                            f"{', '.join(('id', 'category', *REQUIRED[kind]))}")
        case = _parse(Case, {"kind": kind, **row}, path, number)
        if case.id in lines:
            raise DataError(f"{_at(path, number)}: field 'id': '{case.id}' is taken by line {lines[case.id]}; "
                            "ids are unique in a file")
        lines[case.id] = number
        cases.append(case)
    return tuple(case for case in cases if case.half == half)


def load_intents(data: Path | None = None) -> dict[str, Intent]:
    """Every intent of data/evals/intents.jsonl by name. Raises DataError."""
    path = (data or DATA) / "evals" / "intents.jsonl"
    intents = [_parse(Intent, row, path, number) for number, row in _rows(path)]
    return {intent.intent: intent for intent in intents}


def load_gold(kind: Kind, data: Path | None = None) -> tuple[Gold, ...]:
    """The labelled replies of data/gold/<kind>.jsonl. Raises DataError."""
    path = (data or DATA) / "gold" / f"{kind}.jsonl"
    return tuple(_parse(Gold, row, path, number) for number, row in _rows(path))


def check_files(data: Path | None = None) -> None:
    """Read every case file that is there, so that a broken line is found before a model is asked. Raises DataError."""
    for kind in KINDS:
        if ((data or DATA) / "evals" / f"{kind}.jsonl").is_file():
            load_cases(kind, data=data)
    load_intents(data)


def some_of_each(cases: tuple[Case, ...], most: int) -> tuple[Case, ...]:
    """At most `most` groups, one category after the other, so that a smoke run touches as many as it can.

    Groups stay whole: half a minimal pair measures nothing. Cases that were seen in training count for no score,
    so a smoke run leaves them out.
    """
    by_category: dict[str, list[str]] = {}
    cases = tuple(case for case in cases if not case.seen)
    for case in cases:
        groups = by_category.setdefault(case.category, [])
        if case.group not in groups:
            groups.append(case.group)
    rounds = max(map(len, by_category.values()), default=0)
    order = [groups[i] for i in range(rounds) for groups in by_category.values() if i < len(groups)]
    kept = set(order[:most])
    return tuple(case for case in cases if case.group in kept)


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the kinds are {', '.join(KINDS)}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            rows.append((number, _object(line, path, number)))
    return rows


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{_at(path, number)}: not JSON at column {error.colno}: {error.msg}; "
                        "a line holds one object") from None
    if not isinstance(row, dict):
        raise DataError(f"{_at(path, number)}: {type(row).__name__}, not an object; a line holds one object")
    return row


def _parse(cls: type[Row], row: dict[str, Any], path: Path, number: int) -> Row:
    try:
        return cls.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        known = f"; known fields: {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else ""
        got = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]!r})"
        raise DataError(f"{_at(path, number)}: field '{field}': {first['msg']}{got}{known}") from None


def _at(path: Path, number: int) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}/{path.name}:{number}"
