"""Iteration efficiency: no constant policy passes, no trace can be faked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cases
from harness.cases import Case
from harness.engines import Reply
from harness.iterations import BANDS, adaptivity, efficiency, iteration_efficiency, iterations, quality, steps
from harness.score import Outcome

SIMPLE = Case(id="ask", kind="conversation", category="opening", prompt="sana bisi sorucam", intent="ask")
OPEN = Case(id="plain", kind="iterations", category="opening", prompt="saat kaç", pair="clock", complexity="low")


@pytest.fixture(autouse=True)
def _intents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evals").mkdir()
    row = {"intent": "ask", "accept": [r"\bsor\b", "dinliyor"], "examples": ["Sor kanka, dinliyorum."]}
    (tmp_path / "evals" / "intents.jsonl").write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setattr(cases, "DATA", tmp_path)


GOOD = Outcome(1.0, True)


def numbered(*lines: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


DISTINCT = ["Selam verdi.", "Bir soru soracak.", "Dinlediğimi söylemeliyim.", "Kısa tutmak lazım.", "Samimi olmalıyım.",
            "Konu henüz belli değil.", "Acele etmeye gerek yok.", "Emoji şart değil bence.", "Cevap hazır artık."]


@pytest.mark.parametrize(("policy", "score"), [
    *[(lambda band, k=k: efficiency(k, band), score) for k, score in
      {1: .500, 2: .667, 3: .722, 4: .722, 5: .744, 6: .722, 9: .593}.items()],
    (lambda band: sum(efficiency(k, band) for k in range(1, 10)) / 9, .662),
], ids=["1", "2", "3", "4", "5", "6", "9", "uniform"])
def test_no_constant_policy_reaches_the_bar(policy: Callable[[tuple[int, int]], float], score: float) -> None:
    mean = sum(policy(band) for band in BANDS.values()) / len(BANDS)
    assert mean == pytest.approx(score, abs=.0005)
    assert mean < .80


def test_an_adaptive_policy_scores_one() -> None:
    assert {efficiency(low, (low, high)) for low, high in BANDS.values()} == {1.0}
    assert {efficiency(high, (low, high)) for low, high in BANDS.values()} == {1.0}


def test_an_empty_trace_earns_nothing() -> None:
    assert efficiency(0, (1, 2)) == 0.0
    assert iterations(Reply("Sor kanka.", thinking="1.\n2.\n3.")) == 0


def test_an_answer_without_thinking_used_one_iteration() -> None:
    assert iterations(Reply("Sor kanka, dinliyorum.")) == 1


@pytest.mark.parametrize("count", range(1, 10))
def test_numbered_lines_are_counted(count: int) -> None:
    assert iterations(Reply("Sor.", thinking=numbered(*DISTINCT[:count]))) == count


@pytest.mark.parametrize("form", ["{n}) {s}", "- {n}: {s}", "**{n}.** {s}", "Adım {n}: {s}", "İterasyon {n} - {s}", "[{n}] {s}"])
def test_numbers_may_be_written_in_any_usual_way(form: str) -> None:
    trace = "\n".join(form.format(n=n, s=s) for n, s in enumerate(DISTINCT[:4], start=1))
    assert steps(trace) == DISTINCT[:4]


def test_a_step_over_two_lines_is_one_step() -> None:
    assert len(steps("1. Selam verdi.\n   Demek ki soracak.\n2. Dinlediğimi söylerim.")) == 2


def test_prose_is_counted_by_paragraph() -> None:
    assert iterations(Reply("Sor.", thinking="Selam verdi.\nBekliyor.\n\nBir soru soracak galiba.\n\n\nKısa cevap yeter.")) == 3


def test_a_repeated_step_counts_once() -> None:
    # A padded trace would lift k into the band of a hard question.
    spoof = numbered(*["Bunu düşünüyorum şimdi."] * 3, "Şimdi bunu düşünüyorum!", "BUNU DÜŞÜNÜYORUM ŞİMDİ")
    assert iterations(Reply("Sor.", thinking=spoof)) == 1


def test_the_claim_stands_beside_the_count() -> None:
    outcome = iteration_efficiency(SIMPLE, Reply("Sor kanka, dinliyorum.", thinking=numbered(*["Aynı adım bu."] * 9)))
    assert outcome.detail == {"iterations": 1, "lo": 1, "hi": 2, "complexity": "low", "steps_claimed": 9}
    assert outcome.score == 1.0


def test_overthinking_a_simple_prompt_costs() -> None:
    outcome = iteration_efficiency(SIMPLE, Reply("Sor kanka, dinliyorum.", thinking=numbered(*DISTINCT)))
    assert (outcome.passed, outcome.reasons) == (False, ("9 iterations; low is 1-2",))
    assert outcome.score == pytest.approx(2 / 9)


@pytest.mark.parametrize("text", ["Tamam kanka.", "Sorma kanka, dinlemiyorum.", "", "Sure, ask me."])
def test_a_wrong_answer_earns_no_efficiency(text: str) -> None:
    assert iteration_efficiency(SIMPLE, Reply(text)).score == 0.0


def test_a_case_without_expectations_is_held_to_the_gates() -> None:
    assert quality(OPEN, Reply("Üçe geliyor kanka.")).passed
    assert not quality(OPEN, Reply("It is three o'clock.")).passed


@pytest.mark.parametrize(("expects", "kind"), [({"facts": ({"name": "f", "any": ("konteyner",)},)}, "technical"),
                                               ({"concepts": ("irade",)}, "philosophy")])
def test_quality_asks_what_the_case_expects(expects: dict[str, object], kind: str) -> None:
    case = Case.model_validate({"id": "x", "kind": kind, "category": "c", "prompt": "anlat", "words": (1, 99), **expects})
    assert not quality(case, Reply("Tamam kanka, anlatırım birazdan.")).passed


def test_the_figures_beside_the_score_tell_an_adaptive_model_from_a_constant_one() -> None:
    def rows(counts: dict[str, int]) -> list[tuple[Case, Reply, Outcome]]:
        return [(OPEN.model_copy(update={"complexity": complexity}), Reply("x", thinking=numbered(*DISTINCT[:k]), reply_tokens=k), GOOD)
                for complexity, k in counts.items()]

    adaptive, constant = adaptivity(rows({"low": 1, "medium": 4, "high": 8})), adaptivity(rows({"low": 5, "medium": 5, "high": 5}))
    assert adaptive["share in band"] == 1.0
    assert adaptive["Spearman(class, iterations)"] == pytest.approx(1)
    assert constant["share in band"] == pytest.approx(1 / 3)
    assert constant["Spearman(class, iterations)"] is None
    assert adaptive["tokens, high"] == 8
    assert adaptivity([])["share in band"] is None
