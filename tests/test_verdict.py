"""Verdicts: strictly over the bar, unmeasured apart from wrong, a missing criterion is a partial run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.files import slug, write_text
from harness.stats import Estimate
from harness.verdict import Bar, Counts, Level, Verdict, decide, exit_code

SHARE = Bar("Accuracy", over=0.90, level="must")
SECONDS = Bar("p95", under=5.0, level="must")


def estimate(score: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(score, low, high, "test", 100)


def test_exactly_the_bar_is_not_over_it() -> None:
    assert decide(SHARE, estimate(0.90, 0.8, 0.95), Counts(scored=100), None)[0] is Verdict.FAIL
    assert decide(SECONDS, estimate(5.0, 4.0, 6.0), Counts(scored=100), None)[0] is Verdict.FAIL


def test_a_pass_that_luck_may_explain_says_so() -> None:
    assert decide(SHARE, estimate(0.95, 0.88, 0.98), Counts(scored=100), 140) == (
        Verdict.PASS, "pass, not significant (needs n >= 140)")
    assert decide(SHARE, estimate(0.97, 0.92, 0.99), Counts(scored=100), 80) == (Verdict.PASS, "")
    assert decide(SECONDS, estimate(2.0, 1.0, None), Counts(scored=20), 72)[1].startswith("pass, not significant")


@pytest.mark.parametrize("counts, verdict", [
    (Counts(scored=98, errored=2), Verdict.PASS), (Counts(scored=97, errored=3), Verdict.NOT_MEASURED),
    (Counts(unscored=4), Verdict.NOT_MEASURED), (Counts(), Verdict.NOT_MEASURED)])
def test_half_a_suite_is_not_measured(counts: Counts, verdict: Verdict) -> None:
    found = estimate(0.99, 0.95, 1.0) if counts.scored else None
    assert decide(SHARE, found, counts, None)[0] is verdict


@pytest.mark.parametrize("rows, strict, code", [
    ([("must", Verdict.PASS), ("should", Verdict.FAIL)], False, 0),
    ([("must", Verdict.PASS), ("should", Verdict.FAIL)], True, 1),
    ([("must", Verdict.PASS), ("must", Verdict.NOT_MEASURED)], False, 3),
    ([("must", Verdict.FAIL), ("must", Verdict.NOT_MEASURED)], False, 1),
])
def test_exit_codes_are_those_of_the_design(rows: list[tuple[Level, Verdict]], strict: bool, code: int) -> None:
    assert exit_code(rows, strict=strict) == code


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a:b", ".hidden", "", "ğ", "x" * 300, "a\x00b"])
def test_a_strange_name_becomes_one_harmless_folder(name: str) -> None:
    folder = slug(name)
    assert folder not in ("", ".", "..") and not folder.startswith(".")
    assert "/" not in folder and "\x00" not in folder and len(folder) < 100


def test_two_names_never_share_a_folder() -> None:
    names = ["a/b", "a_b", "a:b", "a\\b", "..a", "a", "hf.co/u/m:Q4", "hf.co/u/m_Q4"]
    assert len({slug(name) for name in names}) == len(names)
    assert slug("jessy-v2") == "jessy-v2"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \ud800")
    assert path.read_text(encoding="utf-8") == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]
