"""Casing, folding and the language gate: a reply must not fail for how its letters are encoded."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.language import is_turkish
from harness.turkish import (
    clean,
    content_words,
    ends_finite,
    fold,
    has_predicate,
    is_tech,
    sentences,
    tr_lower,
    words,
)

TURKISH = st.text(alphabet="abcçdefgğhıijklmnoöprsştuüvyzABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ '.,?!", max_size=60)
ZERO_WIDTH = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad"]


def capitals(text: str) -> str:
    return text.replace("i", "İ").replace("ı", "I").upper()


@given(TURKISH)
def test_capitals_fold_to_the_same_text(text: str) -> None:
    assert fold(capitals(text)) == fold(text)


@given(TURKISH)
def test_decomposed_letters_fold_to_the_same_text(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(text)
    assert fold(unicodedata.normalize("NFKD", text)) == fold(text)


@given(TURKISH, st.sampled_from(ZERO_WIDTH))
def test_invisible_characters_change_nothing(text: str, invisible: str) -> None:
    assert fold(invisible.join(text)) == fold(text)
    assert words(invisible.join(text)) == words(text)


@given(TURKISH)
def test_text_typed_without_turkish_letters_folds_to_the_same_text(text: str) -> None:
    assert fold(text.translate(str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU"))) == fold(text)


@given(st.text(max_size=80))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(TURKISH)
def test_lower_case_keeps_one_letter_for_one_letter(text: str) -> None:
    assert len(tr_lower(text)) == len(clean(text))


@pytest.mark.parametrize(("written", "lower", "folded"), [
    ("IŞIK", "ışık", "isik"), ("İstanbul", "istanbul", "istanbul"), ("SIKINTI", "sıkıntı", "sikinti"),
    ("i\u0307yi", "iyi", "iyi"), ("I\u0307YI\u0307", "iyi", "iyi"), ("DİNLİYORUM", "dinliyorum", "dinliyorum"),
    ("hâlâ", "hâlâ", "hala"), ("API", "apı", "api"),
])
def test_dotted_and_dotless_i_are_not_mixed_up(written: str, lower: str, folded: str) -> None:
    assert (tr_lower(written), fold(written)) == (lower, folded)


def test_words_keep_a_suffix_behind_an_apostrophe() -> None:
    assert words("Docker’ı kur, API'ye bağlan! 👍") == ["Docker'ı", "kur", "API'ye", "bağlan"]


def test_sentences_end_at_marks_and_line_breaks() -> None:
    assert sentences("Selam kanka! Nasılsın?\n- iyi\n...") == ["Selam kanka!", "Nasılsın?", "- iyi"]


def test_code_addresses_names_and_tech_terms_tell_no_language() -> None:
    assert content_words("Jessy `git push` kanka https://a.b/c docker'ı containerlar 42 ```x = the``` dinliyor") == ["dinliyor"]


def test_a_turkish_suffix_does_not_hide_a_tech_term() -> None:
    assert all(map(is_tech, ["docker", "docker'i", "api'ye", "containerlar", "thread'in", "serverdan"]))
    assert not any(map(is_tech, ["dinliyorum", "kanka", "testere", "listelenmis"]))


@pytest.mark.parametrize("sentence", ["Sor kanka, dinliyorum.", "Kalır.", "Hazır değil.", "Gelcem ya", "Ne yapıyosun kanka?",
                                      "Kopyalar paylaşılmaz.", "Bence öyle olmalı"])
def test_a_predicate_at_the_end_is_seen(sentence: str) -> None:
    assert ends_finite(sentence)


@pytest.mark.parametrize(("sentence", "has"), [
    ("Akşam dizi izlemek keyif verir, ama yüz güldüren hep ikincisi.", True), ("Mutluluk sürekli gülmek değil, kavgasız olmak.", True),
    ("Bunu elle görmek için MNIST kullan (küçük bir model).", True), ("Kapı, pencere, perde, sandalye ve masa", False),
    ("haz, erdem, ruh, akıl", False),
])
def test_a_predicate_may_close_any_clause(sentence: str, has: bool) -> None:
    assert has_predicate(sentence) is has


@pytest.mark.parametrize("heap", ["konteyner, kernel, container", "izolasyon ve taşınabilirlik", "ucuz hızlı ve hafif"])
def test_a_list_of_nouns_has_no_predicate(heap: str) -> None:
    assert not ends_finite(heap)


TURKISH_REPLIES = [
    "Sor kanka, dinliyorum.", "sana bisi sorucam", "iyiyim ya sen", "iyiyim kanka senden naber", "napiyim ya oturuyom iste",
    "valla ben de ayni dusunuyorum", "slm", "tmm", "ok kanka", "eyw kanka", "Günaydın! Nasıl uyudun?", "Ankara", "süre",
    "on beş yaşında", "Geçmiş olsun kanka, ne oldu?", "I think bu konuda haklısın kanka", "tamamdır", "elbette", "buyur",
    "canin sikiliyosa film izleyelim", "Docker bir container platformu, uygulamayı izole çalıştırıyor kanka.",
    "API'ye request atıyosun, server response dönüyor", "recursion bi function'ın kendini çağırması demek",
    "Python'da list ve tuple farkı şu: list mutable, tuple immutable", "REST stateless çalışır", "3 tane elma var",
    "özgür irade bence tam anlamıyla yok", "pizza mı hamburger mi", "👍", "2 + 2 = 4", "Ali", "Berlin.", "Zeynep kanka.",
]


@pytest.mark.parametrize("reply", TURKISH_REPLIES)
def test_turkish_is_accepted_in_capitals_and_decomposed_too(reply: str) -> None:
    assert {is_turkish(form) for form in (reply, capitals(reply), unicodedata.normalize("NFD", reply))} == {None}


@pytest.mark.parametrize("reply", [reply for reply in TURKISH_REPLIES if reply != "süre"])  # "sure" is English
def test_turkish_without_turkish_letters_is_accepted(reply: str) -> None:
    assert is_turkish(fold(reply)) is None


@pytest.mark.parametrize("reply", [
    "Sure, ask me anything.", "I'm fine, thanks.", "Hello!", "Go ahead, I'm listening.", "Good morning! How did you sleep?",
    "Docker is a container platform.", "A container runs an isolated process with its own filesystem.", "No problem",
    "The capital of Turkey is Ankara.", "I think free will is an illusion because our brains are determined.",
])
def test_an_english_answer_is_not_turkish(reply: str) -> None:
    assert "English" in (is_turkish(reply) or "")


@pytest.mark.parametrize("reply", [
    "Sən nə edirsən", "Hər şey yaxşıdır", "İndi işləyirəm", "Men yaxsiyam, sen necesen?", "Bu gun hava cox gozeldir",
    "Ne sual vermek isteyirsen, dinleyirem", "Sual ver, qulaq asiram", "Men seni dinleyirem dostum", "Bilmirem ne deyim",
    "Size nece komek ede bilerem", "Tebrik edirem cox sevindim", "Axsam gorusek",
])
def test_azerbaijani_is_not_turkish_even_in_ascii(reply: str) -> None:
    assert is_turkish(reply) is not None


@pytest.mark.parametrize("reply", ["Ich höre dir zu mein Freund", "Claro, dime qué quieres saber", "Привет, как дела", "你好，我在听",
                                   "Bien sûr, je t'écoute mon ami", "مرحبا كيف حالك", "blarg florp wug tiko zanu prell"])
def test_other_languages_and_nonsense_are_not_turkish(reply: str) -> None:
    assert is_turkish(reply) is not None


def test_the_language_of_a_text_does_not_change_between_runs() -> None:
    text = "Bugün hava çok güzel, dışarı çıkıp sahilde biraz yürüyelim mi ne dersin kanka, sonra çay içeriz?"
    assert {is_turkish.__wrapped__(text) for _ in range(5)} == {None}


def test_importing_the_scorers_loads_no_detector() -> None:
    # lingua and langdetect together cost a second, which `pytest --collect-only` should not pay.
    code = "import sys, harness.turkish; print([m for m in ('lingua', 'langdetect', 'rapidfuzz', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("text", [
    "Enerjim tavan valla, seninki?", "Spora git, sonrası duş keyfi.", "Pilav yap, yanına turşu.", "Bb kanka, hemen prize koş!",
    "365 kanka, faizin bol kesintin az olsun.", "Kedim sabahın beşinde yüzümü yaladı.", "Ayaklarıma kara sular indi."])
def test_short_turkish_is_not_taken_for_azerbaijani(text: str) -> None:
    assert is_turkish(text) is None


@pytest.mark.parametrize("text", [
    "Ishden indi gelmisem, yorgunam.", "Gel oturub danisaq.", "Sabah gorusuruk, hele.", "Kitab oxumagi sevirem.",
    "Dunen kinoya getdik, cox maraqli idi.", "Tebrik edirem, cox sevindim!"])
def test_azerbaijani_without_its_letters_is_not_turkish(text: str) -> None:
    assert is_turkish(text) is not None
