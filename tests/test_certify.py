"""The certificate: it can fail, it is the same twice, and a report says whether its scorers have one."""

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import certificate as standing
from harness import certify, evidence, gates, intents
from harness.adversarial import FAMILIES, Good, azeri_ascii, generated, spellings
from harness.cases import load_cases, load_gold
from harness.certify import problems, without
from harness.engines import Reply
from harness.evidence import SCORERS, Evidence, Scorer, examine
from harness.score import Outcome, verdict_of
from tests.conftest import ROOT, Evals

Json = dict[str, Any]


class Recorder:
    """Stands in for the fixture: what a file of evals/ asks of it."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def __call__(self, bar: Any, *kinds: str, check: Any, **rest: Any) -> None:
        self.asked = {"kinds": kinds, "check": check}


def test_the_certified_scorers_are_those_of_the_criteria() -> None:
    found = {}
    for path in sorted((ROOT / "evals").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"contract_{path.stem}", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in (name for name in vars(module) if name.startswith("test_") and "latency" not in name):
            recorder = Recorder()
            getattr(module, name)(recorder)
            found[name] = (recorder.asked["check"], recorder.asked["kinds"])
    assert found == {name: (scorer.check, scorer.kinds) for name, scorer in SCORERS.items()}


def only(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Leave one criterion, changed."""
    scorer = Scorer(**{field: changes.get(field, getattr(SCORERS[name], field)) for field in ("check", "kinds", "families")})
    for module in (evidence, certify):
        monkeypatch.setattr(module, "SCORERS", {name: scorer})


def rates(found: Evidence) -> Json:
    return {"criteria": {name: certify._criterion(name, found) for name in evidence.SCORERS},
            "families": certify.certificate_families(found),
            "invariance": {name: {"rate": 1.0, "hits": 1, "n": 1} for name in evidence.SCORERS},
            "constants": {what: {"share": 0.0} for what in ("best", "best_pair", "wrong_intent")}, "deletion": {}}


def test_a_scorer_that_takes_everything_gets_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "test_emotion", check=lambda case, reply: verdict_of([]))
    found = problems(rates(examine(4)))
    assert any("bad replies refused 0.0%" in line for line in found)
    assert {f"A{number}" for number in (1, 2, 5, 6, 10)} <= {line.split()[0] for line in found}


def test_a_scorer_that_takes_nothing_gets_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "test_emotion", check=lambda case, reply: Outcome(0.0, False, ("no",)))
    assert problems(rates(examine(2)))[0].startswith("test_emotion: held-out good replies kept 0.0%")


def test_every_bar_that_is_missed_is_a_problem() -> None:
    cell = {"rate": 1.0, "hits": 9, "n": 9}
    sound: Json = {"families": {"A1": cell}, "criteria": {"test_x": {"tpr": 1, "tnr": 1.0, "kept": {"held_out": cell, "known": cell}, "families": {"A1": cell}}},
                   "invariance": {"test_x": cell}, "deletion": {"empty": {"A1": 3}},
                   "constants": {"best": {"share": .2}, "best_pair": {"share": .2}, "wrong_intent": {"share": .02}}}
    assert problems(sound) == []
    worse = json.loads(json.dumps(sound))
    worse["criteria"]["test_x"]["tnr"], worse["families"]["A1"]["rate"] = .94, .89
    worse["criteria"]["test_x"]["kept"]["held_out"]["rate"] = .89
    worse["invariance"]["test_x"]["rate"] = .97
    worse["constants"] = {"best": {"share": .26}, "best_pair": {"share": .26}, "wrong_intent": {"share": .031}}
    worse["deletion"] = {"empty": {}}
    assert len(problems(worse)) == 8


@pytest.fixture(scope="module")
def emotion() -> list[Good]:
    by_id = {case.id: case for case in load_cases("emotion", half=None)}
    return [Good(by_id[row.case], Reply(row.replies[-1], thinking=row.thinking)) for row in load_gold("emotion")][:12]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_made_the_same_way_twice_and_differs_from_the_good_reply(family: str, emotion: list[Good]) -> None:
    first, again = (list(generated(family, emotion, emotion, random.Random("x"))) for _ in range(2))
    assert first == again
    assert all(bad.reply != next(one.reply for one in emotion if one.case.id == bad.case.id) or family == "A7" for bad in first)


def test_every_family_of_a_criterion_has_replies() -> None:
    for name, scorer in SCORERS.items():
        known = evidence._good(held_out=False)
        made = {bad.family for bad in evidence._bad(name, scorer, known, 12)}
        assert made == set(scorer.families), name


def test_held_out_replies_never_make_bad_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is generated may be shown to who writes the rules.
    held = {reply for kind in ("emotion", "conversation") for row in load_gold(kind, held_out=True) for reply in row.replies}
    found = examine(3, criteria=("test_emotion", "test_turkish"))
    assert not any(said in judged.bad.reply.text for said in held for judged in found.bad if not judged.bad.held_out and len(said) > 30)


def test_a_reply_in_another_spelling_says_the_same() -> None:
    forms = spellings("İyiyim kanka, sıkıldım ama geçer.")
    assert forms["ASCII"] == "Iyiyim kanka, sikildim ama gecer." and forms["capitals"] == "İYİYİM KANKA, SIKILDIM AMA GEÇER."
    assert azeri_ascii("Səni dinləyirəm, çox şad oldum.") == "Seni dinleyirem, cox sad oldum."


def test_without_a_gate_it_is_gone_and_then_back() -> None:
    before = gates.GATES, intents.VETOES
    with without("echo"), without("negated"):
        assert "echo" not in [gate.__name__ for gate in gates.GATES] and len(intents.VETOES) == len(before[1]) - 1
    assert before == (gates.GATES, intents.VETOES)


