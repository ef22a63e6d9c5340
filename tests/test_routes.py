"""The comparison of training routes counts as the Turkish criterion does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cases import load_cases, load_gold
from training.entries import load_entries


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = Path(__file__).parent.parent / "benchmarks" / "routes.py"
    spec = importlib.util.spec_from_file_location("routes", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_answer_is_scored_and_the_thinking_counted(routes: Any) -> None:
    gold = {one.case: one.replies[0] for one in load_gold("conversation") if one.good}
    cases = [case for case in load_cases("conversation", half="open") if case.prompt and not case.seen and case.id in gold]
    said = [f"<think>\n1. Soruyor, kolay; söyle.\n</think>\n{gold[case.id]}" for case in cases]
    assert routes.scored(cases, said)["accuracy"] > 0.95
    two = [one.replace("\n</think>", "\n2. Bir daha düşün, acaba ne istiyor.\n</think>") for one in said]
    assert (routes.scored(cases, said)["one_iteration"], routes.scored(cases, two)["one_iteration"]) == (1.0, 0.0)
    # Every reply thinks of one intent: it is named where it is asked.
    entry = next(one for one in load_entries() if one.intent and one.replies and any(case.intent == one.intent for case in cases))
    same = [f"<think>\n{entry.replies[0].thinking}\n</think>\n{gold[case.id]}" for case in cases]
    assert routes.scored(cases, same)["named"] == sum(case.intent == entry.intent for case in cases) > 0
    # What is only thought is not said.
    hidden = [f"<think>\n1. {gold[case.id]}\n</think>\nBilmem." for case in cases]
    assert routes.scored(cases, hidden)["accuracy"] < 0.1
