"""Models side by side: two-sided tests of two that answered the same cases, the noise floor, and ranks.

The unit is the group of a case: close paraphrases share one, so they are drawn, and resampled, together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import stats

RESAMPLES = 5000
SEED = 20261122
ALPHA = 1 - stats.CONFIDENCE

Row = Mapping[str, Any]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """What `after` scores more than `before` on the n units that both have, with its 95 % interval and two-sided p.

    `fixed` and `regressed` count the units that went from failing to passing, and back; of all-or-nothing scores only.
    """

    delta: float
    low: float
    high: float
    p: float
    test: str
    n: int
    fixed: int | None = None
    regressed: int | None = None


@dataclass(frozen=True, slots=True)
class Flips:
    """A model against itself: of n cases asked more than once, how many would pass on one trial and fail on the next."""

    n: int
    share: float


def difference(before: Mapping[str, Sequence[Row]], after: Mapping[str, Sequence[Row]]) -> Difference | None:
    """The mean over criteria of the differences of their scores, each a macro-mean over strata; None without a common case.

    Takes the outcomes of each criterion. One criterion whose units all score 0 or 1: exact McNemar (1947). Otherwise a
    paired bootstrap (Efron and Tibshirani 1993, 16.2) of the groups, within those that count in the same strata.
    """
    units = _units(before, after)
    if not units:
        return None
    differences = {unit: new - old for unit, (old, new) in units.items()}
    delta, low, high, p = _bootstrap(differences)
    values = {value for pair in units.values() for value in pair}
    if len({criterion for criterion, _, _ in units}) > 1 or not values <= {0.0, 1.0}:
        return Difference(delta, low, high, p, "paired bootstrap by group", len(units))
    fixed, regressed = (sum(one == sign for one in differences.values()) for sign in (1.0, -1.0))
    return Difference(delta, low, high, stats.mcnemar(fixed, regressed), "exact McNemar", len(units), fixed, regressed)


def level(outcomes: Mapping[str, Sequence[Row]]) -> tuple[float, float, float] | None:
    """The mean of the criteria's macro-means with its 95 % interval, by the bootstrap of `difference`; None without a score."""
    units: dict[Unit, list[float]] = {}
    for criterion, rows in outcomes.items():
        for stratum, group, score in _by_case(rows).values():
            units.setdefault((criterion, stratum, group), []).append(score)
    return _bootstrap({unit: sum(scores) / len(scores) for unit, scores in units.items()})[:3] if units else None


def slower(before: Sequence[Row], after: Sequence[Row], quantile: float = 0.95) -> Difference | None:
    """The difference of a quantile of the seconds of the same cases, by a paired bootstrap of the cases.

    None where they have too few cases in common for the quantile to have an upper bound (Conover 1999, 3.2).
    """
    old, new = _seconds(before), _seconds(after)
    common = sorted(old.keys() & new.keys())
    if len(common) < stats.needed_for_quantile(quantile):
        return None
    draw = np.random.default_rng(SEED).integers(0, len(common), (RESAMPLES, len(common)))
    place = min(len(common) - 1, ceil(quantile * (len(common) - 1)))
    pair = [np.array([side[case] for case in common]) for side in (old, new)]
    drawn = [np.partition(seconds[draw], place, axis=1)[:, place] for seconds in pair]
    delta = float(np.diff([np.sort(seconds)[place] for seconds in pair])[0])
    low, high = _percentiles(drawn[1] - drawn[0])
    return Difference(delta, low, high, _p(drawn[1] - drawn[0]), "paired bootstrap by case", len(common))


def flips(outcomes: Sequence[Row]) -> Flips | None:
    """How often two trials of a case disagree on passing; None where no case was scored twice."""
    trials: dict[str, list[bool]] = {}
    for row in outcomes:
        if row["score"] is not None and not row["seen"]:
            trials.setdefault(row["case"], []).append(row["passed"])
    # Of N trials with k passes, two drawn at random disagree with probability 2k(N - k) / N(N - 1).
    shares = [2 * sum(passed) * (len(passed) - sum(passed)) / (len(passed) * (len(passed) - 1))
              for passed in trials.values() if len(passed) > 1]
    return Flips(len(shares), sum(shares) / len(shares)) if shares else None


