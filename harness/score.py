"""Outcomes: what one check says of one reply, and how outcomes become one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.cases import Case
from harness.engines import Reply


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check says of a reply: a score in [0, 1], whether that passes, and why points were lost.

    `detail` carries what the report draws (iterations, words); values are numbers or short strings.
    """

    score: float
    passed: bool
    reasons: tuple[str, ...] = ()
    detail: Mapping[str, float | str] = field(default_factory=dict)


Check = Callable[[Case, Reply], Outcome]


def verdict_of(reasons: list[str]) -> Outcome:
    """All or nothing: 1 without a reason against it, otherwise 0."""
    return Outcome(0.0 if reasons else 1.0, not reasons, tuple(reasons))
