"""The cases: enough of each, no two alike, gold for all, and a smoke run that keeps groups whole."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.cases import (
    KINDS,
    Case,
    Kind,
    check_files,
    load_cases,
    load_gold,
    load_intents,
    some_of_each,
)
from harness.jsonl import DataError
from harness.turkish import fold


@pytest.mark.parametrize("kind, least, categories", [
    ("conversation", 60, 12), ("technical", 20, 4), ("philosophy", 9, 3), ("iterations", 20, 3), ("multiturn", 8, 3),
    ("emotion", 8, 5), ("persona", 12, 3)])
def test_there_are_enough_cases(kind: Kind, least: int, categories: int) -> None:
    cases = load_cases(kind)
    assert len(cases) >= least
    assert len({case.category for case in cases}) >= categories


def test_no_two_prompts_are_alike_after_folding() -> None:
    prompts = Counter(fold(prompt) for kind in KINDS for case in load_cases(kind) if not case.pair or kind != "multiturn"
                      for prompt in case.prompts)
    assert [prompt for prompt, times in prompts.items() if times > 1] == []


def test_ids_are_unique_across_files() -> None:
    ids = Counter(case.id for kind in KINDS for case in load_cases(kind))
    assert [name for name, times in ids.items() if times > 1] == []


def test_every_intent_that_a_case_names_exists() -> None:
    named = {case.intent for kind in KINDS for case in load_cases(kind) if case.intent}
    assert named <= load_intents().keys()


def test_every_case_has_a_gold_reply_for_every_turn() -> None:
    for kind in KINDS:
        gold = {row.case: row for row in load_gold(kind)}
        for case in load_cases(kind):
            assert len(gold[case.id].replies) == len(case.prompts), case.id


def test_pairs_have_two_halves_that_differ() -> None:
    for kind in ("iterations", "multiturn"):
        pairs = Counter(case.pair for case in load_cases(kind) if case.pair)
        assert pairs and set(pairs.values()) == {2}
    for pair in {case.pair for case in load_cases("iterations")}:
        assert len({case.complexity for case in load_cases("iterations") if case.pair == pair}) == 2


def test_every_class_of_complexity_is_asked() -> None:
    classes = Counter(case.complexity for case in load_cases("iterations"))
    assert min(classes[name] for name in ("low", "medium", "high")) >= 5


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
