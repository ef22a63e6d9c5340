"""`pytest evals` as a user runs it: exit codes, reports, what other pytest options do to it, bad input."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import GOOD, ROOT, Evals, environment, write_cases
from tests.fake_ollama import Crash, ErrorLine, FakeOllama, Gone, always

TURKISH = "evals/test_turkish.py"


def test_a_model_that_meets_the_bar_exits_zero_and_leaves_a_report(
        evals: Evals, few_cases: Path, good_server: FakeOllama) -> None:
    done = evals(TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases)
    report = done.report()
    assert done.code == 0, done.output
    assert "Warning" not in done.output
    assert report["criteria"][0]["verdict"] == "PASS"
    assert "not significant" in report["criteria"][0]["note"]
    assert report["partial"].startswith("without test_appropriateness")
    assert report["provenance"]["card"]["digest"]
    assert list(done.reports.glob("jessy/*/report.html")) and (done.reports / "index.html").exists()


def test_a_missed_must_exits_one_and_quotes_the_reply(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always("Hello! How can I help you today?"), models=["jessy"]) as server:
        done = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
    assert done.code == 1
    assert done.lines("FAIL") and done.lines("Turkish conversational accuracy")
    assert "Hello! How can I help you today?" in next(done.reports.glob("jessy/*/report.html")).read_text(encoding="utf-8")


def test_a_missed_should_fails_only_under_strict(evals: Evals, few_cases: Path) -> None:
    write_cases(few_cases, "emotion", [{"id": "emo-1", "category": "sadness", "prompt": "bugün çok kötüyüm", "words": [1, 60],
                                        "emotion": "sadness", "polarity": "negative", "cause": ["kotu"]}])
    with FakeOllama(always("Boşver kanka."), models=["jessy"]) as server:
        arguments = ["evals/test_emotion.py", "--model", "jessy", "--host", server.host, "--data", few_cases]
        assert evals(*arguments).code == 0
        assert evals(*arguments, "--strict").code == 1


def test_latency_is_asked_first_and_saved_for_benchmark_compare(
        evals: Evals, few_cases: Path, good_server: FakeOllama) -> None:
    arguments = [TURKISH, "evals/test_latency.py", "-k", "turkish or simple", "--model", "jessy",
                 "--host", good_server.host, "--data", few_cases]
    done = evals(*arguments)
    assert done.code == 0, done.output
    assert len([body for body in good_server.requests if body["messages"]]) == 1 + 6  # the warm-up, and each case once
    assert good_server.peak == 1
    saved = json.loads(next((done.reports / "benchmarks").rglob("*.json")).read_text(encoding="utf-8"))
    assert saved["benchmarks"][0]["stats"]["rounds"] == 6
    walls = [row["score"] for row in done.report()["criteria"][1]["outcomes"]]
    assert saved["benchmarks"][0]["stats"]["median"] == pytest.approx(statistics.median(walls))
    again = evals(*arguments, "--benchmark-compare")
    assert again.code == 0 and again.lines("(NOW)")


def test_a_hopeless_latency_is_decided_early_and_the_other_cases_are_still_asked(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always(GOOD), models=["jessy"], delay=5.2) as server:
        done = evals(TURKISH, "evals/test_latency.py", "-k", "turkish or simple", "--in-flight", "6",
                     "--model", "jessy", "--host", server.host, "--data", few_cases)
    turkish, latency = done.report()["criteria"]  # what decides first: shares before seconds
    assert done.code == 1
    assert (latency["verdict"], latency["scored"]) == ("FAIL", 1)
    assert latency["note"].startswith("decided after 1 of 6")
    assert (turkish["verdict"], turkish["scored"]) == ("PASS", 6)


def test_two_models_are_measured_one_after_the_other_and_compared(evals: Evals, few_cases: Path) -> None:
    def policy(messages: list[dict[str, str]]) -> str:
        return GOOD

    with FakeOllama(policy, models=["jessy", "hoca"]) as server:
        done = evals(TURKISH, "--model", "jessy", "--baseline", "hoca", "--host", server.host, "--data", few_cases)
    assert done.code == 0, done.output
    order = [body["model"] for body in server.requests]
    assert order == sorted(order)  # all of hoca, then all of jessy
    assert {"model": "hoca", "messages": [], "keep_alive": 0, "stream": False} in server.requests
    comparison = done.report("jessy")["comparison"]
    assert comparison["baseline"] == "hoca" and comparison["models"] == ["hoca", "jessy"]


def test_a_baseline_that_fails_does_not_fail_the_run(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always(GOOD), models=["jessy"]) as good, FakeOllama(always("Hello there, my friend."), models=["old"]) as bad:
        done = evals(TURKISH, "--model", "jessy", "--baseline", "old", "--host", good.host, "--host", bad.host,
                     "--data", few_cases)
    assert done.code == 0, done.output
    assert done.report("jessy")["comparison"]["rows"][0]["fixed"] == {"jessy": 6}


def test_max_cases_is_a_partial_run(evals: Evals, few_cases: Path, good_server: FakeOllama) -> None:
    done = evals(TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases, "--max-cases", "2")
    assert done.report()["partial"].startswith("--max-cases 2")
    assert done.report()["criteria"][0]["n"] == 2


def test_two_workers_give_the_same_report(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always(GOOD), models=["a"]) as one, FakeOllama(always("No."), models=["b"]) as two:
        done = evals("evals/test_turkish.py", "evals/test_latency.py", "-k", "turkish or simple", "-n", "2",
                     "--model", "a", "--model", "b", "--host", one.host, "--host", two.host, "--data", few_cases)
    assert done.code == 1, done.output
    assert [row["verdict"] for row in done.report("a")["criteria"]] == ["PASS", "PASS"]
    assert {row["name"]: row["verdict"] for row in done.report("b")["criteria"]}["test_turkish"] == "FAIL"
    assert done.report("a")["comparison"]["models"] == ["a", "b"]
    assert one.peak == two.peak == 1


def test_junit_quiet_and_exit_first_work(evals: Evals, few_cases: Path, tmp_path: Path) -> None:
    with FakeOllama(always("No idea, sorry."), models=["jessy"]) as server:
        done = evals(TURKISH, "evals/test_latency.py", "-q", "-x", "--junitxml", tmp_path / "junit.xml",
                     "-k", "turkish", "--model", "jessy", "--host", server.host, "--data", few_cases)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314
    assert done.code == 1
    assert suite.get("failures") == "1"
    assert "Turkish conversational accuracy" in (suite[0][0].get("message") or "")


def test_last_failed_runs_the_failed_criterion_again(few_cases: Path, good_server: FakeOllama, tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", TURKISH, "evals/test_latency.py", "-k", "turkish or simple", "--model", "jessy",
             "--host", good_server.host, "--data", str(few_cases), "--reports", str(tmp_path / "reports"),
             "-o", f"cache_dir={tmp_path / 'cache'}", *more], cwd=ROOT, capture_output=True, text=True, env=environment(),
            check=False)

    good_server.policy = always("Not a word of Turkish here.")
    assert run().returncode == 1
    good_server.policy = always(GOOD)
    again = run("--lf")
    assert again.returncode == 0
    assert "1 passed" in again.stdout and "Simple-query" not in again.stdout


def test_a_run_that_has_nothing_to_do_with_evals_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n', encoding="utf-8")
    (tmp_path / "test_other.py").write_text("def test_ok(): pass\ndef test_not(): assert 0\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path,
                          capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "PASS " not in done.stdout and "report:" not in done.stdout
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__", ".benchmarks"}  # the latter is pytest-benchmark's
    assert left == {"conftest.py", "test_other.py"}


# Bad input: one line, the right exit code, nothing lost.


def test_no_server_is_three_within_two_seconds(evals: Evals, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
    start = time.monotonic()
    done = evals("evals", "--model", "jessy-v2", "--host", host, "--engine", "ollama")
    assert time.monotonic() - start < 10  # generous beside the two seconds, which benchmarks/overhead.py watches
    assert done.code == 3
    assert len(done.lines("no Ollama server answers")) == 1
    assert host in done.output and "Traceback" not in done.output
    assert not done.reports.exists()


def test_an_unknown_model_lists_the_known_and_names_the_nearest(evals: Evals, good_server: FakeOllama) -> None:
    done = evals("evals", "--model", "jesy", "--engine", "ollama", "--host", good_server.host)  # whatever models/ has
    assert done.code == 4
    assert len(done.lines("no model 'jesy'")) == 1
    assert "did you mean 'jessy:latest'?" in done.output and "Traceback" not in done.output


def test_no_model_named_lists_the_known(evals: Evals, good_server: FakeOllama) -> None:
    done = evals("evals", "--host", good_server.host)
    assert done.code == 4
    assert "name a model" in done.output and "jessy:latest" in done.output


def test_nothing_collected_is_five(evals: Evals, good_server: FakeOllama) -> None:
    done = evals("evals", "-k", "nothing_like_this", "--model", "jessy", "--host", good_server.host)
    assert done.code == 5


@pytest.mark.parametrize("policy", [always(Gone(nth=4, otherwise=GOOD)), always(Crash(nth=4, otherwise=GOOD))],
                         ids=["model removed", "server gone"])
def test_a_model_lost_mid_run_is_not_measured_and_keeps_its_replies(evals: Evals, few_cases: Path, policy: object) -> None:
    with FakeOllama(policy, models=["jessy"]) as server:  # type: ignore[arg-type]
        done = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
    assert done.code == 3, done.output
    assert done.report()["criteria"][0]["verdict"] == "NOT MEASURED"
    assert done.report()["criteria"][0]["scored"] == 2
    assert len(done.report()["replies"]) == 2
    assert "Traceback" not in done.output


def test_errors_over_two_percent_are_not_measured(evals: Evals, few_cases: Path) -> None:
    def policy(messages: list[dict[str, str]]) -> object:
        return ErrorLine("model runner has unexpectedly stopped") if "kafama" in messages[-1]["content"] else GOOD

    with FakeOllama(policy, models=["jessy"]) as server:  # type: ignore[arg-type]
        done = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
    assert done.code == 3
    row = done.report()["criteria"][0]
    assert (row["scored"], row["errored"], row["verdict"]) == (5, 1, "NOT MEASURED")


@pytest.mark.parametrize("line, said", [
    ('{"id": "conv-9", "category": "opener", "prompt": "x"', "conversation.jsonl:7: not JSON"),
    ('{"id": "conv-0", "category": "opener", "prompt": "x", "intent": "opener"}', "field 'id': 'conv-0' is taken by line 1"),
    ('{"id": "conv-9", "category": "opener", "prompt": "x"}', "field 'intent' is missing"),
    ('{"id": "conv-9", "category": "opener", "prompt": "x", "intent": "opener", "complexity": "easy"}',
     "field 'complexity': Input should be 'low', 'medium' or 'high' (got 'easy')"),
    ('{"id": "conv-9", "category": "opener", "prompt": "x", "intent": "opener", "colour": 1}', "known fields: id, kind"),
], ids=["not JSON", "duplicate id", "missing field", "not allowed", "unknown field"])
def test_a_malformed_case_names_file_line_field_and_what_was_allowed(
        evals: Evals, few_cases: Path, good_server: FakeOllama, line: str, said: str) -> None:
    path = few_cases / "evals" / "conversation.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    done = evals(TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases)
    assert done.code == 4
    assert len(done.lines(said)) == 1 and "data/evals/conversation.jsonl:7" in done.output
    assert "Traceback" not in done.output and not good_server.requests


def test_a_reports_folder_that_cannot_be_written_is_said_before_anything_is_asked(
        evals: Evals, few_cases: Path, good_server: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    done = evals(TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases,
                 reports=tmp_path / "taken")
    assert done.code == 4
    assert len(done.lines("cannot write to")) == 1 and "--reports" in done.output
    assert not good_server.requests


@pytest.mark.parametrize("name", ["../../outside", "hf.co/user/model:Q4_0", "..", "a/../../b:latest"])
def test_a_model_name_never_leads_outside_the_reports_folder(
        evals: Evals, few_cases: Path, tmp_path: Path, name: str) -> None:
    reports = tmp_path / "deep" / "reports"
    with FakeOllama(always(GOOD), models=[name]) as server:
        done = evals(TURKISH, "--model", name, "--host", server.host, "--data", few_cases, reports=reports)
    assert done.code == 0, done.output
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts]
    assert written and all(path.is_relative_to(reports) for path in written)


def test_markup_and_terminal_codes_in_a_reply_stay_text(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always("<script>alert(1)</script>\x1b[2J\x1b[31mkanka"), models=["jessy"]) as server:
        done = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
    page = next(done.reports.glob("jessy/*/report.html")).read_text(encoding="utf-8")
    assert done.code == 1
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in page and "\x1b[2J" not in done.output


def test_a_killed_run_goes_on_where_it_was(evals: Evals, few_cases: Path, tmp_path: Path) -> None:
    with FakeOllama(always(GOOD), models=["jessy"], delay=0.3) as server:
        arguments = [TURKISH, "--model", "jessy", "--host", server.host, "--data", str(few_cases),
                     "--reports", str(tmp_path / "reports")]
        process = subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, env=environment())
        while server.chats < 4:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = server.chats
        done = evals(*arguments)
    assert done.code == 0, done.output
    kept = done.report()["provenance"]["resumed"]
    assert kept >= 2
    assert server.chats - before == 1 + 6 - kept
    assert len(list((tmp_path / "reports").glob("jessy/*"))) == 1


def test_a_run_that_lost_its_server_goes_on_when_it_is_back(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always(Crash(nth=4, otherwise=GOOD)), models={"jessy": "d" * 64}) as server:
        lost = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
    with FakeOllama(always(GOOD), models={"jessy": "d" * 64}) as server:
        done = evals(TURKISH, "--model", "jessy", "--host", server.host, "--data", few_cases)
        assert server.chats == 1 + 6 - 2
    assert (lost.code, done.code) == (3, 0)
    assert done.report()["provenance"]["resumed"] == 2
    assert len(list(done.reports.glob("jessy/*"))) == 1


def test_ctrl_c_writes_what_there_is_and_the_next_run_goes_on(evals: Evals, few_cases: Path, tmp_path: Path) -> None:
    with FakeOllama(always(GOOD), models=["jessy"], delay=0.8) as server:
        arguments = [TURKISH, "evals/test_latency.py", "-k", "turkish or simple", "--model", "jessy", "--host", server.host,
                     "--data", str(few_cases), "--reports", str(tmp_path / "reports")]
        process = subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        while server.chats < 4:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 2
        assert evals(*arguments).code == 0
    assert len(list((tmp_path / "reports").glob("jessy/*"))) == 1


def test_a_report_that_cannot_be_written_is_said_and_the_journal_stays(
        evals: Evals, few_cases: Path, good_server: FakeOllama, tmp_path: Path) -> None:
    def vanish(messages: list[dict[str, str]]) -> str:
        for folder in (tmp_path / "reports").glob("jessy/*"):
            (folder / "report.json").mkdir(exist_ok=True)  # a folder where the file should go
        return GOOD

    good_server.policy = vanish
    done = evals(TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases)
    assert done.code == 3
    assert len(done.lines("cannot write the report")) == 1 and "Traceback" not in done.output
    assert len(next(done.reports.glob("jessy/*/journal.jsonl")).read_text(encoding="utf-8").splitlines()) == 6


def test_a_hidden_latency_is_not_taken_from_a_run_before(evals: Evals, few_cases: Path, good_server: FakeOllama) -> None:
    arguments = [TURKISH, "--model", "jessy", "--host", good_server.host, "--data", few_cases]
    evals(*arguments)
    before = good_server.chats
    evals(*arguments)
    assert good_server.chats - before == 1 + 6  # a finished run is not resumed
