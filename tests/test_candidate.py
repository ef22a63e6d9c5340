"""The loop: candidates until one passes, whatever is killed or breaks on the way; and the rules that choose the next recipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.embedded import MODELS
from tests.conftest import ROOT
from tests.tiny_training import base, recipe
from training.candidate import STAGES, Loop, LoopError, Options
from training.next_recipe import LARGEST_SHARE, Verdict, next_recipe
from training.recipe import Dataset, Recipe, Train, load_recipe, to_toml

Json = dict[str, Any]
BARS = {"test_turkish": ("must", 0.9), "test_personality": ("must", 0.8), "test_technical": ("should", 0.85), "test_emotion": ("nice", 0.75)}
WEIGHTS = {"conversation": 60.0, "identity": 10.0, "technical": 20.0, "emotion": 10.0}
MINE = Recipe("mine", dataset=Dataset(rows=4000, intent_rows=4000, weights=WEIGHTS), train=Train(method="full", learning_rate=4e-4))


def criteria(**scores: float) -> list[Json]:
    rows = []
    for name, (level, bar) in BARS.items():
        score = scores.get(name.removeprefix("test_"), 0.95)
        rows.append({"name": name, "title": name, "level": level, "verdict": "PASS" if score > bar else "FAIL", "score": score, "low": score, "high": score,
                     "n": 100, "note": "", "bar": {"op": ">", "value": bar, "unit": "%"}, "breakdown": {}})
    rows.append({**rows[0], "name": "test_simple_latency", "title": "latency", "verdict": "PASS", "score": 1.0, "bar": {"op": "<", "value": 5.0, "unit": "s"}})
    return rows


def trained(recipe: Recipe, **changes: Any) -> Json:
    return {"candidate": "0123456789ab", "stop": "done", "iteration": 100, "iterations": 100, "best_iteration": 100, "seconds": 3300.0, "memory": 8.0,
            "tokens": 10**6, "first_loss": 4.0, "best": 1.0, "recipe": {"train": {"minutes": recipe.train.minutes}}, **changes}


def after(verdict: Verdict, recipe: Recipe = MINE) -> tuple[Recipe, str]:
    found = next_recipe(recipe, verdict)
    assert found is not None
    return found[0], "; ".join(found[1])


def test_what_teaches_a_missed_must_gets_more_of_the_rows() -> None:
    made, why = after(Verdict(criteria(turkish=0.5, technical=0.1), trained(MINE, best_iteration=90)))
    assert made.dataset.weights["conversation"] > 60 and made.dataset.weights["technical"] < 20
    assert sum(made.dataset.weights.values()) == pytest.approx(100, abs=0.1)
    assert "conversation 60 ->" in why and "50.0%, bar > 90%" in why
    # Once the musts are reached, what is only wished for gets its turn.
    made, _ = after(Verdict(criteria(technical=0.1), trained(MINE, best_iteration=90)))
    assert made.dataset.weights["technical"] > 20


@pytest.mark.parametrize(("ended", "changed", "says"), [
    ({"stop": "nan"}, {"train.learning_rate": 2e-4}, "no number"),
    ({"stop": "memory"}, {"train.micro_tokens": 512}, "memory was used up"),
    ({"stop": "time", "iteration": 50}, {"dataset.rows": 1840, "dataset.intent_rows": 1840}, "time was up after 50%"),
    ({"seconds": 1000.0}, {"dataset.rows": 6000, "dataset.intent_rows": 6000}, "still learning after 17 of 60 minutes"),
    ({}, {"dataset.rows": 3400, "dataset.intent_rows": 5800}, "no time for more"),
    ({"stop": "early", "best_iteration": 50}, {"train.learning_rate": 2.8e-4, "dataset.noise": 0.7}, "best after 50% of the steps"),
])
def test_how_a_training_ended_changes_what_made_it_end_so(ended: Json, changed: Json, says: str) -> None:
    made, why = after(Verdict(criteria(turkish=0.5), trained(MINE, **ended)))
    assert says in why
    for key, value in changed.items():
        section, _, name = key.partition(".")
        assert getattr(getattr(made, section), name) == value, why


def test_an_adapter_that_misses_by_far_grows_until_all_weights_are_trained() -> None:
    recipe, seen = replace(MINE, train=Train(rank=64, learning_rate=2e-3)), []
    while recipe.train.method != "full":
        recipe, _ = after(Verdict(criteria(turkish=0.1), trained(recipe)), recipe)
        seen.append((recipe.train.method, recipe.train.modules, recipe.train.rank))
    assert seen == [("lora", ["all"], 64), ("lora", ["all"], 128), ("full", ["all"], 128)] and recipe.train.learning_rate <= 4e-4


def test_nothing_missed_and_nothing_left_is_none() -> None:
    assert next_recipe(MINE, Verdict(criteria(), trained(MINE))) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(60, 7200),
                          st.sampled_from(["done", "early", "time", "nan", "memory"])), min_size=1, max_size=25))
def test_the_rules_stay_within_their_bounds_whatever_happens(story: list[tuple[float, float, float, float, float, str]]) -> None:
    now = MINE
    for turkish, personality, technical, best, seconds, stop in story:
        verdict = Verdict(criteria(turkish=turkish, personality=personality, technical=technical),
                          trained(now, best_iteration=round(100 * best), seconds=seconds, stop=stop, iteration=100 if stop != "time" else 60))
        found = next_recipe(now, verdict)
        if found is None:
            continue
        made, why = found
        assert made != now and all(why) and next_recipe(now, verdict) == found
        weights = made.dataset.weights
        assert max(weights.values()) <= LARGEST_SHARE * sum(weights.values()) + 0.1 and sum(weights.values()) == pytest.approx(100, abs=0.5)
        assert 1_500 <= made.dataset.rows <= 200_000 and 2e-5 <= made.train.learning_rate <= 1e-3 and made.dataset.noise <= 0.8
        now = made


class Staged(Loop):
    """A loop whose stages are made up: what they say is told beforehand, and what was asked of them is kept."""

    def __init__(self, folder: Path, scores: list[Json], **options: Any) -> None:
        super().__init__(replace(MINE, name="staged"), Options(folder / "runs", folder / "reports", **options), told=lambda _: None)
        self.scores, self.asked, self.broken = scores, list[str](), dict[str, Exception]()
        self.ended: Json = {}

    def _stage(self, name: str) -> None:
        self.asked.append(name)
        if name in self.broken:
            raise self.broken.pop(name)

    def _train(self, recipe: Recipe, attempt: Json) -> Json:
        self._stage("train")
        made = trained(recipe, candidate=f"{len(self.attempts):012x}", **self.ended)
        attempt["candidate"] = made["candidate"]
        if made["stop"] == "nan":
            attempt["outcome"], attempt["reason"] = "rejected", "the loss was no number any more"
        return made

    def _export(self, recipe: Recipe, _: Json) -> Json:
        self._stage("export")
        return {}

    def _register(self, recipe: Recipe, _: Json) -> Json:
        self._stage("register")
        return {}

    def _open(self, recipe: Recipe, attempt: Json) -> Json:
        self._stage("open")
        attempt["criteria"] = criteria(**self.scores[len(self.attempts) - 1])
        if any(row["level"] == "must" and row["verdict"] == "FAIL" for row in attempt["criteria"]):
            attempt["outcome"], attempt["reason"] = "rejected", "test_turkish"
        return {"report": "reports/staged/x/report.json"}

    def _gate(self, recipe: Recipe, attempt: Json) -> Json:
        self._stage("gate")
        return {"exit": 0, "said": "the gate says PASS"}


def test_the_loop_ends_with_the_first_candidate_that_passes_and_only_that_one_is_gated(tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{"turkish": 0.5}, {"turkish": 0.6}, {}])
    assert loop.run() == 0
    assert loop.asked == [*STAGES[:4], *STAGES[:4], *STAGES]
    log = (tmp_path / "reports" / "LOG.md").read_text(encoding="utf-8")
    assert log.count("\n## staged") == 3 and log.count("(rejected)") == 2 and "Passed: the gate says PASS." in log
    assert "conversation 60 ->" in log
    # Ended is ended: nothing is trained again.
    again = Staged(tmp_path, [])
    assert again.run() == 0 and not again.asked


@pytest.mark.parametrize(("scores", "options", "says"), [
    ([{"turkish": 0.5}, {"turkish": 0.6}], {"candidates": 2}, "--candidates allows 2"),
    ([{"turkish": 0.5}, {"turkish": 0.5}, {"turkish": 0.4}], {}, "2 candidates in a row were no better"),
])
def test_the_loop_stops_on_its_budget_and_without_progress(scores: list[Json], options: Json, says: str, tmp_path: Path) -> None:
    loop = Staged(tmp_path, scores, **options)
    assert loop.run() == 1 and says in loop.stop() and len(loop.attempts) == len(scores)


def test_no_candidate_is_begun_after_the_minutes(tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{"turkish": 0.5}] * 9, minutes=10.0)
    loop.state["seconds"] = 601.0
    assert loop.run() == 1 and not loop.asked and "--minutes allows 10" in loop.stop()


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_the_loop_goes_on_with_that_stage(stage: str, tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{}])
    loop.broken = {stage: KeyboardInterrupt()}  # type: ignore[dict-item]
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    again = Staged(tmp_path, [{}])
    assert again.run() == 0
    assert again.asked == list(STAGES[STAGES.index(stage):]) and len(again.attempts) == 1


def test_a_broken_stage_ends_the_loop_with_its_own_line_and_keeps_everything(tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{"turkish": 0.5}, {}])
    assert loop.attempts == []
    loop.broken = {"register": LoopError("the Ollama server at http://x died")}
    with pytest.raises(LoopError, match="server at http://x died"):
        loop.run()
    assert Staged(tmp_path, [{"turkish": 0.5}, {}]).run() == 0


def test_a_training_that_diverged_ends_the_loop_and_the_next_one_is_calmer(tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{}, {}])
    loop.ended = {"stop": "nan"}
    with pytest.raises(LoopError, match="staged 000000000001: the loss was no number"):
        loop.run()
    assert loop.asked == ["train"]
    again = Staged(tmp_path, [{}, {}])
    assert again.run() == 0 and again.attempts[-1]["recipe"]["train"]["learning_rate"] == 2e-4
    assert "(rejected)" in (tmp_path / "reports" / "LOG.md").read_text(encoding="utf-8")


def test_a_person_overrules_the_rules(tmp_path: Path) -> None:
    Staged(tmp_path, [{"turkish": 0.5}], candidates=1).run()
    mine = replace(MINE, name="staged", train=replace(MINE.train, learning_rate=1.25e-4))
    (tmp_path / "runs" / "staged" / "next.toml").write_text(to_toml(mine), encoding="utf-8")
    loop = Staged(tmp_path, [{"turkish": 0.5}, {}])
    assert "a person's own recipe" in "\n".join(loop.plan()) and "learning_rate = 0.000125" in "\n".join(loop.plan())
    assert loop.run() == 0 and loop.attempts[-1]["recipe"]["train"]["learning_rate"] == 1.25e-4
    assert not (tmp_path / "runs" / "staged" / "next.toml").exists()
    assert load_recipe(tmp_path / "runs" / "staged" / "recipes" / "2.toml") == mine


def test_an_outcome_that_was_not_logged_is_logged_when_the_loop_goes_on(tmp_path: Path) -> None:
    loop = Staged(tmp_path, [{"turkish": 0.5}, {}])
    loop._conclude = lambda *_: pytest.fail("killed")  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception):
        loop.run()
    assert not (tmp_path / "reports" / "LOG.md").exists() and loop.attempts[0]["outcome"] == "rejected"
    assert Staged(tmp_path, [{"turkish": 0.5}, {}]).run() == 0
    assert (tmp_path / "reports" / "LOG.md").read_text(encoding="utf-8").count("\n## staged") == 2


def test_a_loop_that_cannot_be_read_is_not_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "runs" / "staged").mkdir(parents=True)
    (tmp_path / "runs" / "staged" / "loop.json").write_text("{", encoding="utf-8")
    with pytest.raises(LoopError, match=r"loop\.json cannot be read"):
        Staged(tmp_path, [])


def test_a_recipe_that_was_changed_meanwhile_is_said_not_to_count(tmp_path: Path) -> None:
    Staged(tmp_path, [{"turkish": 0.5}], candidates=1).run()
    said = list[str]()
    loop = Staged(tmp_path, [{"turkish": 0.5}, {}])
    loop.first, loop.told = replace(loop.first, train=replace(loop.first.train, learning_rate=1e-4)), said.append
    assert loop.run() == 0 and any("not the one that this loop began with" in line for line in said)


def test_two_loops_of_one_recipe_are_one_too_many(tmp_path: Path) -> None:
    one, other = Staged(tmp_path, [{}]), Staged(tmp_path, [{}])
    one._train = lambda *_: pytest.fail(str(other.run()))  # type: ignore[method-assign]
    with pytest.raises(LoopError, match="has a loop in another process"):
        one.run()


@pytest.mark.alone
def test_the_whole_loop_on_a_tiny_base(tmp_path: Path) -> None:
    """Every stage for real, by the command that a person runs; a random model passes nothing, and that is an entry in the log."""
    gguf = base(tmp_path / "base")
    path = recipe(tmp_path, gguf, name="loop-of-tests", epochs=0.2, workers=1)
    path.write_text(path.read_text(encoding="utf-8") + "[serve]\nnum_predict = 16\n", encoding="utf-8")
    command = [sys.executable, "-m", "training", "candidate", str(path), "--runs", str(tmp_path / "runs"), "--reports", str(tmp_path / "reports"),
               "--engine", "embedded", "--max-cases", "1", "--candidates", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=500, check=False, cwd=ROOT)
    finally:
        shutil.rmtree(MODELS / "loop-of-tests", ignore_errors=True)
    assert done.returncode == 1 and "--candidates allows 1" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    attempt, = json.loads((tmp_path / "runs" / "loop-of-tests" / "loop.json").read_text(encoding="utf-8"))["attempts"]
    assert attempt["outcome"] == "rejected" and list(attempt["stages"]) == ["train", "export", "register", "open"]
    assert f"## loop-of-tests {attempt['candidate']} (rejected)" in (tmp_path / "reports" / "LOG.md").read_text(encoding="utf-8")
