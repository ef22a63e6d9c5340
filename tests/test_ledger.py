"""The ledger: what was looked at is written before it is looked at, and nobody takes a line back unseen."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import ledger
from harness.cases import KINDS, load_cases
from harness.ledger import NAME, Entry, Exam, Ledger, LedgerError, locked
from tests.conftest import Evals
from tests.fake_ollama import FakeOllama


def written(reports: Path, lines: int = 4) -> Path:
    """A ledger with so many begun looks."""
    with locked(reports) as book:
        for number in range(lines):
            book.add(Entry("look begun", model=f"jessy-{number} ğ\u2028", model_digest="d" * 64, prompts=("a", "b")))
    return reports / NAME


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path)
    book = Ledger(path)
    assert [entry.model for entry in book.entries] == [f"jessy-{number} ğ\u2028" for number in range(4)]
    assert book.number(book.entries[2].hash) == 3 and book.entries[2].time
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def swapped(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], lines[3]]


def rewritten(lines: list[str]) -> list[str]:
    row = json.loads(lines[1])
    return [lines[0], json.dumps(row | {"model": "somebody else"}), *lines[2:]]


@pytest.mark.parametrize("damage, line", [
    (lambda lines: lines[:1] + lines[2:], 2), (swapped, 2), (rewritten, 3), (lambda lines: lines[1:], 1),
    (lambda lines: [lines[0], "not JSON", *lines[1:]], 2), (lambda lines: [lines[0], "[]", *lines[1:]], 2),
    (lambda lines: [*lines[:3], lines[3].replace("look begun", "look forgotten")], 4),
    (lambda lines: [*lines[:3], lines[3].replace('", "', '","', 1)], 4)],
    ids=["taken out", "swapped", "changed", "head cut", "garbage", "no object", "unknown kind", "spaces"])
def test_a_broken_chain_names_its_first_bad_line(tmp_path: Path, damage: Callable[[list[str]], list[str]], line: int) -> None:
    path = written(tmp_path)
    path.write_text("\n".join(damage(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=f"line {line} breaks the chain") as raised, locked(tmp_path):
        pass
    assert "\n" not in str(raised.value) and "restore the file" in str(raised.value)


def test_half_a_line_is_no_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LedgerError, match="line 4 breaks the chain: it is not whole"):
        Ledger(path)


def _add_one(reports: Path, results: multiprocessing.Queue[str]) -> None:
    try:
        with locked(reports) as book:
            book.add(Entry("look begun", model="second"))
        results.put("added")
    except LedgerError as error:
        results.put(str(error))


def test_two_gates_at_once_are_one_too_many(tmp_path: Path) -> None:
    results: multiprocessing.Queue[str] = multiprocessing.get_context("spawn").Queue()
    with locked(tmp_path):
        other = multiprocessing.get_context("spawn").Process(target=_add_one, args=(tmp_path, results))
        other.start()
        assert "another gate is at work" in results.get(timeout=60)
        other.join()
    with locked(tmp_path) as book:  # and the lock is given back
        book.add(Entry("look begun", model="first"))


def test_a_ledger_is_written_under_its_lock_alone(tmp_path: Path) -> None:
    book = Ledger(written(tmp_path))
    with pytest.raises(RuntimeError):
        book.add(Entry("decision"))


def test_a_mended_case_or_a_few_new_ones_make_no_new_exam() -> None:
    prompts = tuple(f"{number:012x}" for number in range(64))
    assert Exam("one", prompts).same_as(prompts)
    assert Exam("another", (*prompts[:40], *(f"new{number}" for number in range(24)))).same_as(prompts)
    assert not Exam("another", (*prompts[:20], *(f"new{number}" for number in range(44)))).same_as(prompts)


def test_the_exam_is_the_sealed_half() -> None:
    exam = ledger.exam()
    assert len(exam.prompts) == ledger.SKETCH and exam == ledger.exam()
    assert sum(len(load_cases(kind, half="sealed")) for kind in KINDS) > 500


# The sealed half out of reach

def sealed_cases(few_cases: Path) -> Path:
    path = few_cases / "evals" / "conversation.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(json.dumps(row | {"half": "sealed" if number % 2 else "open"}) for number, row in enumerate(rows)) + "\n", encoding="utf-8")
    return few_cases


def test_pytest_evals_never_asks_a_sealed_case(evals: Evals, few_cases: Path, good_server: FakeOllama) -> None:
    done = evals("evals/test_turkish.py", "--model", "jessy", "--host", good_server.host, "--data", sealed_cases(few_cases))
    report = done.report()
    assert done.code == 0 and report["half"] == "open" and set(report["replies"]) == {"conv-0#0", "conv-2#0", "conv-4#0"}
    assert good_server.chats == 1 + 3


def test_a_look_that_no_ledger_has_open_is_refused(
        evals: Evals, good_server: FakeOllama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(tmp_path / "reports", 1)
    with locked(path.parent) as book:  # one that was ended, and one at another model
        book.add(Entry("look ended", look=book.entries[0].hash))
        other = book.add(Entry("look begun", model="another"))
    for look in ("1", book.entries[0].hash, other.hash):
        monkeypatch.setenv(ledger.VARIABLE, look)
        done = evals("evals/test_turkish.py", "--model", "jessy", "--host", good_server.host)
        assert done.code == 4 and done.lines("names no open look at jessy") and done.lines("python -m harness gate CANDIDATE")
    assert good_server.chats == 0


@pytest.mark.parametrize("option", [["--max-cases", "3"], ["-k", "turkish"], ["--baseline", "old"]])
def test_a_look_is_never_partial(evals: Evals, good_server: FakeOllama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: list[str]) -> None:
    with locked(tmp_path / "reports") as book:
        monkeypatch.setenv(ledger.VARIABLE, book.add(Entry("look begun", model="jessy")).hash)
    done = evals("evals", "--model", "jessy", "--host", good_server.host, *option)
    assert done.code == 4 and done.lines("one model on every case") and good_server.chats == 0
