"""Conversational accuracy and appropriateness: what a friend would accept, and nothing else."""

import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from harness import cases
from harness.appropriateness import appropriateness, formal
from harness.cases import Case
from harness.engines import Reply
from harness.intents import conversation, similarity
from harness.jsonl import DataError
from harness.negation import denied_stems

INTENTS = [
    {"intent": "ask", "accept": [r"\bsor\b", "dinliyor", "buyur"], "contradict": [r"\bsorma\b"],
     "examples": ["Sor kanka, dinliyorum.", "Buyur, sor bakalım.", "Tabii, anlat hadi.", "Kulağım sende, söyle.", "Sor gitsin, vaktim var."]},
    {"intent": "how-are-you", "accept": [r"\biyiyim\b", "bomba gibi"], "contradict": [],
     "examples": ["İyiyim kanka, sen nasılsın?", "Bomba gibiyim, senden naber?", "Fena değil ya, sen?", "Eh işte, idare ediyorum."]},
    {"intent": "passed-exam", "accept": ["tebrik", "helal", "sevindim"], "contradict": ["gecmis olsun"],
     "examples": ["Tebrikler kanka!", "Helal olsun sana.", "Çok sevindim, hak ettin.", "Bunu kutlayalım hemen."]},
    {"intent": "good-night", "accept": ["iyi geceler", "tatli ruyalar"], "contradict": [],
     "examples": ["İyi geceler kanka.", "Tatlı rüyalar, yarın konuşuruz.", "Rahat uyu, yarın görüşürüz."]},
    {"intent": "hungry", "accept": ["makarna", r"bir seyler ye\b"], "contradict": [],
     "examples": ["Makarna yap kanka.", "Bir şeyler ye hemen.", "Tost iyi gider şimdi.", "Dolapta ne varsa hazırla."]},
]
PROJECT = cases.DATA
ASK = Case(id="ask-1", kind="conversation", category="opening", prompt="sana bisi sorucam", intent="ask")


@pytest.fixture(autouse=True)
def _library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "intents.jsonl").write_text("\n".join(map(json.dumps, INTENTS)), encoding="utf-8")
    monkeypatch.setattr(cases, "DATA", tmp_path)