# What a run says of its scorers

def a_certificate(path: Path, **changes: Any) -> Path:
    cell = {"rate": 0.95, "hits": 95, "n": 100}
    row = {"tpr": .95, "tnr": .98, "kept": {"held_out": cell, "known": cell}, "families": {"A1": {**cell, "n": 400}}}
    path.write_text(json.dumps({"scorers": standing.scorers(), "criteria": {"test_turkish": row}, "problems": []} | changes), encoding="utf-8")
    return path


def test_a_run_is_certified_by_a_certificate_of_its_own_scorers_alone(tmp_path: Path) -> None:
    path = a_certificate(tmp_path / "certificate.json")
    assert standing.standing(path=path)["certified"]
    assert standing.refusal({"scorers": standing.standing(path=path)}) is None
    for changes, word in (({"scorers": "0" * 64}, "other scorers"), ({"problems": ["x: too low"]}, "x: too low")):
        assert word in (standing.refusal({"scorers": standing.standing(path=a_certificate(path, **changes))}) or "")
    path.write_text("{", encoding="utf-8")
    assert "no certificate" in (standing.refusal({"scorers": standing.standing(path=path)}) or "")
    assert "names no certificate" in (standing.refusal({}) or "")


def test_an_embedding_model_makes_other_scorers(tmp_path: Path) -> None:
    path = a_certificate(tmp_path / "certificate.json")
    assert not standing.standing("e5@abc", path)["certified"]


@pytest.mark.parametrize("name", ["gates.py", "fitted.npz"])
def test_a_changed_scorer_has_another_digest(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = standing.scorers()
    for module in (*(f"{scorer}.py" for scorer in standing.SCORERS), "fitted.npz"):
        (tmp_path / module).write_bytes((standing.HOME / module).read_bytes() + (b"\n" if module == name else b""))
    monkeypatch.setattr(standing, "HOME", tmp_path)
    assert standing.scorers() != before


def criterion(score: float, **changes: Any) -> Json:
    return {"score": score, "low": score - .05, "high": score + .05, "outcomes": [{"score": 1.0}, {"score": 0.0}, {"score": None}]} | changes


RATES = {"tpr": .9, "tpr_n": 200, "tnr": .95, "tnr_n": 800}


def test_a_score_is_corrected_for_the_errors_of_its_scorer() -> None:
    # (.77 + .95 - 1) / (.90 + .95 - 1)
    found = standing.corrected(criterion(.77), RATES)
    assert found and found["score"] == pytest.approx(.8471, abs=1e-4)
    assert found["low"] < found["score"] < found["high"] and found["high"] - found["low"] > .1
    perfect = standing.corrected(criterion(.77), {**RATES, "tpr": 1.0, "tnr": 1.0})
    assert perfect == pytest.approx({"score": .77, "low": .72, "high": .82})
    assert (standing.corrected(criterion(.99), RATES) or {})["score"] == 1.0


def test_the_corrected_interval_is_not_narrower_than_the_scores_own() -> None:
    # None of three: Wilson's interval is all on one side.
    found = standing.corrected(criterion(0.0, low=0.0, high=.561), RATES)
    assert found and found["score"] == found["low"] == 0.0 and found["high"] > .561


@pytest.mark.parametrize(("row", "given"), [
    (criterion(.8, outcomes=[{"score": .5}, {"score": 1.0}]), RATES), (criterion(.8, outcomes=[]), RATES), (criterion(.8), None),
    (criterion(.8, high=None), RATES), (criterion(.8), {**RATES, "tpr": .03, "tnr": .95})])
def test_what_cannot_be_corrected_is_not(row: Json, given: Json | None) -> None:
    assert standing.corrected(row, given) is None


def test_the_projects_own_certificate_certifies_its_scorers() -> None:
    # CI makes it again and compares every byte (make certify); this is the quick half of that.
    assert standing.standing()["reason"] == ""


def test_a_run_carries_the_certificate_and_the_rates(evals: Evals, good_server: Any) -> None:
    done = evals("evals/test_turkish.py", "--model", "jessy", "--host", good_server.host, "--max-cases", "2")
    report = done.report()
    assert report["provenance"]["scorers"]["certified"], done.output
    certified = standing.load()
    assert certified and report["provenance"]["scorers"]["certificate"] == standing.digest(certified)
    row = report["criteria"][0]
    assert row["scorer"]["tpr"] == certified["criteria"]["test_turkish"]["tpr"] and "corrected" in row["scorer"]


def test_other_cases_are_not_certified(evals: Evals, good_server: Any, few_cases: Path) -> None:
    done = evals("evals/test_turkish.py", "--model", "jessy", "--host", good_server.host, "--data", few_cases)
    assert "other scorers or cases" in done.report()["provenance"]["scorers"]["reason"]
    assert done.report()["criteria"][0]["scorer"] is None
    assert "not certified" in next(done.reports.glob("jessy/*/report.html")).read_text(encoding="utf-8")


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    from harness.certify_command import command

    def run(what: str) -> tuple[int, str, str]:
        code = command(sample=1, show=what)
        return code, *capsys.readouterr()

    yield run


def test_show_prints_what_is_wrong_and_nothing_that_is_held_out(show: Any) -> None:
    code, out, _ = show("turkish")
    assert code == 0 and "refused" in out.splitlines()[-1]
    held = [reply for row in load_gold("conversation", held_out=True) for reply in row.replies]
    assert not any(reply in out for reply in held)


def test_show_names_what_there_is_to_show(show: Any) -> None:
    code, _, error = show("speed")
    assert code == 4 and "test_turkish" in error and "A24" in error


