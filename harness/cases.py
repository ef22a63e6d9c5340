"""Cases: the prompts of the suites, each with what is expected of the reply.

One JSON object a line in data/evals/<kind>.jsonl; the format is documented in data/README.md.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from harness.jsonl import DataError, Row, at, parse, rows

DATA = Path(__file__).resolve().parent.parent / "data"

Kind = Literal["conversation", "technical", "philosophy", "iterations", "persona", "multiturn", "emotion"]
Complexity = Literal["low", "medium", "high"]
Half = Literal["open", "sealed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Words in the visible answer (facts/turkish.md 5.2, m_len).
WORDS: dict[Complexity, tuple[int, int]] = {"low": (1, 25), "medium": (20, 150), "high": (60, 300)}
COMPLEXITY: dict[str, Complexity] = {"conversation": "low", "emotion": "low", "multiturn": "low",
                                     "persona": "low", "technical": "medium", "philosophy": "high"}
REQUIRED: dict[str, tuple[str, ...]] = {
    "conversation": ("prompt", "intent"),
    "technical": ("prompt", "facts|options"),
    "philosophy": ("prompt", "concepts"),
    "iterations": ("prompt", "pair", "complexity"),
    "persona": ("prompt", "persona"),
    "multiturn": ("turns",),
    "emotion": ("prompt", "emotion", "polarity", "cause"),
}


# What many patterns of the data share, by the name that stands for it in them.
MACROS = {"%fixes%": r"(?:yeter(?:li)?(?:dir)?|coz(?:er|u[lmy]\w*)|duzel(?:ir|t|iyo)\w*|hallol\w*|halle[dt]\w*|kurtar\w*|kurtulursun"
                     r"|is biter|olay kapan\w*|sorun biter|bitmis olur|tamamdir|is gorur)",
          # The endings of a statement about what happens: not a condition, not an advice, not a negative.
          "%does%": r"(?:[iu][nl])?(?:y?[ae]bil)?(?:[aeiu]?r(?:s[iu]n(?:[iu]z)?|[iu]z|l[ae]r|d[iu]r)?|[iu]?yor?(?:s[iu]n|[iu]z|[iu]m|l[ae]r|d[iu]r)?"
                    r"|y?[ae]c[ae]k(?:s[iu]n|l[ae]r|t[iu]r)?|m[iu]s(?:t[iu]r)?)\b",
          "%person%": r"(?:s[iu]n(?:[iu]z)?|[iu]z|l[ae]r|d[iu]r)?\b"}


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of the data, compiled once: re keeps 512, and the files hold thousands. Raises re.error."""
    for name, meaning in MACROS.items():
        pattern = pattern.replace(name, meaning)
    return re.compile(pattern)


def _pattern(value: str) -> str:
    try:
        compiled(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Fact(Row):
    """One thing that a technical answer has to say. `any` are patterns on folded text; one hit is enough."""

    name: str
    any: tuple[Pattern, ...]
    critical: bool = False


class Turn(Row):
    """One user turn of a dialogue, and what the answer to it must and must not contain (folded text)."""

    user: Annotated[str, Field(min_length=1)]
    must: tuple[Pattern, ...] = ()
    must_not: tuple[Pattern, ...] = ()
    max_words: int | None = None


class Case(Row):
    """A prompt, or a dialogue, with what is expected of the reply."""

    id: Slug
    kind: Kind
    category: Slug
    prompt: Annotated[str, Field(min_length=1)] | None = None
    turns: tuple[Turn, ...] = ()
    group: str = ""
    half: Half = "open"
    seen: bool = False
    complexity: Complexity = "low"
    words: tuple[int, int] = (1, 25)
    tags: tuple[str, ...] = ()
    pair: Slug | None = None
    intent: Slug | None = None
    echo_ok: bool = False
    contradict: tuple[Pattern, ...] = ()
    facts: tuple[Fact, ...] = ()
    options: tuple[str, ...] = ()
    answer: Literal["", "A", "B", "C", "D"] = ""
    concepts: tuple[Pattern, ...] = ()
    persona: Literal["opinion", "fact", "identity"] | None = None
    emotion: Literal["sadness", "joy", "anger", "fear", "loneliness", "loss"] | None = None
    polarity: Literal["negative", "positive"] | None = None
    cause: tuple[Pattern, ...] = ()
    crisis: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, row: Any) -> Any:
        """Complexity follows the kind, the word window follows the complexity, a case is its own group.

        Options are written with the right one first, and asked in an order that follows from the id.
        """
        if isinstance(row, dict):
            row.setdefault("complexity", COMPLEXITY.get(str(row.get("kind")), "low"))
            row.setdefault("words", (1, 150) if row.get("options") else WORDS.get(row["complexity"], (1, 25)))
            row.setdefault("group", row.get("pair") or row.get("id", ""))
            if row.get("options") and not row.get("answer"):
                row |= _lettered(row)
        return row

    @model_validator(mode="after")
    def _four_options(self) -> Case:
        if self.options and len(set(self.options)) != 4:
            raise ValueError(f"{len(set(self.options))} different options; four are needed, the right one first")
        return self

    @property
    def prompts(self) -> tuple[str, ...]:
        """The user's side, turn by turn."""
        return (self.prompt,) if self.prompt is not None else tuple(turn.user for turn in self.turns)


