"""`python -m harness rescore`: today's scorers on the replies of a saved run, without the model that gave them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import records
from harness.engines import NotAsked
from harness.engines.replay import Replay
from tests.conftest import GOOD, ROOT, Evals, Finished, environment, write_cases
from tests.fake_ollama import Crash, FakeOllama, always
from tests.sample_runs import reply, run, save

SUITE = ("evals/test_turkish.py", "evals/test_latency.py", "-k", "turkish or simple")


def rescore(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", "rescore", *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          env=environment() | {"OLLAMA_HOST": "http://127.0.0.1:9"}, check=False)


def newest(done: Finished) -> dict[str, Any]:
    """The report that was written last."""
    path = max(done.reports.glob("jessy/*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def only(done: Finished) -> Path:
    """The one run there is."""
    (path,) = done.reports.glob("jessy/*/report.json")
    return path


def outcomes(report: dict[str, Any], name: str) -> list[Any]:
    rows = next(row["outcomes"] for row in report["criteria"] if row["name"] == name)
    return [(row["case"], round(row["score"], 6) if row["score"] is not None else None, row["passed"]) for row in rows]


@pytest.fixture
def measured(evals: Evals, few_cases: Path) -> Finished:
    """A run of six everyday prompts; its server is gone."""
    with FakeOllama(always(GOOD), models=["jessy"]) as server:
        done = evals(*SUITE, "--model", "jessy", "--host", server.host, "--data", few_cases)
    assert done.code == 0, done.output
    return done


def test_other_rules_give_another_verdict_on_the_same_replies_without_a_model(measured: Finished, few_cases: Path) -> None:
    old = only(measured)
    before = {path.name: path.read_bytes() for path in old.parent.iterdir()}
    write_cases(few_cases, "intents", [{"intent": "opener", "accept": [r"\bbuyur\b"], "contradict": [r"\bdinliyorum\b"], "examples": ["Buyur."]}])
    done = rescore(old.parent, "--data", few_cases)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scored again, PASS → FAIL" in done.stdout
    assert "100.0\u00a0% → 0.0\u00a0%" in done.stdout and "0 fixed, 6 broken" in done.stdout
    assert {path.name: path.read_bytes() for path in old.parent.iterdir()} == before  # never over the old one
    report = newest(measured)
    assert report["run"] != old.parent.name and report["status"] == "FAIL"
    assert report["provenance"]["scorers"]["digest"] != json.loads(before["report.json"])["provenance"]["scorers"]["digest"]
    assert len(list(measured.reports.glob("compare/*/diff.html"))) == 1


def test_the_same_rules_give_the_same_verdicts_and_the_seconds_stay_as_they_were(measured: Finished, few_cases: Path) -> None:
    old = json.loads(only(measured).read_text(encoding="utf-8"))
    assert rescore(only(measured), "--data", few_cases).returncode == 0
    report = newest(measured)
    for name in ("test_turkish", "test_simple_latency"):
        assert outcomes(report, name) == outcomes(old, name)
    assert report["replies"] == old["replies"]
    for key in ("card", "options", "think", "load_seconds", "asking_seconds", "in_flight", "trials"):
        assert report["provenance"][key] == old["provenance"][key]
    rescored = report["provenance"]["rescored"]
    assert (rescored["run"], rescored["machine"]) == (old["run"], old["provenance"]["machine"])
    page = max(measured.reports.glob("jessy/*/report.html"), key=lambda path: path.stat().st_mtime_ns).read_text(encoding="utf-8")
    assert f"Scored again from the replies of run {old['run']}" in page
    assert len(list((measured.reports / "benchmarks").rglob("*.json"))) == 1  # the times were not saved as new ones


def test_a_prompt_that_changed_since_was_not_asked_and_is_not_wrong(measured: Finished, few_cases: Path) -> None:
    path = few_cases / "evals" / "conversation.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("bi şey sorcam", "bi şey soracaktım"), encoding="utf-8")
    done = rescore(only(measured), "--data", few_cases)
    assert done.returncode == 3
    assert "1 cases of today have no reply in that run: conv-0" in done.stdout
    row = newest(measured)["criteria"][0]
    assert (row["scored"], row["errored"], row["verdict"]) == (5, 1, "NOT MEASURED")


def test_many_new_cases_in_a_row_do_not_hide_the_replies_there_are(measured: Finished, few_cases: Path) -> None:
    path = few_cases / "evals" / "conversation.jsonl"
    new = [json.dumps({"id": f"conv-new-{n}", "category": "opener", "prompt": f"{n}. yeni soru", "intent": "opener"}) for n in range(9)]
    path.write_text("\n".join(new) + "\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert rescore(only(measured), "--data", few_cases).returncode == 3
    row = newest(measured)["criteria"][0]
    assert (row["scored"], row["errored"]) == (6, 9)


def test_an_unfinished_run_is_scored_beside_and_a_later_run_still_goes_on_with_it(evals: Evals, few_cases: Path) -> None:
    with FakeOllama(always(Crash(nth=4, otherwise=GOOD)), models={"jessy": "d" * 64}) as server:
        lost = evals(SUITE[0], "--model", "jessy", "--host", server.host, "--data", few_cases)
    old = only(lost)
    before = old.read_bytes()
    assert rescore(old, "--data", few_cases).returncode == 3
    assert old.read_bytes() == before and len(list(lost.reports.glob("jessy/*"))) == 2
    with FakeOllama(always(GOOD), models={"jessy": "d" * 64}) as server:
        done = evals(SUITE[0], "--model", "jessy", "--host", server.host, "--data", few_cases)
        assert server.chats == 1 + 6 - 2
    assert done.code == 0 and len(list(lost.reports.glob("jessy/*"))) == 2
    assert json.loads(old.read_text(encoding="utf-8"))["provenance"]["resumed"] == 2


def test_times_come_from_replies_that_were_timed_alone_and_never_from_a_journal(measured: Finished) -> None:
    folder = only(measured).parent
    engine, wanted = Replay(folder), [{"role": "user", "content": "bi şey sorcam"}]
    card = asyncio.run(engine.card("jessy"))
    assert asyncio.run(engine.chat(card, wanted, engine.options, patient=True)).alone
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    report["replies"].pop("conv-0#0")  # now it is in the journal alone
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    engine = Replay(folder)
    assert asyncio.run(engine.chat(card, wanted, engine.options, patient=False)).text == GOOD
    with pytest.raises(NotAsked, match="did not time this alone"):
        asyncio.run(engine.chat(card, wanted, engine.options, patient=True))


def test_dialogues_and_trials_are_found_again(evals: Evals, few_cases: Path) -> None:
    write_cases(few_cases, "multiturn", [{"id": "multi-1", "category": "recall", "turns": [{"user": "adım Ece"}, {"user": "adım ne", "must": ["ece"]}]}])
    chats: list[int] = []

    def policy(messages: list[dict[str, str]]) -> str:
        chats.append(len(messages))
        return "Memnun oldum Ece." if len(messages) == 1 else "Adın Ece kanka."

    with FakeOllama(policy, models=["jessy"]) as server:
        done = evals("evals/test_multiturn.py", "--model", "jessy", "--trials", "2", "--host", server.host, "--data", few_cases)
    old = json.loads(only(done).read_text(encoding="utf-8"))
    assert len(chats) == 1 + 2 * 2
    assert rescore(only(done), "--data", few_cases).returncode == 0
    assert outcomes(newest(done), "test_multiturn") == outcomes(old, "test_multiturn")
    assert newest(done)["provenance"]["rescored"] and len(newest(done)["criteria"][0]["outcomes"]) == 2


def test_a_report_scored_again_carries_its_own_digest_and_its_look_is_none(measured: Finished, few_cases: Path) -> None:
    assert rescore(only(measured), "--data", few_cases).returncode == 0
    report = newest(measured)
    assert report["provenance"]["rescored"] and report["digest"] == records.digest(report)
    assert (report["half"], report["look"]) == ("open", "")


@pytest.mark.parametrize("spoil, said", [
    (lambda report: report | {"half": "sealed", "digest": records.digest(report | {"half": "sealed"})}, "is of the sealed half"),
    (lambda report: report | {"status": "FAIL"}, "changed by hand: its digest is")])
def test_replay_takes_neither_a_sealed_run_nor_an_edited_one(spoil: Any, said: str, evals: Evals, measured: Finished, few_cases: Path) -> None:
    path = only(measured)
    path.write_text(json.dumps(spoil(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    done = evals(SUITE[0], "--model", "jessy", "--replay", path.parent, "--data", few_cases)
    assert done.code == 4 and len(done.lines(said)) == 1, done.output
    assert only(measured) == path


def test_what_cannot_be_scored_again_is_said_in_one_line(tmp_path: Path) -> None:
    sealed = run("sealed", half="sealed")
    sealed["replies"]["conv-0#0"] = reply("x", "SECRET")
    elsewhere = tmp_path / "elsewhere" / "report.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps(run("jessy")), encoding="utf-8")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "journal.jsonl").touch()
    for word, said in ((save(tmp_path, sealed).path, "sealed half"), (elsewhere, "does not lie in a reports folder"),
                       (tmp_path / "killed", "was stopped before it had a report"), (tmp_path / "nothing", "is no report.json")):
        done = rescore(word)
        assert (done.returncode, done.stdout) == (4, "") and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and "SECRET" not in done.stderr
