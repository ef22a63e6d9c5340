"""The gate: two sealed reports and the ledger in, a decision out. A pure function; nothing is asked, read or written.

    python -m harness gate CANDIDATE --against BASELINE

A candidate passes where every must-bar is reached by its bound and not only by its score, nothing got significantly
worse, and something got better than noise can explain. What cannot be compared is not decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import paired, stats
from harness.comparable import (
    Json,
    Rule,
    both_sides,
    comparable,
    consistent,
    counted,
    fit,
    seconds_of,
    uncontaminated,
)
from harness.display import amount, bar_text
from harness.ledger import ALPHA, Ledger, confidence
from harness.verdict import Verdict

EXIT = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 2, Verdict.NOT_MEASURED: 3}
# What decides first: without a measurement there is nothing to fail, and a failure is one however open the rest is.
ORDER = (Verdict.NOT_MEASURED, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


@dataclass(frozen=True, slots=True)
class Category:
    """A category of a criterion on both sides. `p` is None where it is not significantly worse."""

    name: str
    n: int
    candidate: float
    baseline: float
    fixed: int
    regressed: int
    p: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """A criterion on both sides. `bound` is the candidate's, lower for shares and upper for seconds, one-sided.

    `change` and its interval are of the macro-mean over the cases that both sides have; of times there is none, only the
    cases that crossed the bar. `p_worse` and `p_better` are corrected for the number of criteria (Holm).
    """

    name: str
    title: str
    level: str
    bar: Json
    candidate: float
    baseline: float
    bound: float | None
    change: float | None
    low: float | None
    high: float | None
    fixed: int
    regressed: int
    p_worse: float
    p_better: float
    categories: tuple[Category, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, every rule with its own, and the table of the criteria (empty where nothing could be decided)."""

    verdict: Verdict
    rules: tuple[Rule, ...]
    rows: tuple[Row, ...] = ()
    look: int | None = None

    @property
    def exit(self) -> int:
        """0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 NOT MEASURED."""
        return EXIT[self.verdict]

    @property
    def reasons(self) -> tuple[Rule, ...]:
        """The rules that are not met, those that decide first."""
        return tuple(sorted((rule for rule in self.rules if rule.verdict is not Verdict.PASS), key=lambda rule: ORDER.index(rule.verdict)))


def refused(name: str, line: str, verdict: Verdict = Verdict.NOT_MEASURED) -> Decision:
    """The decision where one thing stands in the way of all others."""
    return Decision(verdict, (Rule(name, verdict, line),))


def decide(candidate: Json, baseline: Json, book: Ledger, *, leaks: Sequence[str] = ()) -> Decision:
    """May the candidate replace the baseline?

    `leaks` are the places where text of training is too close to a prompt of the exam, a line each.
    """
    number = book.number(candidate.get("look", ""))
    first = [*fit("candidate", candidate, book), *fit("baseline", baseline, book), uncontaminated(leaks)]
    if all(rule.verdict is Verdict.PASS for rule in first):
        first += [consistent("candidate", candidate), consistent("baseline", baseline), comparable(candidate, baseline)]
    if number is None or any(rule.verdict is not Verdict.PASS for rule in first):
        return Decision(Verdict.NOT_MEASURED, tuple(first), look=number)
    sure = confidence(number)
    rows = _rows(candidate, baseline, sure)
    rules = [*first, _another(candidate, baseline), *(_reached(row, measured, sure) for row, measured in zip(rows, candidate["criteria"], strict=True)
                                                     if row.level == "must"),
             *(_kept(row) for row in rows), *(_whole(row) for row in rows if row.categories), _better(rows, candidate, sure)]
    verdict = min((rule.verdict for rule in rules), key=ORDER.index)
    return Decision(verdict, tuple(rules), rows, number)


# --- the criteria, side by side ------------------------------------------------------------------------------------


def _rows(candidate: Json, baseline: Json, sure: float) -> tuple[Row, ...]:
    both = list(both_sides(candidate, baseline))
    changes = {row["name"]: _differences(row, other) for row, other in both}
    worse = paired.holm({name: paired.worse(strata) for name, strata in changes.items()})
    better = paired.holm({name: paired.better(strata) for name, strata in changes.items()})
    return tuple(_row(row, other, changes[row["name"]], worse[row["name"]], better[row["name"]], sure) for row, other in both)


def _row(row: Json, other: Json, strata: paired.Strata, worse: float, better: float, sure: float) -> Row:
    seconds = row["bar"]["unit"] == "s"
    low, high = (None, None) if seconds else paired.interval(strata, sure)
    return Row(row["name"], row["title"], row["level"], row["bar"], row["score"], other["score"], _bound(row, sure),
               None if seconds else paired.mean(strata), low, high, *_flips(strata), worse, better,
               () if seconds else _categories(row, other, strata))


def _bound(row: Json, sure: float) -> float | None:
    if row["bar"]["unit"] == "s":
        return paired.quantile_upper(seconds_of(row), 0.95, sure)
    return paired.lower_bound(stats.by_stratum(counted(row)), sure)


def _categories(row: Json, other: Json, strata: paired.Strata) -> tuple[Category, ...]:
    if len(strata) < 2:
        return ()
    here, there, p = stats.by_stratum(counted(row)), stats.by_stratum(counted(other)), paired.lost(strata, ALPHA)
    return tuple(Category(name, len(values), paired.mean({name: here[name]}), paired.mean({name: there[name]}),
                          *_flips({name: values}), p.get(name)) for name, values in strata.items())