def ranks(scores: Mapping[str, float], real: set[frozenset[str]], *, high_is_good: bool) -> dict[str, int]:
    """The rank of each model: two that are not in a pair of `real` share one, and so do those between them.

    A line is drawn between neighbours only where every model above it differs from every model below it.
    """
    order = sorted(scores, key=lambda name: -scores[name] if high_is_good else scores[name])
    found: dict[str, int] = {}
    rank = 1
    for place, name in enumerate(order):
        if all(frozenset((above, below)) in real for above in order[:place] for below in order[place:]):
            rank = place + 1
        found[name] = rank
    return found


Unit = tuple[str, str, str]  # criterion, stratum, group


def _units(before: Mapping[str, Sequence[Row]], after: Mapping[str, Sequence[Row]]) -> dict[Unit, tuple[float, float]]:
    """The mean scores of each unit on both sides, over the cases that both sides scored, their trials averaged first."""
    found: dict[Unit, tuple[list[float], list[float]]] = {}
    for criterion in sorted(before.keys() & after.keys()):
        old, new = _by_case(before[criterion]), _by_case(after[criterion])
        for case in sorted(old.keys() & new.keys()):
            stratum, group, score = old[case]
            sides = found.setdefault((criterion, stratum, group), ([], []))
            sides[0].append(score)
            sides[1].append(new[case][2])
    return {unit: (sum(old) / len(old), sum(new) / len(new)) for unit, (old, new) in found.items()}


def _by_case(rows: Sequence[Row]) -> dict[str, tuple[str, str, float]]:
    trials: dict[str, list[Row]] = {}
    for row in rows:
        if row["score"] is not None and not row["seen"]:
            trials.setdefault(row["case"], []).append(row)
    return {case: (same[0]["stratum"], same[0]["group"], sum(row["score"] for row in same) / len(same))
            for case, same in trials.items()}


def _bootstrap(differences: Mapping[Unit, float]) -> tuple[float, float, float, float]:
    """The mean of the criteria's macro-means, its percentile interval and p, groups resampled jointly for all criteria."""
    groups = sorted({group for _, _, group in differences})
    strata = sorted({unit[:2] for unit in differences})
    values, present = np.zeros((len(groups), len(strata))), np.zeros((len(groups), len(strata)))
    rows, columns = ({name: at for at, name in enumerate(names)} for names in (groups, strata))
    for (criterion, stratum, group), value in differences.items():
        values[rows[group], columns[criterion, stratum]] = value
        present[rows[group], columns[criterion, stratum]] = 1
    of = {criterion: [at for at, (name, _) in enumerate(strata) if name == criterion] for criterion, _ in strata}

    def mean(counts: Numbers) -> Numbers:
        macro = (counts @ values) / (counts @ present)
        means: Numbers = np.mean([macro[:, at].mean(axis=1) for at in of.values()], axis=0)
        return means

    drawn = mean(_counts(present))
    changed = int(np.any(values != 0, axis=1).sum())
    # Few groups that all moved one way would give p = 0; a test that flips their signs has 2^k outcomes, two as extreme.
    p = max(_p(drawn), min(1.0, 2.0 ** (1 - changed)))
    return float(mean(np.ones((1, len(groups))))[0]), *_percentiles(drawn), p


def _counts(present: Numbers) -> Numbers:
    """How often each group is drawn, a row a resample. Groups stand in for those that count in the same strata only."""
    rng = np.random.default_rng(SEED)
    counts = np.zeros((RESAMPLES, len(present)))
    _, kinds = np.unique(present, axis=0, return_inverse=True)
    for kind in range(kinds.max() + 1):
        members = np.flatnonzero(kinds.ravel() == kind)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), RESAMPLES)
    return counts


def _percentiles(drawn: Numbers) -> tuple[float, float]:
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _p(drawn: Numbers) -> float:
    """Two-sided: twice the smaller share of resamples on either side of no difference, never 0 (Davison and Hinkley 1997, 4.2)."""
    return min(1.0, 2 * (1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))) / (len(drawn) + 1))


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    return {row["case"]: row["score"] for row in rows if row["score"] is not None}
