"""`python -m harness bench`, and the page that several models get: what is compared, what is not, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import cases
from harness.compare import NotComparable, compare, differences
from harness.compare_page import findings, headline, render, table, write
from harness.report import write_index
from harness.saved import ReportError, Saved, find, labelled, load, of_model
from tests.conftest import GOOD, ROOT, Evals, environment
from tests.fake_ollama import FakeOllama, Gone, always
from tests.sample_runs import criterion, outcome, run, save
from tests.test_report import HOSTILE, Page

RIGHT, HALF = [1.0] * 60, [1.0, 0.0] * 30


def saved(*reports: dict[str, Any]) -> list[Saved]:
    return labelled(Saved(Path(f"/reports/{report['model']}/{report['run']}/report.json"), report, report["model"]) for report in reports)


def bench(*words: str | Path, reports: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", "bench", *map(str, words), "--reports", str(reports)], cwd=ROOT, capture_output=True,
                          text=True, env=environment() | {"PYTEST_ADDOPTS": "-p no:cacheprovider"}, check=False)


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """The project's own suite, cut to the first three groups of each kind, so that a run of it is complete."""
    for path in (ROOT / "data" / "evals").glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.stem != "intents":
            kept = list(dict.fromkeys(case.group for case in cases.load_cases(path.stem)))[:3]  # type: ignore[arg-type]
            ids = {case.id for case in cases.load_cases(path.stem) if case.group in kept}  # type: ignore[arg-type]
            lines = [line for line in lines if json.loads(line)["id"] in ids]
        written = tmp_path / "small" / "evals" / path.name
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "small"


# Reports that were not measured alike.


def changed(report: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return report | {"provenance": report["provenance"] | {key: value}}


@pytest.mark.parametrize(("other", "said"), [
    (changed(run("b"), "case_digests", {"conversation": "77"}), "other cases in conversation"),
    (run("b", cases=50), "other cases were asked in test_turkish"),
    (changed(run("b"), "scorers", {"digest": "xyz"}), "other scorers; score the older one again"),
    (changed(run("b"), "options", run("b")["provenance"]["options"] | {"temperature": 0.7}), "option temperature is 0.0 and 0.7"),
    (run("b", criteria=[]), "b: nothing was measured"),
], ids=["case files", "asked cases", "scorers", "options", "nothing"])
def test_reports_that_were_not_measured_alike_are_named_with_what_differs(other: dict[str, Any], said: str) -> None:
    with pytest.raises(NotComparable) as refused:
        compare(saved(run("a"), other))
    assert [line for line in refused.value.lines if said in line] == list(refused.value.lines)


def test_stop_strings_are_the_models_own_and_keep_nothing_apart() -> None:
    one, two = run("a"), run("b")
    assert one["provenance"]["options"]["stop"] != two["provenance"]["options"]["stop"]
    assert differences(saved(one, two)) == []


def test_a_score_that_its_outcomes_do_not_give_is_refused() -> None:
    edited = run("b")
    edited["criteria"][0]["score"] += 0.01
    assert "changed by hand" in differences(saved(run("a"), edited))[0]


def test_an_older_report_without_groups_is_told_how_to_get_them() -> None:
    old = run("b")
    for row in old["criteria"][0]["outcomes"]:
        del row["stratum"]
    assert "python -m harness rescore" in differences(saved(run("a"), old))[0]


def test_sealed_replies_are_not_for_comparing(tmp_path: Path) -> None:
    path = save(tmp_path, run("a", half="sealed", run="20261123T100000Z-2-sealed")).path
    with pytest.raises(ReportError, match="sealed half"):
        find(str(path), tmp_path)
    with pytest.raises(ReportError, match="no finished report"):
        find("a", tmp_path)
    opened = save(tmp_path, run("a"))
    assert [one.path for one in of_model("a", tmp_path)] == [opened.path]


def test_a_report_changed_by_hand_is_named_before_anything_else(tmp_path: Path) -> None:
    path = save(tmp_path, run("a")).path
    edited = json.loads(path.read_text(encoding="utf-8"))
    edited["criteria"][0]["score"] = 1.0
    path.write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(ReportError, match="changed by hand: its digest"):
        load(path)
    done = bench(path, save(tmp_path, run("b")).path, reports=tmp_path)
    assert done.returncode == 4 and "changed by hand" in done.stderr and not (tmp_path / "compare").exists()
    assert "changed by hand" in write_index(tmp_path).read_text(encoding="utf-8")


def test_bench_refuses_reports_that_differ_with_three_and_writes_nothing(tmp_path: Path) -> None:
    save(tmp_path, run("a"))
    other = save(tmp_path, changed(run("b"), "scorers", {"digest": "xyz"}))
    done = bench(tmp_path / "a" / run("a")["run"], other.path, reports=tmp_path)
    assert done.returncode == 3
    assert "not compared" in done.stderr and "other scorers" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "compare").exists()