def _flips(strata: paired.Strata) -> tuple[int, int]:
    units = [value for values in strata.values() for value in values]
    return sum(value > 0 for value in units), sum(value < 0 for value in units)


def _differences(row: Json, other: Json) -> paired.Strata:
    """By stratum, a number a unit: candidate minus baseline, over what both sides have a score for.

    Of times, +1 or -1 where a case crossed the bar: ten milliseconds more are no regression.
    """
    before = {(one["case"], one["trial"]): one for one in counted(other)}
    common = [(one, before[one["case"], one["trial"]]) for one in counted(row) if (one["case"], one["trial"]) in before]
    if row["bar"]["unit"] == "s":
        return {"": [float(now["passed"]) - float(was["passed"]) for now, was in common]}
    return stats.by_stratum([{**now, "score": now["score"] - was["score"]} for now, was in common])


# --- what a release asks for ---------------------------------------------------------------------------------------


def _another(candidate: Json, baseline: Json) -> Rule:
    digest = candidate["provenance"]["card"]["digest"]
    same = digest == baseline["provenance"]["card"]["digest"]
    return Rule("another model", Verdict.FAIL if same else Verdict.PASS,
                f"the candidate is the baseline itself (digest {digest[:12]})" if same else "")


def _reached(row: Row, measured: Json, sure: float) -> Rule:
    """A must-bar: the score decides between FAIL and the rest, the bound between INCONCLUSIVE and PASS."""
    name, bar = f"{row.title}: {bar_text(row.bar)}", row.bar
    score, bound = amount(row.candidate, bar["unit"], bar["value"]), amount(row.bound, bar["unit"], bar["value"])
    if not _clears(bar, row.candidate):
        return Rule(name, Verdict.FAIL, f"{row.title}: {score}, where {bar_text(bar)} is needed")
    if row.bound is not None and _clears(bar, row.bound):
        return Rule(name, Verdict.PASS, f"{row.title}: {score}, and {'at least' if bar['op'] == '>' else 'at most'} {bound} at {percent(sure)} confidence")
    return Rule(name, Verdict.INCONCLUSIVE, f"{row.title}: {score} reaches {bar_text(bar)}, its bound at {percent(sure)} confidence ({bound}) does not"
                + _wanted(bar, measured, sure))


def _wanted(bar: Json, measured: Json, sure: float) -> str:
    if bar["unit"] == "s":
        return ""
    strata = stats.by_stratum(counted(measured))
    n = int(len(strata) ** 2 / sum(1 / len(values) for values in strata.values()) + 1e-9)
    return f"; {least} of {n} would" if (least := paired.needed(bar["value"], n, sure)) else f"; {n} cases are too few for that"


def percent(sure: float) -> str:
    """A confidence as it is: 97.5 %, 99.9988 %."""
    return f"{100 * sure:.6g} %"


def _clears(bar: Json, value: float) -> bool:
    return bool(value > bar["value"] if bar["op"] == ">" else value < bar["value"])


def _kept(row: Row) -> Rule:
    """No criterion significantly worse than the baseline's."""
    name = f"{row.title}: no worse"
    if row.p_worse > ALPHA:
        return Rule(name, Verdict.PASS, "")
    return Rule(name, Verdict.FAIL, f"{row.title} got worse: {amount(row.baseline, row.bar['unit'])} before, {amount(row.candidate, row.bar['unit'])} now; "
                f"{row.regressed} regressed, {row.fixed} fixed, p = {row.p_worse:.4f}")


def _whole(row: Row) -> Rule:
    """No category of it lost."""
    gone = [one for one in row.categories if one.p is not None]
    line = ", ".join(f"{one.name} ({amount(one.baseline, '%')} before, {amount(one.candidate, '%')} now, {one.regressed} regressed, {one.fixed} fixed, "
                     f"p = {one.p:.4f})" for one in gone)
    return Rule(f"{row.title}: no category lost", Verdict.FAIL if gone else Verdict.PASS, f"{row.title} lost {line}" if gone else "")


def _better(rows: Sequence[Row], candidate: Json, sure: float) -> Rule:
    """Significantly better somewhere, at the confidence of the look; or over a must-bar, by its bound, that the baseline misses.

    A candidate that is neither is the baseline but for noise, and a release of it a cost without a gain.
    """
    name = "better than the baseline"
    won = [row.title for row in rows if row.p_better <= 1 - sure]
    rescued = [row.title for row in rows if row.level == "must" and not _clears(row.bar, row.baseline)
               and row.bound is not None and _clears(row.bar, row.bound)]
    if won or rescued:
        said = [f"Significantly better: {', '.join(won)}"] if won else []
        said += [f"Over a bar that the baseline misses: {', '.join(rescued)}"] if rescued else []
        return Rule(name, Verdict.PASS, ". ".join(said))
    best = min(rows, key=lambda row: row.p_better)
    return Rule(name, Verdict.FAIL, f"{candidate['model']} equals the baseline but for noise: no criterion is significantly better "
                f"(best: {best.title}, {best.fixed} fixed, {best.regressed} regressed, p = {best.p_better:.4f}; {1 - sure:.4f} or less is asked for)")
