"""report.json: everything that a run measured, and what it was measured with. The file is written last.

Its existence says that the run is complete as far as it was asked for; a run without it can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from harness import cases, certificate, stats
from harness.engines.replay import Replay
from harness.files import sha256, write_text
from harness.session import Run, Settings, Target
from harness.verdict import Level, Result, Verdict, exit_code

FORMAT = 1
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pytest", "pytest-benchmark", "ollama", "xllamacpp", "lingua-language-detector", "langdetect",
            "rapidfuzz", "scipy")
# Not readable over the API, and they change answers or times (facts/evals.md 3.19).
ENVIRONMENT = ("OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE")

Report = dict[str, Any]


def criterion(result: Result) -> Report:
    """One criterion as report.json has it; plain values only, so that pytest-xdist can carry it."""
    bar, estimate = result.bar, result.estimate
    return {
        "name": result.name, "title": bar.title, "sentence": result.sentence, "level": bar.level,
        "bar": {"op": ">" if bar.over is not None else "<", "value": bar.value, "unit": "%" if bar.over is not None else "s"},
        "verdict": str(result.verdict), "note": result.note, "mde": result.mde, "seen": result.seen,
        "score": estimate and estimate.score, "low": estimate and estimate.low, "high": estimate and estimate.high,
        "method": estimate.method if estimate else "", "n": estimate.n if estimate else 0, **asdict(result.counts),
        "breakdown": {name: dict(row) for name, row in result.breakdown.items()},
        "outcomes": [dict(row) for row in result.outcomes], "extras": dict(result.extras)}


def provenance(run: Run) -> Report:
    """What a run was measured with, as far as the model's own process knows it."""
    asker, settings = run.asker, run.settings
    known: Report = {"trials": settings.trials, "journal": "journal.jsonl"}
    if asker:
        known |= {"card": asdict(asker.card), "options": asker.options.request(), "think": asker.card.thinks,
                  "in_flight": asker.in_flight, "timeout_seconds": asker.timeout, "resumed": asker.journal.kept,
                  "load_seconds": asker.loaded and asker.loaded.seconds,
                  "loaded_num_ctx": asker.loaded and asker.loaded.num_ctx,
                  "gpu_share": asker.loaded and asker.loaded.gpu_share,
                  "memory_bytes": asker.loaded and asker.loaded.memory_bytes,
                  "asking_seconds": asker.last_reply - asker.first_request}
    if isinstance(run.engine, Replay):
        known |= {"rescored": run.engine.origin, "asking_seconds": run.engine.asking_seconds}
    return known


def machine(embedding: str = "") -> Report:
    """The machine and the code that measured, with the embedding model of --embed."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "harness", "evals", "data", "conftest.py")),
        "machine": hardware(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "case_digests": case_digests(),
        "scorers": certificate.standing(embedding),
        "packages": {name: metadata.version(name) for name in PACKAGES}}


def hardware() -> Report:
    """The machine alone: what seconds depend on."""
    return {"system": platform.platform(terse=True), "cpu": _cpu(), "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "python": platform.python_version()}


def case_digests(data: Path | None = None) -> dict[str, str]:
    """SHA-256 of every case file, both halves, by its kind."""
    return {path.stem: sha256(path) for path in sorted(((data or cases.DATA) / "evals").glob("*.jsonl"))}


def report(settings: Settings, target: Target, criteria: Sequence[Report], replies: Mapping[str, Report],
           known: Report, *, session: Report, comparison: Report | None) -> Report:
    """The whole of report.json. `session` brings started, finished, seconds, command, interrupted."""
    verdicts: list[tuple[Level, Verdict]] = [(row["level"], Verdict(row["verdict"])) for row in criteria]
    code = exit_code(verdicts, strict=settings.strict)
    return {
        "format": FORMAT, "model": target.model, "run": target.run, "baseline": target.baseline,
        "half": settings.half, "look": settings.look,
        "status": {0: "PASS", 1: "FAIL", 3: "NOT MEASURED"}[code] if criteria else "NOT MEASURED", "exit": code,
        "strict": settings.strict, "partial": partial(settings, criteria), **session,
        "criteria": [{**row, "scorer": _scorer(row, known.get("scorers"))} for row in ranked(criteria)],
        "replies": dict(replies), "comparison": comparison, "provenance": known}


def _scorer(row: Report, scorers: Report | None) -> Report | None:
    """The certified rates of the criterion's scorer, and the score that follows from them; None for times, which no scorer judges."""
    rates = ((scorers or {}).get("rates") or {}).get(row["name"])
    return rates and {**rates, "corrected": certificate.corrected(row, rates)}


