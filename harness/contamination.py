"""Contamination: text that is too close to a prompt of the eval set to be trained on.

Too close is: the same after folding, rapidfuzz ratio >= 90, or eight words in a row in common (DESIGN.md section 4).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from harness import cases
from harness.cases import KINDS, load_cases
from harness.turkish import fold

RATIO = 90
N = 8
SLICE = 4096


@dataclass(frozen=True)
class Text:
    """A piece of text and where it stands: a case id, or `train/conversation.jsonl:12 id`."""

    where: str
    text: str


@dataclass(frozen=True)
class Overlap:
    """A text that is too close to a prompt, and by which of the three rules."""

    prompt: Text
    text: Text
    rule: str

    def __str__(self) -> str:
        return f"{self.text.where}: {self.rule} as case '{self.prompt.where}': {self.text.text[:80]!r}"


def bare(text: str) -> str:
    """Folded words only; a text without words (emoji) stays as it is."""
    return " ".join(re.sub(r"\W+", " ", fold(text)).split()) or "".join(text.split())


def prompts(data: Path | None = None, *, seen: bool = False) -> list[Text]:
    """Every user turn of the eval set, both halves; the ones tagged `seen` only if asked for. Raises DataError."""
    found = []
    for kind in KINDS:
        if ((data or cases.DATA) / "evals" / f"{kind}.jsonl").is_file():
            found += [Text(case.id, prompt) for case in load_cases(kind, half=None, data=data)
                      for prompt in case.prompts if seen or not case.seen]
    return found


class Guard:
    """The prompts, ready to be compared with one text after the other."""

    def __init__(self, asked: Sequence[Text]) -> None:
        self._asked = asked
        self._bare = [bare(prompt.text) for prompt in asked]
        self._exact = {text: number for number, text in reversed(list(enumerate(self._bare)))}
        self._grams = {gram: number for number, text in reversed(list(enumerate(self._bare))) for gram in ngrams(text)}
        self._known: dict[str, tuple[int, str] | None] = {}

    def near(self, text: Text) -> Overlap | None:
        """The prompt that the text is too close to, with the first rule that says so, or None."""
        key = bare(text.text)
        if key not in self._known:
            self._known[key] = self._find(key)
        hit = self._known[key]
        return Overlap(self._asked[hit[0]], text, hit[1]) if hit else None

    def _find(self, key: str) -> tuple[int, str] | None:
        if key in self._exact:
            return self._exact[key], "the same"
        if shared := next((gram for gram in ngrams(key) if gram in self._grams), None):
            return self._grams[shared], f"the same {N} words"
        best = process.extractOne(key, self._bare, scorer=fuzz.ratio, score_cutoff=RATIO)
        return (best[2], f"{best[1]:.0f} % alike") if best else None


def overlaps(asked: Sequence[Text], texts: Sequence[Text]) -> list[Overlap]:
    """Every text that is too close to one of the prompts, once."""
    guard = Guard(asked)
    return [overlap for text in texts if (overlap := guard.near(text))]


def close(left: Sequence[str], right: Sequence[str], cutoff: int) -> Iterator[tuple[int, int, int]]:
    """Pairs (index left, index right, ratio) with rapidfuzz ratio >= cutoff, in slices that fit the memory."""
    for start in range(0, len(right), SLICE):
        yield from _close(left, right[start:start + SLICE], start, cutoff)


def alike(texts: Sequence[str], cutoff: int) -> Iterator[tuple[int, int, int]]:
    """Pairs (index, larger index, ratio) within one list, as `close` finds them; each is compared once.

    A ratio of c needs lengths within c / (200 - c) of each other, so shorter texts are not even compared.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    lengths, ordered = [len(texts[number]) for number in order], [texts[number] for number in order]
    found = []
    for start in range(0, len(ordered), SLICE):
        part = ordered[start:start + SLICE]
        first = bisect_left(lengths, int(lengths[start] * cutoff / (200 - cutoff)))
        for one, other, score in _close(ordered[first:start + len(part)], part, start, cutoff):
            if first + one < other:
                found.append((min(order[first + one], order[other]), max(order[first + one], order[other]), score))
    yield from sorted(found)


def _close(left: Sequence[str], right: Sequence[str], start: int, cutoff: int) -> Iterator[tuple[int, int, int]]:
    scores = process.cdist(left, right, scorer=fuzz.ratio, score_cutoff=cutoff, dtype=np.uint8, workers=-1)
    for one, other in np.argwhere(scores):
        yield int(one), start + int(other), int(scores[one, other])


def ngrams(text: str) -> list[str]:
    """The runs of eight words of a bare text."""
    words = text.split()
    return [" ".join(words[start:start + N]) for start in range(len(words) - N + 1)]


def training_texts(data: Path | None = None) -> list[Text]:
    """Every prompt, user turn and reply of data/train/*.jsonl, read without their schema. Raises OSError, ValueError."""
    found = []
    for path in sorted(((data or cases.DATA) / "train").glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                row = json.loads(line)
                where = f"train/{path.name}:{number} {row.get('id', '')}".strip()
                found += [Text(where, text) for text in _texts(row)]
    return found


def _texts(row: dict[str, Any]) -> list[str]:
    turns = row.get("turns", [])
    return [*row.get("prompts", []), *(reply["text"] for reply in row.get("replies", [])),
            *(turn["user"] for turn in turns), *(turn["text"] for turn in turns)]