# What is said of reports that were.


def test_only_a_real_difference_makes_a_rank() -> None:
    found = compare(saved(run("a", RIGHT), run("b", [*RIGHT[:-2], 0.0, 0.0]), run("c", HALF)))
    turkish, latency = found["criteria"]
    assert {label: cell["rank"] for label, cell in turkish["scores"].items()} == {"a": 1, "b": 1, "c": 3}
    assert headline(found) == "a and b are ahead of c in quality"
    assert findings(found) == ["Turkish conversational accuracy: a (100.0\u00a0%) and b (96.7\u00a0%) ahead of c (50.0\u00a0%), p\u00a0<\u00a00.001"]
    assert all(pair["test"] is None and not pair["real"] for pair in latency["pairs"])  # 60 times do not bound a p95


def test_the_correction_is_for_the_number_of_pairs() -> None:
    worse = [0.0] * 6 + [1.0] * 54  # six broken of six: p = 2 / 2^6 = 0.031, alone under 5 %
    assert compare(saved(run("a", RIGHT), run("b", worse)))["criteria"][0]["pairs"][0]["real"]
    three = compare(saved(run("a", RIGHT), run("b", worse), run("c", RIGHT)))["criteria"][0]
    assert [pair["p"] for pair in three["pairs"] if pair["one"] == "a" and pair["two"] == "b"] == [pytest.approx(3 / 32)]
    assert {cell["rank"] for cell in three["scores"].values()} == {1}


def test_more_cases_fixed_and_a_lower_score_is_no_improvement() -> None:
    def report(model: str, large: float, small: float) -> dict[str, Any]:
        rows = [outcome(f"l{n}", large if n < 16 else 1.0, stratum="large") for n in range(200)]
        rows += [outcome(f"s{n}", small, stratum="small") for n in range(2)]
        return run(model) | {"criteria": [criterion("test_turkish", "T", "%", 0.9, rows)]}

    found = compare(saved(report("a", 0.0, 1.0), report("b", 1.0, 0.0)))["criteria"][0]
    assert found["pairs"][0]["p"] < 0.05 and found["pairs"][0]["fixed"] == 16 and found["pairs"][0]["delta"] < 0
    assert not found["pairs"][0]["real"]


def test_twice_as_fast_is_a_rank_on_the_same_machine_and_none_on_another() -> None:
    fast, slow = run("fast", cases=100, second=1.0), run("slow", cases=100, second=2.0)
    here = compare(saved(fast, slow))
    assert {label: cell["rank"] for label, cell in here["criteria"][1]["scores"].items()} == {"fast": 1, "slow": 2}
    apart = compare(saved(fast, changed(slow, "machine", {"cpu": "Apple M4", "cores": 10})))
    assert apart["criteria"][1]["pairs"] == [] and all(cell["rank"] is None for cell in apart["criteria"][1]["scores"].values())
    assert any("different machines" in line for line in apart["limits"])


