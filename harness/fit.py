"""Fit what the scorers learn from text, and write harness/fitted.npz: python -m harness fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness import cases, fitted, language, word_order
from harness.cases import KINDS, load_cases, load_gold
from harness.contamination import training_texts
from harness.turkish import fold, prose, words


def fit(path: Path = fitted.FILE, data: Path | None = None) -> str:
    """Fit both models and the lexicon, write them, and say in one line what they hold. Raises OSError, DataError."""
    folder = data or cases.DATA
    corpus = (folder / "turkish.txt").read_text(encoding="utf-8").splitlines()
    said = [*(text.text for text in training_texts(data)), *_thoughts(folder), *corpus]
    good = [reply for kind in KINDS for row in load_gold(kind, data) for reply in row.replies]
    asked = [prompt for kind in KINDS for case in load_cases(kind, half=None, data=data) for prompt in case.prompts]
    foreign = (folder / "azerbaijani.txt").read_text(encoding="utf-8").splitlines()
    order = word_order.fit([*said, *good])
    azerbaijani = language.fit(foreign, [*said, *good])
    known = {language.beginning(fold(word)) for text in (*said, *good, *asked) for word in words(prose(text))}
    fitted.save({"order": order, "azerbaijani": azerbaijani}, known, path)
    return f"{path.name}: word order {len(order)} weights, Azerbaijani {len(azerbaijani)}, {len(known)} beginnings of words"


def _thoughts(folder: Path) -> list[str]:
    """The lines of thinking of the training replies, without their numbers."""
    rows: list[dict[str, Any]] = [json.loads(line) for file in sorted((folder / "train").glob("*.jsonl"))
                                  for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    traces = [part.get("thinking", "") for row in rows for part in (*row.get("replies", []), *row.get("turns", []))]
    return [line.partition(". ")[2] for trace in traces for line in trace.splitlines()]
