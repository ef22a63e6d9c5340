"""Reports that were saved: found by the name of a model, by a run's folder or by the file, and read for comparing.

Open halves only. What a model said to sealed cases is for the gate alone, so a sealed report is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import slug
from harness.records import FORMAT, digest

Json = dict[str, Any]

_CRITERION: Json = {"title": "", "sentence": "", "level": "must", "score": None, "low": None, "high": None, "method": "",
                    "n": 0, "scored": 0, "errored": 0, "unscored": 0, "note": "", "mde": None, "seen": 0,
                    "breakdown": {}, "outcomes": [], "extras": {}, "scorer": None, "judge": None}
_OUTCOME: Json = {"trial": 0, "score": 0.0, "passed": False, "reasons": (), "detail": {}, "error": None, "unscored": None}
_REPORT: Json = {"half": "open", "exit": None, "strict": False, "partial": None, "interrupted": False, "started": "", "finished": "",
                 "seconds": None, "command": "", "criteria": [], "replies": {}, "comparison": None, "provenance": {}}


class ReportError(ValueError):
    """A report.json that cannot be drawn: one line that says why."""


@dataclass(frozen=True)
class Saved:
    """A report as it lies on the disk, every optional key present. `label` tells it from those it is compared with."""

    path: Path
    report: Json
    label: str

    @property
    def provenance(self) -> Json:
        """What it was measured with."""
        found: Json = self.report["provenance"]
        return found

    @property
    def machine(self) -> Json:
        """The machine that its times are of: where the model ran, not where its replies were scored again."""
        found: Json = (self.provenance.get("rescored") or self.provenance).get("machine") or {}
        return found


def find(name: str, reports: Path) -> Saved:
    """A run's folder, its report.json, or the newest run of a model: a complete one, or else a partial one.

    Raises ReportError, in one line, where there is none, or it is sealed.
    """
    path = Path(name)
    if path.name == "report.json" or (path / "report.json").is_file():
        return load(path if path.name == "report.json" else path / "report.json")
    if (path / "journal.jsonl").is_file():
        raise ReportError(f"{path} was stopped before it had a report; the same pytest evals goes on with it, and then it has one")
    runs = [run for run in of_model(name, reports) if not run.report["interrupted"]]
    if not runs:
        known = sorted({path.parents[1].name for path in reports.glob("*/*/report.json")})
        raise ReportError(f"'{name}' is no report.json and has no finished report in {reports}; it has reports of: "
                          f"{', '.join(known) or 'no model'}; make one with: pytest evals --model {name}")
    return next((run for run in runs if not run.report["partial"]), runs[0])


def of_model(model: str, reports: Path) -> list[Saved]:
    """The open reports of a model that can be read, newest first."""
    found = []
    for path in (reports / slug(model)).glob("*/report.json"):
        try:
            found.append(load(path))
        except ReportError:
            continue  # the leaderboard names those that cannot be read
    return sorted(found, key=lambda run: (str(run.report["started"]), run.report["run"]), reverse=True)


def load(path: Path) -> Saved:
    """One report. Raises ReportError, which names the file."""
    try:
        report = read(path)
    except ReportError as error:
        raise ReportError(f"{path}: {error}") from None
    if is_sealed(report):
        raise ReportError(f"{path} is of the sealed half: its replies are for the gate alone, and looking at one spoils it")
    return Saved(path.resolve(), report, report["model"])


def read(path: Path) -> Json:
    """A report.json with every optional key present. Raises ReportError, also where its digest, if it has one, does not fit."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"cannot be read: {error}") from error
    full = complete(found)
    if "digest" in found and found["digest"] != (now := digest(found)):
        raise ReportError(f"changed by hand: its digest is {now[:12]}, it says {str(found['digest'])[:12]}; restore the file, or measure again")
    return full


def is_sealed(report: Mapping[str, Any]) -> bool:
    """Whether a report that was read is of a look at the sealed half: the gate's alone, whatever else reads reports."""
    return bool(report["half"] != "open")


def complete(report: Mapping[str, Any]) -> Json:
    """The report with every optional key present, or a ReportError that names what is wrong."""
    if not isinstance(report, Mapping):
        raise ReportError(f"not a report: a JSON {type(report).__name__} instead of an object")
    if report.get("format") != FORMAT:
        raise ReportError(f"format {report.get('format')!r}, this version draws format {FORMAT}")
    missing = [key for key in ("model", "run", "status") if not isinstance(report.get(key), str)]
    if missing:
        raise ReportError(f"not a report: no {', '.join(missing)}")
    try:
        criteria = [{**_CRITERION, **row, **{key: _finite(row.get(key)) for key in ("score", "low", "high", "mde")},
                     "outcomes": [{**_OUTCOME, **outcome} for outcome in row.get("outcomes") or ()],
                     "title": row.get("title") or row["name"]} for row in report.get("criteria") or ()]
        if any(row["verdict"] is None or not {"op", "value", "unit"} <= row["bar"].keys() for row in criteria):
            raise ReportError("not a report: a criterion without bar or verdict")
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"not a report: a criterion is wrong: {type(error).__name__}: {error}") from error
    return {**_REPORT, **report, "criteria": criteria}


def _finite(value: object) -> float | None:
    """A number of report.json; NaN and Infinity, which JSON does not have but Python writes, count as unknown."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value) if math.isfinite(value) else None


def labelled(runs: Iterable[Saved]) -> list[Saved]:
    """The same, with labels of their own: two runs of one model are told apart by the run."""
    runs = list(runs)
    names = [run.report["model"] for run in runs]
    return [Saved(run.path, run.report, name if names.count(name) == 1 else f"{name} ({run.report['run']})")
            for run, name in zip(runs, names, strict=True)]
