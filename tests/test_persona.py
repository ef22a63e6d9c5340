"""Personality: Jessy passes, a formal assistant with the same content does not, markers alone are worth nothing."""

import json
from pathlib import Path

import pytest

from harness import cases
from harness.cases import Case, Fact
from harness.engines import Reply
from harness.persona import ENOUGH, length, markers, mix, opinion, personality, register


def persona(prompt: str, tag: str, **more: object) -> Case:
    return Case.model_validate({"id": "p", "kind": "persona", "category": "c", "prompt": prompt, "persona": tag, **more})


ASK = Case(id="ask", kind="conversation", category="opening", prompt="sana bisi sorucam", intent="ask")
COFFEE = persona("çay mı kahve mi", "opinion")
CAPITAL = persona("türkiye'nin başkenti neresi", "fact")
WHO = persona("sen kimsin", "identity")
CACHE = Case(id="cache", kind="technical", category="web", prompt="cache nedir", words=(10, 80),
             facts=(Fact(name="fast", any=("hizli",)), Fact(name="stored", any=("sakla", "tut"))))
FREE = Case(id="free", kind="philosophy", category="will", prompt="özgür irade var mı", words=(10, 200), concepts=("irade", "beyin"))


@pytest.fixture(autouse=True)
def _intents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evals").mkdir()
    rows = [{"intent": "ask", "accept": [r"\bsor\w*", "dinliyor"], "examples": ["Sor kanka, dinliyorum.", "Buyur anlat."]},
            {"intent": "bye", "accept": ["gorusuruz"], "examples": ["Görüşürüz kanka."]}]
    (tmp_path / "evals" / "intents.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr(cases, "DATA", tmp_path)


JESSY = [
    (ASK, "Sor kanka, dinliyorum."), (COFFEE, "Bence çay kanka, kahve çarpıntı yapıyo."), (COFFEE, "Sanırım kahve ya, sabah ayıltıyor."),
    (CAPITAL, "Ankara kanka."), (WHO, "Ben Jessy kanka, senin dijital arkadaşın."),
    (CACHE, "Kanka cache dediğin, sık lazım olan datayı yakında tutan yer. Server'a her seferinde gitmiyosun, daha hızlı oluyo."),
    (FREE, "Bence özgür irade tam serbestlik değil kanka. Beyin çoğu kararı biz fark etmeden hazırlıyor, ama o kararı durdurabiliyoruz."),
]
FORMAL = [
    (ASK, "Elbette, sorunuzu dinliyorum."), (ASK, "Sorabilirsiniz efendim, dinliyorum."), (ASK, "Soru dinlenmektedir, sorulabilir."),
    (COFFEE, "Bence çay daha sağlıklı bir içecektir."), (COFFEE, "Kanaatimce çay tercih edilmelidir."), (CAPITAL, "Türkiye'nin başkenti Ankara'dır."),
    (WHO, "Benim adım Jessy. Bir sohbet arkadaşıyım."),
    (CACHE, "Cache, sık erişilen verilerin tutulduğu bellektir. Server yükünü azaltır ve erişimi hızlı hale getirir."),
    (FREE, "Özgür irade tartışmalı bir kavramdır. Beyin araştırmaları kararların önceden hazırlandığını göstermektedir, bence bu önemlidir."),
]


@pytest.mark.parametrize(("case", "text"), JESSY)
def test_jessy_passes(case: Case, text: str) -> None:
    outcome = personality(case, Reply(text))
    assert outcome.passed, outcome


@pytest.mark.parametrize(("case", "text"), FORMAL)
def test_the_same_content_in_formal_turkish_scores_at_most_45(case: Case, text: str) -> None:
    # facts/turkish.md 5.2: otherwise the score is void.
    assert personality(case, Reply(text)).score <= .45


@pytest.mark.parametrize("case", [ASK, CACHE, FREE, COFFEE, CAPITAL, WHO], ids=lambda case: case.prompt)
@pytest.mark.parametrize("text", ["kanka ya bence bi eyvallah valla", "Kanka ya valla hadi bence sanırım bi be eyvallah kanka, I think aynen ya.",
                                  "", "Sure kanka, I think so.", "Bir yapay zeka dil modeli olarak kanka demem."])
def test_markers_on_nothing_score_zero(case: Case, text: str) -> None:
    assert personality(case, Reply(text)).score == 0.0


@pytest.mark.parametrize("case", [ASK, CACHE, FREE], ids=lambda case: case.prompt)
def test_a_casual_answer_to_another_question_scores_zero(case: Case) -> None:
    assert personality(case, Reply("Bence makarna kanka ya, bi güzel yersin, valla doyarsın.")).score == 0.0


def test_a_short_fact_is_not_taken_for_a_list_of_keywords() -> None:
    case = CAPITAL.model_copy(update={"facts": (Fact(name="ankara", any=("ankara",), critical=True),)})
    assert personality(case, Reply("Ankara kanka.")).passed
    assert personality(case, Reply("İstanbul kanka.")).score == 0.0


def test_another_assistants_name_scores_zero() -> None:
    assert personality(WHO, Reply("Ben Gemma kanka, Google tarafından eğitildim ya.")).score == 0.0


def test_the_name_is_owed_where_it_is_asked_for() -> None:
    assert not personality(WHO, Reply("Kankanım ben ya, tanımadın mı?")).passed
    assert personality(persona("canın sıkılır mı hiç", "identity"), Reply("Valla sıkılmaz kanka, hep buradayım.")).passed


def test_a_hedge_belongs_to_opinions_and_not_to_facts() -> None:
    assert personality(COFFEE, Reply("Çay kanka.")).score < personality(COFFEE, Reply("Bence çay kanka.")).score
    assert personality(CAPITAL, Reply("Sanırım Ankara kanka.")).score < personality(CAPITAL, Reply("Ankara kanka.")).score


def test_more_of_a_marker_earns_nothing() -> None:
    assert register(ASK, "Sor kanka, dinliyorum seni.") == register(ASK, "Sor kanka ya, dinliyorum seni.") == 1.0
    assert register(ASK, "Kanka ya valla be hadi bi sor kanka ya.") < 1.0


@pytest.mark.parametrize(("text", "value"), [("Sor, dinliyorum seni.", .75), ("Sorunuzu dinliyorum.", 0), ("Konu ilginç görünüyor.", 0)])
def test_the_register_has_three_levels(text: str, value: float) -> None:
    assert register(ASK, text) == value


def test_the_hedge_must_come_early() -> None:
    assert opinion("Bence çay.") == 1.0
    assert opinion("bir iki üç dört beş altı yedi sekiz dokuz on onbir oniki onüç ondört onbeş bence çay") == 0.0


@pytest.mark.parametrize(("words", "value"), [(5, 1), (25, 1), (1, 1), (50, 0), (75, 0)])
def test_length_decays_to_zero_at_twice_the_window(words: int, value: float) -> None:
    assert length("kelime " * words, (1, 25)) == value


def test_english_terms_belong_in_a_turkish_sentence() -> None:
    assert mix("Docker bir uygulamayı container içinde çalıştırıyor kanka") == 1.0
    assert mix("Bu uygulamayı kapalı bir kutunun içinde çalıştırıyor") == 0.0
    assert mix("docker container image registry kernel") == 0.0


def test_only_the_markers_that_apply_are_in_the_detail() -> None:
    assert set(markers(ASK, "Sor kanka.")) == {"register", "length"}
    assert set(markers(CACHE, "Sor kanka.")) == {"register", "length", "mix"}
    assert set(markers(WHO, "Sor kanka.")) == {"register", "length", "name"}
    assert set(markers(persona("bilincin var mı", "identity", tags=["consciousness"]), "x")) == {"register", "length", "name", "honest"}
    assert ENOUGH == .80
