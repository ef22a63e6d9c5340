"""Several reports side by side: scores, paired tests, ranks where a difference is real, seconds, memory, noise floor.

Pure functions of reports. Reports of other cases, options or scorers are named with what differs, and not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import median
from typing import Any

from harness import paired, side_by_side, stats
from harness.comparable import counted
from harness.records import ranked
from harness.saved import Saved

FORMAT = 1
QUALITY = "mean of the shares"

Json = dict[str, Any]


class NotComparable(Exception):
    """Reports that were not measured alike: a line a difference."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def differences(runs: Sequence[Saved]) -> list[str]:
    """What keeps runs from being compared with the first of them, a line each; nothing where they were measured alike."""
    return [line for run in runs[:1] for line in _unusable(run)] + [
        line for run in runs[1:] for line in [*_unusable(run), *_differs(runs[0], run)]]


def compare(runs: Sequence[Saved], against: str | None = None) -> Json:
    """Everything that compare.json holds. `against` names the label of the baseline. Raises NotComparable."""
    if lines := differences(runs):
        raise NotComparable(lines)
    criteria = [_criterion(name, runs) for name in _names(runs)]
    quality = _quality(runs, criteria)
    return {"format": FORMAT, "id": identity(runs), "against": against, "models": [_model(run) for run in runs],
            "criteria": criteria, "quality": quality, "limits": _limits(runs, criteria)}


def identity(runs: Sequence[Saved]) -> str:
    """The name of a comparison: when the newest of its runs began, and a digest of all of them in their order."""
    names = [f"{run.report['model']} {run.report['run']}" for run in runs]
    newest = max(str(run.report["run"]).partition("-")[0] for run in runs)
    return f"{newest}-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:6]}"


# --- alike or not --------------------------------------------------------------------------------------------------


def _unusable(run: Saved) -> Iterator[str]:
    criteria = run.report["criteria"]
    if not any(row["outcomes"] for row in criteria):
        yield f"{run.label}: nothing was measured in {run.path}"
    elif not all("stratum" in outcome for row in criteria for outcome in row["outcomes"]):
        yield (f"{run.label}: {run.path} does not say which cases are paraphrases of each other (an older version wrote it); "
               f"score it again: python -m harness rescore {run.path}")
    for row in criteria:
        if row["score"] is not None and row["bar"]["unit"] == "%" and _unlike(row):
            yield f"{run.label}: the score of {row['name']} in {run.path} does not follow from its outcomes; it was changed by hand"


def _unlike(row: Json) -> bool:
    """Whether the score is another than the macro-mean of its outcomes."""
    if not all("stratum" in outcome for outcome in row["outcomes"]):
        return False
    strata = stats.by_stratum(counted(row))
    return not strata or abs(paired.mean(strata) - row["score"]) > 1e-6


def _differs(first: Saved, other: Saved) -> Iterator[str]:
    one, two = (run.provenance for run in (first, other))
    who = f"{first.label} and {other.label}"
    if files := _changed(one.get("case_digests") or {}, two.get("case_digests") or {}):
        yield f"{who}: other cases in {', '.join(files)}"
    elif asked := [name for name in _names([first, other], everyone=True) if _cases(first, name) != _cases(other, name)]:
        yield f"{who}: other cases were asked in {', '.join(asked)}"
    settings = [{key: value for key, value in (side.get("options") or {}).items() if key != "stop"} for side in (one, two)]
    for key in _changed(*settings):  # the stop strings are the model's own
        yield f"{who}: option {key} is {settings[0].get(key)} and {settings[1].get(key)}"
    scorers = [(side.get("scorers") or {}).get("digest") for side in (one, two)]
    if scorers[0] != scorers[1]:
        older = min((first, other), key=lambda run: str(run.report["started"]))
        yield f"{who}: other scorers; score the older one again without its model: python -m harness rescore {older.path}"
    bars = [{row["name"]: row["bar"] for row in run.report["criteria"]} for run in (first, other)]
    for name in _changed(*({name: side[name] for name in bars[0].keys() & bars[1].keys()} for side in bars)):
        yield f"{who}: another bar in {name}"


