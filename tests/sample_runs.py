"""Simulated runs that can be compared: as `pytest evals` would leave them, but with outcomes drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import records, stats
from harness.files import slug
from harness.saved import Saved, read

Json = dict[str, Any]
MACHINE = {"cpu": "AMD EPYC 9R14", "cores": 2}


def run(model: str, passing: float | Sequence[float] = 0.8, *, cases: int = 60, seed: int = 1, trials: int = 1, second: float = 1.0,
        graded: bool = False, group: int = 1, run: str = "20261122T203000Z-1a2b3c", **changes: Any) -> Json:
    """report.json of one share and one time. `passing` is the share right, or each case's score; `group` cases share a group."""
    chance = random.Random(f"{model} {seed}")
    outcomes, walls, replies = [], [], {}
    for index in range(cases):
        for trial in range(trials):
            drawn = chance.random()
            score = passing[index] if not isinstance(passing, float) else chance.triangular(0, 1, passing) if graded else float(drawn < passing)
            outcomes.append(outcome(f"conv-{index}", score, trial=trial, group=f"g{index // group}", stratum=("opener", "thanks")[index // group % 2]))
            replies[f"conv-{index}#{trial}"] = reply(f"soru {index}", f"{model} der ki {index}", wall=second)
        walls.append(outcome(f"conv-{index}", second * chance.uniform(0.8, 1.2), group=f"g{index // group}", stratum="opener"))
    criteria = [criterion("test_turkish", "Turkish conversational accuracy", "%", 0.9, outcomes),
                criterion("test_simple_latency", "Simple-query response time, p95", "s", 5.0, walls)]
    return {"format": 1, "model": model, "run": run, "status": "FAIL", "exit": 1, "strict": False, "partial": None, "interrupted": False,
            "started": f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}+00:00", "finished": "", "seconds": 1.0,
            "command": "", "criteria": criteria, "replies": replies, "comparison": None, "baseline": False,
            "provenance": {"card": {"name": model, "digest": slug(model), "engine": "ollama", "engine_version": "0.9.3", "size_bytes": 144810464,
                                    "quantization": "Q8_0", "parameter_size": "135M", "capabilities": []},
                           "options": {"num_ctx": 4096, "num_predict": 1024, "temperature": 0.0, "seed": 0, "stop": [slug(model)]},
                           "case_digests": {"conversation": "51aa90"}, "scorers": {"digest": "abc", "certified": True, "reason": ""},
                           "machine": MACHINE, "trials": trials, "load_seconds": 0.5, "memory_bytes": None}} | changes


def criterion(name: str, title: str, unit: str, bar: float, outcomes: list[Json]) -> Json:
    """A criterion whose score follows from its outcomes."""
    strata: dict[str, dict[str, list[float]]] = {}
    for row in outcomes:
        if row["score"] is not None and not row["seen"]:
            strata.setdefault(row["stratum"], {}).setdefault(row["group"], []).append(row["score"])
    units = {name: [sum(scores) / len(scores) for scores in groups.values()] for name, groups in strata.items()}
    found = stats.share(units) if unit == "%" else stats.quantile([row["score"] for row in outcomes], 0.95)
    reached = found.score > bar if unit == "%" else found.score < bar
    return {"name": name, "title": title, "sentence": "", "level": "must", "bar": {"op": ">" if unit == "%" else "<", "value": bar, "unit": unit},
            "verdict": "PASS" if reached else "FAIL", "score": found.score, "low": found.low, "high": found.high, "method": found.method,
            "n": found.n, "scored": len(outcomes), "errored": 0, "unscored": 0, "note": "", "mde": None, "seen": 0, "breakdown": {},
            "outcomes": outcomes, "extras": {}}


def outcome(case: str, score: float, *, trial: int = 0, group: str = "", stratum: str = "opener", seen: bool = False, **changes: Any) -> Json:
    """A scored reply."""
    return {"case": case, "trial": trial, "score": score, "passed": score >= 0.5, "reasons": [] if score >= 0.5 else ["wrong intent"], "detail": {},
            "error": None, "unscored": None, "group": group or case, "stratum": stratum, "seen": seen} | changes


def reply(user: str, text: str, *, thinking: str = "", wall: float = 1.0, **changes: Any) -> Json:
    """A reply of one turn, timed alone."""
    turn = {"user": user, "text": text, "thinking": thinking, "done_reason": "stop", "wall": wall, "load": 0.0, "queue": 0.0, "prompt": 0.1,
            "decode": wall, "first_token": 0.1, "thinking_seconds": 0.0, "prompt_tokens": 9, "reply_tokens": 20, "cached_tokens": None,
            "live": True, "alone": True}
    return {"kind": "conversation", "category": "opener", "complexity": "low", "turns": [turn | changes]}


def save(reports: Path, report: Json) -> Saved:
    """Write report.json as a run would, and read it as `bench` does."""
    folder = reports / slug(report["model"]) / report["run"]
    folder.mkdir(parents=True, exist_ok=True)
    path = records.write(folder, report)
    return Saved(path, read(path), report["model"])
