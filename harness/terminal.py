"""The verdict block: what a run found, on the terminal, after everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import records
from harness.display import amount, bar_text, interval_text, visible
from harness.session import Settings, Target

_MARKUP: dict[str, dict[str, bool]] = {
    "PASS": {"green": True, "bold": True}, "FAIL": {"red": True, "bold": True},
    "INCONCLUSIVE": {"yellow": True, "bold": True}, "NOT MEASURED": {"yellow": True, "bold": True}}
Line = tuple[str, dict[str, bool]]


def verdict_block(settings: Settings, targets: Sequence[Target], criteria: Mapping[str, Sequence[dict[str, Any]]],
                  written: Sequence[Path]) -> Iterator[Line]:
    """Lines and their colours: a block a model, a line a criterion, then where the report is."""
    for target in targets:
        rows = criteria.get(target.model)
        if rows:
            yield from _model(settings, target, rows)
    for path in written:
        yield f"report: {_short(path)}", {}
    if len(written) > 1:
        yield f"leaderboard: {_short(settings.reports / 'index.html')}", {}


def _model(settings: Settings, target: Target, rows: Sequence[dict[str, Any]]) -> Iterator[Line]:
    summary = records.report(settings, target, rows, {}, {}, session={}, comparison=None)
    role = " (baseline)" if target.baseline else ""
    part = f"   partial: {summary['partial']}" if summary["partial"] else ""
    yield "", {}
    yield f"{visible(target.model)}{role}: {summary['status']}{part}", _MARKUP[summary["status"]]
    for row in records.ranked(rows):
        yield _criterion(row), _MARKUP[row["verdict"]] if row["level"] == "must" else _dim(row["verdict"])


def _criterion(row: dict[str, Any]) -> str:
    unit = row["bar"]["unit"]
    score = amount(row["score"], unit, row["bar"]["value"])
    counts = f"{row['scored']} scored" + "".join(
        f", {row[name]} {name}" for name in ("errored", "unscored") if row[name])
    note = f"  {visible(row['note'])}" if row["note"] else ""
    if judge := row.get("judge"):
        kappa = "—" if judge["kappa"] is None else f"{judge['kappa']:.2f}"
        note += f"  judge: {amount(judge['passed'], '%')} of {judge['n']}, kappa {kappa}, {judge['unscored']} unread"
    return (f"  {row['verdict']:<13}{row['level']:<7}{row['title']:<34}{score:>9}  {bar_text(row['bar']):<8}"
            f"[{interval_text(row, unit)}]  {counts}{note}")


def _dim(verdict: str) -> dict[str, bool]:
    return {name: True for name in _MARKUP[verdict] if name != "bold"}


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
