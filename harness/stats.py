"""Statistics of the verdicts: shares and times with their 95 % intervals, and what n can tell.

The distribution functions are scipy.special's and the standard library's, imported where they are used: scipy.stats,
which has the same intervals ready-made, takes longer to import than pytest to start. tests/test_stats.py holds them
equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from statistics import NormalDist
from typing import Any

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its two-sided 95 % interval. A bound is None where n is too small to have one."""

    score: float
    low: float | None
    high: float | None
    method: str
    n: int


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); unlike the normal one it does not collapse at 0 and 100 %."""
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), passed / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if passed == 0 else centre - half), (1.0 if passed == n else centre + half)


def exact_lower(passed: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of a share (Clopper and Pearson 1934), for the gate."""
    from scipy.special import betaincinv

    return float(betaincinv(passed, n - passed + 1, 1 - confidence)) if passed else 0.0


def share(strata: Mapping[str, Sequence[float]]) -> Estimate:
    """The macro-mean over strata of scores in [0, 1], one score an independent unit (a case, a dialogue, a pair).

    All-or-nothing scores get the Wilson interval at Kish's effective n (rounded down), others a bootstrap
    that resamples the units inside each stratum.
    """
    units = [score for scores in strata.values() for score in scores]
    score = sum(sum(scores) / len(scores) for scores in strata.values()) / len(strata)
    if len(set(units)) == 1 or set(units) <= {0.0, 1.0}:
        return _wilson_estimate(score, strata, len(units))
    low, high = bootstrap(list(strata.values()))
    return Estimate(score, low, high, "bootstrap by group 95 %", len(units))


def by_stratum(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Scores of outcomes by stratum, one an independent unit: the mean over a group's cases and trials."""
    units: dict[tuple[str, str], list[float]] = {}
    for row in outcomes:
        units.setdefault((row["stratum"], row["group"]), []).append(row["score"])
    strata: dict[str, list[float]] = {}
    for (stratum, _), scores in units.items():
        strata.setdefault(stratum, []).append(sum(scores) / len(scores))
    return strata


def bootstrap(strata: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Percentile interval of the mean of the strata's means, units resampled within strata (Efron 1979)."""
    import numpy as np

    rng = np.random.default_rng(20261122)
    means = sum(np.asarray(scores)[rng.integers(0, len(scores), (RESAMPLES, len(scores)))].mean(axis=1)
                for scores in strata) / len(strata)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def quantile(values: Sequence[float], p: float) -> Estimate:
    """The p-quantile and its distribution-free interval from order statistics (Conover 1999, 3.2)."""
    from scipy.special import bdtr

    ordered, n, tail = sorted(values), len(values), (1 - CONFIDENCE) / 2
    # The k-th smallest of n is at most the p-quantile unless fewer than k fall below it: 1 - bdtr(k - 1, n, p).
    below = [k for k in range(1, n + 1) if bdtr(k - 1, n, p) <= tail]
    above = [k for k in range(1, n + 1) if bdtr(k - 1, n, p) >= 1 - tail]
    return Estimate(ordered[min(n - 1, ceil(p * (n - 1)))], ordered[below[-1] - 1] if below else None,
                    ordered[above[0] - 1] if above else None, "order statistics 95 %", n)


def mcnemar(fixed: int, regressed: int) -> float:
    """Exact two-sided McNemar p of paired flips: a binomial test of the discordant pairs (McNemar 1947)."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(fixed, regressed), fixed + regressed, 0.5)))


def minimal_detectable(bar: float, n: int, power: float = 0.8) -> float:
    """The smallest distance above the bar that n units reveal with this power (one-sided 5 %, normal approximation)."""
    normal = NormalDist()
    return (normal.inv_cdf(CONFIDENCE) + normal.inv_cdf(power)) * sqrt(bar * (1 - bar) / n)


def needed(score: float, bar: float) -> int | None:
    """The smallest n at which this share would have its lower Wilson bound over the bar; None if no n under 10,000."""
    if score <= bar:
        return None
    low, high = 1, 10_000
    if wilson(floor(score * high), high)[0] <= bar:
        return None
    while low < high:
        middle = (low + high) // 2
        if wilson(floor(score * middle + 1e-9), middle)[0] > bar:
            high = middle
        else:
            low = middle + 1
    return low


def needed_for_quantile(p: float) -> int:
    """The smallest n whose largest value bounds the p-quantile from above, two-sided 95 %: p^n <= 0.025."""
    n = 1
    while p**n > (1 - CONFIDENCE) / 2:
        n += 1
    return n


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one side is constant."""
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(spearmanr(x, y).statistic)


def kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Cohen's kappa of two raters (Cohen 1960): agreement beyond chance; None where both always say the same."""
    n = len(one)
    if not n:
        return None
    first, second = sum(one) / n, sum(other) / n
    chance = first * second + (1 - first) * (1 - second)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    return None if chance == 1 else (observed - chance) / (1 - chance)


def _wilson_estimate(score: float, strata: Mapping[str, Sequence[float]], n: int) -> Estimate:
    # Kish: n_eff = 1 / sum of squared weights, a unit of stratum s weighing 1 / (strata x its size).
    effective = floor(len(strata) ** 2 / sum(1 / len(scores) for scores in strata.values()) + 1e-9)
    low, high = wilson(floor(score * effective + 1e-9), effective)
    return Estimate(score, min(low, score), max(high, score), "Wilson 95 %", n)
