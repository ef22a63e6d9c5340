"""The intervals that verdicts rest on, against scipy.stats and against published values."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scipy.stats import binomtest, quantile_test

from harness import stats


@pytest.mark.parametrize("n", [1, 5, 20, 66, 240])
def test_wilson_is_scipys(n: int) -> None:
    for passed in range(n + 1):
        expected = binomtest(passed, n).proportion_ci(0.95, method="wilson")
        assert stats.wilson(passed, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 30, 59, 200])
def test_exact_lower_bound_is_scipys(n: int) -> None:
    for passed in range(n + 1):
        expected = binomtest(passed, n, alternative="greater").proportion_ci(0.95, method="exact")
        assert stats.exact_lower(passed, n) == pytest.approx(expected.low, abs=1e-10)


def test_wilson_does_not_collapse_when_everything_passes() -> None:
    low, high = stats.wilson(10, 10)
    assert low == pytest.approx(0.7225, abs=1e-4)
    assert high == 1.0


@pytest.mark.parametrize("passed, n, low", [(19, 20, 0.764), (47, 50, 0.838), (190, 200, 0.910), (282, 300, 0.907)])
def test_wilson_agrees_with_the_table_of_the_facts(passed: int, n: int, low: float) -> None:
    assert stats.wilson(passed, n)[0] == pytest.approx(low, abs=5e-4)


@pytest.mark.parametrize("passed, n", [(30, 30), (49, 50), (96, 100), (188, 200)])
def test_exact_bound_first_clears_ninety_percent_where_the_facts_say(passed: int, n: int) -> None:
    assert stats.exact_lower(passed, n) > 0.90
    assert stats.exact_lower(passed - 1, n) <= 0.90


@pytest.mark.parametrize("n", [10, 59, 73, 150, 400])
def test_quantile_interval_is_scipys(n: int) -> None:
    values = [random.Random(n).expovariate(1) for _ in range(n)]
    expected: Any = quantile_test(values, q=1.0, p=0.95).confidence_interval(0.95)
    found = stats.quantile(values, 0.95)
    assert found.low == pytest.approx(expected.low) if found.low is not None else expected.low != expected.low
    assert found.high == pytest.approx(expected.high) if found.high is not None else expected.high != expected.high


def test_p95_of_few_timings_has_no_upper_bound() -> None:
    assert stats.quantile([1.0] * 20, 0.95).high is None
    assert stats.quantile([1.0] * stats.needed_for_quantile(0.95), 0.95).high == 1.0


def test_p95_counts_the_slow_one_in_twenty() -> None:
    assert stats.quantile([1.0] * 18 + [9.0] * 2, 0.95).score == 9.0


@pytest.mark.parametrize("fixed, regressed, p", [(6, 0, 0.03125), (5, 0, 0.0625), (0, 0, 1.0), (4, 4, 1.0)])
def test_mcnemar_is_exact(fixed: int, regressed: int, p: float) -> None:
    assert stats.mcnemar(fixed, regressed) == pytest.approx(p)


def test_macro_mean_weighs_categories_not_cases() -> None:
    estimate = stats.share({"big": [1.0] * 90, "small": [0.0] * 10})
    assert estimate.score == 0.5
    assert estimate.n == 100


def test_uneven_categories_widen_the_interval() -> None:
    even = stats.share({"a": [1.0] * 25 + [0.0] * 25, "b": [1.0] * 25 + [0.0] * 25})
    uneven = stats.share({"a": [1.0] * 48 + [0.0] * 48, "b": [1.0] * 2 + [0.0] * 2})
    assert uneven.low is not None and even.low is not None
    assert uneven.low < even.low


def test_graded_scores_get_a_bootstrap_that_holds_the_mean() -> None:
    estimate = stats.share({"a": [0.2, 0.5, 0.9, 0.7], "b": [0.4, 0.6, 0.3, 0.8]})
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.score < estimate.high
    assert estimate.method.startswith("bootstrap")


def test_equal_graded_scores_do_not_pretend_certainty() -> None:
    estimate = stats.share({"a": [0.95] * 8})
    assert estimate.low is not None and estimate.low < 0.90


def test_bootstrap_is_the_same_twice() -> None:
    strata = [[0.1, 0.9, 0.4], [0.3, 0.8]]
    assert stats.bootstrap(strata) == stats.bootstrap(strata)


def test_needed_is_the_first_n_that_is_significant() -> None:
    n = stats.needed(0.95, 0.90)
    assert n is not None
    assert stats.wilson(int(0.95 * n + 1e-9), n)[0] > 0.90
    assert stats.needed(0.90, 0.90) is None


def test_minimal_detectable_effect_shrinks_with_the_root_of_n() -> None:
    assert stats.minimal_detectable(0.9, 400) == pytest.approx(stats.minimal_detectable(0.9, 100) / 2)
    assert stats.minimal_detectable(0.9, 100) == pytest.approx(0.0746, abs=1e-3)


def test_spearman_of_a_constant_is_unknown() -> None:
    assert stats.spearman([1, 2, 3], [5, 5, 5]) is None
    assert stats.spearman([1, 2, 3], [1, 5, 9]) == pytest.approx(1.0)
