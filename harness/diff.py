"""Before and after: what two models said to the same prompts, and which replies one of them fixed or broke.

    python -m harness diff smollm2 jessy-v2

Open halves only, so that nobody learns from what a model says to sealed cases.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import side_by_side
from harness.compare import NotComparable, differences, identity
from harness.display import amount, change, visible
from harness.files import write_text
from harness.records import ranked
from harness.report import environment
from harness.saved import ReportError, Saved, find, labelled
from harness.turkish import fold

NOT_COMPARABLE, USAGE = 3, 4
FIRST = "sana bisi sorucam"  # the prompt that the project exists for
STATES = ("regressed", "fixed", "failing", "passing")  # in the order of the page; the last two are unchanged

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A case on both sides. `turns` are (prompt, before, after); `changes` and `failing` name criteria, with reasons."""

    name: str
    kind: str
    category: str
    state: str
    turns: tuple[tuple[str, Json, Json], ...]
    changes: tuple[Json, ...]
    failing: tuple[str, ...]
    iterations: tuple[int | None, int | None]

    @property
    def prompt(self) -> str:
        """What the user said last: of a dialogue, the turn that is scored."""
        return self.turns[-1][0]


def command(before: str, after: str, *, reports: Path) -> int:
    """Write the page. Returns 0, 3 where the reports are not comparable, 4 for bad input."""
    try:
        one, two = labelled([find(before, reports), find(after, reports)])
        page = write(one, two, reports)
    except NotComparable as error:
        print("\n".join(["not compared:", *map(visible, error.lines)]), file=sys.stderr)
        return NOT_COMPARABLE
    except ReportError as error:
        print(visible(str(error)), file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"cannot write the page: {error}; name another folder with --reports", file=sys.stderr)
        return USAGE
    for line in words(one, two):
        print(visible(line))
    print(f"before and after: {page}")
    return 0


def write(before: Saved, after: Saved, reports: Path) -> Path:
    """reports/compare/<id>/diff.html. Raises NotComparable, ReportError, OSError."""
    html = render(before, after)
    page = reports / "compare" / identity([before, after]) / "diff.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, html)
    return page


def render(before: Saved, after: Saved) -> str:
    """The page. Raises NotComparable, and ReportError where there is no reply to show side by side."""
    same = is_rescored(before, after)
    if not same and (lines := differences([before, after])):
        raise NotComparable(lines)
    found = entries(before, after)
    if not found:
        raise ReportError(f"{before.label} and {after.label} have no reply to the same prompt")
    first = next((entry for entry in found if fold(entry.prompt).strip() == FIRST), None)
    missing = sorted(before.report["replies"].keys() ^ after.report["replies"].keys())
    return environment().get_template("diff.html.j2").render(
        before=before, after=after, same=same, rows=rows(before, after), first=first, missing=missing,
        entries=[entry for entry in found if entry is not first], counts=Counter(entry.state for entry in found),
        headline=_headline(before, after, found))


def is_rescored(before: Saved, after: Saved) -> bool:
    """Whether `after` is `before` scored again: the same replies under other scorers."""
    return bool((after.provenance.get("rescored") or {}).get("run") == before.report["run"])


def entries(before: Saved, after: Saved) -> list[Entry]:
    """Every case that both sides replied to, what broke first."""
    old, new = before.report["replies"], after.report["replies"]
    judged = [_judged(run) for run in (before, after)]
    found = [_entry(key, old[key], new[key], judged[0].get(key, {}), judged[1].get(key, {})) for key in old if key in new]
    return sorted(found, key=lambda entry: STATES.index(entry.state))


def rows(before: Saved, after: Saved) -> list[Json]:
    """A line a criterion that both measured: the scores, the difference with its p, and the replies that changed sides."""
    of = [{row["name"]: row for row in run.report["criteria"]} for run in (before, after)]
    return [_row(of[0][row["name"]], row) for row in ranked(after.report["criteria"]) if row["name"] in of[0]]


def words(before: Saved, after: Saved) -> Iterator[str]:
    """The same on a terminal."""
    for row in rows(before, after):
        unit = row["bar"]["unit"]
        yield (f"  {row['title']:<34}{amount(row['before'], unit):>9} → {amount(row['after'], unit):<9} {change(row['delta'], unit):>10}"
               f"  {row['fixed']} fixed, {row['broken']} broken")


def _row(old: Json, new: Json) -> Json:
    testable = old["bar"]["unit"] == "%" and all("stratum" in outcome for row in (old, new) for outcome in row["outcomes"])
    tested = side_by_side.difference({"": old["outcomes"]}, {"": new["outcomes"]}) if testable else None
    sides = [{(outcome["case"], outcome["trial"]): outcome["passed"] for outcome in row["outcomes"] if outcome["score"] is not None}
             for row in (old, new)]
    flips = Counter(sides[1][key] for key in sides[0].keys() & sides[1].keys() if sides[0][key] != sides[1][key])
    delta = None if old["score"] is None or new["score"] is None else round(new["score"] - old["score"], 5)
    return {"title": new["title"], "level": new["level"], "bar": new["bar"], "before": old["score"], "after": new["score"], "delta": delta,
            "verdicts": (old["verdict"], new["verdict"]), "p": tested and tested.p, "fixed": flips[True], "broken": flips[False]}


def _judged(run: Saved) -> dict[str, dict[str, Json]]:
    """Each reply's scored outcomes by the title of the criterion; what decides first."""
    found: dict[str, dict[str, Json]] = {}
    for row in ranked(run.report["criteria"]):
        for outcome in row["outcomes"]:
            if outcome["score"] is not None:
                found.setdefault(f"{outcome['case']}#{outcome['trial']}", {})[row["title"]] = outcome
    return found


def _entry(key: str, old: Json, new: Json, was: Mapping[str, Json], now: Mapping[str, Json]) -> Entry:
    changes = tuple({"title": title, "fixed": now[title]["passed"],
                     "reasons": (was if now[title]["passed"] else now)[title]["reasons"]}
                    for title in was if title in now and was[title]["passed"] != now[title]["passed"])
    failing = tuple(title for title, outcome in now.items() if not outcome["passed"])
    state = "regressed" if not all(one["fixed"] for one in changes) else "fixed" if changes else "failing" if failing else "passing"
    turns = tuple((one["user"], _turn(one), _turn(two)) for one, two in zip(old["turns"], new["turns"], strict=False))
    return Entry(key.removesuffix("#0"), old.get("kind", ""), old.get("category", ""), state, turns, changes, failing,
                 (_iterations(was), _iterations(now)))


def _turn(turn: Json) -> Json:
    return {"thinking": "", "text": "", "done_reason": "stop", "wall": None, "reply_tokens": None, "live": True} | turn


def _iterations(judged: Mapping[str, Json]) -> int | None:
    return next((int(outcome["detail"]["iterations"]) for outcome in judged.values() if "iterations" in outcome["detail"]), None)


def _headline(before: Saved, after: Saved, found: list[Entry]) -> str:
    counts = Counter(entry.state for entry in found)
    if is_rescored(before, after):
        return f"{after.report['model']}: the same {len(found)} replies, scored again"
    return f"{after.label} fixes {counts['fixed']} of {len(found)} replies of {before.label} and breaks {counts['regressed']}"
