"""`python -m harness gate` as a user runs it, on the project's own sealed cases, against a fake server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import certificate, ledger, look
from harness.__main__ import main
from harness.cases import KINDS, load_cases, load_gold
from harness.ledger import LOOKS, Entry, Ledger, locked
from tests.conftest import ROOT, environment
from tests.fake_ollama import FakeOllama, always

GOLD = {tuple(case.prompts[:turn]): f"<think>\n{row.thinking}\n</think>\n{reply}"
        for kind in KINDS for cases in [{case.id: case for case in load_cases(kind, half=None)}]
        for row in reversed(load_gold(kind)) for case in [cases[row.case]] for turn, reply in enumerate(row.replies, start=1)}


@dataclass
class Served:
    """A server with models that know the gold replies to a share of the prompts, in percent by model."""

    server: FakeOllama
    knows: dict[str, int]

    def reply(self, messages: list[dict[str, Any]]) -> str:
        said = tuple(message["content"] for message in messages if message["role"] == "user")
        share = self.knows[self.server.requests[-1]["model"].partition(":")[0]]
        known = int(hashlib.sha256("/".join(said).encode()).hexdigest(), 16) % 100 < share
        return GOLD.get(said, "Selam kanka!") if known else "Tamam."


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    models = {"good": 100, "old": 60, "twin": 60}
    with FakeOllama(always(""), models={name: name[0] * 64 for name in models}) as server:
        found = Served(server, models)
        server.policy = found.reply
        yield found


@pytest.fixture(scope="module")
def released(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a gate that passed `good` against `old`."""
    reports = tmp_path_factory.mktemp("released") / "reports"
    assert gate("good", "--against", "old", "--host", served.server.host, "--reports", reports, "--in-flight", "4",
                "--junit", reports / "gate.xml") == 0
    return reports


@pytest.fixture
def reports(released: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(released, tmp_path / "reports"))


def gate(*arguments: str | Path) -> int:
    return main(["gate", *map(str, arguments)])


def newest(reports: Path, model: str) -> Path:
    return max(reports.glob(f"{model}/*-sealed/report.json"))


def again(reports: Path) -> list[str]:
    """The arguments that decide once more on both reports."""
    return ["--candidate-report", str(newest(reports, "good")), "--baseline-report", str(newest(reports, "old")), "--reports", str(reports)]


def test_a_gate_leaves_reports_a_decision_and_its_lines_in_the_ledger(served: Served, released: Path) -> None:
    book = Ledger(released / ledger.NAME)
    assert [(entry.kind, entry.model, entry.outcome) for entry in book.entries] == [
        ("look begun", "good", ""), ("look ended", "good", "PASS"), ("look begun", "old", ""), ("look ended", "old", "FAIL"), ("decision", "good", "PASS")]
    report = json.loads(newest(released, "good").read_text(encoding="utf-8"))
    sealed = {case.id for kind in KINDS for case in load_cases(kind, half="sealed")}
    assert report["half"] == "sealed" and {name.partition("#")[0] for name in report["replies"]} == sealed
    assert book.entries[1].report == report["digest"]
    decision = json.loads((released / "good" / "gate.json").read_text(encoding="utf-8"))
    assert (decision["verdict"], decision["exit"], decision["look"]) == ("PASS", 0, 1)
    assert {row["name"] for row in decision["rows"]} == {row["name"] for row in report["criteria"]}
    assert next(ElementTree.parse(released / "gate.xml").iter("testsuite")).get("failures") == "0"  # noqa: S314


def test_which_sealed_replies_failed_is_on_no_page(released: Path) -> None:
    assert not list(released.glob("*/*/report.html"))
    assert "old" not in (released / "index.html").read_text(encoding="utf-8").partition("</style>")[2]
    page = (released / "good" / "gate.html").read_text(encoding="utf-8")
    assert not any(case.prompts[0] in page for case in load_cases("conversation", half="sealed") if len(case.prompts[0]) > 12)


def test_a_model_no_better_than_the_baseline_fails_and_the_baseline_is_not_asked_again(
        served: Served, reports: Path, capfd: pytest.CaptureFixture[str]) -> None:
    served.server.requests.clear()
    assert gate("twin", "--against", "old", "--host", served.server.host, "--reports", reports, "--in-flight", "4") == 1
    assert {body["model"].partition(":")[0] for body in served.server.requests} == {"twin"}
    out = capfd.readouterr().out
    assert "look 2 is used again" in out and "twin equals the baseline but for noise" in out
    assert "look 3 of 12, 99.375 % confidence" in out


def test_a_decision_on_reports_asks_nobody_and_is_the_same(served: Served, reports: Path) -> None:
    before, chats = json.loads((reports / "good" / "gate.json").read_text(encoding="utf-8")), served.server.chats
    assert gate(*again(reports)) == 0
    after = json.loads((reports / "good" / "gate.json").read_text(encoding="utf-8"))
    assert (before["rules"], before["rows"]) == (after["rules"], after["rows"]) and served.server.chats == chats
    assert gate("good", "--against", "old", *again(reports)) == 0
    assert gate("another", *again(reports)) == 4