def _changed(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def _names(runs: Sequence[Saved], *, everyone: bool = False) -> list[str]:
    """The criteria that at least two of the runs measured, or `everyone` did; what decides first."""
    of = [{row["name"] for row in run.report["criteria"] if row["outcomes"]} for run in runs]
    rows = ranked([row for run in runs for row in run.report["criteria"]])
    least = len(runs) if everyone else min(2, len(runs))
    return [name for name in dict.fromkeys(row["name"] for row in rows) if sum(name in names for names in of) >= least]


def _row(run: Saved, name: str) -> Json | None:
    return next((row for row in run.report["criteria"] if row["name"] == name), None)


def _cases(run: Saved, name: str) -> set[str]:
    """The cases of a criterion; none where it is one of seconds, which stops when it is decided."""
    row = _row(run, name)
    return set() if row is None or row["bar"]["unit"] == "s" else {outcome["case"] for outcome in row["outcomes"]}


# --- side by side --------------------------------------------------------------------------------------------------


def _criterion(name: str, runs: Sequence[Saved]) -> Json:
    rows = {run.label: row for run in runs if (row := _row(run, name)) is not None}
    first = next(iter(rows.values()))
    seconds = first["bar"]["unit"] == "s"
    measured = {label: row for label, row in rows.items() if row["score"] is not None and row["verdict"] != "NOT MEASURED"}
    alone = seconds and _several_machines(runs)
    pairs = [] if alone else _pairs(measured, seconds=seconds)
    places = {} if alone or len(measured) < 2 else _places({label: row["score"] for label, row in measured.items()}, pairs, seconds=seconds)
    return {"name": name, "title": first["title"], "level": first["level"], "bar": first["bar"], "pairs": pairs,
            "scores": {label: _cell(row) | {"rank": places.get(label)} for label, row in rows.items()}}


def _cell(row: Json) -> Json:
    seconds = row["bar"]["unit"] == "s"
    walls = [outcome["score"] for outcome in row["outcomes"] if outcome["score"] is not None] if seconds else []
    noise = None if seconds else side_by_side.flips(row["outcomes"])
    return {**{key: row[key] for key in ("score", "low", "high", "verdict", "note", "n")},
            "median": median(walls) if walls else None, "flips": asdict(noise) if noise else None}


def _pairs(rows: Mapping[str, Json], *, seconds: bool) -> list[Json]:
    """Every pair of models: the difference, its p, and whether it stands after Holm's correction for their number."""
    found = []
    for one, two in combinations(rows, 2):
        old, new = rows[one]["outcomes"], rows[two]["outcomes"]
        tested = side_by_side.slower(old, new) if seconds else side_by_side.difference({"": old}, {"": new})
        found.append((one, two, tested, rows[two]["score"] - rows[one]["score"]))
    return _corrected(found)


def _corrected(found: Sequence[tuple[str, str, side_by_side.Difference | None, float]]) -> list[Json]:
    corrected = paired.holm({(one, two): tested.p for one, two, tested, _ in found if tested})
    pairs: list[Json] = []
    for one, two, tested, delta in found:
        pair: Json = {"one": one, "two": two, "delta": delta, "test": None, "p": None, "low": None, "high": None, "n": 0,
                      "fixed": None, "regressed": None, "real": False}
        if tested:
            # More cases fixed and a lower macro-mean are no improvement: the two have to point the same way.
            sign = tested.delta if tested.fixed is None or tested.regressed is None else float(tested.fixed - tested.regressed)
            pair |= asdict(tested) | {"delta": delta, "p": (p := corrected[one, two]), "real": p < side_by_side.ALPHA and sign * delta > 0}
        pairs.append(pair)
    return pairs


def _places(scores: Mapping[str, float], pairs: Sequence[Json], *, seconds: bool) -> dict[str, int]:
    real = {frozenset((pair["one"], pair["two"])) for pair in pairs if pair["real"]}
    return side_by_side.ranks(scores, real, high_is_good=not seconds)


def _quality(runs: Sequence[Saved], criteria: Sequence[Json]) -> Json:
    """One number a model, for the plot and the order: the mean of the shares that every model has, equally weighted."""
    shared = [row["name"] for row in criteria if row["bar"]["unit"] == "%" and len(row["scores"]) == len(runs)
              and all(cell["score"] is not None and cell["verdict"] != "NOT MEASURED" for cell in row["scores"].values())]
    scores = {run.label: sum((_row(run, name) or {})["score"] for name in shared) / len(shared) for run in runs} if shared else {}
    rows = {run.label: {name: (_row(run, name) or {})["outcomes"] for name in shared} for run in runs}
    pairs = _corrected([(one, two, side_by_side.difference(rows[one], rows[two]), scores[two] - scores[one])
                        for one, two in combinations(scores, 2)])
    places = _places(scores, pairs, seconds=False) if scores else {}
    return {"title": QUALITY, "criteria": shared, "pairs": pairs,
            "scores": {label: {"score": score, "low": low, "high": high, "rank": places[label]} for label, score in scores.items()
                       for _, low, high in [side_by_side.level(rows[label]) or (score, None, None)]}}


def _model(run: Saved) -> Json:
    report, known, card = run.report, run.provenance, run.provenance.get("card") or {}
    return {"label": run.label, "model": report["model"], "run": report["run"], "report": str(run.path), "status": report["status"],
            "partial": report["partial"], "digest": card.get("digest"), "engine": card.get("engine"),
            "engine_version": card.get("engine_version"), "quantization": card.get("quantization") or None,
            "parameter_size": card.get("parameter_size") or None, "size_bytes": card.get("size_bytes") or None,
            "memory_bytes": known.get("memory_bytes"), "trials": known.get("trials", 1), "machine": run.machine,
            "load_seconds": known.get("load_seconds"), "tokens_per_second": _rate(report),
            "rescored": (known.get("rescored") or {}).get("run")}


def _rate(report: Json) -> float | None:
    """Tokens a second while decoding, of the replies that were timed alone, or of all live ones where none was."""
    turns = [turn for reply in report["replies"].values() for turn in reply["turns"] if turn.get("live") and turn.get("decode")]
    alone = [turn for turn in turns if turn.get("alone")] or turns
    seconds = sum(turn["decode"] for turn in alone)
    return sum(turn.get("reply_tokens") or 0 for turn in alone) / seconds if seconds else None


def _several_machines(runs: Sequence[Saved]) -> bool:
    return len({(run.machine.get("cpu"), run.machine.get("cores")) for run in runs}) > 1


def _limits(runs: Sequence[Saved], criteria: Sequence[Json]) -> list[str]:
    """Why the comparison says less than it seems to."""
    lines = []
    if _several_machines(runs):
        lines.append("Measured on different machines: their seconds stand side by side, and are not compared.")
    if len({(run.provenance.get("card") or {}).get("engine") for run in runs}) > 1:
        lines.append("Measured on different engines: the engine is part of every difference, of the seconds above all.")
    for run in runs:
        if run.report["partial"]:
            lines.append(f"{run.label} is a partial run ({run.report['partial']}).")
        if again := (run.provenance.get("rescored") or {}).get("run"):
            lines.append(f"{run.label} was scored again from the replies of run {again}; its seconds are of that run.")
    if not any(cell["flips"] for row in criteria for cell in row["scores"].values()):
        lines.append("Noise floor not measured: no model was asked twice. python -m harness bench MODEL --trials 2 does.")
    return lines