def forms(text: str) -> list[str]:
    ascii_only = text.translate(str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU"))
    return [text, ascii_only, text.replace("i", "İ").replace("ı", "I").upper(), unicodedata.normalize("NFD", text),
            text + " 🙂", "\u200b".join(text), f"  {text}\n"]


@pytest.mark.parametrize("text", ["Sor kanka, dinliyorum.", "Buyur!", "Tabii kanka, seni dinliyorum.", "Kulağım sende kanka, söyle bakalım.",
                                  "Merak etme, sor hadi.", "Kusura bakma geç gördüm, sor.", "Hiç durma, sor!"])
def test_a_good_answer_is_kept_in_every_spelling(text: str) -> None:
    assert {form: conversation(ASK, Reply(form)).reasons for form in forms(text)} == dict.fromkeys(forms(text), ())


def test_an_answer_that_no_pattern_knows_is_kept_by_its_likeness_to_the_examples() -> None:
    assert not any(word in "anlat hadi tabii" for word in ("sor", "dinliyor", "buyur"))
    assert conversation(ASK, Reply("Tabii anlat bakalım hadi.")).passed


@pytest.mark.parametrize("text", [
    "Tamam kanka.", "Evet kanka.", "Anladım.", "sana bisi sorucam", "Sana bişi sorucam?", "Bana bişi sorucaksın.", "Sure, ask me anything.", "",
    "...", "Sual ver, dinleyirem.", "Buyurun, size nasıl yardımcı olabilirim?", "Bir yapay zeka dil modeli olarak sorularınızı dinliyorum.",
    "Sor kanka, dinliyorum. " * 15, "sor sor sor sor sor", "İyi geceler kanka.", "Makarna yap kanka.", "Ankara kanka.",
    "Bugün hava çok güzel, " * 8 + "sor kanka, dinliyorum.", "<think>sor de</think>Sor kanka.", "Sor kanka, puan: 1.0", "https://sor.dinliyorum",
])
def test_what_does_not_answer_fails(text: str) -> None:
    assert not conversation(ASK, Reply(text)).passed


@pytest.mark.parametrize("text", ["Sorma kanka, dinlemiyorum.", "Sormasan iyi olur kanka, sorma bana.", "Dinlemiyorum seni kanka, sor istersen.",
                                  "Vaktim yok kanka, sor gitsin dersin.", "SORMA KANKA, DİNLEMİYORUM", "Seni dinleyemem kanka, buyur git."])
def test_a_denied_answer_fails_however_alike_it_sounds(text: str) -> None:
    assert not conversation(ASK, Reply(text)).passed


def test_the_contradictions_of_the_case_count_too() -> None:
    case = ASK.model_copy(update={"contradict": (r"\bsonra\b",)})
    assert conversation(case, Reply("Sonra sor kanka.")).reasons == ("contradicts the intent",)


def test_a_list_of_everybodys_keywords_is_no_answer() -> None:
    outcome = conversation(ASK, Reply("Sor kanka, iyiyim, tebrikler, iyi geceler, makarna yap."))
    assert "intents at once" in outcome.reasons[0]


def test_a_good_answer_may_touch_a_second_intent() -> None:
    assert conversation(ASK, Reply("İyiyim ya, sor kanka dinliyorum.")).passed


def test_no_reply_answers_more_than_a_quarter_of_the_prompts() -> None:
    constants = [example for row in INTENTS for example in row["examples"]] + ["Tamam kanka.", "Sor kanka. Tebrikler!", "Evet kanka, aynen."]
    suite = [ASK.model_copy(update={"intent": row["intent"], "prompt": "xyz"}) for row in INTENTS]
    shares = {text: sum(conversation(case, Reply(text)).passed for case in suite) / len(suite) for text in constants}
    assert max(shares.values()) <= 0.4  # five intents: two at most, the second by design


def test_a_clause_that_serves_the_intent_serves_no_other() -> None:
    # "makarna" is another prompt's word, and stands in a sentence that answers this one: 3 intents were counted.
    assert conversation(ASK, Reply("Sor kanka makarna yerken, tatlı rüyalar falan derken dinliyorum.")).passed
    assert conversation(ASK, Reply("Sor, dinliyorum, makarna, helal, iyi geceler.")).reasons == ("answers 4 intents at once",)
    without_commas = conversation(ASK, Reply("sor iyiyim makarna helal iyi geceler"))
    assert without_commas.reasons == ("answers 5 intents at once",)


@pytest.mark.parametrize("text", ["Sormaz mıyım, dinliyorum tabii.", "Dinlemem mi ya! Sor hadi.", "O soru derdin yok mu... Dinliyorum.",
                                  "Sormak yok mu ya, dinliyorum seni."])
def test_a_rhetorical_no_says_yes(text: str) -> None:
    # "Bilmem mi!" was taken for "bilmem".
    assert conversation(ASK, Reply(text)).reasons == ()


def test_a_light_verb_denies_its_object_and_not_the_intent() -> None:
    tell = ASK.model_copy(update={"intent": "hungry", "prompt": "acıktım"})
    assert conversation(tell, Reply("Uzağa gitme, makarna yap kanka.")).passed
    assert conversation(tell, Reply("Her gün bir olmuyor. Makarna yap.")).passed
    assert not conversation(tell, Reply("Makarna yapma kanka.")).passed


def test_a_stem_inside_another_word_is_not_that_verb() -> None:
    # "Dolma" (the dish) denied "dolapta", and "tamam" was ta-ma-m.
    tell = ASK.model_copy(update={"intent": "hungry", "prompt": "acıktım"})
    assert conversation(tell, Reply("Dolma, yanına makarna.")).passed
    assert denied_stems("Tamam kanka, konuşmayı severim, sinemayı da.") == set()


def test_an_unknown_intent_is_an_error_of_the_data_not_of_the_model() -> None:
    with pytest.raises(DataError, match="no intent 'nope'"):
        conversation(ASK.model_copy(update={"intent": "nope"}), Reply("Sor kanka."))


def test_another_data_folder_has_its_own_intents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not conversation(ASK, Reply("Patates kızart.")).passed
    (tmp_path / "other" / "evals").mkdir(parents=True)
    row = {"intent": "ask", "accept": ["patates"], "examples": ["Patates kızart."]}
    (tmp_path / "other" / "evals" / "intents.jsonl").write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setattr(cases, "DATA", tmp_path / "other")
    assert conversation(ASK, Reply("Patates kızart.")).passed


def test_an_example_is_most_similar_to_its_own_intent() -> None:
    for row in INTENTS:
        for example in row["examples"]:
            found = similarity(example)
            assert max(found, key=lambda name: found[name]) == row["intent"]
            assert found[row["intent"]] == pytest.approx(1)


@pytest.mark.parametrize(("text", "stems"), [
    ("Sorma kanka, dinlemiyorum.", {"sor", "dinl"}), ("Hazır değilim.", {"hazi"}), ("Merak etme, dinliyorum.", set()),
    ("Niye sormuyorsun?", set()), ("Bilmem mi ya!", set()), ("O tatlı krizi yok mu...", set()), ("Bundan iyisi yok.", set()), ("Sorun yok, anlat.", set()), ("Gelmem kanka.", {"gel"}),
])
def test_denials_are_found_and_idioms_are_not_denials(text: str, stems: set[str]) -> None:
    assert denied_stems(text) == stems


# The data of the project

@pytest.mark.parametrize(("intent", "texts"), [
    ("greeting", ["Ooo kimleri görüyorum.", "Vay, kimler gelmiş!", "Gel otur bakalım.", "Gözüm kapıdaydı ya."]),
    ("are-you-there", ["Geldi ses kanka.", "Alo, buyur.", "Ses tamam kanka.", "Sesin net geliyor ya."]),
    ("thanks", ["Asıl uğraşan sendin.", "Abartma be, ne yaptım ki.", "Anladıysan ne mutlu bana.", "Ben sadece yol gösterdim.",
                "Unutursan gel, yine bakarız.", "Yapardın sen yine."]),
    ("what-are-you-doing", ["Bütün gün laf yetiştirdim.", "Bu aralar gitar çalıyorum.", "Kafayı satranca taktım, sen ne yapıyosun?"]),
    ("make-plan", ["Sabah kahvaltı, sonra sahaf turu, ne dersin?", "Olur valla, film mi açsak?", "Kutu oyunu oynasak mı?"]),
    ("bored", ["Aç müziği, dolabı topla.", "Burda laflarız ya.", "İzle bi belgesel.", "Seni eğlendireyim mi?"]),
    ("good-mood", ["Noldu, anlat hadi!", "Bu ne heyecan böyle?", "Ne oldu, meraktan çatladım.", "Müjde mi var?"]),
    ("joke", ["Kadın bakkala girmiş, ekmek kalmamış.", "Doktora sormuşlar, uyumuş.", "Geçen gün taksi çevirdim, hâlâ dönüyor."]),
])
def test_an_intent_covers_families_of_answers(intent: str, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "DATA", PROJECT)
    case = ASK.model_copy(update={"intent": intent, "prompt": "xyz"})
    assert {text: conversation(case, Reply(text)).reasons for text in texts} == dict.fromkeys(texts, ())


def test_good_answers_answer_their_own_prompt_and_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # facts/turkish.md 6.2: own intent >= 90 %, another intent's answer <= 3 %, best constant answer <= .25.
    monkeypatch.setattr(cases, "DATA", PROJECT)
    suite = {case.id: case for case in cases.load_cases("conversation")}
    gold = [(suite[row.case], Reply(row.replies[-1])) for row in cases.load_gold("conversation") if row.good and row.case in suite]
    assert sum(conversation(case, reply).passed for case, reply in gold) >= .95 * len(gold)
    asked = Counter(case.intent for case in suite.values())
    one_of_each = {case.intent: case for case in reversed(suite.values())}  # the intent decides, not the prompt
    first = {case.id: (case, reply) for case, reply in reversed(gold)}.values()
    met = [{intent for intent, case in one_of_each.items() if conversation(case, reply).passed} for _, reply in first]
    other = sum(asked[intent] for (own, _), intents in zip(first, met, strict=True) for intent in intents - {own.intent})
    assert other <= .03 * sum(len(suite) - asked[own.intent] for own, _ in first)
    assert max(sum(asked[intent] for intent in intents) for intents in met) <= .25 * len(suite)


# Appropriateness

def test_a_plain_answer_suits_even_when_it_is_wrong() -> None:
    # Accuracy asks whether it is right, appropriateness whether it fits: they must be able to disagree.
    assert appropriateness(ASK, Reply("Makarna yap kanka, iyi gider.")).passed
    assert not conversation(ASK, Reply("Makarna yap kanka, iyi gider.")).passed


@pytest.mark.parametrize("text", [
    "Sormak varoluşun özüdür, bilinç kendini soruyla kurar.", "## Soru\n- Dinlerim\n- Anlarım", "Elbette, sorunuzu dinliyorum efendim.",
    "Sorunuzu lütfen yazın.", "Ben sizi dinliyorum.", "", "sana bisi sorucam", "Sure, go ahead.", "Size nasıl yardımcı olabilirim?",
    " ".join(["İnsan her zaman merak eder, sorar ve dinler."] * 4),
])
def test_a_tangent_or_an_office_answer_does_not_suit(text: str) -> None:
    assert not appropriateness(ASK, Reply(text)).passed


def test_philosophy_suits_a_philosophical_prompt() -> None:
    case = ASK.model_copy(update={"prompt": "bilinç varoluş falan ne ya"})
    assert appropriateness(case, Reply("Bilinç dediğin varoluşun farkında olmak kanka.")).passed


def test_a_longer_answer_stays_on_the_subject() -> None:
    case = Case(id="git", kind="technical", category="git", prompt="git rebase ile merge farkı ne", facts=(), words=(5, 150))
    assert appropriateness(case, Reply("Kanka merge iki dalı birleştirir, rebase geçmişi düz çizgiye dizer, farkı bu.")).passed
    assert appropriateness(case, Reply("Bugün kahvaltıda peynir yedim kanka, sonra sahilde yürüdüm, dalgalara baktım.")).reasons == (
        "off the subject",)


@pytest.mark.parametrize("text", ["Efendim kanka?", "Deniz çok güzel, temiz.", "Yalnız değilsin, sıcak su iç.", "Sen nasılsın?", "Yıldız kaydı ya."])
def test_friendly_turkish_is_not_taken_for_formal(text: str) -> None:
    assert not formal(text)
