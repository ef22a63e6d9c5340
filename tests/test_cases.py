"""The cases: enough of each, no two alike, gold for all, and a smoke run that keeps groups whole."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.cases import (
    KINDS,
    Case,
    check_files,
    load_cases,
    load_gold,
    load_intents,
    some_of_each,
)
from harness.jsonl import DataError


def test_every_intent_that_a_case_names_exists() -> None:
    named = {case.intent for kind in KINDS for case in load_cases(kind) if case.intent}
    assert named <= load_intents().keys()


def test_every_case_has_a_gold_reply_for_every_turn() -> None:
    for kind in KINDS:
        gold = {row.case: row for row in load_gold(kind)}
        for case in load_cases(kind):
            assert len(gold[case.id].replies) == len(case.prompts), case.id


def test_a_smoke_run_keeps_groups_whole_and_touches_many_categories() -> None:
    cases = tuple(Case(id=f"c-{n}", kind="iterations", category=f"k{n // 4}", prompt="x", pair=f"p{n // 2}", complexity="low")
                  for n in range(12))
    kept = some_of_each(cases, 3)
    assert Counter(case.pair for case in kept) == {"p0": 2, "p2": 2, "p4": 2}
    assert some_of_each(cases, 100) == cases


def test_the_projects_own_files_are_sound() -> None:
    check_files()


def test_a_missing_file_lists_the_kinds(tmp_path: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="the kinds are conversation"):
        load_cases("conversation", data=tmp_path)  # type: ignore[arg-type]
