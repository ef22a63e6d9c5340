"""Sealed reports of models that were never asked: each case passes by the throw of a coin of known bias.

For what no real model shows on demand: how often the gate passes one whose true score is known.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import paired, records, stats
from harness.gate import decide
from harness.ledger import FIRST, NAME, Entry, Ledger
from harness.verdict import Verdict

Json = dict[str, Any]
Draw = Callable[[str, int], float]  # category, number of the case -> score (or seconds)

PROMPTS = tuple(f"{number:012x}" for number in range(64))
TURKISH, LATENCY, TECHNICAL, PERSONALITY = "test_turkish", "test_simple_latency", "test_technical", "test_personality"


def coin(chance: random.Random, truth: float, **categories: float) -> Draw:
    """All or nothing, right with this probability, in some categories with another."""
    return lambda category, number: float(chance.random() < categories.get(category, truth))


def graded(chance: random.Random, truth: float) -> Draw:
    """A score in [0, 1] with this mean."""
    return lambda category, number: min(1.0, max(0.0, chance.gauss(truth, 0.1)))


def fast(category: str, number: int) -> float:
    """Seconds."""
    return 1.0 + number / 1000


def report(draws: Mapping[str, Draw], *, model: str = "jessy-v2", digest: str = "d" * 64, categories: int = 30, cases: int = 8, **changes: Any) -> Json:
    """A complete, certified report with these criteria; it has no look yet."""
    criteria = [_criterion(name, draw, 4 if name == TECHNICAL else categories, 20 if name == TECHNICAL else cases) for name, draw in draws.items()]
    return {"format": 1, "model": model, "run": "20261123T000000Z-000000-sealed", "half": "sealed", "status": "PASS", "exit": 0, "partial": None,
            "interrupted": False, "started": "2026-11-23T00:00:00+00:00", "finished": "2026-11-23T00:01:00+00:00", "command": "pytest evals",
            "criteria": criteria, "replies": {}, "provenance": {
                "card": {"digest": digest, "engine": "ollama", "engine_version": "0.9.3"}, "trials": 1,
                "options": {"num_ctx": 4096, "temperature": 0.0, "seed": 0, "stop": [model]}, "commit": "c0ffee", "dirty": False,
                "machine": {"cpu": "a processor", "cores": 2}, "case_digests": {"conversation": "c" * 64, "technical": "t" * 64},
                "scorers": {"digest": "5" * 64, "certificate": "ce" * 8, "certified": True, "reason": ""}}, **changes}


def looked_at(book: Ledger, content: Json, prompts: tuple[str, ...] = PROMPTS) -> Json:
    """The same report as a look left it: begun and ended in the ledger, sealed with its digest. Nothing is written to a disk."""
    digest = content["provenance"]["card"]["digest"]
    begun = _add(book, Entry("look begun", model=content["model"], model_digest=digest, case_digest="c" * 64, prompts=prompts))
    content = {**content, "look": begun.hash}
    content["digest"] = records.digest(content)
    _add(book, Entry("look ended", model=content["model"], look=begun.hash, report=content["digest"], outcome="PASS"))
    return content


def retrained(truth: float, seed: int, folder: Path) -> tuple[bool, bool]:
    """Ten candidates of one truth, gated until one passes. Returns whether one did, and whether any score was over the bar."""
    chance, book, naive = random.Random(seed), in_memory(folder), False
    before = looked_at(book, report({TURKISH: coin(chance, 0.6), LATENCY: fast}, model="old", digest="b" * 64, categories=15))
    for number in range(10):
        content = looked_at(book, report({TURKISH: coin(chance, truth), LATENCY: fast}, digest=f"{number:064x}", categories=15))
        naive |= content["criteria"][0]["score"] > 0.9
        if decide(content, before, book).verdict is Verdict.PASS:
            return True, naive
    return False, naive


def in_memory(folder: Path) -> Ledger:
    """A ledger without a line."""
    return Ledger(folder / NAME)


def _add(book: Ledger, entry: Entry) -> Entry:
    entry = replace(entry, time=f"line {len(book.entries)}", previous=book.entries[-1].hash if book.entries else FIRST)
    book.entries.append(entry)
    return entry


def _criterion(name: str, draw: Draw, categories: int, cases: int) -> Json:
    outcomes = []
    for case in range(categories * cases):
        stratum = f"cat-{case % categories}"
        score = draw(stratum, case)
        outcomes.append({"case": f"{name}-{case}", "trial": 0, "group": f"{name}-{case}", "stratum": "" if name == LATENCY else stratum, "seen": False,
                         "score": score, "passed": score < 5 if name == LATENCY else score >= 0.8, "reasons": [], "detail": {}, "error": None,
                         "unscored": None})
    bar = {TURKISH: 0.9, LATENCY: 5.0, TECHNICAL: 0.85, PERSONALITY: 0.8}[name]
    return {"name": name, "title": name.removeprefix("test_").replace("_", " "), "level": "should" if name == TECHNICAL else "must",
            "bar": {"op": "<", "value": bar, "unit": "s"} if name == LATENCY else {"op": ">", "value": bar, "unit": "%"},
            "verdict": "PASS", "score": _score(name, outcomes), "outcomes": outcomes}


def _score(name: str, outcomes: list[Json]) -> float:
    if name == LATENCY:
        return stats.quantile([one["score"] for one in outcomes], 0.95).score
    return paired.mean(stats.by_stratum(outcomes))
