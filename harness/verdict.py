"""Verdicts: a bar, an estimate and three counts in, a verdict out. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from harness.stats import Estimate

Level = Literal["must", "should", "nice"]
ERROR_BUDGET = 0.02


class Verdict(StrEnum):
    """What a measurement says. INCONCLUSIVE is the gate's: the bar lies inside the interval."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_MEASURED = "NOT MEASURED"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a criterion asks for: a share `over` a value, or seconds `under` one."""

    title: str
    level: Level
    over: float | None = None
    under: float | None = None

    @property
    def value(self) -> float:
        """The bar itself: a share in [0, 1], or seconds."""
        return self.over if self.over is not None else self.under or 0.0

    def reached(self, score: float) -> bool:
        """Strictly better than the bar: "> 90 %" is not 90 %."""
        return score > self.value if self.over is not None else score < self.value

    def __str__(self) -> str:
        return f"> {self.value:.0%}" if self.over is not None else f"< {self.value:g} s"


@dataclass(frozen=True, slots=True)
class Counts:
    """Unmeasured is not wrong: replies that were scored, requests that failed, replies that no check could judge."""

    scored: int = 0
    errored: int = 0
    unscored: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One criterion of one model. `outcomes` are plain rows, as report.json has them."""

    name: str
    sentence: str
    bar: Bar
    verdict: Verdict
    counts: Counts
    estimate: Estimate | None = None
    note: str = ""
    mde: float | None = None
    seen: int = 0
    breakdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    outcomes: tuple[Mapping[str, Any], ...] = ()
    extras: Mapping[str, float | str | None] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The verdict in one line, for the terminal."""
        score = "" if self.estimate is None else f" {written(self.estimate.score, self.bar)} ({self.bar})"
        return f"{self.verdict} {self.bar.title}{score}" + (f": {self.note}" if self.note else "")


def decide(bar: Bar, estimate: Estimate | None, counts: Counts, needed: int | None) -> tuple[Verdict, str]:
    """The verdict and the sentence that qualifies it.

    `needed` is the n at which this score would be significant, where one is known.
    """
    asked = counts.scored + counts.errored + counts.unscored
    if counts.errored > ERROR_BUDGET * asked:
        return Verdict.NOT_MEASURED, f"{counts.errored} of {asked} requests failed (budget {ERROR_BUDGET:.0%})"
    if estimate is None or not counts.scored:
        return Verdict.NOT_MEASURED, "nothing was scored"
    if not bar.reached(estimate.score):
        return Verdict.FAIL, ""
    worst = estimate.low if bar.over is not None else estimate.high
    if worst is None or not bar.reached(worst):
        return Verdict.PASS, f"pass, not significant (needs n >= {needed or '10,000'})"
    return Verdict.PASS, ""


def exit_code(results: Iterable[tuple[Level, Verdict]], *, strict: bool) -> int:
    """0 every must-criterion reached, 1 one missed, 3 one not measured; under `strict` all levels count."""
    counted = {verdict for level, verdict in results if strict or level == "must"}
    if Verdict.FAIL in counted:
        return 1
    return 3 if Verdict.NOT_MEASURED in counted else 0


def written(score: float, bar: Bar) -> str:
    """A score the way its bar is written: a percentage, or seconds."""
    return f"{score:.1%}" if bar.over is not None else f"{score:.2f} s"
