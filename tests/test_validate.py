"""`python -m harness cases --check`: the project's set is sound, and every planted fault is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cases
from harness.__main__ import main
from harness.cases import Case, load_cases, load_gold
from harness.contamination import Text, bare, overlaps
from harness.validate import Validation, validate

Rows = list[dict[str, Any]]


def test_the_projects_own_set_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cases", "--check"]) == 0, capsys.readouterr().out
    assert "contamination 0" in capsys.readouterr().out


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """The project's set with one fault of every kind."""
    data = tmp_path_factory.mktemp("planted") / "data"
    shutil.copytree(cases.DATA, data)

    def edit(path: str, change: Callable[[Rows], None]) -> None:
        file = data / path
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        change(rows)
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")

    def conversation(rows: Rows) -> None:
        sealed = next(row for row in rows if row.get("half") == "sealed" and len(row["prompt"]) > 40)
        rows.append(sealed | {"id": "planted-copy", "half": "open", "prompt": sealed["prompt"].upper()})
        rows.append(sealed | {"id": "planted-family", "half": "open", "prompt": sealed["prompt"] + " söyle bakalım ya"})
        rows.append(rows[0] | {"id": "planted-intent", "prompt": "kuzenimin keçisi balkona çıkmış inmiyor", "intent": "no-such"})
        rows.append(rows[0] | {"id": "planted-alone", "prompt": "zeytinlikte akşama kadar ağaç silkeledik", "category": "lonely"})
        rows.append(sealed | {"id": "planted-group", "half": "open", "prompt": "komşunun horozu gece üçte öttü vallahi",
                              "group": sealed.get("group", sealed["id"])})

    def technical(rows: Rows) -> None:
        open_question = next(row for row in rows if "facts" in row)
        open_question["facts"] = open_question["facts"][:2]
        open_question["contradict"] = []

    def iterations(rows: Rows) -> None:
        pair = [row for row in rows if row["category"].startswith("pair")]
        rows.remove(next(row for row in pair if row["complexity"] == "low"))

    def train(rows: Rows) -> None:
        rows[0]["prompts"].append(next(case for case in load_cases("emotion", half="sealed")).prompts[0])

    def gold(rows: Rows) -> None:
        rows.append(rows[0] | {"case": "planted-nobody"})
        rows.append(rows[0])

    for path, change in (("evals/conversation.jsonl", conversation), ("evals/technical.jsonl", technical),
                         ("evals/iterations.jsonl", iterations), ("gold/conversation.jsonl", gold)):
        edit(path, change)
    edit(min(path.relative_to(data).as_posix() for path in (data / "train").glob("*.jsonl")), train)
    return validate(data)


@pytest.mark.parametrize("fault", [
    "planted-copy: near-duplicate: the same prompt as",
    "in the other half; a paraphrase family stays whole",
    "planted-intent: unknown intent 'no-such'; intents.jsonl has",
    "conversation: category 'lonely' stands in one half only",
    "stands in both halves; a paraphrase family stays whole",
    "2 facts; 3 to 5 are allowed",
    "0 contradictions; 1 to 15 are allowed",
    "a pair has two",
    "contamination: train/",
    "gold/conversation: case 'planted-nobody' does not exist",
    "the same reply twice",
    "fewer than 2 good replies"])
def test_a_planted_fault_is_named(planted: Validation, fault: str) -> None:
    assert any(fault in line for line in planted.problems), "\n".join(planted.problems)


def test_too_few_cases_are_counted(few_cases: Path) -> None:
    for kind in cases.KINDS[1:]:
        (few_cases / "evals" / f"{kind}.jsonl").write_text("", encoding="utf-8")
    problems = validate(few_cases).problems
    for line in ("conversation: cases: 6; at least 480 are needed", "technical: multiple-choice: 0; at least 40 are needed",
                 "gold: cases with 2 held-out replies: 0; at least 300 are needed"):
        assert line in problems


@pytest.mark.parametrize("line, says", [
    (b'{"id": "x", "category": "chat", "prompt": "x"}', "conversation.jsonl:1: field 'intent' is missing"),
    (b'{"id": "x", "category": "chat", "prompt": "x", "intent": "opener", "half": "closed"}', "'open' or 'sealed'"),
    (b'{"id": "x", ', "conversation.jsonl:1: not JSON"), ("ş".encode("cp1254"), "not UTF-8 at byte 0")])
def test_a_broken_line_names_file_line_and_field(few_cases: Path, capsys: pytest.CaptureFixture[str], line: bytes, says: str) -> None:
    (few_cases / "evals" / "conversation.jsonl").write_bytes(line + b"\n")
    assert main(["cases", "--check", "--data", str(few_cases)]) == 4
    printed = capsys.readouterr().err
    assert says in printed and printed.count("\n") == 1


@pytest.mark.parametrize("text", ["SANA BİŞİ SORUCAM!!", "sana bisi  sorucam", "sana bişi sorucam ya"])
def test_spelling_hides_no_overlap(text: str) -> None:
    assert overlaps([Text("c", "sana bişi sorucam")], [Text("t", text)])


def test_another_question_is_no_overlap() -> None:
    assert overlaps([Text("c", "sana bişi sorucam")], [Text("t", "sana bişi anlatayım mı"), Text("u", "naber")]) == []


def test_emoji_alone_are_compared_as_they_are() -> None:
    assert bare("😂😂") != bare("😭😭")
    assert overlaps([Text("c", "😂😂")], [Text("t", "😂 😂")])


def options(**changes: Any) -> Case:
    """A multiple-choice case, the right option first as in the file."""
    row = {"id": "mc", "kind": "technical", "category": "rust", "prompt": "Hangisi?", "options": ["Arc", "Rc", "Box", "Cell"]}
    return Case.model_validate(row | changes)


def test_options_are_asked_in_an_order_that_the_file_does_not_tell() -> None:
    letters = {options(id=f"mc-{number}").answer for number in range(40)}
    assert letters == {"A", "B", "C", "D"}
    case = options()
    assert case.options["ABCD".index(case.answer)] == "Arc" and f"{case.answer}) Arc" in str(case.prompt)


def test_options_are_four_different_ones() -> None:
    with pytest.raises(ValueError, match="four are needed, the right one first"):
        options(options=["Arc", "Rc", "Box", "Box"])


def test_the_letters_of_the_projects_answers_are_spread() -> None:
    answers: list[str] = [case.answer for case in load_cases("technical", half=None) if case.options]
    assert max(answers.count(letter) for letter in "ABCD") < 0.45 * len(answers)


def test_held_out_gold_is_marked_and_kept_apart() -> None:
    assert all(row.held_out for row in load_gold("conversation", held_out=True))
    assert not any(row.held_out for row in load_gold("conversation"))
