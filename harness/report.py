"""The report of a run as one self-contained HTML page, and the leaderboard of the models measured.

Both are written from report.json alone, so an old run can be drawn again. Everything in it is untrusted: what a
model says, and even what it is called. The page escapes all of it, shows what is invisible, and loads nothing.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from harness import plots
from harness.display import amount, bar_text, change, interval_text, plain, seconds, size, visible
from harness.files import write_text
from harness.records import FORMAT
from harness.saved import ReportError, complete, is_sealed, read

Json = dict[str, Any]

LEVELS = ("must", "should", "nice")
STATUSES = ("PASS", "INCONCLUSIVE", "FAIL", "NOT MEASURED")  # best first
CLASSES = {"low": "Simple questions", "medium": "Middling questions", "high": "Deep questions"}
QUOTED = 2000  # characters of a reply on the page; report.json has them all
def write_html(run_dir: Path) -> Path:
    """Draw `run_dir`/report.json as report.html beside it. Raises ReportError."""
    page = run_dir / "report.html"
    write_text(page, render(read(run_dir / "report.json")))
    return page


def write_index(reports: Path) -> Path:
    """Write `reports`/index.html: the newest complete run of each model, ranked, and newer partial runs apart."""
    runs: list[Json] = []
    skipped: list[str] = []
    for path in sorted(reports.glob("*/*/report.json")):
        try:
            report = read(path)
            if not is_sealed(report):  # a look ranks nobody
                runs.append(_standing(report, path.parent.relative_to(reports)))
        except ReportError as error:
            skipped.append(f"{path.relative_to(reports)}: {error}")
    complete = _newest(run for run in runs if not run["partial"])
    partial = [run for model, run in _newest(run for run in runs if run["partial"]).items()
               if model not in complete or run["when"] > complete[model]["when"]]
    ranked = sorted(complete.values(), key=lambda run: run["rank"])
    columns = list(dict.fromkeys(name for run in [*ranked, *partial] for name in run["scores"]))
    page = environment().get_template("index.html.j2").render(
        ranked=ranked, partial=sorted(partial, key=lambda run: run["rank"]), columns=columns, skipped=skipped)
    index = reports / "index.html"
    write_text(index, page)
    return index


def render(report: Mapping[str, Any]) -> str:
    """The page of one run. Raises ReportError when `report` is not a report of FORMAT."""
    full = complete(report)
    try:
        criteria = [{**row, "anchor": f"c{index}"} for index, row in enumerate(full["criteria"])]
        turns, used = _turns(full), _iterations(full)
        timings = _timings(turns)
        return environment().get_template("report.html.j2").render(
            report=full, criteria=criteria, headline=_headline(full), limits=_limits(full), tally=_tally(criteria),
            missed=[row for row in criteria if row["verdict"] != "PASS"],
            intervals=_drawing(plots.intervals([_interval(row) for row in criteria])),
            latency=_drawing(plots.latency(turns, _second_bars(full), _latency_titles(timings))), timings=timings,
            left_out=sum(len(reply["turns"]) for reply in full["replies"].values()) - len(turns),
            iterations=_drawing(plots.iterations(used, _iteration_titles(used))), parts=plots.PARTS,
            details=[_detail(row, full["replies"]) for row in criteria], comparison=_comparison(full))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, UndefinedError) as error:
        raise ReportError(f"not a report of format {FORMAT}: {type(error).__name__}: {error}") from error


# --- templates -----------------------------------------------------------------------------------------------------


@functools.cache
def environment() -> Environment:
    """Templates that escape everything, always; `finalize` sees every value before it is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    found.filters |= {"amount": amount, "seconds": seconds, "bar": bar_text, "interval": interval_text,
                      "change": change, "size": size, "plain": plain,
                      "slug": lambda verdict: re.sub("[^a-z]+", "-", str(verdict).lower())}
    found.globals |= {"QUOTED": QUOTED, "LEVELS": LEVELS}
    return found


def _shown(value: object) -> object:
    if isinstance(value, Markup):
        return value
    return "—" if value is None else visible(str(value))


def _drawing(svg: str) -> Markup:
    """Our own plot, the only markup that is not escaped: matplotlib escaped the words in it."""
    return Markup(svg)  # noqa: S704


# --- the verdict ---------------------------------------------------------------------------------------------------


def _headline(report: Json) -> str:
    """The one sentence that matters."""
    model, status = report["model"], report["status"]
    counted = [row for row in report["criteria"] if report["strict"] or row["level"] == "must"]
    kind = "criteria" if report["strict"] else "must-criteria"
    hit = [row for row in counted if row["verdict"] == status]
    if not counted:
        return f"{model}: no must-criterion was measured" if report["criteria"] else f"{model}: nothing was measured"
    share = f"{len(hit)} of {len(counted)} {kind}"
    if status == "PASS":
        which = f"the {len(counted)} {kind} that this run measured" if report["partial"] else f"all {len(counted)} {kind}"
        return f"{model} meets {which}"
    if not hit:
        return f"{model}: {status}"
    return {"FAIL": f"{model} does not meet {share}", "INCONCLUSIVE": f"{model} is too close to call on {share}",
            "NOT MEASURED": f"{model} could not be measured on {share}"}.get(status, f"{model}: {status}")