def test_a_report_edited_by_hand_decides_nothing(reports: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = newest(reports, "good")
    path.write_text(path.read_text(encoding="utf-8").replace('"passed": false', '"passed": true', 1), encoding="utf-8")
    assert gate(*again(reports), "--junit", reports / "x.xml") == 3
    assert "not what was written" in capfd.readouterr().out
    assert next(ElementTree.parse(reports / "x.xml").iter("testsuite")).get("errors") == "1"  # noqa: S314


def test_a_broken_chain_stops_every_gate(served: Served, reports: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = reports / ledger.NAME
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], *lines[4:]]) + "\n", encoding="utf-8")
    assert gate(*again(reports)) == 3
    assert "line 3 breaks the chain" in capfd.readouterr().err


@pytest.mark.parametrize("kept", [0, 2])
def test_lines_cut_off_at_the_end_are_missed(reports: Path, kept: int, capfd: pytest.CaptureFixture[str]) -> None:
    path = reports / ledger.NAME
    path.write_text("".join(line + "\n" for line in path.read_text(encoding="utf-8").splitlines()[:kept]), encoding="utf-8")
    assert gate(*again(reports)) == 3
    assert "lines were taken out" in capfd.readouterr().out


def test_spent_looks_are_spent_for_every_model(served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exam, chats = ledger.exam(), served.server.chats
    with locked(tmp_path) as book:
        for number in range(LOOKS - 1):  # one is left, and two are needed
            book.add(Entry("look begun", model=f"jessy-{number}", prompts=exam.prompts))
    assert gate("good", "--against", "old", "--host", served.server.host, "--reports", tmp_path) == 3
    out = capfd.readouterr().out
    assert f"looked at {LOOKS - 1} times of {LOOKS}" in out and "new sealed cases" in out and served.server.chats == chats
    assert len(Ledger(tmp_path / ledger.NAME).entries) == LOOKS - 1


def test_what_cannot_end_in_a_decision_costs_no_look(
        served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    to = ["--host", served.server.host, "--reports", str(tmp_path)]
    assert gate("old", "--against", "old", *to) == 1
    served.server.models["copy:latest"] = served.server.models["old:latest"]
    assert gate("copy", "--against", "old", *to) == 1
    assert gate("nobody", "--against", "old", *to) == 4
    assert gate("good", "--against", "old", "--host", "http://127.0.0.1:9", "--reports", tmp_path, "--engine", "ollama") == 3
    taught = tmp_path / "train.jsonl"
    prompt = load_cases("conversation", half="sealed")[0].prompts[0]
    taught.write_text(json.dumps({"messages": [{"role": "user", "content": prompt.upper()}]}) + "\n", encoding="utf-8")
    assert gate("good", "--against", "old", "--trained-on", taught, *to) == 3
    assert "texts of training are too close" in capfd.readouterr().out
    monkeypatch.setattr(certificate, "standing", lambda *_: {"certified": False, "reason": "there is none"})
    assert gate("good", "--against", "old", *to) == 3
    assert not (tmp_path / ledger.NAME).exists()


def test_a_system_prompt_with_the_exam_in_it_is_found() -> None:
    prompt = next(case.prompts[0] for case in load_cases("conversation", half="sealed") if len(case.prompts[0].split()) > 4)
    assert look.prompted("jessy", f"Sen Jessy'sin.\nSoru: {prompt}\nCevap: tamam")
    assert not look.prompted("jessy", "Sen Jessy'sin, Türkçe konuşursun. Kısa ve samimi ol.")


def test_a_gate_that_is_killed_has_had_its_look(served: Served, tmp_path: Path) -> None:
    with FakeOllama(always("Tamam."), models=["slow", "base"], delay=0.5) as server:
        process = subprocess.Popen([sys.executable, "-m", "harness", "gate", "slow", "--against", "base", "--host", server.host, "--reports", str(tmp_path)],
                                   cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        while server.chats < 3:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 60
        while list(tmp_path.glob("slow/*/run.lock")) and time.monotonic() < deadline:
            time.sleep(0.1)
    # The run ended with its gate, minutes before it would have been through, and left what it had.
    assert server.chats < 100 and not list(tmp_path.glob("slow/*/run.lock")) and list(tmp_path.glob("slow/*-sealed/journal.jsonl"))
    with locked(tmp_path) as book:
        assert len(book.looks(ledger.exam())) == 1 and book.ended(book.entries[0].hash) is None


def test_a_server_that_dies_is_no_verdict_and_has_had_its_look(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tests.fake_ollama import Crash

    with FakeOllama(always(Crash(nth=4, otherwise="Tamam.")), models=["good", "old"]) as server:
        assert gate("good", "--against", "old", "--host", server.host, "--reports", tmp_path, "--engine", "ollama") == 3
    book = Ledger(tmp_path / ledger.NAME)
    assert [(entry.kind, entry.outcome) for entry in book.entries] == [("look begun", ""), ("look ended", "NOT MEASURED")]
    assert "not measured" in capfd.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["a"], ["--against", "b"], ["a", "--against", "b", "--trials", "0"], ["a", "--against", "b", "--all"]])
def test_usage_is_four_and_never_the_two_of_inconclusive(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gate(*arguments)
    assert ended.value.code == 4 and "python -m harness" in capsys.readouterr().err