def _lettered(row: dict[str, Any]) -> dict[str, Any]:
    order = sorted(row["options"], key=lambda option: hashlib.sha256(f"{row.get('id')} {option}".encode()).digest())
    asked = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCD", order, strict=False))
    answer = "ABCD"[order.index(row["options"][0])] if len(order) == 4 else ""
    return {"prompt": f"{row.get('prompt')}\n{asked}", "options": tuple(order), "answer": answer}


class Intent(Row):
    """What an everyday prompt asks for, and how answers to it look.

    `accept` and `contradict` are patterns on folded text; `examples` are good answers, for the similarity.
    """

    intent: Slug
    accept: tuple[Pattern, ...]
    contradict: tuple[Pattern, ...] = ()
    examples: tuple[str, ...] = ()


class Gold(Row):
    """A reply written for a case, labelled good or bad: what scorers are certified with.

    A bad one names the adversarial family that it belongs to (harness/adversarial.py) and what is wrong with it.
    """

    case: Slug
    replies: tuple[str, ...]
    thinking: str = ""
    good: bool = True
    held_out: bool = False
    family: str = ""
    why: str = ""


def load_cases(kind: Kind, *, half: Half | None = "open", data: Path | None = None) -> tuple[Case, ...]:
    """The cases of one kind and one half (None: both), in the order of the file.

    Raises DataError, naming file, line and field, for anything that the format does not allow.
    """
    path = (data or DATA) / "evals" / f"{kind}.jsonl"
    return tuple(case for case in _cases(kind, path, _version(path)) if half in (None, case.half))


def _version(path: Path) -> tuple[int, int]:
    """What changes when a file does; a file that is not there is left to the reader's own words."""
    found = path.stat() if path.is_file() else None
    return (found.st_mtime_ns, found.st_size) if found else (0, 0)


@lru_cache(maxsize=64)
def _cases(kind: Kind, path: Path, version: tuple[int, int]) -> tuple[Case, ...]:
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for number, row in rows(path, hint=f"; the kinds are {', '.join(KINDS)}"):
        if missing := [name for name in REQUIRED[kind] if not row.keys() & set(name.split("|"))]:
            raise DataError(f"{at(path, number)}: field '{missing[0]}' is missing; a {kind} case needs "
                            f"{', '.join(('id', 'category', *REQUIRED[kind]))}")
        case = parse(Case, {"kind": kind, **row}, path, number)
        if case.id in lines:
            raise DataError(f"{at(path, number)}: field 'id': '{case.id}' is taken by line {lines[case.id]}; "
                            "ids are unique in a file")
        lines[case.id] = number
        cases.append(case)
    return tuple(cases)


def load_intents(data: Path | None = None) -> dict[str, Intent]:
    """Every intent of data/evals/intents.jsonl by name. Raises DataError."""
    path = (data or DATA) / "evals" / "intents.jsonl"
    return dict(_intents(path, _version(path)))


@lru_cache(maxsize=8)
def _intents(path: Path, version: tuple[int, int]) -> dict[str, Intent]:
    return {intent.intent: intent for intent in (parse(Intent, row, path, number) for number, row in rows(path))}


def load_gold(kind: Kind, data: Path | None = None, *, good: bool = True, held_out: bool = False) -> tuple[Gold, ...]:
    """The labelled replies of data/gold/<kind>[-bad][-held-out].jsonl. Raises DataError."""
    path = (data or DATA) / "gold" / f"{kind}{'' if good else '-bad'}{'-held-out' if held_out else ''}.jsonl"
    return tuple(parse(Gold, row, path, number) for number, row in rows(path))


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
