"""`python -m harness diff`: what was fixed and broken, side by side, and nothing of the sealed half."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.compare import NotComparable
from harness.diff import entries, render, write
from harness.saved import Saved, labelled
from tests.conftest import ROOT, environment
from tests.sample_runs import outcome, reply, run, save
from tests.test_report import HOSTILE, Page

BEFORE, AFTER = [1.0, 0.0, 0.0, 1.0] * 15, [0.0, 1.0, 0.0, 1.0] * 15
WORDS = {"regressed": 15, "fixed": 15, "failing": 15, "passing": 15}


def pair(before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> tuple[Saved, Saved]:
    reports = before or run("base", BEFORE), after or run("tuned", AFTER)
    old, new = labelled(Saved(Path(f"/reports/{one['model']}/{one['run']}/report.json"), one, one["model"]) for one in reports)
    return old, new


def with_first(report: dict[str, Any], text: str, thinking: str, passed: bool, iterations: int) -> dict[str, Any]:
    """The report with the canonical prompt among its cases."""
    report["replies"]["conv-opener-sorucam#0"] = reply("Sana bişi sorucam", text, thinking=thinking)
    report["criteria"][0]["outcomes"].append(outcome("conv-opener-sorucam", float(passed), seen=True, detail={"iterations": iterations}))
    return report


def diff(*words: str | Path, reports: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", "diff", *map(str, words), "--reports", str(reports)], cwd=ROOT, capture_output=True,
                          text=True, env=environment(), check=False)


def test_every_reply_is_fixed_broken_or_unchanged_and_what_broke_comes_first() -> None:
    states = [entry.state for entry in entries(*pair())]
    assert {state: states.count(state) for state in WORDS} == WORDS
    assert states == sorted(states, key=list(WORDS).index)
    drawn = Page(render(*pair()))
    for state, count in WORDS.items():
        assert sum(f"case {state}" == attrs.get("class") for attrs in drawn.all("details")) == count
    assert "tuned fixes 15 of 60 replies of base and breaks 15" in drawn.text


def test_a_reply_that_fixed_one_criterion_and_broke_another_is_broken() -> None:
    before, after = run("base", [0.0] * 60), run("tuned", [1.0] * 60)
    after["criteria"][1]["outcomes"][7] |= {"passed": False, "reasons": ["9 s for 500 tokens"]}
    found = {entry.name: entry for entry in entries(*pair(before, after))}
    assert found["conv-7"].state == "regressed" and found["conv-8"].state == "fixed"
    assert [(one["title"], one["fixed"], one["reasons"]) for one in found["conv-7"].changes] == [
        ("Turkish conversational accuracy", True, ["wrong intent"]), ("Simple-query response time, p95", False, ["9 s for 500 tokens"])]


def test_the_prompt_that_it_is_all_about_stands_first_with_both_replies_and_both_traces() -> None:
    before = with_first(run("base", BEFORE), "Bu soruyu sormak istemen ilginç.", "1. Ne demek istiyor?\n2. Bir daha düşüneyim.", False, 9)
    after = with_first(run("tuned", AFTER), "Sor kanka, dinliyorum.", "1. Soru geliyor, kolay.", True, 1)
    text = Page(render(*pair(before, after))).text
    top = text[text.index("Sana bişi sorucam"):text.index("Before and after on the same cases")]
    for words in ("Bu soruyu sormak istemen ilginç.", "2. Bir daha düşüneyim.", "9 iterations", "Sor kanka, dinliyorum.", "1. Soru geliyor, kolay.",
                  "1 iteration,", "fixed"):
        assert words in top
    assert text.count("Sana bişi sorucam") == 1


def test_the_filter_needs_no_script_and_every_label_has_its_button() -> None:
    drawn = Page(render(*pair()))
    buttons = {attrs["id"] for attrs in drawn.all("input")}
    assert {attrs["for"] for attrs in drawn.all("label")} == buttons == {"s-all", *(f"s-{state}" for state in WORDS)}
    assert [attrs["id"] for attrs in drawn.all("input") if "checked" in attrs] == ["s-all"]
    for state in WORDS:
        assert f"#s-{state}:checked ~ .criterion > .case:not(.{state}) {{ display: none; }}" in render(*pair())
    assert not drawn.all("script") and not [attrs for _, attrs in drawn.elements if "src" in attrs]


def test_nothing_that_a_model_says_becomes_markup() -> None:
    hostile = run("base", BEFORE)
    for said in hostile["replies"].values():
        said["turns"][0] |= {"text": HOSTILE, "thinking": HOSTILE, "done_reason": HOSTILE}
        said["category"] = HOSTILE
    hostile["criteria"][0]["title"] = HOSTILE
    for row in hostile["criteria"][0]["outcomes"]:
        row["reasons"] = [HOSTILE]
    html = render(*pair(hostile))
    drawn = Page(html)
    assert not drawn.all("script") and not any(name.startswith("on") for _, attrs in drawn.elements for name in attrs)
    assert "<script>alert(1)</script>" in drawn.text
    assert not any(char in html for char in "\x1b\u202e\x00\ud800")


def test_a_case_that_one_side_did_not_answer_is_said_and_not_shown() -> None:
    after = run("tuned", AFTER)
    del after["replies"]["conv-3#0"]
    text = Page(render(*pair(None, after))).text
    assert "1 cases have a reply on one side only and are not shown: conv-3#0" in text
    assert "soru 2" in text and "soru 4" in text
    assert not any(entry.name == "conv-3" for entry in entries(*pair(None, after)))


def test_other_scorers_are_not_the_models_doing_unless_it_is_the_same_run_scored_again() -> None:
    other = run("base", AFTER, run="20261123T100000Z-2")
    other["provenance"] |= {"scorers": {"digest": "xyz"}}
    with pytest.raises(NotComparable, match="other scorers"):
        render(*pair(run("base", BEFORE), other))
    other["provenance"] |= {"rescored": {"run": run("base")["run"]}}
    assert "base: the same 60 replies, scored again" in Page(render(*pair(run("base", BEFORE), other))).text


def test_the_command_finds_the_newest_complete_run_of_a_model(tmp_path: Path) -> None:
    save(tmp_path, run("base", AFTER, run="20261121T100000Z-0"))
    newest = save(tmp_path, run("base", BEFORE, run="20261122T100000Z-1"))
    save(tmp_path, run("base", AFTER, run="20261123T100000Z-2", partial="--max-cases 3"))
    save(tmp_path, run("base", AFTER, run="20261123T110000Z-3", interrupted=True))
    tuned = save(tmp_path, run("tuned", AFTER))
    done = diff("base", tuned.path, reports=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "15 fixed, 15 broken" in done.stdout
    assert newest.report["run"] in next(tmp_path.glob("compare/*/diff.html")).read_text(encoding="utf-8")


@pytest.mark.parametrize("words, code, said", [
    (("base", "nobody"), 4, "'nobody' is no report.json and has no finished report"), (("base", "other"), 3, "other scorers"),
    (("base", "sealed"), 4, "sealed half"), (("base", "torn/1/report.json"), 4, "cannot be read"), (("base", "killed/1"), 4, "was stopped before")])
def test_bad_input_is_said_and_nothing_is_written(words: tuple[str, str], code: int, said: str, tmp_path: Path) -> None:
    save(tmp_path, run("base"))
    other = run("other")
    save(tmp_path, other | {"provenance": other["provenance"] | {"scorers": {"digest": "xyz"}}})
    sealed = run("sealed", half="sealed")
    sealed["replies"]["conv-0#0"] = reply("x", "SECRET")
    path = save(tmp_path, sealed).path
    for name in ("torn/1/report.json", "killed/1/journal.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{", encoding="utf-8")
    named = path if words[1] == "sealed" else tmp_path / words[1] if "/" in words[1] else words[1]
    done = diff(words[0], named, reports=tmp_path)
    assert done.returncode == code and said in done.stderr, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr and "SECRET" not in done.stderr
    assert not (tmp_path / "compare").exists()


def test_the_page_is_written_whole_and_the_same_again(tmp_path: Path) -> None:
    old, new = save(tmp_path, run("base", BEFORE)), save(tmp_path, run("tuned", AFTER))
    page = write(old, new, tmp_path)
    before = page.read_bytes()
    assert write(old, new, tmp_path).read_bytes() == before
    assert [path.name for path in page.parent.iterdir()] == ["diff.html"]
    assert write(new, old, tmp_path) != page
