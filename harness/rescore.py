"""Score a saved run again, with today's scorers and cases and without its model.

    python -m harness rescore reports/jessy-v2/20261122T203000Z-1a2b3c

It runs `pytest evals` on the run's replies (harness/engines/replay.py), so every criterion decides as ever. The new report
lies in a folder of its own beside the old one, which stays as it is. Seconds stay as they were measured, and say of which run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from harness import diff
from harness.display import visible
from harness.files import slug
from harness.records import ROOT
from harness.saved import ReportError, Saved, find, of_model

NOT_MEASURED, USAGE = 3, 4


def command(run: str, *, reports: Path | None, data: Path | None) -> int:
    """Write the new report and say what changed. Returns 0, 3 where the replies do not suffice, 4 for bad input."""
    try:
        before = find(run, reports or ROOT / "reports")
        after = rescored(before, reports or _home(before), data)
        page = diff.write(before, after, reports or _home(before))
    except ReportError as error:
        print(visible(str(error)), file=sys.stderr)
        return USAGE
    except (Failed, OSError) as error:
        print(visible(str(error)), file=sys.stderr)
        return NOT_MEASURED
    for line in (f"{before.report['model']}: run {before.report['run']} scored again, {before.report['status']} → {after.report['status']}",
                 *diff.words(before, after), *_unscored(after)):
        print(visible(line))
    print(f"report: {after.path.with_name('report.html')}\nwhat changed: {page}")
    return NOT_MEASURED if after.report["status"] == "NOT MEASURED" else 0


class Failed(Exception):
    """No report was written: what pytest said last."""


def rescored(before: Saved, reports: Path, data: Path | None) -> Saved:
    """The new report. Raises Failed."""
    model = before.report["model"]
    known = {run.path for run in of_model(model, reports)}
    done = subprocess.run([sys.executable, "-m", *arguments(before, reports, data)], cwd=ROOT, capture_output=True, text=True, check=False)
    written = [run for run in of_model(model, reports) if run.path not in known and diff.is_rescored(before, run)]
    if not written:
        raise Failed(f"{before.path} was not scored again; pytest evals ended with {done.returncode}:\n{(done.stdout + done.stderr)[-1500:]}")
    return written[0]


def arguments(before: Saved, reports: Path, data: Path | None) -> list[str]:
    """`pytest evals` for the criteria, cases and trials that the run had; all criteria where it was complete."""
    report, partial = before.report, before.report["partial"] or ""
    few = re.search(r"--max-cases (\d+)", partial)
    named = " or ".join(row["name"] for row in report["criteria"]) if "without " in partial else ""
    return ["pytest", "evals", "--model", report["model"], "--replay", str(before.path.parent), "--reports", str(reports), "--benchmark-disable",
            "-p", "no:cacheprovider", "--trials", str(before.provenance.get("trials", 1)),
            *(["--strict"] if report["strict"] else []), *(["--max-cases", few[1]] if few else []), *(["-k", named] if named else []), *(["--data", str(data)] if data else [])]


def _home(before: Saved) -> Path:
    """The reports folder that the run lies in. Raises ReportError where it lies in none."""
    model, home = before.path.parents[1].name, before.path.parents[2]
    if model != slug(before.report["model"]):
        raise ReportError(f"{before.path} does not lie in a reports folder (<reports>/{slug(before.report['model'])}/<run>/report.json); "
                          "name the folder for the new report with --reports")
    return home


def _unscored(after: Saved) -> list[str]:
    lost = {outcome["case"] for row in after.report["criteria"] for outcome in row["outcomes"] if outcome["error"]}
    return [f"  {len(lost)} cases of today have no reply in that run: {', '.join(sorted(lost)[:5])}{'…' if len(lost) > 5 else ''}"] if lost else []
