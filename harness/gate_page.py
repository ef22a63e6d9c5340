"""The decision of a gate for people and for CI: gate.html, gate.json beside it, and JUnit XML with a test case a rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.comparable import Json, Rule
from harness.display import amount, visible
from harness.files import write_text
from harness.gate import ORDER, Decision, Row, percent
from harness.ledger import LOOKS, Entry, Ledger, confidence
from harness.report import environment
from harness.verdict import Verdict

HEADLINES = {Verdict.PASS: "{} may replace {}", Verdict.FAIL: "{} may not replace {}",
             Verdict.INCONCLUSIVE: "{} is too close to call against {}", Verdict.NOT_MEASURED: "{} against {}: no decision"}


def write(folder: Path, candidate: str, baseline: str, decision: Decision, sides: Sequence[Json], book: Ledger) -> Path:
    """Write gate.json and gate.html in `folder`. `sides` are the two reports, or none where they are not known. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    content = _content(candidate, baseline, decision, sides, book)
    write_text(folder / "gate.json", json.dumps(content, ensure_ascii=True, indent=1))
    page = folder / "gate.html"
    write_text(page, render(candidate, baseline, decision, sides, book))
    return page


def render(candidate: str, baseline: str, decision: Decision, sides: Sequence[Json], book: Ledger) -> str:
    """The page: the decision and its reasons first, without scripts."""
    sure = confidence(decision.look) if decision.look else None
    return environment().get_template("gate.html.j2").render(
        decision=decision, candidate=candidate, baseline=baseline, headline=HEADLINES[decision.verdict].format(candidate, baseline),
        sure=sure and percent(sure), spent=sure and f"{1 - sure:.2g}", limit=LOOKS, rows=[_shown(row, decision) for row in decision.rows],
        sides=[_side(role, report, book) for role, report in zip(("candidate", "baseline"), sides, strict=False)],
        looks=_looks(sides, book), met=[rule for rule in decision.rules if rule.verdict is Verdict.PASS])


def write_junit(path: Path, candidate: str, baseline: str, decision: Decision) -> None:
    """JUnit XML: a rule that is not met is a failure, one that could not be asked an error. Raises OSError."""
    suite = ElementTree.Element("testsuite", name="gate", tests=str(len(decision.rules)), skipped="0",
                                failures=str(sum(_tag(rule) == "failure" for rule in decision.rules)),
                                errors=str(sum(_tag(rule) == "error" for rule in decision.rules)))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("candidate", candidate), ("baseline", baseline), ("verdict", str(decision.verdict)), ("exit", str(decision.exit)),
                        ("look", str(decision.look or ""))):
        ElementTree.SubElement(properties, "property", name=name, value=visible(value))
    for rule in decision.rules:
        case = ElementTree.SubElement(suite, "testcase", classname=f"gate.{visible(candidate)}", name=visible(rule.name), time="0")
        if rule.verdict is not Verdict.PASS:
            said = ElementTree.SubElement(case, _tag(rule), type=str(rule.verdict), message=visible(rule.line))
            said.text = visible(rule.line)
        elif rule.line:
            ElementTree.SubElement(case, "system-out").text = visible(rule.line)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n")


def _tag(rule: Rule) -> str:
    return {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "failure", Verdict.NOT_MEASURED: "error"}.get(rule.verdict, "")


def _content(candidate: str, baseline: str, decision: Decision, sides: Sequence[Json], book: Ledger) -> Json:
    """gate.json: plain values only."""
    return {"format": 1, "time": datetime.now(UTC).isoformat(timespec="seconds"), "verdict": str(decision.verdict), "exit": decision.exit,
            "candidate": candidate, "baseline": baseline, "look": decision.look, "looks_allowed": LOOKS,
            "confidence": confidence(decision.look) if decision.look else None,
            "rules": [{**asdict(rule), "verdict": str(rule.verdict)} for rule in decision.rules],
            "rows": [asdict(row) for row in decision.rows],
            "sides": [_side(role, report, book) for role, report in zip(("candidate", "baseline"), sides, strict=False)]}


def _shown(row: Row, decision: Decision) -> Json:
    """A row with what the template would have to work out: what its rules say, what fell, the bound and p in words."""
    verdicts = [rule.verdict for rule in decision.rules if rule.name.startswith(f"{row.title}: ")]
    unit, bar = row.bar["unit"], row.bar["value"]
    bound = "—" if row.bound is None else ("≥ " if unit == "%" else "≤ ") + amount(row.bound, unit, bar)
    fell = sorted((one for one in row.categories if one.candidate < one.baseline), key=lambda one: (one.p is None, one.fixed - one.regressed, one.name))
    return {"row": row, "verdict": min(verdicts, key=ORDER.index), "unit": unit, "bound": bound, "worse": _p(row.p_worse), "better": _p(row.p_better), "fell": [
        {"one": one, "p": None if one.p is None else _p(one.p)} for one in fell]}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 1 else "1"


def _side(role: str, report: Json, book: Ledger) -> Json:
    """Where a side's numbers come from."""
    known: dict[str, Any] = report.get("provenance", {})
    card, machine, scorers = (known.get(name) or {} for name in ("card", "machine", "scorers"))
    return {"role": role, "model": report.get("model"), "run": report.get("run"), "look": book.number(str(report.get("look"))),
            "model digest": card.get("digest"), "report digest": report.get("digest"),
            "engine": f"{card.get('engine', '?')} {card.get('engine_version', '')}", "from, to": f"{report.get('started')}, {report.get('finished')}",
            "commit": f"{known.get('commit') or '?'}{' with uncommitted changes' if known.get('dirty') else ''}",
            "machine": f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores", "scorers": scorers.get("digest"),
            "certificate": scorers.get("certificate"), "options": json.dumps(known.get("options")), "command": report.get("command")}


def _looks(sides: Sequence[Json], book: Ledger) -> list[Json]:
    """Every look at the candidate's cases, in order; without a candidate every look there is."""
    begun = book.begun(str(sides[0].get("look"))) if sides else None
    looks = [entry for entry in book.entries if entry.kind == "look begun" and (begun is None or _same(begun, entry))]
    ends = {entry.look: entry for entry in book.entries if entry.kind in ("look ended", "look failed")}
    return [{"number": number, "time": entry.time, "model": entry.model, "digest": entry.model_digest[:12],
             "outcome": ends[entry.hash].outcome if entry.hash in ends else "killed, or still at work",
             "mine": bool(sides) and entry.hash in [report.get("look") for report in sides]} for number, entry in enumerate(looks, start=1)]


def _same(begun: Entry, entry: Entry) -> bool:
    from harness.ledger import Exam

    return Exam(begun.case_digest, begun.prompts).same_as(entry.prompts)