def _limits(report: Json) -> list[str]:
    """Why this run says less than it seems to."""
    limits = []
    if report["interrupted"]:
        limits.append("Interrupted: the run was stopped before its end. What was not asked is not in the scores.")
    if report["partial"]:
        limits.append(f"Partial run ({report['partial']}): no gate takes it.")
    if again := report["provenance"].get("rescored"):
        limits.append(f"Scored again from the replies of run {again['run']}: no model was asked, and the seconds are of that run.")
    if (scorers := report["provenance"].get("scorers")) and not scorers["certified"]:
        limits.append(f"The scorers of this run are not certified ({scorers['reason']}): no gate takes it.")
    limits += [f"The scorers are weak on {line}." for line in (scorers or {}).get("weak") or ()]
    unsure = [row["title"] for row in report["criteria"] if row["verdict"] == "PASS" and "not significant" in row["note"]]
    if unsure:
        limits.append(f"Pass, not significant: {', '.join(unsure)}. The interval reaches past the bar.")
    return limits


def _tally(criteria: list[Json]) -> list[Json]:
    rows = [(level, [row for row in criteria if row["level"] == level]) for level in LEVELS]
    return [{"level": level, "met": sum(row["verdict"] == "PASS" for row in group), "all": len(group)}
            for level, group in rows if group]


# --- tables and plots ----------------------------------------------------------------------------------------------


def _interval(row: Json) -> plots.Interval:
    """Shares lie on 0-100 %, seconds on 0 to twice the bar."""
    bar = row["bar"]
    scale = 1.0 if bar["unit"] == "%" else 2 * bar["value"] or 1.0
    score, low, high = (None if value is None else value / scale for value in (row["score"], row["low"], row["high"]))
    title = visible(row["title"])
    label = "not measured" if row["score"] is None else amount(row["score"], bar["unit"], bar["value"])
    return plots.Interval(title if len(title) <= 42 else title[:41] + "…", row["verdict"], label, bar_text(bar),
                          bar["value"] / scale, bar["op"].startswith(">"), score, low, high)


def _turns(report: Json) -> pd.DataFrame:
    """A row an answered turn that was timed live, in seconds; alone when any was (others shared the machine)."""
    rows = []
    for reply in report["replies"].values():
        for turn in reply["turns"]:
            time = {key: float(turn.get(key) or 0) for key in ("load", "prompt", "decode", "wall", "first_token")}
            thinking = min(float(turn.get("thinking_seconds") or 0), time["decode"])
            answer = time["decode"] - thinking
            rows.append({**time, "complexity": reply.get("complexity") or "low", "thinking": thinking, "answer": answer,
                         "waiting": max(0.0, time["wall"] - time["load"] - time["prompt"] - time["decode"]),
                         "tokens": float(turn.get("reply_tokens") or 0),
                         "live": turn.get("live", True), "alone": turn.get("alone", True)})
    frame = pd.DataFrame(rows, columns=["complexity", "wall", *plots.PARTS, "decode", "first_token", "tokens", "live",
                                        "alone"])
    frame = frame[frame["live"].astype(bool)]
    alone = frame[frame["alone"].astype(bool)]
    return frame if alone.empty else alone


def _timings(turns: pd.DataFrame) -> list[Json]:
    """The words beside the latency plot: a row a class of question."""
    rows = []
    for name, title in CLASSES.items():
        group = turns[turns["complexity"] == name]
        if group.empty:
            continue
        decode = group["decode"].sum()
        rows.append({"class": name, "title": title, "n": len(group), "median": group["wall"].median(), "max": group["wall"].max(),
                     "p95": group["wall"].quantile(0.95, interpolation="higher"), "first": group["first_token"].median(),
                     "rate": group["tokens"].sum() / decode if decode else None,
                     **{part: group[part].mean() for part in plots.PARTS}})
    return rows


def _latency_titles(timings: list[Json]) -> dict[str, str]:
    return {row["class"]: f"{row['title']}: p95 {seconds(row['p95'])}, {row['n']} repl{'y' if row['n'] == 1 else 'ies'}" for row in timings}


def _second_bars(report: Json) -> dict[str, float]:
    """The bar in seconds of each class of question: that of the criterion whose outcomes are mostly of the class."""
    bars: dict[str, float] = {}
    for row in report["criteria"]:
        if row["bar"]["unit"] != "s":
            continue
        classes = Counter(_reply(outcome, report["replies"]).get("complexity") for outcome in row["outcomes"])
        for name, _ in classes.most_common(1):
            bars.setdefault(str(name), row["bar"]["value"])
    return bars


