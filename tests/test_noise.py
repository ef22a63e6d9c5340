"""Noise: what it may do to a prompt, and what it must leave alone."""

from __future__ import annotations

import random

import pytest

from harness.turkish import fold
from training.noise import KINDS, abbreviate, address, ascii_only, capitals, lower, noisy, tr_upper

PROMPT = "İyi geceler kanka, ışıkları kapattın mı?"


def test_upper_case_is_turkish() -> None:
    assert tr_upper("iyi ışık") == "İYİ IŞIK"


def test_ascii_and_lower_case_change_nothing_but_the_spelling() -> None:
    rng = random.Random(1)
    assert ascii_only(PROMPT, rng) == "Iyi geceler kanka, isiklari kapattin mi?"
    assert lower(PROMPT, rng) == "iyi geceler kanka, ışıkları kapattın mı?"
    assert fold(capitals(PROMPT, rng)) == fold(PROMPT)


def test_lower_case_of_a_keyboard_without_diacritics_has_no_dotless_i() -> None:
    assert lower("Istanbul guzel", random.Random(1)) == "istanbul guzel"


@pytest.mark.parametrize("seed", range(40))
def test_code_addresses_and_numbers_stay_as_they_are(seed: int) -> None:
    text = "`git rebase -i` ile https://example.org/a?b=1 arasında 1453 tane useEffect hatası var docker'ı niye etkiliyor"
    changed = noisy(text, random.Random(seed))
    for fixed in ("git rebase -i", "https://example.org/a?b=1", "1453"):
        assert fixed.lower() in changed.lower(), changed
    assert "docker'" in changed.lower() and "useeffect" in changed.lower()


def test_abbreviated_words_keep_their_first_letter_and_their_consonants() -> None:
    changed = {abbreviate("Yarın sınavım var, yardım etsene", random.Random(seed)) for seed in range(30)}
    assert any("yrdm" in text for text in changed) and all(text.startswith("Y") and "var," in text for text in changed)


def test_a_second_kanka_is_not_added() -> None:
    assert all(address("naber kanka", random.Random(seed)) == "naber kanka" for seed in range(20))


def test_the_same_seed_gives_the_same_text_and_others_give_others() -> None:
    assert noisy(PROMPT, random.Random(5)) == noisy(PROMPT, random.Random(5))
    assert len({noisy(PROMPT, random.Random(seed)) for seed in range(50)}) > 20


@pytest.mark.parametrize("text", ["", "😂😂", "?", "a", "ok", "12"])
def test_texts_without_words_survive_every_kind(text: str) -> None:
    for kind, _ in KINDS:
        assert all(isinstance(kind(text, random.Random(seed)), str) for seed in range(20))


def test_no_noise_empties_a_prompt() -> None:
    assert all(noisy(text, random.Random(seed)).strip() for text in ("sa", "😂", "iyi", "ne?") for seed in range(200))
