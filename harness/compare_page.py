"""A comparison as one self-contained page and in a few lines of words: reports/compare/<id>/compare.{json,html}."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness import plots
from harness.compare import compare
from harness.display import amount, change, interval_text
from harness.files import write_text
from harness.report import environment
from harness.saved import Saved, labelled, load

Json = dict[str, Any]


def write(runs: Sequence[Saved], reports: Path, against: str | None = None) -> Path:
    """Compare runs and write the page, with compare.json beside it. Raises NotComparable, OSError."""
    content = compare(runs, against)
    folder = reports / "compare" / str(content["id"])
    folder.mkdir(parents=True, exist_ok=True)
    for row in content["models"]:
        row["report"] = os.path.relpath(row["report"], folder)
    write_text(folder / "compare.json", json.dumps(content, ensure_ascii=False, indent=1))
    page = folder / "compare.html"
    write_text(page, render(content))
    return page


def of_folders(folders: Sequence[Path], reports: Path) -> Path:
    """The page of the runs in these folders. Raises ReportError, NotComparable, OSError."""
    runs = labelled(load(folder / "report.json") for folder in folders)
    return write(runs, reports, next((run.label for run in runs if run.report.get("baseline")), None))


def render(comparison: Mapping[str, Any]) -> str:
    """The page of a comparison."""
    points = _points(comparison)
    timed = _timed(comparison)
    drawn = plots.pareto(points, timed["bar"]["value"] if timed else None, f"{timed['title'].lower()}, seconds" if timed else "")
    numbers = {row["label"]: number for number, row in enumerate(comparison["models"], start=1)}
    return environment().get_template("compare.html.j2").render(
        c=comparison, noise=[cell["flips"]["share"] for row in comparison["criteria"] for cell in row["scores"].values() if cell["flips"]], headline=headline(comparison), findings=findings(comparison), timed=timed, numbers=numbers,
        pareto=Markup(drawn), points={point.number: point for point in points}, links=_links(comparison),  # noqa: S704
        order=sorted(comparison["models"], key=lambda row: (_rank(comparison, row["label"]), numbers[row["label"]])),
        deltas={row["name"]: _deltas(row, comparison["against"]) for row in comparison["criteria"]},
        alike=[row["title"] for row in comparison["criteria"] if len(_ranks(row)) == 1 and any(pair["test"] for pair in row["pairs"])],
        untested=[row["title"] for row in comparison["criteria"] if row["pairs"] and not any(pair["test"] for pair in row["pairs"])])


def headline(comparison: Mapping[str, Any]) -> str:
    """Which model is better, in one sentence, or that it cannot be told."""
    quality = comparison["quality"]
    everyone = [row["label"] for row in comparison["models"]]
    leaders = [label for label in everyone if (quality["scores"].get(label) or {}).get("rank") == 1]
    if not leaders:
        return f"{_listed(everyone)} have no criterion of quality in common"
    behind = [label for label in everyone if label not in leaders]
    if not behind:
        return f"{_listed(everyone)} cannot be told apart by quality" if len(everyone) > 1 else f"{everyone[0]}, asked more than once"
    return f"{_listed(leaders)} {'is' if len(leaders) == 1 else 'are'} ahead of {_listed(behind)} in quality"


def findings(comparison: Mapping[str, Any]) -> list[str]:
    """A line a criterion on which a difference is real: who is ahead of whom."""
    lines = []
    for row in comparison["criteria"]:
        places = _ranks(row)
        if len(places) > 1:
            unit = row["bar"]["unit"]
            ahead = " ahead of ".join(_listed([f"{label} ({amount(row['scores'][label]['score'], unit)})" for label in places[rank]])
                                      for rank in sorted(places))
            p = max(pair["p"] for pair in row["pairs"] if pair["real"])
            lines.append(f"{row['title']}: {ahead}, p\u00a0{_p(p)}")
    return lines


def table(comparison: Mapping[str, Any]) -> list[str]:
    """The comparison on a terminal: a line a model under each criterion."""
    width = max(len(row["label"]) for row in comparison["models"])
    lines = []
    for row in comparison["criteria"]:
        unit = row["bar"]["unit"]
        lines.append(f"{row['title']} ({row['level']})")
        for label, cell in row["scores"].items():
            rank = f"rank {cell['rank']}" if cell["rank"] else ""
            noise = f"  {cell['flips']['share']:.1%} flip" if cell["flips"] else ""
            delta = change(found, unit) if (found := _deltas(row, comparison["against"]).get(label, {}).get("delta")) is not None else ""
            lines.append(f"  {label:<{width}}  {amount(cell['score'], unit):>8}  [{interval_text(cell, unit)}]  {cell['verdict']:<12} {rank:<7} {delta}{noise}".rstrip())
    return lines


def _points(comparison: Mapping[str, Any]) -> list[plots.Point]:
    """Models with quality and seconds; the front by their point estimates."""
    timed, quality = _timed(comparison), comparison["quality"]["scores"]
    known = [(number, quality[row["label"]], cell) for number, row in enumerate(comparison["models"], start=1)
             if timed and row["label"] in quality and (cell := timed["scores"].get(row["label"])) and cell["score"]]
    return [plots.Point(number, one["score"], cell["score"], (one["low"], one["high"]), (cell["low"], cell["high"]),
                        front=not any(_beats((other["score"], time["score"]), (one["score"], cell["score"])) for _, other, time in known))
            for number, one, cell in known]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """At least as good and as fast, and better in one of the two."""
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def _timed(comparison: Mapping[str, Any]) -> Json | None:
    """The first criterion of seconds: the must."""
    return next((row for row in comparison["criteria"] if row["bar"]["unit"] == "s"), None)


def _deltas(row: Mapping[str, Any], against: str | None) -> dict[str, Json]:
    """Every model's difference to the baseline; of two models without one, the second's to the first."""
    labels = list(row["scores"])
    base = against or (labels[0] if len(labels) == 2 else None)
    return {pair["two"] if pair["one"] == base else pair["one"]: pair if pair["one"] == base else _turned(pair)
            for pair in row["pairs"] if base in (pair["one"], pair["two"])}


def _turned(pair: Json) -> Json:
    """The same pair seen from the other side."""
    low, high = (None if pair[end] is None else -pair[end] for end in ("high", "low"))
    return {**pair, "one": pair["two"], "two": pair["one"], "delta": -pair["delta"], "low": low, "high": high,
            "fixed": pair["regressed"], "regressed": pair["fixed"]}


def _ranks(row: Mapping[str, Any]) -> dict[int, list[str]]:
    places: dict[int, list[str]] = {}
    for label, cell in row["scores"].items():
        if cell["rank"]:
            places.setdefault(cell["rank"], []).append(label)
    return places


def _rank(comparison: Mapping[str, Any], label: str) -> int:
    return int((comparison["quality"]["scores"].get(label) or {}).get("rank") or len(comparison["models"]) + 1)


def _links(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Where each model's own page is, if it lies among the same reports."""
    return {row["label"]: quote(row["report"].removesuffix("json") + "html") for row in comparison["models"]
            if row["report"].startswith("../../") and not row["report"].startswith("../../../")}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _p(value: float) -> str:
    return "<\u00a00.001" if value < 0.001 else f"≤\u00a0{ceil(1000 * value) / 1000:.3f}"
