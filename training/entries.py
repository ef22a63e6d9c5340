"""Training entries: one situation each, many ways to say it, and what JESSY answers, thinking included.

One JSON object a line in data/train/*.jsonl; the format is documented in data/README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from harness import cases
from harness.cases import Complexity, Pattern, Slug
from harness.jsonl import DataError, Row, at, parse, rows

Category = Literal["conversation", "technical", "philosophy", "iteration", "identity", "emotion", "multi-turn"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
SUBCATEGORIES: dict[Category, tuple[str, ...]] = {
    "conversation": ("greetings and small talk", "questions and answers", "casual chat", "slang and idioms"),
    "technical": ("rust", "architecture", "performance", "debugging"),
    "philosophy": ("consciousness and AI", "ethics", "technology's impact", "existential"),
    "iteration": ("complexity detection", "fast answers", "deep thinking"),
    "identity": ("who it is", "opinions", "facts", "refusing to be another"),
    "emotion": ("sadness", "joy", "anger", "fear", "loneliness", "loss"),
    "multi-turn": ("memory", "follow-up", "correction", "instruction"),
}

Text = Annotated[str, Field(min_length=1)]


class Answer(Row):
    """What JESSY says, and the thinking before it: numbered lines, one an iteration."""

    thinking: Text
    text: Text


class Exchange(Answer):
    """One turn of a dialogue: the user, then JESSY."""

    user: Text


class Entry(Row):
    """One situation: every reply fits every prompt. A dialogue has turns instead."""

    id: Slug
    category: Category
    subcategory: str
    complexity: Complexity
    iterations: Annotated[int, Field(ge=1, le=9)]
    language: Literal["tr", "mixed"]
    prompts: tuple[Text, ...] = ()
    replies: tuple[Answer, ...] = ()
    turns: tuple[Exchange, ...] = ()
    intent: Slug | None = None
    persona: Literal["opinion", "fact", "identity"] | None = None
    emotion: Literal["sadness", "joy", "anger", "fear", "loneliness", "loss"] | None = None
    polarity: Literal["negative", "positive"] | None = None
    cause: tuple[Pattern, ...] = ()
    crisis: bool = False
    tags: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _known_subcategory(cls, row: Any) -> Any:
        known: tuple[str, ...] = ()
        if isinstance(row, dict) and row.get("category") in CATEGORIES:
            known = SUBCATEGORIES[row["category"]]
        if known and row.get("subcategory") not in known:
            raise ValueError(f"subcategory {row.get('subcategory')!r} is not one of {', '.join(known)}")
        return row

    @model_validator(mode="after")
    def _prompts_or_turns(self) -> Entry:
        if self.category == "multi-turn" and not self.turns:
            raise ValueError("a multi-turn entry needs 'turns': objects with 'user', 'thinking', 'text'")
        if self.category != "multi-turn" and not (self.prompts and self.replies):
            raise ValueError("an entry needs 'prompts' and 'replies'")
        if self.category == "emotion" and not (self.emotion and self.polarity and self.cause):
            raise ValueError("an emotion entry needs 'emotion', 'polarity' and 'cause'")
        return self

    @property
    def said(self) -> tuple[str, ...]:
        """Everything that the user types in it."""
        return self.prompts or tuple(turn.user for turn in self.turns)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Everything that JESSY says in it."""
        return self.replies or self.turns


def load_entries(data: Path | None = None) -> tuple[Entry, ...]:
    """Every entry of data/train/*.jsonl, file by file. Raises DataError, naming file, line and field."""
    folder = (data or cases.DATA) / "train"
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(f"{folder}: no *.jsonl there; training text is needed")
    entries: list[Entry] = []
    lines: dict[str, str] = {}
    for path in paths:
        for number, row in rows(path):
            entry = parse(Entry, row, path, number)
            if entry.id in lines:
                raise DataError(f"{at(path, number)}: field 'id': '{entry.id}' is taken by {lines[entry.id]}; ids are unique")
            lines[entry.id] = at(path, number)
            entries.append(entry)
    return tuple(entries)