def test_the_noise_floor_is_measured_or_said_not_to_be() -> None:
    assert any("Noise floor not measured" in line for line in compare(saved(run("a"), run("b")))["limits"])
    found = compare(saved(run("a", 0.5, trials=2)))
    assert found["criteria"][0]["scores"]["a"]["flips"]["n"] == 60
    assert 0.3 < found["criteria"][0]["scores"]["a"]["flips"]["share"] < 0.7  # a coin against itself
    assert not any("Noise floor" in line for line in found["limits"])
    assert "noise floor" in Page(render(found)).text


def test_what_no_engine_told_is_unknown_and_never_zero() -> None:
    silent = run("a")
    silent["provenance"] |= {"memory_bytes": None, "load_seconds": None}
    silent["provenance"]["card"]["size_bytes"] = 0
    for reply in silent["replies"].values():
        reply["turns"][0]["live"] = False
    row = compare(saved(silent, run("b")))["models"][0]
    assert [row[key] for key in ("memory_bytes", "size_bytes", "load_seconds", "tokens_per_second")] == [None] * 4
    assert Page(render(compare(saved(silent, run("b"))))).text.count("unknown") == 5  # of b, only the memory


def test_a_model_that_was_not_measured_has_no_rank_and_no_place_in_the_plot() -> None:
    lost = run("b")
    lost["criteria"][0] |= {"verdict": "NOT MEASURED"}
    found = compare(saved(run("a", RIGHT), lost, run("c", HALF)))
    assert found["criteria"][0]["scores"]["b"]["rank"] is None
    assert found["quality"]["criteria"] == []
    assert "have no criterion of quality in common" in headline(found)


def test_two_runs_of_one_model_are_told_apart_by_the_run() -> None:
    labels = [one.label for one in saved(run("a", run="20261122T203000Z-1"), run("a", run="20261123T203000Z-2"), run("b"))]
    assert labels == ["a (20261122T203000Z-1)", "a (20261123T203000Z-2)", "b"]


# The page.


def test_the_page_believes_nothing_and_loads_nothing() -> None:
    attack = HOSTILE.replace("\ud800", "")  # no name of a folder has it
    hostile = run(attack, RIGHT)
    hostile["criteria"][0] |= {"title": HOSTILE, "note": HOSTILE}
    hostile |= {"partial": HOSTILE, "status": HOSTILE}
    drawn = Page(render(compare(saved(hostile, run("b", HALF), run("c", HALF)), attack)))
    assert not drawn.all("script")
    assert not any(name.startswith("on") or name == "src" for _, attrs in drawn.elements for name in attrs)
    assert "<script>alert(1)</script>" in drawn.text
    assert not any(char in render(compare(saved(hostile, run("b")))) for char in "\x1b\u202e\x00")


def test_the_page_is_the_same_for_the_same_reports_and_each_set_has_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = [save(tmp_path, run("a", RIGHT)), save(tmp_path, run("b", HALF)), save(tmp_path, run("c"))]
    first = write(runs, tmp_path)
    before = first.read_bytes()
    assert write(runs, tmp_path) == first and first.read_bytes() == before
    assert write(runs[:2], tmp_path) != first and first.read_bytes() == before
    links = [attrs["href"] for attrs in Page(before.decode()).all("a")]
    assert "../../a/20261122T203000Z-1a2b3c/report.html" in links
    assert all((first.parent / str(link)).resolve().is_relative_to(tmp_path) for link in links)


def test_differences_are_to_the_baseline_wherever_it_stands() -> None:
    found = compare(saved(run("a", RIGHT), run("base", HALF), run("c", RIGHT)), "base")
    lines = table(found)[1:4]
    assert ["+50.0" in line for line in lines] == [True, False, True]
    assert "50.0" in lines[1] and "30 fixed, 0 broken" in Page(render(found)).text


# As a person runs it.


