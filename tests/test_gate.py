"""What the gate promises: it decides on what was measured alike and nothing else, and luck does not pass it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy.stats import binomtest

from harness import gate_page, paired, records, stats
from harness.gate import Decision, decide
from harness.ledger import LOOKS, Entry, Ledger, confidence
from harness.verdict import Verdict
from tests import simulated
from tests.simulated import (
    LATENCY,
    PERSONALITY,
    TECHNICAL,
    TURKISH,
    Json,
    coin,
    fast,
    graded,
    looked_at,
    report,
    retrained,
)
from tests.test_report import HOSTILE, Page

BASE = "b" * 64


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return simulated.in_memory(tmp_path)


def right(n_wrong: int = 0, first: int = 0) -> simulated.Draw:
    """All right but `n_wrong` cases, from this one on."""
    return lambda category, number: float(not first <= number < first + n_wrong)


def old(book: Ledger, **changes: Any) -> Json:
    """A baseline: half of everyday talk right, technical questions nearly all."""
    return looked_at(book, report({TURKISH: right(120), LATENCY: fast, TECHNICAL: right(4)}, model="jessy-v1", digest=BASE, **changes))


def new(book: Ledger, turkish: simulated.Draw | None = None, latency: simulated.Draw = fast, technical: simulated.Draw | None = None,
        **changes: Any) -> Json:
    """A candidate, good unless told otherwise."""
    return looked_at(book, report({TURKISH: turkish or right(5), LATENCY: latency, TECHNICAL: technical or right(4)}, **changes))


def reasons(decision: Decision) -> str:
    return "\n".join(rule.line for rule in decision.reasons)


def test_a_better_candidate_passes(book: Ledger) -> None:
    decision = decide(new(book), old(book), book)
    assert (decision.verdict, decision.exit, decision.look) == (Verdict.PASS, 0, 1), reasons(decision)
    turkish = next(row for row in decision.rows if row.name == TURKISH)
    assert (turkish.fixed, turkish.regressed) == (115, 0) and turkish.change == pytest.approx(115 / 240)
    assert turkish.bound == pytest.approx(stats.exact_lower(235, 240, 0.975))


# What is rejected

def test_the_baseline_but_for_noise_is_rejected(book: Ledger) -> None:
    before = looked_at(book, report({TURKISH: right(8), LATENCY: fast}, model="jessy-v1", digest=BASE))
    noise = looked_at(book, report({TURKISH: right(8, first=4), LATENCY: fast}))
    decision = decide(noise, before, book)
    assert decision.exit == 1 and "equals the baseline but for noise" in reasons(decision)
    few = looked_at(book, report({TURKISH: right(2, first=4), LATENCY: fast}))
    assert "equals the baseline but for noise" in reasons(decide(few, before, book))


def test_better_on_average_but_a_category_lost_is_rejected(book: Ledger) -> None:
    def but_one(category: str, number: int) -> float:
        return float(category != "cat-29")

    before = looked_at(book, report({TURKISH: right(60), LATENCY: fast}, model="jessy-v1", digest=BASE))
    decision = decide(looked_at(book, report({TURKISH: but_one, LATENCY: fast})), before, book)
    turkish = next(row for row in decision.rows if row.name == TURKISH)
    assert turkish.candidate > 0.96 > turkish.baseline and turkish.p_better < 1e-6
    assert decision.exit == 1 and "lost cat-29" in reasons(decision)
    assert [one.name for one in turkish.categories if one.p is not None] == ["cat-29"]


@pytest.mark.parametrize("change, named", [
    (lambda known: known["case_digests"].update(technical="x" * 64), "cases (technical): xxxxxxxxxxxx against tttttttttttt"),
    (lambda known: known["scorers"].update(digest="6" * 64), "scorers: 666666666666 against 555555555555"),
    (lambda known: known["options"].update(num_ctx=2048), "option num_ctx: 2048 against 4096"),
    (lambda known: known.update(trials=3), "trials: 3 against 1"),
    (lambda known: known["card"].update(engine_version="0.10"), "engine: ollama 0.10 against ollama 0.9.3"),
    (lambda known: known["machine"].update(cores=8), "8 cores against a processor, 2 cores")])
def test_what_was_measured_otherwise_is_not_compared_and_the_difference_is_named(
        book: Ledger, change: Callable[[Json], None], named: str) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    change(content["provenance"])
    decision = decide(looked_at(book, content), old(book), book)
    assert decision.exit == 3 and named in reasons(decision) and not decision.rows


def test_other_cases_under_the_same_digest_are_not_compared(book: Ledger) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    content["criteria"][0]["outcomes"][0]["case"] = "another"
    decision = decide(looked_at(book, content), old(book), book)
    assert decision.exit == 3 and "1 on the candidate's side alone, 1 on the baseline's" in reasons(decision)


def test_a_missing_criterion_is_not_compared(book: Ledger) -> None:
    decision = decide(looked_at(book, report({TURKISH: right(5), LATENCY: fast})), old(book), book)
    assert decision.exit == 3 and "bar of technical: none against" in reasons(decision)


def test_a_report_edited_by_hand_is_refused(book: Ledger) -> None:
    content, before = new(book, right(40)), old(book)
    content["criteria"][0]["outcomes"][0] |= {"score": 1.0, "passed": True}
    decision = decide(content, before, book)
    assert decision.exit == 3 and "not what was written" in reasons(decision)
    content["digest"] = records.digest(content)  # a forger who knows the digest still has the ledger against him
    decision = decide(content, before, book)
    assert decision.exit == 3 and "the ledger knows no finished look" in reasons(decision)


def test_a_score_that_its_outcomes_do_not_give_is_refused(book: Ledger) -> None:
    content = report({TURKISH: right(40), LATENCY: fast, TECHNICAL: right(4)})
    content["criteria"][0]["score"] = 0.99
    decision = decide(looked_at(book, content), old(book), book)
    assert decision.exit == 3 and "not that of its outcomes: turkish" in reasons(decision)


def test_a_look_too_many_is_refused(book: Ledger) -> None:
    before = old(book)
    for _ in range(LOOKS - 1):
        looked_at(book, report({TURKISH: right(5), LATENCY: fast}))
    decision = decide(new(book), before, book)
    assert decision.exit == 3 and f"look {LOOKS + 1} at these cases; {LOOKS} are allowed" in reasons(decision)


def test_replies_that_were_only_scored_again_are_refused(book: Ledger) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    content["provenance"]["rescored"] = {"run": "20261122T203000Z-1a2b3c"}
    decision = decide(looked_at(book, content), old(book), book)
    assert decision.exit == 3 and not decision.rows
    assert "the replies are those of run 20261122T203000Z-1a2b3c, scored again" in reasons(decision)


@pytest.mark.parametrize("changes, named", [
    ({"half": "open"}, "the open half"), ({"partial": "--max-cases 3"}, "--max-cases 3"), ({"interrupted": True}, "interrupted"),
    ({"criteria": []}, "empty")])
def test_only_a_complete_sealed_run_is_taken(book: Ledger, changes: Json, named: str) -> None:
    for candidate, baseline in ((new(book, **changes), old(book)), (new(book), old(book, **changes))):
        decision = decide(candidate, baseline, book)
        assert decision.exit == 3 and named in reasons(decision)


def test_scorers_without_a_certificate_decide_nothing(book: Ledger) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    content["provenance"]["scorers"] |= {"certified": False, "reason": "there is no certificate"}
    assert "scorers are not certified: there is no certificate" in reasons(decide(looked_at(book, content), old(book), book))


def test_what_was_not_measured_is_no_failure(book: Ledger) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    content["criteria"][2] |= {"verdict": "NOT MEASURED", "score": None}
    decision = decide(looked_at(book, content), old(book), book)
    assert decision.exit == 3 and "not measured: technical" in reasons(decision)


def test_a_model_that_was_taught_the_exam_is_not_measured(book: Ledger) -> None:
    decision = decide(new(book), old(book), book, leaks=["train/x.jsonl:3: the same as case 'conv-1': 'selam'"])
    assert decision.exit == 3 and "1 texts of training" in reasons(decision) and not decision.rows


def test_the_baseline_under_another_name_is_rejected(book: Ledger) -> None:
    decision = decide(new(book, digest=BASE), old(book), book)
    assert decision.exit == 1 and "the baseline itself" in reasons(decision)


def test_a_report_of_another_model_than_the_look_was_begun_at_is_refused(book: Ledger) -> None:
    content = report({TURKISH: right(5), LATENCY: fast, TECHNICAL: right(4)})
    begun = simulated._add(book, Entry("look begun", model="jessy-v2", model_digest="e" * 64, prompts=simulated.PROMPTS))
    content |= {"look": begun.hash}
    content["digest"] = records.digest(content)
    simulated._add(book, Entry("look ended", look=begun.hash, report=content["digest"]))
    assert "begun at another model" in reasons(decide(content, old(book), book))


# The bars

def test_under_the_bar_fails_and_a_bound_under_it_is_inconclusive(book: Ledger) -> None:
    before = old(book)
    decision = decide(new(book, right(26)), before, book)  # 214 of 240, 89.2 %
    assert decision.exit == 1 and "89.2" in reasons(decision)
    decision = decide(new(book, right(20)), before, book)  # 91.7 %
    assert decision.exit == 2 and decision.reasons[0].verdict is Verdict.INCONCLUSIVE
    assert "of 240 would" in reasons(decision)


def test_what_the_bound_asks_for_is_what_passes(book: Ledger) -> None:
    before = old(book)
    least = paired.needed(0.9, 240, confidence(2))
    assert least == 227
    assert decide(new(book, right(240 - least)), before, book).verdict is Verdict.PASS


def test_a_graded_must_has_a_bound_too(book: Ledger) -> None:
    def sides(score: float) -> tuple[Json, Json]:
        content = {TURKISH: right(5), LATENCY: fast, PERSONALITY: lambda category, number: score}
        return looked_at(book, report(content)), looked_at(book, report({**content, TURKISH: right(120)}, model="v1", digest=BASE))

    assert decide(*sides(0.88), book).exit == 0
    assert decide(*sides(0.82), book).exit == 2
    assert decide(*sides(0.79), book).exit == 1


def test_latency_passes_by_its_bound_and_not_by_its_p95(book: Ledger) -> None:
    def with_slow(cases: int) -> simulated.Draw:
        return lambda category, number: 6.0 if number < cases else 1.0

    before = looked_at(book, report({TURKISH: right(120), LATENCY: with_slow(8)}, model="v1", digest=BASE))
    decision = decide(looked_at(book, report({TURKISH: right(5), LATENCY: with_slow(8)})), before, book)  # p95 is 1 s, its upper bound 6 s
    assert decision.exit == 2 and "simple latency: 1.0" in reasons(decision)
    decision = decide(looked_at(book, report({TURKISH: right(5), LATENCY: with_slow(13)})), before, book)
    assert decision.exit == 1 and "simple latency: 6.0" in reasons(decision)


def test_slower_within_the_bar_is_no_regression(book: Ledger) -> None:
    decision = decide(new(book, latency=lambda category, number: 2 * fast(category, number)), old(book), book)
    assert decision.verdict is Verdict.PASS, reasons(decision)


def test_a_should_criterion_that_got_worse_rejects(book: Ledger) -> None:
    decision = decide(new(book, technical=right(24)), old(book), book)
    assert decision.exit == 1 and "technical got worse" in reasons(decision) and "20 regressed" in reasons(decision)


def test_over_a_bar_that_the_baseline_misses_is_better(book: Ledger) -> None:
    # 24 wrong, at 90 % and not over it; 10 wrong, all of them other cases: 24 fixed, 10 regressed are no proof by themselves.
    before = looked_at(book, report({TURKISH: right(24), LATENCY: fast}, model="v1", digest=BASE))
    decision = decide(looked_at(book, report({TURKISH: right(10, first=24), LATENCY: fast})), before, book)
    assert all(row.p_better > 0.0125 for row in decision.rows)
    assert decision.verdict is Verdict.PASS and any("bar that the baseline misses: turkish" in rule.line for rule in decision.rules)


# Luck

def test_looks_together_spend_at_most_five_percent() -> None:
    spent = [1 - confidence(number) for number in range(1, LOOKS + 1)]
    assert sum(spent) < 0.05 and spent[0] == pytest.approx(0.025) and spent == sorted(spent, reverse=True)


def test_every_look_at_these_cases_makes_the_next_dearer(book: Ledger) -> None:
    before = old(book)
    simulated._add(book, Entry("look begun", model="killed", model_digest="k" * 64, prompts=simulated.PROMPTS))  # and never ended
    looked_at(book, report({TURKISH: right(5), LATENCY: fast}, model="another"))
    looked_at(book, report({TURKISH: right(5), LATENCY: fast}), prompts=tuple(f"x{number:011x}" for number in range(64)))
    decision = decide(new(book), before, book)
    assert decision.look == 4  # the other cases do not count


@pytest.mark.parametrize("truth, loops", [(0.85, 200), (0.90, 60)])
def test_retraining_until_it_passes_does_not_pass(truth: float, loops: int, tmp_path: Path) -> None:
    found = [retrained(truth, seed, tmp_path) for seed in range(loops)]
    passed, over_the_bar = (sum(side) / loops for side in zip(*found, strict=True))
    assert passed < 0.05
    assert over_the_bar > 0.2  # a gate that asks for the score alone


def test_a_candidate_that_is_really_good_passes(tmp_path: Path) -> None:
    passed = 0
    for seed in range(30):
        chance, book = random.Random(seed), simulated.in_memory(tmp_path)
        content = looked_at(book, report({TURKISH: coin(chance, 0.97), LATENCY: fast, TECHNICAL: coin(chance, 0.95), PERSONALITY: graded(chance, 0.9)}))
        before = looked_at(book, report({TURKISH: coin(chance, 0.85), LATENCY: fast, TECHNICAL: coin(chance, 0.85), PERSONALITY: graded(chance, 0.85)},
                                        model="old", digest=BASE))
        passed += decide(content, before, book).verdict is Verdict.PASS
    assert passed >= 24  # 98 of 100 for the Turkish bar alone


# The statistics

@pytest.mark.parametrize("fixed, regressed", [(0, 5), (1, 8), (20, 3), (0, 0)])
def test_flips_are_tested_as_mcnemar_does(fixed: int, regressed: int) -> None:
    strata = {"a": [1.0] * fixed + [-1.0] * regressed + [0.0] * 9}
    expected = binomtest(regressed, fixed + regressed, 0.5, "greater").pvalue if fixed + regressed else 1.0
    assert paired.worse(strata) == pytest.approx(expected)
    graded_flips = paired._flipped([0.5] * fixed + [-0.5] * regressed) if fixed + regressed else 1.0
    assert graded_flips == pytest.approx(expected, abs=0.01)


def test_p_values_are_corrected_as_holm_did() -> None:
    assert paired.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_equal_models_lose_a_category_or_a_criterion_seldom() -> None:
    false = 0
    for seed in range(100):
        chance = random.Random(seed)
        strata = {f"c{category}": [float(chance.random() < 0.8) - float(chance.random() < 0.8) for _ in range(8)] for category in range(30)}
        false += bool(paired.lost(strata, 0.05))
    assert false <= 5


def test_p95_under_the_bar_needs_fifty_nine_of_fifty_nine() -> None:
    assert paired.quantile_upper([1.0] * 59, 0.95, 0.95) == 1.0
    assert paired.quantile_upper([1.0] * 58, 0.95, 0.95) is None


# Page and JUnit

def test_the_page_starts_with_the_decision_and_believes_nothing(book: Ledger) -> None:
    content, before = new(book, right(26), model=HOSTILE, command=HOSTILE), old(book)
    page = Page(gate_page.render(HOSTILE, "jessy-v1", decide(content, before, book), (content, before), book))
    assert page.text.split()[:1] == ["FAIL"] or page.text.index("89.2 %") < page.text.index("Criteria, side by side")
    assert not page.all("script") and "\x1b" not in page.text and "\u202e" not in page.text
    assert "look 1 of 12" in " ".join(page.text.split())


def test_junit_has_a_case_a_rule(book: Ledger, tmp_path: Path) -> None:
    for content, tag in ((new(book, right(26), model="j\x00essy"), "failure"), (new(book, partial="-k x"), "error")):
        decision = decide(content, old(book), book)
        gate_page.write_junit(tmp_path / "deep" / "gate.xml", content["model"], "jessy-v1", decision)
        suite = next(ElementTree.parse(tmp_path / "deep" / "gate.xml").iter("testsuite"))  # noqa: S314
        assert int(suite.get("tests", 0)) == len(list(suite.iter("testcase"))) == len(decision.rules)
        assert len(list(suite.iter(tag))) == int(suite.get(f"{tag}s", 0)) > 0
