"""May two reports be decided on: each whole, sealed, complete and certified, and both measured alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import certificate, paired, records, stats
from harness.display import bar_text
from harness.ledger import LOOKS, Ledger
from harness.verdict import Verdict

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that the gate asks for, and what it found, in a sentence."""

    name: str
    verdict: Verdict
    line: str


def fit(side: str, report: Json, book: Ledger) -> Iterator[Rule]:
    """Whole, in the ledger, complete, sealed, certified, measured: one rule each, the first that fails last."""
    begun, ended = (find(report.get("look", "")) for find in (book.begun, book.ended))
    number, model = book.number(report.get("look", "")), report.get("provenance", {}).get("card", {}).get("digest")
    not_measured = [row.get("title", "?") for row in report.get("criteria", ()) if row.get("verdict") not in ("PASS", "FAIL")]
    digest = records.digest(report)
    asked: list[tuple[str, bool, str]] = [
        ("unedited", report.get("digest") == digest, f"the report is not what was written: its digest is {digest[:12]}, it says {str(report.get('digest'))[:12]}"),
        ("asked its model", not (again := report.get("provenance", {}).get("rescored")),
         f"the replies are those of run {(again or {}).get('run')}, scored again by python -m harness rescore; a gate decides on what the model said in its look"),
        ("sealed", report.get("half") == "sealed" and bool(report.get("look")), "the report is of the open half; a gate looks at the sealed one"),
        ("in the ledger", begun is not None and ended is not None and ended.kind == "look ended" and ended.report == digest,
         f"the ledger knows no finished look with report {digest[:12]}"),
        ("the model of its look", begun is not None and begun.model_digest == model,
         f"the look was begun at another model, digest {(begun.model_digest if begun else '')[:12]}, and not at {str(model)[:12]}"),
        ("look allowed", (number or 0) <= LOOKS, f"look {number} at these cases; {LOOKS} are allowed"),
        ("complete", not report.get("partial") and not report.get("interrupted") and bool(report.get("criteria")),
         f"the run is {report.get('partial') or ('interrupted' if report.get('interrupted') else 'empty')}"),
        ("scorers certified", (no := certificate.refusal(report.get("provenance", {}))) is None, no or ""),
        ("measured", not not_measured, f"not measured: {', '.join(not_measured)}"),
        ("has must-criteria", any(row.get("level") == "must" for row in report.get("criteria", ())), "no must-criterion was measured")]
    for name, fine, line in asked:
        yield Rule(f"{side} {name}", Verdict.PASS if fine else Verdict.NOT_MEASURED, "" if fine else f"{side} {report.get('model')}: {line}")
        if not fine:
            return


def uncontaminated(leaks: Sequence[str]) -> Rule:
    line = f"{len(leaks)} texts of training are too close to prompts of the exam; the first: {leaks[0]}" if leaks else ""
    return Rule("no contamination", Verdict.NOT_MEASURED if leaks else Verdict.PASS, line)


def consistent(side: str, report: Json) -> Rule:
    """Whether the scores follow from the outcomes that stand below them: what is decided on are the outcomes."""
    wrong = [row["title"] for row in report["criteria"] if abs(_score(row) - row["score"]) > 1e-6]
    return Rule(f"{side} scores follow from outcomes", Verdict.NOT_MEASURED if wrong else Verdict.PASS,
                f"{side} {report['model']}: the score is not that of its outcomes: {', '.join(wrong)}" if wrong else "")


def comparable(candidate: Json, baseline: Json) -> Rule:
    found = [*differences(conditions(candidate), conditions(baseline)), *_other_cases(candidate, baseline)]
    return Rule("comparable", Verdict.NOT_MEASURED if found else Verdict.PASS,
                f"not measured alike: {'; '.join(found)}" if found else "")


def conditions(report: Json) -> dict[str, Any]:
    """What has to be the same on both sides. Stop strings are the model's own, as its template is."""
    known = report["provenance"]
    card, machine = known.get("card", {}), known.get("machine", {})
    return {**{f"cases ({kind})": digest[:12] for kind, digest in known.get("case_digests", {}).items()},
            "scorers": str(known.get("scorers", {}).get("digest"))[:12],
            **{f"option {name}": value for name, value in known.get("options", {}).items() if name != "stop"},
            "trials": known.get("trials"), "engine": f"{card.get('engine')} {card.get('engine_version')}",
            "machine": f"{machine.get('cpu')}, {machine.get('cores')} cores",
            **{f"bar of {row['title']}": f"{row['level']} {bar_text(row['bar'])}" for row in report["criteria"]}}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line for every condition that differs, with both values."""
    return [f"{name}: {one.get(name, 'none')} against {other.get(name, 'none')}" for name in dict.fromkeys([*one, *other])
            if one.get(name) != other.get(name)]


def _other_cases(candidate: Json, baseline: Json) -> Iterator[str]:
    """Criteria that were not asked the same cases. Of times, a hopeless side stops early: one side is then the head of the other."""
    for row, other in both_sides(candidate, baseline):
        left, right = ({(one["case"], one["trial"]) for one in side["outcomes"]} for side in (row, other))
        if left != right and not (row["bar"]["unit"] == "s" and (left <= right or right <= left)):
            yield f"cases of {row['title']}: {len(left - right)} on the candidate's side alone, {len(right - left)} on the baseline's"


def both_sides(candidate: Json, baseline: Json) -> Iterator[tuple[Json, Json]]:
    others = {row["name"]: row for row in baseline["criteria"]}
    yield from ((row, others[row["name"]]) for row in candidate["criteria"] if row["name"] in others)


def counted(row: Json) -> list[Json]:
    return [one for one in row["outcomes"] if one["score"] is not None and not one["seen"]]


def seconds_of(row: Json) -> list[float]:
    return [one["score"] for one in row["outcomes"] if one["score"] is not None]


def _score(row: Json) -> float:
    return stats.quantile(seconds_of(row), 0.95).score if row["bar"]["unit"] == "s" else paired.mean(stats.by_stratum(counted(row)))
