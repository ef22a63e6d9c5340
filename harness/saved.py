"""Reports that were saved: found by the name of a model, by a run's folder or by the file, and read for comparing.

Open halves only. What a model said to sealed cases is for the gate alone, so a sealed report is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import slug
from harness.report import ReportError, is_sealed, read

Json = dict[str, Any]


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


def labelled(runs: Iterable[Saved]) -> list[Saved]:
    """The same, with labels of their own: two runs of one model are told apart by the run."""
    runs = list(runs)
    names = [run.report["model"] for run in runs]
    return [Saved(run.path, run.report, name if names.count(name) == 1 else f"{name} ({run.report['run']})")
            for run, name in zip(runs, names, strict=True)]