def test_bench_measures_what_is_missing_reuses_what_is_true_and_says_which(small_data: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    with FakeOllama(always(GOOD), models=["a"]) as one, FakeOllama(always("Hello there, my friend."), models=["b"]) as two:
        words = ("a", "b", "--host", one.host, "--host", two.host, "--data", small_data)
        first = bench(*words, reports=reports)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "a: measured now: no complete report" in first.stdout and "$ pytest evals --model a" in first.stdout
        chats = one.chats, two.chats
        two.models["b:latest"] = "f" * 64
        second = bench(*words, reports=reports)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "a: reused: run" in second.stdout and one.chats == chats[0]
    assert "b: measured now" in second.stdout and "is of another model (digest)" in second.stdout and two.chats > chats[1]
    assert len(list(reports.glob("compare/*/compare.html"))) == 2
    known = json.loads(max(reports.glob("compare/*/compare.json")).read_text(encoding="utf-8"))["models"][0]
    assert known["memory_bytes"] == known["size_bytes"] == 98_363_178  # what the server says of them


def test_a_model_asked_twice_shows_its_noise_floor(few_cases: Path, tmp_path: Path) -> None:
    asked: dict[str, int] = {}

    def fickle(messages: list[dict[str, str]]) -> str:
        prompt = messages[-1]["content"]
        asked[prompt] = asked.get(prompt, 0) + 1
        return GOOD if asked[prompt] % 2 else "No."

    with FakeOllama(fickle, models=["jessy"]) as server:
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "evals/test_turkish.py", "--model", "jessy", "--trials", "2",
                               "--host", server.host, "--data", str(few_cases), "--reports", str(tmp_path)], cwd=ROOT, capture_output=True,
                              text=True, env=environment(), check=False)
    assert done.returncode == 1, done.stdout
    shown = bench(next(tmp_path.glob("jessy/*")), "--trials", "2", reports=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "100.0% flip" in shown.stdout and "Noise floor not measured" not in shown.stdout


@pytest.mark.parametrize(("words", "code", "said"), [
    (("jessy",), 4, "nothing to compare with"), (("jessy", "jesy"), 4, "did you mean 'jessy:latest'?"),
    (("jessy", "nothing-here/report.json"), 4, "no model 'nothing-here/report.json'")])
def test_bad_input_is_one_line(words: tuple[str, ...], code: int, said: str, good_server: FakeOllama, tmp_path: Path) -> None:
    done = bench(*words, "--engine", "ollama", "--host", good_server.host, reports=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not good_server.chats


def test_a_model_that_goes_away_is_not_measured_and_nothing_is_compared(small_data: Path, tmp_path: Path) -> None:
    with FakeOllama(always(Gone(nth=3, otherwise=GOOD)), models=["a", "b"]) as server:
        done = bench("a", "b", "--host", server.host, "--data", small_data, reports=tmp_path)
    assert done.returncode == 3
    assert "'a' was not measured: pytest evals ended with 3" in done.stderr
    assert not (tmp_path / "compare").exists()


def test_pytest_of_three_models_leaves_one_page_for_all(evals: Evals, few_cases: Path) -> None:
    with (FakeOllama(always(GOOD), models=["a"]) as one, FakeOllama(always("No."), models=["b"]) as two,
          FakeOllama(always(GOOD), models=["c"]) as three):
        done = evals("evals/test_turkish.py", "--model", "a", "--baseline", "b", "--model", "c", "--data", few_cases,
                     *(word for server in (one, two, three) for word in ("--host", server.host)))
    assert done.code == 0, done.output
    content = json.loads(next(done.reports.glob("compare/*/compare.json")).read_text(encoding="utf-8"))
    assert [row["label"] for row in content["models"]] == ["b", "a", "c"] and content["against"] == "b"
    assert done.lines("side by side: ") and len(list(done.reports.glob("compare/*/compare.html"))) == 1
