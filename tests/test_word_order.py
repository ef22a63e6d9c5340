"""Word order and language: a heap of words is told from a sentence, Azerbaijani and nonsense from Turkish."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import fitted
from harness.adversarial import azeri_ascii, capitals
from harness.gates import DISORDER, DISORDER_SHORT
from harness.language import azerbaijani, folded_words, is_turkish
from harness.turkish import spoken, words
from harness.word_order import disorder, fit, shuffled

SENTENCES = [
    "Yarın akşam bize gel, mangal yakalım, sen de salatayı yaparsın.",
    "Bence önce kısa bir mola ver, sonra ilk soruya geri dön.",
    "Annem arayınca telefonu açamadım, çünkü otobüste uyuyakalmışım.",
    "Veritabanına index ekleyince sorgu hızlandı, ama yazma biraz yavaşladı.",
    "Dün gece çok geç yattım, o yüzden sabah hiçbir şey duymadım.",
    "Kedim masanın altına saklandı, mama kutusunu görünce hemen çıktı.",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_is_in_order_and_its_words_in_a_heap_are_not(text: str) -> None:
    assert disorder(text) < DISORDER
    heaps = [disorder(shuffled(text, random.Random(seed))) for seed in range(20)]
    assert sum(heap > DISORDER for heap in heaps) >= 16
    assert min(heaps) > disorder(text)


@pytest.mark.parametrize("text", SENTENCES)
def test_capitals_and_missing_letters_are_no_disorder(text: str) -> None:
    assert max(disorder(capitals(text)), disorder(text.translate(str.maketrans("çğıöşü", "cgiosu")))) < DISORDER_SHORT


@given(st.lists(st.sampled_from(["kanka", "sor", "yarın", "gel", "git", "ev", "okul", "çok", "iyi", "dün", "ben"]), min_size=2, max_size=20), st.integers())
@settings(max_examples=40)
def test_a_shuffle_loses_no_word(tokens: list[str], seed: int) -> None:
    assert sorted(shuffled(" ".join(tokens), random.Random(seed)).split()) == sorted(tokens)


def test_few_words_may_stand_in_any_order() -> None:
    assert disorder("dinliyorum sor kanka hadi") == 0.0


def test_a_model_of_other_texts_is_learnt_from_them() -> None:
    # Reversed sentences are right here: nothing of the order is built in.
    backwards = [" ".join(reversed(text.lower().replace(",", "").rstrip(".").split())) for text in SENTENCES * 3]
    weights = fit(backwards)
    assert weights == fit(backwards)
    assert len(weights) > 20


@pytest.mark.parametrize(("text", "words_left"), [
    ("Vec::new() ile başla, user_id yaz.", "code ile başla code yaz"), ("`x` ile --force koy (yani zorla).", "code ile code koy yani zorla"),
    ("6.25 kat hızlı.", "6 25 kat hızlı"), ("API'ye GET /rapor?x=1 at.", "API'ye GET code at"), ("Tamam... gel hadi.", "Tamam gel hadi"),
])
def test_code_is_one_word_with_or_without_backticks(text: str, words_left: str) -> None:
    assert " ".join(words(spoken(text))) == words_left


AZERBAIJANI = ["Səni çox yaxşı başa düşürəm, narahat olma.", "Sabah axşam bizə gəl, çay içib danışarıq.",
               "Bu gün hava çox istidir, evdən çıxmaq istəmirəm.", "Kitabı oxuyub qurtarmışam, indi film axtarıram.",
               "Mənim fikrimcə birinci variant daha yaxşıdır, amma özün bilərsən."]


@pytest.mark.parametrize("text", AZERBAIJANI)
def test_azerbaijani_is_refused_with_and_without_its_letters(text: str) -> None:
    assert is_turkish(text) is not None
    assert is_turkish(azeri_ascii(text)) is not None
    assert azerbaijani(folded_words(text)) == azerbaijani(folded_words(azeri_ascii(text))) > 0.5


@pytest.mark.parametrize("text", ["Morlakmış kepirdim talgusu yordelce vigbolden.", "Zantal pelfem guskep norbil hapdur celvig."])
def test_words_that_nobody_says_are_refused(text: str) -> None:
    assert is_turkish(text) == "not Turkish: words that nobody says"


def test_what_was_learnt_is_a_file_without_code() -> None:
    assert fitted.FILE.stat().st_size < 1_000_000
    assert all(isinstance(value, float) for value in list(fitted.load("order").values())[:9])
