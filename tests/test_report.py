"""What the report promises: it reads without JavaScript, believes nothing that a model says, and hides no gap."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.display import amount, bar_text, change, interval_text, plain, seconds, visible
from harness.report import render, write_html, write_index
from harness.saved import ReportError
from tests.sample_report import sample, with_baseline

HOSTILE = "<script>alert(1)</script>\" onload='x' $\\frac{1}{2}$ \x1b[31mred\x1b[0m \u202egnp.exe\u2066 \u200b \ud800 \x00 &amp; {{ 7*7 }}"
VOID = {"meta", "br", "hr", "img", "link", "input"}
NBSP = "\u00a0"


class Page(HTMLParser):
    """The elements and the text of a page; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data.replace(NBSP, " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def page(report: dict[str, Any]) -> Page:
    return Page(render(report))


def changed(report: dict[str, Any], index: int = 0, **values: Any) -> dict[str, Any]:
    report["criteria"][index] |= values
    return report


def hostile() -> dict[str, Any]:
    """A report in which every string that a model or a server wrote is an attack."""
    report = with_baseline(sample(cases=12))
    report |= {"model": HOSTILE, "partial": HOSTILE, "command": HOSTILE}
    report["comparison"]["models"] = ["jessy-v1", HOSTILE]
    report["comparison"]["rows"][0]["scores"][HOSTILE] = report["comparison"]["rows"][0]["scores"]["jessy-v2"]
    for flip in report["comparison"]["flips"]:
        flip |= {"prompt": HOSTILE, "before": HOSTILE, "after": HOSTILE, "model": HOSTILE, "reasons": [HOSTILE]}
    for reply in report["replies"].values():
        reply["turns"][0] |= {"user": HOSTILE, "text": HOSTILE, "thinking": HOSTILE, "done_reason": HOSTILE}
        reply["category"] = HOSTILE
    for row in report["criteria"]:
        row |= {"title": HOSTILE, "sentence": HOSTILE, "note": HOSTILE, "method": HOSTILE, "extras": {HOSTILE: HOSTILE},
                "breakdown": {HOSTILE: {"score": 0.5, "n": 2}}}
        for outcome in row["outcomes"]:
            outcome |= {"reasons": [HOSTILE], "passed": False}
    report["criteria"][1]["outcomes"][0]["error"] = HOSTILE
    report["criteria"][1]["verdict"] = HOSTILE
    report["provenance"]["card"] |= {"template": HOSTILE, "digest": HOSTILE}
    return report


def test_the_verdict_comes_before_everything_else() -> None:
    text = page(sample()).text
    assert "jessy-v2 does not meet 2 of 3 must-criteria" in text
    assert "Turkish conversational accuracy: 47.0 %, where > 90 % is needed" in text
    places = [text.index(word) for word in ("does not meet", "Criteria", "Plots", "Replies, by criterion", "Provenance")]
    assert places == sorted(places)


@pytest.mark.parametrize(("status", "sentence"), [
    ("PASS", "jessy-v2 meets all 3 must-criteria"),
    ("FAIL", "jessy-v2 does not meet 1 of 3 must-criteria"),
    ("INCONCLUSIVE", "jessy-v2 is too close to call on 1 of 3 must-criteria"),
    ("NOT MEASURED", "jessy-v2 could not be measured on 1 of 3 must-criteria")])
def test_every_verdict_has_its_sentence_and_a_chip_with_its_word(status: str, sentence: str) -> None:
    report = changed(changed(sample(status=status), 0, verdict=status), 1, verdict="PASS")
    drawn = page(report)
    assert sentence in drawn.text
    assert {"class": f"chip {status.lower().replace(' ', '-')}"} in drawn.all("span")
    assert status in drawn.text


def test_a_strict_run_counts_every_criterion() -> None:
    assert "does not meet 2 of 7 criteria" in page(sample(strict=True)).text


def test_partial_and_interrupted_are_said_in_the_banner() -> None:
    text = page(sample(partial="--max-cases 3", interrupted=True, status="PASS")).text
    banner = text[:text.index("Each criterion against its bar")]
    assert "Partial run (--max-cases 3): no gate takes it." in banner
    assert "Interrupted: the run was stopped" in banner
    assert "that this run measured" in banner


def test_a_pass_that_is_not_significant_says_so_in_the_banner_and_in_the_row() -> None:
    text = page(sample()).text
    assert "Pass, not significant: Personality preserved." in text
    assert "pass, not significant (needs n >= 239)" in text


def test_a_missing_score_is_a_dash_and_never_a_zero() -> None:
    report = changed(sample(cases=3), 0, score=None, low=None, high=None, verdict="NOT MEASURED")
    drawn = page(report)
    assert "Turkish conversational accuracy: not measured, where > 90 % is needed" in drawn.text
    assert "0.0 %" not in render(changed(sample(cases=0), 0, score=None)).replace(NBSP, " ")


def test_nan_and_infinity_count_as_unknown() -> None:
    unknown = changed(sample(), 0, score=float("nan"), low=float("-inf"), high=float("inf"))
    assert render(unknown) == render(changed(sample(), 0, score=None, low=None, high=None))


def test_a_criterion_without_outcomes_says_that_nothing_was_scored() -> None:
    assert "No reply was scored for this criterion." in page(sample()).text


def test_a_report_without_criteria_replies_or_provenance_is_still_a_page() -> None:
    text = page({"format": 1, "model": "m", "run": "r", "status": "NOT MEASURED"}).text
    assert "m: nothing was measured" in text
    assert "No criterion was measured in this run." in text


def test_side_by_side_only_with_something_to_compare() -> None:
    assert "Side by side" not in page(sample()).text
    text = page(with_baseline(sample())).text
    assert "+9.4 pts, p = 0.031 · 12 fixed, 3 broken" in text
    assert text.index("broken in jessy-v2") < text.index("fixed in jessy-v2")


def test_every_failing_reply_is_quoted_with_its_reasons() -> None:
    report = sample()
    text = page(report).text
    for row in report["criteria"]:
        for outcome in row["outcomes"]:
            if not outcome["passed"] and not outcome["error"] and not outcome["unscored"]:
                assert outcome["case"] in text
                assert " · ".join(outcome["reasons"]) in text


def test_errored_and_unscored_replies_are_listed_apart_from_the_wrong_ones() -> None:
    text = page(sample()).text
    assert "2 without a score: errored or unscored" in text
    assert "stream ended without done:true (3 attempts)" in text
    assert "20 / 1 / 1" in text


def test_reasons_are_counted_without_their_numbers() -> None:
    assert re.search(r"too long × \d", page(sample()).text)


def test_a_very_long_reply_is_cut_with_a_note() -> None:
    report = sample(cases=6)
    report["replies"]["conv-opener-0#0"]["turns"][0]["text"] = "a" * 2000 + "b" * 12_345
    changed(report, 0, outcomes=[{"case": "conv-opener-0", "trial": 0, "score": 0.0, "passed": False, "reasons": ["x"]}])
    text = page(report).text
    assert "12 345 more characters" in text
    assert "aaab" not in text


def test_turkish_is_marked_as_turkish() -> None:
    drawn = page(sample())
    quoted = [attrs for attrs in drawn.all("div") if "dir" in attrs]
    assert len(quoted) > 100
    assert all(attrs["lang"] == "tr" for attrs in quoted)


def test_nothing_that_a_model_says_becomes_markup() -> None:
    drawn = page(hostile())
    assert not drawn.all("script")
    assert not any(name.startswith("on") for _, attrs in drawn.elements for name in attrs)
    assert "<script>alert(1)</script>" in drawn.text
    assert "{{ 7*7 }}" in drawn.text


def test_nothing_that_a_model_says_is_typeset_as_mathematics() -> None:
    assert render(changed(sample(cases=3), 0, title="a$b$c")).count("a$b$c") >= 4


def test_hidden_characters_are_made_visible() -> None:
    html = render(hostile())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert "⟨U+001B⟩[31mred⟨U+001B⟩[0m ⟨U+202E⟩gnp.exe⟨U+2066⟩" in html
    html.encode("utf-8")


def test_visible_keeps_honest_text() -> None:
    honest = "İyi ki varsın, şu ığdır'ın çayı… 👩\u200d💻\n\tbir sekme"
    assert visible(honest) == honest
    assert visible("a\r\nb\rc") == "a\nb⟨U+000D⟩c"


def test_the_page_loads_nothing() -> None:
    drawn = page(with_baseline(sample()))
    policy = next(attrs["content"] for attrs in drawn.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not [name for name, attrs in drawn.elements if name in {"link", "img", "iframe", "object"} or "src" in attrs]
    links = [attrs["href"] or "" for name, attrs in drawn.elements if name == "a"]
    assert all(link.startswith("#") or link == "../../index.html" for link in links)
    assert "url(http" not in render(sample())


def test_the_templates_never_switch_escaping_off() -> None:
    import harness.report

    for path in (Path(harness.report.__file__).parent / "templates").iterdir():
        assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text(encoding="utf-8")), path


def test_two_renders_give_the_same_bytes() -> None:
    assert render(with_baseline(sample())) == render(with_baseline(sample()))


def test_the_anchors_of_a_page_are_unique_and_reached() -> None:
    drawn = page(with_baseline(sample()))
    named = [attrs["id"] for name, attrs in drawn.elements if "id" in attrs and name in {"h2", "section"}]
    assert len(named) == len(set(named))
    assert {(attrs["href"] or "")[1:] for attrs in drawn.all("a") if (attrs["href"] or "").startswith("#")} <= set(named)


def test_tables_have_captions_and_plots_have_words() -> None:
    drawn = page(with_baseline(sample()))
    assert len(drawn.all("caption")) == len(drawn.all("table")) == 3
    assert len(drawn.all("svg")) == 3
    assert all(attrs.get("aria-label") for attrs in drawn.all("svg"))


def test_text_and_chips_have_enough_contrast_in_light_and_dark() -> None:
    css = render(sample(cases=0)).split("<style>")[1]
    for scheme in css.split("prefers-color-scheme: dark")[0], css.split("prefers-color-scheme: dark")[1]:
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", scheme))
        pairs = [(front, back) for front in ("ink", "muted", "link") for back in ("bg", "card")]
        pairs += [(tone, f"{tone}-bg") for tone in ("pass", "fail", "open", "none")] + [("fail", "card"), ("ink", "soft")]
        for front, back in pairs:
            assert _contrast(colour[front], colour[back]) >= 4.5, (front, back)


def test_replies_read_from_the_journal_are_not_timed() -> None:
    report = sample(cases=6)
    for reply in report["replies"].values():
        reply["turns"][0]["live"] = False
    text = page(report).text
    assert "Where the seconds of a reply go" not in text


@pytest.mark.parametrize(("value", "shown"), [
    (0, "0 s"), (0.0004, "0.00040 s"), (0.012, "0.012 s"), (1.93, "1.9 s"), (9.96, "10 s"), (83.2, "83 s"), (99.7, "100 s"),
    (125, "2.1 min"), (None, "—")])
def test_seconds_have_two_significant_digits(value: float | None, shown: str) -> None:
    assert seconds(value).replace(NBSP, " ") == shown


def test_rounding_never_hides_the_side_of_the_bar() -> None:
    assert amount(0.9, "%", 0.9) == f"90.0{NBSP}%"
    assert amount(0.89997, "%", 0.9) == f"89.997{NBSP}%"
    assert amount(4.96, "s", 5.0) == f"4.96{NBSP}s"


def test_intervals_bars_and_changes_in_words() -> None:
    shown = [interval_text({"low": 0.059, "high": 0.221}, "%"), interval_text({"low": 4.1, "high": None}, "s"),
             interval_text({"low": None, "high": None}, "%"), interval_text({"low": 40.0, "high": 300.0}, "s"),
             bar_text({"op": ">", "value": 0.9, "unit": "%"}), change(-0.05, "%"), change(1.26, "s"),
             plain({"stop": ["a", "b"], "f16": True})]
    assert [text.replace(NBSP, " ") for text in shown] == [
        "5.9 – 22.1 %", "4.1 s or more", "—", "40 s – 5.0 min", "> 90 %", "−5.0 pts", "+1.3 s", "stop: a, b\nf16: yes"]


@pytest.mark.parametrize(("report", "reason"), [
    ([], "a JSON list instead of an object"), ({"format": 2}, "format 2, this version draws format 1"),
    ({"format": 1, "model": "m"}, "no run, status"),
    ({"format": 1, "model": "m", "run": "r", "status": "PASS", "criteria": [{"name": "x"}]}, "a criterion is wrong"),
    (changed(sample(cases=3), 0, score="<b>"), "'<b>' is not a number"),
    (sample(cases=3, replies=[]), "not a report of format 1")])
def test_what_is_not_a_report_is_refused_in_one_line(report: Any, reason: str) -> None:
    with pytest.raises(ReportError, match=re.escape(reason)) as refused:
        render(report)
    assert "\n" not in str(refused.value)


def test_write_html_leaves_only_the_page_beside_the_report(tmp_path: Path) -> None:
    save(tmp_path, "jessy-v2", "run", sample(cases=3))
    written = write_html(tmp_path / "jessy-v2" / "run")
    assert written.read_text(encoding="utf-8") == render(sample(cases=3))
    assert sorted(path.name for path in written.parent.iterdir()) == ["report.html", "report.json"]


def test_the_leaderboard_ranks_the_newest_complete_run_of_each_model(tmp_path: Path) -> None:
    old, new, best = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-01-15T00:00:00Z"
    save(tmp_path, "a", "1", sample(cases=3, model="model-a", run="a1", started=old, status="PASS"))
    save(tmp_path, "a", "2", sample(cases=3, model="model-a", run="a2", started=new))
    save(tmp_path, "b", "1", sample(cases=3, model="model-b", run="b1", started=best, status="PASS"))
    save(tmp_path, "c", "1", sample(cases=3, model="model-c", run="c1", partial="-k turkish", status="PASS"))
    text = Page(write_index(tmp_path).read_text(encoding="utf-8")).text
    assert "a1" not in text
    order = [text.index(word) for word in ("model-b", "model-a", "Partial runs", "model-c", "-k turkish")]
    assert order == sorted(order)


def test_the_leaderboard_names_the_reports_that_it_could_not_read(tmp_path: Path) -> None:
    save(tmp_path, "a", "1", sample(cases=3, model="model-a"))
    for name, content in (("half", b'{"format": 1, "mod'), ("bytes", b"\xff\xfe"), ("deep", b"[" * 100_000),
                          ("list", b"[]"), ("future", b'{"format": 9}')):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "report.json").write_bytes(content)
    drawn = Page(write_index(tmp_path).read_text(encoding="utf-8"))
    assert drawn.text.count("Skipped bad/") == 5
    assert "model-a" in drawn.text


def test_the_leaderboard_links_into_odd_folders_and_nowhere_else(tmp_path: Path) -> None:
    save(tmp_path, "javascript:alert(1)", "r #1?", sample(cases=3, model=HOSTILE))
    drawn = Page(write_index(tmp_path).read_text(encoding="utf-8"))
    assert [attrs["href"] for attrs in drawn.all("a")] == ["./javascript%3Aalert%281%29/r%20%231%3F/report.html"]
    assert not drawn.all("script")


def test_the_leaderboard_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    assert "pytest evals --model NAME" in Page(write_index(tmp_path).read_text(encoding="utf-8")).text


def save(reports: Path, model: str, run: str, report: dict[str, Any]) -> None:
    folder = reports / model / run
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _contrast(front: str, back: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""
    def luminance(colour: str) -> float:
        channels = [int(colour[at:end], 16) / 255 for at, end in pairwise((1, 3, 5, 7))]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
