"""Which differences are real: the paired tests, their correction, and the ranks that follow."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness import paired, side_by_side
from tests.sample_runs import outcome

Rows = list[dict[str, Any]]


def rows(scores: list[float], *, group: int = 1, strata: int = 1) -> Rows:
    return [outcome(f"c{index}", score, group=f"g{index // group}", stratum=f"s{index // group % strata}") for index, score in enumerate(scores)]


def compared(before: Rows, after: Rows) -> side_by_side.Difference:
    found = side_by_side.difference({"x": before}, {"x": after})
    assert found is not None
    return found


def test_all_or_nothing_units_get_the_exact_mcnemar_test() -> None:
    before, after = [1.0] * 30 + [0.0] * 14 + [1.0] * 4, [1.0] * 30 + [1.0] * 14 + [0.0] * 4
    found = compared(rows(before), rows(after))
    assert (found.test, found.fixed, found.regressed, found.n) == ("exact McNemar", 14, 4, 48)
    assert found.p == pytest.approx(binomtest(4, 18).pvalue)
    assert found.delta == pytest.approx(10 / 48)
    assert found.low < found.delta < found.high


def test_paraphrases_are_one_unit_and_not_many() -> None:
    before, after = [0.0] * 30 + [1.0] * 30, [1.0] * 10 + [0.0] * 20 + [1.0] * 30
    alone, together = compared(rows(before), rows(after)), compared(rows(before, group=10), rows(after, group=10))
    assert alone.p < 0.01
    assert together.n == 6 and together.p == 1.0  # ten flips, but of one paraphrase family


def test_a_difference_is_macro_averaged_like_the_score() -> None:
    before = [outcome(f"a{n}", 0.0, stratum="large") for n in range(30)] + [outcome(f"b{n}", 0.0, stratum="small") for n in range(2)]
    after = [row | {"score": 1.0 if row["stratum"] == "small" else 0.0} for row in before]
    assert compared(before, after).delta == pytest.approx(0.5)


def test_graded_scores_get_the_paired_bootstrap() -> None:
    chance = random.Random(3)
    before = [chance.random() * 0.5 for _ in range(60)]
    found = compared(rows(before, strata=3), rows([score + 0.2 for score in before], strata=3))
    assert found.test == "paired bootstrap by group" and found.fixed is None
    assert found.p < 0.001 and found.low == pytest.approx(0.2) and found.high == pytest.approx(0.2)


@pytest.mark.parametrize("few", [1, 2, 3, 4, 5])
def test_few_groups_that_all_move_one_way_prove_nothing(few: int) -> None:
    found = compared(rows([0.2] * few + [0.6] * 40), rows([0.9] * few + [0.6] * 40))
    assert found.p >= 2 ** (1 - few) > 0.05


def test_a_model_against_itself_differs_by_nothing() -> None:
    same = rows([0.3, 1.0, 0.0, 0.7] * 10, strata=2)
    found = compared(same, same)
    assert (found.delta, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_equal_models_are_told_apart_in_about_one_of_twenty() -> None:
    def draw(chance: random.Random) -> Rows:
        return rows([chance.choice((0.0, 0.4, 0.8, 1.0)) for _ in range(80)], strata=4)

    found = [compared(draw(random.Random(2 * seed)), draw(random.Random(2 * seed + 1))).p for seed in range(120)]
    assert sum(p < 0.05 for p in found) <= 12  # 6 expected, 12 is the 99th percentile of a fair test


def test_cases_that_one_side_did_not_score_or_that_were_seen_do_not_count() -> None:
    before = [*rows([0.0] * 10), outcome("seen", 0.0, seen=True), outcome("lost", 0.0)]
    after = [*rows([1.0] * 10), outcome("seen", 1.0, seen=True), outcome("lost", 0.0) | {"score": None}]
    assert compared(before, after).n == 10
    assert side_by_side.difference({"x": [outcome("a", 1.0)]}, {"x": [outcome("b", 1.0)]}) is None


def test_trials_are_averaged_before_they_are_compared() -> None:
    before = [outcome(f"c{n}", float(trial), trial=trial) for n in range(8) for trial in range(2)]
    found = compared(before, rows([1.0] * 8))
    assert found.n == 8 and found.delta == 0.5


def test_a_group_that_counts_in_two_criteria_is_drawn_with_both() -> None:
    one, two = rows([0.0, 1.0] * 20), rows([1.0, 0.0] * 20)
    found = side_by_side.difference({"a": one, "b": two}, {"a": two, "b": one})
    assert found is not None
    assert (found.delta, found.low, found.high) == (0.0, 0.0, 0.0)  # what a group gains in one it loses in the other
    assert found.n == 80


def test_seconds_are_compared_case_by_case_and_not_at_all_where_they_are_few() -> None:
    chance = random.Random(5)
    fast = [chance.uniform(1, 3) for _ in range(100)]
    found = side_by_side.slower(rows(fast), rows([2 * wall for wall in fast]))
    assert found is not None and found.p < 0.001 and found.low > 0
    assert side_by_side.slower(rows(fast[:71]), rows(fast[:71])) is None
    same = side_by_side.slower(rows(fast), rows(fast))
    assert same is not None and same.delta == 0 and same.p == 1.0


def test_the_noise_floor_is_the_share_of_cases_that_flip() -> None:
    twice = [outcome(f"c{n}", float(n < 10 or (n < 13 and trial == 0)), trial=trial) for n in range(20) for trial in range(2)]
    assert side_by_side.flips(twice) == side_by_side.Flips(20, 3 / 20)
    thrice = [outcome("c", float(trial == 0), trial=trial) for trial in range(3)]
    assert side_by_side.flips(thrice) == side_by_side.Flips(1, 2 / 3)
    assert side_by_side.flips(rows([1.0, 0.0])) is None


@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=12))
def test_holm_never_helps_and_keeps_the_order(p_values: dict[int, float]) -> None:
    corrected = paired.holm(p_values)
    assert list(corrected) == list(p_values)
    assert all(p <= corrected[name] <= 1 for name, p in p_values.items())
    assert all(corrected[one] <= corrected[two] for one in p_values for two in p_values if p_values[one] < p_values[two])


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.floats(0, 1), min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_models_that_cannot_be_told_apart_share_a_rank(scores: dict[str, float], chance: random.Random) -> None:
    pairs = [frozenset(pair) for pair in combinations(scores, 2)]
    real = {pair for pair in pairs if chance.random() < 0.7}
    found = side_by_side.ranks(scores, real, high_is_good=True)
    shuffled = dict(chance.sample(list(scores.items()), len(scores)))
    assert all(found[one] == found[two] for one, two in map(tuple, set(pairs) - real))
    assert all(scores[one] >= scores[two] for one in scores for two in scores if found[one] < found[two])
    assert min(found.values()) == 1
    if len(set(scores.values())) == len(scores):
        assert side_by_side.ranks(shuffled, real, high_is_good=True) == found


def test_ranks_are_drawn_where_everyone_above_differs_from_everyone_below() -> None:
    real = {frozenset("ac"), frozenset("ad"), frozenset("bd"), frozenset("cd")}
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.2}
    assert side_by_side.ranks(scores, real, high_is_good=True) == {"a": 1, "b": 1, "c": 1, "d": 4}
    assert side_by_side.ranks({"slow": 9.0, "fast": 1.0}, {frozenset(("slow", "fast"))}, high_is_good=False) == {"fast": 1, "slow": 2}