def _iterations(report: Json) -> pd.DataFrame:
    """A row an outcome whose detail counts iterations against a band."""
    keys = ("complexity", "iterations", "lo", "hi")
    found = [row["outcomes"] for row in report["criteria"]
             if any(all(key in outcome["detail"] for key in keys) for outcome in row["outcomes"])]
    details = [outcome["detail"] for outcome in (found[0] if found else [])]
    return pd.DataFrame([{key: detail[key] for key in keys} for detail in details if all(key in detail for key in keys)],
                        columns=list(keys))


def _iteration_titles(used: pd.DataFrame) -> dict[str, str]:
    titles = {}
    for name, title in CLASSES.items():
        group = used[used["complexity"] == name]
        if len(group):
            inside = group["iterations"].between(group["lo"], group["hi"]).mean()
            band = f"{group['lo'].median():g}–{group['hi'].median():g}"
            titles[name] = f"{title}: {amount(float(inside), '%')} in the band {band}"
    return titles


def _detail(row: Json, replies: Json) -> Json:
    """What a criterion's replies show: the reasons counted, the failing replies worst first, and what was not scored."""
    outcomes = row["outcomes"]
    unmeasured = [outcome for outcome in outcomes if outcome["error"] or outcome["unscored"]]
    failing = [outcome for outcome in outcomes
               if not outcome["passed"] and not outcome["error"] and not outcome["unscored"]]
    failing.sort(key=lambda outcome: outcome["score"] or 0)
    kinds = Counter(_kind_of(reason) for outcome in failing for reason in dict.fromkeys(outcome["reasons"]))
    return {**row, "reasons": kinds.most_common(8), "unmeasured": unmeasured,
            "failing": [{**outcome, **_quoted(_reply(outcome, replies))} for outcome in failing]}


def _kind_of(reason: str) -> str:
    """A reason without its numbers, so that "too long (31 words)" and "too long (40 words)" are counted as one."""
    return re.split(r"\s*[(:;]|\s+\d", reason, maxsplit=1)[0] or reason


def _reply(outcome: Json, replies: Json) -> Json:
    found: Json = replies.get(f"{outcome['case']}#{outcome['trial']}") or {}
    return found


def _quoted(reply: Json) -> Json:
    turns = [{"thinking": "", "text": "", "user": "", "done_reason": "stop", "wall": None, "reply_tokens": None, **turn}
             for turn in reply.get("turns", ())]
    return {"turns": turns, "category": reply.get("category", ""), "prompt": turns[0]["user"] if turns else ""}


def _comparison(report: Json) -> Json | None:
    """Side by side: the unit of each criterion added, flips with what broke first."""
    comparison = report["comparison"]
    if not comparison:
        return None
    units = {row["name"]: row["bar"]["unit"] for row in report["criteria"]}
    bars = {row["name"]: row["bar"] for row in report["criteria"]}
    blank: Json = {"mcnemar_p": {}, "delta": {}, "fixed": {}, "regressed": {}, "title": ""}
    rows = [{**blank, **row, "unit": units.get(row["criterion"], "%"), "bar": bars.get(row["criterion"])}
            for row in comparison.get("rows", ())]
    titles = {row["criterion"]: row["title"] or row["criterion"] for row in rows}
    flips = sorted(comparison.get("flips", ()), key=lambda flip: flip["change"] != "regressed")
    return {"baseline": None, **comparison, "rows": rows,
            "flips": [{"reasons": [], "prompt": "", **flip, "title": titles.get(flip["criterion"], flip["criterion"])}
                      for flip in flips]}


# --- files ---------------------------------------------------------------------------------------------------------


def _standing(report: Json, where: Path) -> Json:
    """A run's line in the leaderboard: ranked by verdict, then criteria met by level, then the mean share."""
    criteria, tally = report["criteria"], {row["level"]: row for row in _tally(report["criteria"])}
    shares = [row["score"] for row in criteria if row["bar"]["unit"] == "%" and row["score"] is not None]
    met = [tally.get(level, {"met": 0})["met"] for level in LEVELS]
    place = STATUSES.index(report["status"]) if report["status"] in STATUSES else len(STATUSES)
    return {**report, "tally": tally, "when": (str(report["started"]) or report["run"], report["run"]),
            "partial": report["partial"] or ("interrupted" if report["interrupted"] else None),
            "href": "./" + quote((where / "report.html").as_posix()),
            "scores": {row["name"].removeprefix("test_").replace("_", " "): row for row in criteria},
            "rank": (place, *(-count for count in met), -sum(shares) / max(len(shares), 1), report["model"])}


def _newest(runs: Iterable[Json]) -> dict[str, Json]:
    return {run["model"]: run for run in sorted(runs, key=lambda run: run["when"])}
