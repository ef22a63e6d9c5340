"""`python -m harness gate`: measure candidate and baseline on the sealed half, decide, write the decision down.

    python -m harness gate jessy-v2 --against jessy-v1
    python -m harness gate --candidate-report FILE --baseline-report FILE      decide again on looks that were had
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import certificate, gate_page, ledger, look, records
from harness.comparable import Json, conditions, differences, fit
from harness.display import visible
from harness.engines import Card, RequestFailed, UnknownModel, Unreachable
from harness.engines.modelfile import pinned
from harness.files import slug
from harness.gate import Decision, decide, percent, refused
from harness.jsonl import DataError
from harness.ledger import LOOKS, Entry, Exam, Ledger, LedgerError
from harness.session import Settings, Target, card_of, resolve
from harness.verdict import Verdict

USAGE = 4


@dataclass(frozen=True)
class Order:
    """What the command line asked for. A side is a model to measure, or the file of a report of a look that was had."""

    candidate: str
    against: str
    candidate_report: Path | None = None
    baseline_report: Path | None = None
    trained_on: tuple[Path, ...] = ()
    junit: Path | None = None
    engine: Literal["auto", "ollama", "embedded"] = "auto"
    host: str | None = None
    trials: int = 1
    in_flight: int | None = None
    timeout: float = 300.0
    reports: Path = records.ROOT / "reports"

    @property
    def settings(self) -> Settings:
        """Those of the runs that measure."""
        models = () if self.candidate_report else (self.candidate,)
        return Settings(models=models, baseline=None if self.baseline_report else self.against, engine=self.engine,
                        hosts=(self.host,) if self.host else (), trials=self.trials, strict=False, reports=self.reports, max_cases=None,
                        in_flight=self.in_flight, timeout=self.timeout, half="sealed")


class Refused(Exception):
    """The gate stops here; `decision` says why."""

    def __init__(self, name: str, line: str, verdict: Verdict = Verdict.NOT_MEASURED) -> None:
        super().__init__(line)
        self.decision = refused(name, line, verdict)


class UsageError(Exception):
    """What was asked for makes no sense: one line."""


def command(order: Order) -> int:
    """0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 NOT MEASURED or not comparable, 4 usage."""
    sides: list[Json] = []
    try:
        with ledger.locked(order.reports) as book:
            decision = _decided(order, book, sides)
            page = gate_page.write(order.reports / slug(order.candidate), order.candidate, order.against, decision, sides, book)
            if order.junit:
                gate_page.write_junit(order.junit, order.candidate, order.against, decision)
    except (UsageError, UnknownModel, DataError) as error:
        print(visible(str(error)), file=sys.stderr)
        return USAGE
    except (LedgerError, Unreachable, RequestFailed, OSError) as error:
        return _stopped(order, str(error))
    except KeyboardInterrupt:
        return _stopped(order, "interrupted; a look that was begun counts")
    for line in _lines(order, decision, page):
        print(line)
    return decision.exit


def _stopped(order: Order, line: str) -> int:
    """Nothing was decided, and maybe nothing can be written to the reports; CI still gets its file."""
    decision = refused("gate", line)
    print(f"gate: {decision.verdict}  {visible(line)}", file=sys.stderr)
    if order.junit:
        try:
            gate_page.write_junit(order.junit, order.candidate, order.against, decision)
        except OSError as error:
            print(error, file=sys.stderr)
    return decision.exit


def _decided(order: Order, book: Ledger, sides: list[Json]) -> Decision:
    """The decision, written to the ledger where there was one to make. `sides` gets the reports as they are known."""
    try:
        _nothing_hidden(order.reports, book)
        sides += _measured(order, book)
    except Refused as stop:
        return stop.decision
    candidate, baseline = sides
    card = candidate.get("provenance", {}).get("card", {})
    decision = decide(candidate, baseline, book, leaks=look.prompted(order.candidate, str(card.get("system")), str(card.get("template"))))
    if decision.rows:
        book.add(Entry("decision", model=order.candidate, model_digest=candidate["provenance"]["card"]["digest"],
                       look=candidate["look"], report=candidate["digest"], against=baseline["digest"], outcome=str(decision.verdict)))
    return decision


def _clean(leaks: Sequence[str]) -> None:
    if leaks:
        raise Refused("no contamination", f"{len(leaks)} texts of training are too close to prompts of the exam; the first: {leaks[0]}")


def _nothing_hidden(reports: Path, book: Ledger) -> None:
    """Every report of a look names a line of the ledger; one that does not shows that lines were taken out at the end."""
    for path in sorted(reports.glob("*/*/report.json")):
        if path.parent.name.endswith(look.SEALED):
            report = _report(path)
            if report.get("half") == "sealed" and book.begun(str(report.get("look"))) is None:
                raise Refused("ledger", f"{path} is of a look that {book.path} does not have: lines were taken out; restore the file "
                              f"as it was committed (git log -p {book.path.name}), no gate decides on it")


# --- what is measured ----------------------------------------------------------------------------------------------


def _measured(order: Order, book: Ledger) -> tuple[Json, Json]:
    """Both reports: read where a file was named, otherwise looked at; the candidate first."""
    candidate = _named(order.candidate_report, order.candidate) if order.candidate_report else None
    baseline = _named(order.baseline_report, order.against) if order.baseline_report else None
    if candidate and baseline:
        _clean(look.leaks(order.trained_on))
        return candidate, baseline
    if order.candidate == order.against:
        raise Refused("another model", f"the candidate {order.candidate} is the baseline itself: nothing to release", Verdict.FAIL)
    exam = ledger.exam()
    targets = {target.baseline: target for target in asyncio.run(resolve(order.settings))}
    cards = {side: asyncio.run(card_of(target)) for side, target in targets.items()}
    known = [] if baseline else list(_earlier(order, book, cards[True]))
    _worth_a_look(order, book, exam, cards, candidate, known=bool(baseline or known))
    _clean(look.leaks(order.trained_on))
    if candidate is None:
        candidate = _look(order, book, exam, targets[False], cards[False])
    if any(rule.verdict is not Verdict.PASS for rule in fit("candidate", candidate, book)) and baseline is None:
        raise Refused("candidate measured", list(fit("candidate", candidate, book))[-1].line)  # a look at the baseline would be for nothing
    if baseline is None:
        alike = [one for one in known if not differences(conditions(candidate), conditions(one))]
        if alike:
            baseline = alike[-1]
            print(f"baseline {visible(order.against)}: look {book.number(baseline['look'])} is used again, same model, cases, options and scorers")
        else:
            baseline = _look(order, book, exam, targets[True], cards[True])
    return candidate, baseline


def _earlier(order: Order, book: Ledger, card: Card) -> Iterator[Json]:
    """Sound reports of looks at this very baseline, oldest first."""
    for path in sorted((order.reports / slug(order.against)).glob(f"*{look.SEALED}/report.json")):
        report = _report(path)
        if all(rule.verdict is Verdict.PASS for rule in fit("baseline", report, book)) and report["provenance"]["card"]["digest"] == card.digest:
            yield report


def _worth_a_look(order: Order, book: Ledger, exam: Exam, cards: dict[bool, Card], candidate: Json | None, *, known: bool) -> None:
    """What is known to end in no decision is said before a look is spent on it."""
    standing = certificate.standing()
    if not standing["certified"]:
        raise Refused("scorers certified", f"scorers are not certified: {standing['reason']}")
    if False in cards:
        _clean(look.prompted(order.candidate, cards[False].system, cards[False].template))
    if False in cards and True in cards:
        if cards[False].digest == cards[True].digest:
            raise Refused("another model", f"the candidate {order.candidate} is the baseline {order.against} itself "
                          f"(digest {cards[True].digest[:12]}): nothing to release", Verdict.FAIL)
        if found := differences(_served(cards[False]), _served(cards[True])):
            raise Refused("comparable", f"not measured alike: {'; '.join(found)}; name one with --engine")
    used, wanted = len(book.looks(exam)), (candidate is None) + (not known)
    if used + wanted > LOOKS:
        raise Refused("looks", f"the sealed cases were looked at {used} times of {LOOKS}, {wanted} more would be needed: what passes now would be "
                      "luck; write new sealed cases, at least half of them with new prompts (data/README.md)")


def _served(card: Card) -> dict[str, Any]:
    options = {f"option {name}": value for name, value in pinned(card.parameters).request().items() if name != "stop"}
    return {"engine": f"{card.engine} {card.engine_version}", **options}


def _look(order: Order, book: Ledger, exam: Exam, target: Target, card: Card) -> Json:
    """Measure one model on the sealed half; the look is in the ledger before the model is asked. Raises Refused."""
    begun = book.add(Entry("look begun", model=target.model, model_digest=card.digest, case_digest=exam.digest, prompts=exam.prompts))
    print(f"look {len(book.looks(exam))} of {LOOKS} at the sealed half: {visible(target.model)} on {target.engine}", flush=True)
    try:
        code, report = look.measure(order.settings, target, begun.hash)
    except BaseException:
        book.add(Entry("look failed", model=target.model, look=begun.hash, outcome="interrupted"))
        raise
    if report is None:
        book.add(Entry("look failed", model=target.model, look=begun.hash, outcome=f"no report, pytest ended with {code}"))
        raise Refused("measured", f"{target.model}: the run left no report (pytest ended with {code}, its lines are above); the look counts")
    book.add(Entry("look ended", model=target.model, look=begun.hash, report=str(report.get("digest")), outcome=str(report.get("status"))))
    return report


# --- files and lines -----------------------------------------------------------------------------------------------


def _report(path: Path) -> Json:
    """Raises Refused."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused("report", f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != records.FORMAT:
        raise Refused("report", f"{path} is not a report of format {records.FORMAT}")
    return found


def _named(path: Path, model: str) -> Json:
    """The report of a file. Raises UsageError where it is another model's."""
    found = _report(path)
    if found.get("model") != model:
        raise UsageError(f"{path} is a report of '{found.get('model')}', not of '{model}'")
    return found


def model_of(path: Path) -> str:
    """The model that a report names, or nothing; what is wrong with the file is said later."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _lines(order: Order, decision: Decision, page: Path) -> Sequence[str]:
    at = f"   look {decision.look} of {LOOKS}, {percent(ledger.confidence(decision.look))} confidence" if decision.look else ""
    found = [rule for rule in decision.reasons or decision.rules if rule.line]
    return ["", f"gate: {decision.verdict}  {visible(order.candidate)} against {visible(order.against)}{at}",
            *(f"  {rule.verdict:<13}{visible(rule.line)}" for rule in found), f"decision: {page}"]
