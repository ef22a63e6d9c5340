"""Before and after on the same cases: exact tests and intervals of paired differences, and what many of them cost.

A difference is a unit's score in the candidate minus its score in the baseline; a unit is a case, a dialogue or a pair.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from math import ceil, comb, floor
from typing import Any, TypeVar

from harness.stats import RESAMPLES, exact_lower

FLIPS = 20_000
EXACT = 12  # units: up to 4,096 ways to flip their signs are all looked at
SEED = 20261123

Strata = Mapping[str, Sequence[float]]
Name = TypeVar("Name", bound=Hashable)


def mean(strata: Strata) -> float:
    """The macro-mean: the mean over strata of the stratum's mean."""
    return sum(sum(values) / len(values) for values in strata.values()) / len(strata)


def lower_bound(strata: Strata, confidence: float) -> float:
    """One-sided lower bound of a macro-mean of scores in [0, 1]: Clopper-Pearson at Kish's effective n, rounded down.

    A graded score of mean m varies no more than an all-or-nothing one, m (1 - m) (Bhatia and Davis 2000), so its bound is
    lower than it need be, not higher. A bootstrap has no tail left at the confidence of a late look.
    """
    effective = floor(len(strata) ** 2 / sum(1 / len(values) for values in strata.values()) + 1e-9)
    return exact_lower(floor(mean(strata) * effective + 1e-9), effective, confidence)


def needed(bar: float, n: int, confidence: float) -> int | None:
    """The fewest of n that put the lower bound over the bar; None where not even all of them do."""
    return next((passed for passed in range(floor(bar * n), n + 1) if exact_lower(passed, n, confidence) > bar), None)


def quantile_upper(values: Sequence[float], p: float, confidence: float) -> float | None:
    """One-sided upper bound of the p-quantile from order statistics (Conover 1999, 3.2); None where n is too small."""
    from scipy.special import bdtr

    ordered, n = sorted(values), len(values)
    return next((ordered[k - 1] for k in range(ceil(p * n), n + 1) if bdtr(k - 1, n, p) >= confidence), None)


def worse(differences: Strata) -> float:
    """One-sided p of the question whether the differences are below zero; 1 where nothing differs.

    All-or-nothing scores: exact McNemar (1947), a binomial test of the units that flipped. Graded ones: signs flipped at
    random, all ways up to 12 units, 20,000 beyond (Fisher 1935; Pitman 1937), which for flips is the same test. A bootstrap
    of the eight cases of a category would be too sure of itself.
    """
    units = [value for values in differences.values() for value in values if value]
    if not units:
        return 1.0
    if {abs(value) for value in units} == {1.0}:
        return tail(sum(value < 0 for value in units), len(units))
    return _flipped([value / len(values) for values in differences.values() for value in values if value])


def better(differences: Strata) -> float:
    """One-sided p of the question whether the differences are above zero, as in `worse`."""
    return worse({name: [-value for value in values] for name, values in differences.items()})


@cache
def tail(hits: int, n: int) -> float:
    """P(X >= hits) of n fair coins, exact."""
    return float(sum(comb(n, k) for k in range(hits, n + 1)) / 2**n)


def interval(differences: Strata, confidence: float) -> tuple[float, float]:
    """Paired bootstrap interval of the macro-mean difference, two-sided, units resampled within strata (Efron 1979)."""
    import numpy as np

    if not any(value for values in differences.values() for value in values):
        return 0.0, 0.0
    random = np.random.default_rng(SEED)
    means: Any = sum(np.asarray(values)[random.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
                     for values in differences.values()) / len(differences)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """p-values corrected for their number, in their order (Holm 1979): together they err as often as one alone."""
    adjusted: dict[Name, float] = {}
    so_far = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = so_far
    return {name: adjusted[name] for name in p}


def lost(strata: Strata, alpha: float) -> dict[str, float]:
    """The strata that are worse, with their p: Bonferroni over those that could be found worse at all (Tarone 1990).

    A stratum in which m units differ has no p under 2^-m, so one with few of them costs the others nothing. Plain
    Bonferroni over 30 categories of 8 cases would never find one lost: 8 of 8 give p = .004.
    """
    p = {name: worse({name: values}) for name, values in strata.items()}
    least = sorted(2.0 ** -sum(value != 0 for value in values) for values in strata.values())
    tests = next(k for k in range(1, len(least) + 2) if sum(one <= alpha / k for one in least) <= k)
    return {name: value for name, value in p.items() if value <= alpha / tests}


def _flipped(weighted: Sequence[float]) -> float:
    import numpy as np

    units, n = np.asarray(weighted), len(weighted)
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(SEED).integers(0, 2, (FLIPS, n), dtype=np.int8)
    hits = int((signs @ np.abs(units) <= units.sum() + 1e-12).sum())
    return hits / len(signs) if n <= EXACT else (1 + hits) / (1 + len(signs))