def ranked(criteria: Sequence[Report]) -> list[Report]:
    """What decides first: must, should, nice; shares before seconds."""
    return sorted(criteria, key=lambda row: (get_args(Level).index(row["level"]), row["bar"]["unit"] == "s"))


def partial(settings: Settings, criteria: Sequence[Report]) -> str | None:
    """Why the run is not the whole suite, if it is not."""
    reasons = [f"--max-cases {settings.max_cases}"] if settings.max_cases else []
    missing = [name for name in all_criteria() if name not in {row["name"] for row in criteria}]
    if missing:
        reasons.append(f"without {', '.join(missing)}")
    return "; ".join(reasons) or None


def all_criteria() -> list[str]:
    """The names of the tests in evals/."""
    return [name for path in sorted((ROOT / "evals").glob("test_*.py"))
            for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)]


def comparison(by_model: Mapping[str, Sequence[Report]], replies: Mapping[str, Mapping[str, Report]],
               baseline: str) -> Report:
    """The models side by side, and every case that passes on one side only."""
    rows, flips = [], []
    names = dict.fromkeys(row["name"] for row in ranked([row for criteria in by_model.values() for row in criteria]))
    for name in names:
        of = {model: row for model, criteria in by_model.items() for row in criteria if row["name"] == name}
        entry: Report = {"criterion": name, "title": next(iter(of.values()))["title"],
                         "scores": {model: {key: row[key] for key in ("score", "low", "high", "verdict")}
                                    for model, row in of.items()},
                         "mcnemar_p": {}, "delta": {}, "fixed": {}, "regressed": {}}
        for model in of:
            if model != baseline and baseline in of:
                flips += _compare(entry, of[baseline], of[model], baseline, model, replies)
        rows.append(entry)
    return {"models": list(by_model), "baseline": baseline, "rows": rows, "flips": flips}


def write(folder: Path, content: Report) -> Path:
    """Write report.json with its digest, whole or not at all. Raises OSError."""
    path = folder / "report.json"
    plain: Report = json.loads(json.dumps(content))
    write_text(path, json.dumps({**plain, "digest": digest(plain)}, ensure_ascii=False, indent=1))
    return path


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of a report as it was read, the key `digest` left out."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _compare(entry: Report, before: Report, after: Report, baseline: str, model: str,
             replies: Mapping[str, Mapping[str, Report]]) -> list[Report]:
    old = {(row["case"], row["trial"]): row for row in before["outcomes"] if row["score"] is not None}
    new = {(row["case"], row["trial"]): row for row in after["outcomes"] if row["score"] is not None}
    flips = []
    for key in old.keys() & new.keys():
        if old[key]["passed"] != new[key]["passed"]:
            change = "fixed" if new[key]["passed"] else "regressed"
            flips.append(_flip(entry, key, model, change, (old if change == "fixed" else new)[key],
                               replies.get(baseline, {}), replies.get(model, {})))
    flips.sort(key=lambda flip: (flip["change"] == "fixed", flip["case"]))
    fixed = sum(flip["change"] == "fixed" for flip in flips)
    entry["fixed"][model], entry["regressed"][model] = fixed, len(flips) - fixed
    entry["mcnemar_p"][model] = stats.mcnemar(fixed, len(flips) - fixed)
    if before["score"] is not None and after["score"] is not None:
        entry["delta"][model] = after["score"] - before["score"]
    return flips


def _flip(entry: Report, key: tuple[str, int], model: str, change: str, failed: Report,
          before: Mapping[str, Report], after: Mapping[str, Report]) -> Report:
    case, trial = key
    was, now = (side.get(f"{case}#{trial}", {"turns": [{"user": "", "text": ""}]})["turns"][-1]
                for side in (before, after))
    return {"criterion": entry["criterion"], "case": case, "model": model, "change": change, "prompt": now["user"],
            "before": was["text"], "after": now["text"], "reasons": failed["reasons"]}


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
