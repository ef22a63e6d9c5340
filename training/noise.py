"""Orthographic noise: the same words as a thumb types them. Seeded, and never inside code, addresses or numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from harness.turkish import tr_lower

Noise = Callable[[str, random.Random], str]

_ASCII = str.maketrans("çğıöşüÇĞİÖŞÜâîû", "cgiosuCGIOSUaiu")
_VOWELS = "aeıioöuü"
_NO_VOWELS = str.maketrans("", "", _VOWELS + "AEIİOÖUÜ")
# Code, URLs, words with digits or inner capitals, names of things with a suffix: noise there changes what is asked.
_FIXED = re.compile(r"```.*?```|`[^`]*`|\"[^\"]*\"|https?://\S+|\S*[\d_/&<>(){}\[\]=:.]\S+|\S*\d\S*|\b\w*[a-zçğıöşü][A-Z]\w*|\S+['’]\S+", re.S)
_WORD = re.compile(r"[^\W\d_]{4,}")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_TURKISH = re.compile("[çğışöüÇĞİŞÖÜ]")
_BEFORE = ("kanka ", "ya ", "abi ", "kanka ya ", "jessy ", "knk ", "be kanka ", "hey ", "bak kanka ")
_AFTER = (" kanka", " ya", " be", " abi", " jessy", " knk", " kanka ya", " yaa", " kankam")
_ADDRESS = re.compile(r"\b(?:kanka\w*|knk|abi|ya|be|jessy|dostum|hey|yaa+)\b", re.I)


def tr_upper(text: str) -> str:
    """Upper case by Turkish rules: i -> İ, ı -> I."""
    return text.replace("i", "İ").replace("ı", "I").upper()


def ascii_only(text: str, rng: random.Random) -> str:
    """No diacritics: sıkıldım -> sikildim. Some keyboards have none."""
    return text.translate(_ASCII)


def lower(text: str, rng: random.Random) -> str:
    """No capitals."""
    return _free(text, small)


def small(text: str) -> str:
    """Lower case: Turkish where the text has Turkish letters, else as a keyboard without them writes Istanbul."""
    return tr_lower(text) if _TURKISH.search(text) else text.lower()


def capitals(text: str, rng: random.Random) -> str:
    """ALL CAPITALS, or a capital at the beginning."""
    return _free(text, tr_upper) if rng.random() < 0.3 else tr_upper(text[:1]) + text[1:]


def punctuation(text: str, rng: random.Random) -> str:
    """None, or more than is due at the end."""
    bare = text.rstrip("?!. ")
    ending = text[len(bare):].strip()
    if rng.random() < 0.6:
        return _free(bare, lambda part: re.sub(r"[,;.!?…]+(?=\s|$)", "", part))
    return bare + rng.choice([ending + ending[-1:] * 2, "...", "..", " " + (ending or "."), "!"]) if ending else bare + rng.choice(["...", "..", "!"])


def stretch(text: str, rng: random.Random) -> str:
    """A vowel drawn out: selam -> selaam, yaaa."""
    def drawn(word: str) -> str:
        spots = [i for i, c in enumerate(word) if c in _VOWELS and i >= len(word) - 2] or \
                [i for i, c in enumerate(word) if c in _VOWELS]
        if not spots:
            return word
        at = rng.choice(spots)
        return word[:at] + word[at] * rng.randint(2, 4) + word[at + 1:]
    return _one_word(text, drawn, rng, _LETTERS)


def drop(text: str, rng: random.Random) -> str:
    """An inner letter missed."""
    def missed(word: str) -> str:
        at = rng.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1:]
    return _one_word(text, missed, rng, _WORD)


def double(text: str, rng: random.Random) -> str:
    """A letter hit twice."""
    def twice(word: str) -> str:
        at = rng.randrange(len(word))
        return word[:at + 1] + word[at] + word[at + 1:]
    return _one_word(text, twice, rng, _WORD)


def swap(text: str, rng: random.Random) -> str:
    """Two inner letters in the wrong order."""
    def swapped(word: str) -> str:
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2:]
    return _one_word(text, swapped, rng, _WORD)


def abbreviate(text: str, rng: random.Random) -> str:
    """Words without their inner vowels, as hurried thumbs write them: nasılsın -> nslsn, yapıyorum -> ypyrm."""
    share = rng.choice((0.4, 0.8))

    def shortened(hit: re.Match[str]) -> str:
        word = hit[0]
        if rng.random() > share:
            return word
        tail = word[-1] if rng.random() < 0.5 else word[-1].translate(_NO_VOWELS)
        return word[0] + word[1:-1].translate(_NO_VOWELS) + tail
    return _free(text, lambda part: _WORD.sub(shortened, part))


def address(text: str, rng: random.Random) -> str:
    """kanka, ya, abi before or after; a prompt that has one gets no second."""
    if _ADDRESS.search(tr_lower(text)) or not _LETTERS.search(text):
        return text
    if rng.random() < 0.5:
        first = text[:1]
        keep = len(text) > 1 and text[1].isupper()
        return rng.choice(_BEFORE) + (first if keep or not _TURKISH.search(text) else tr_lower(first)) + text[1:]
    bare = text.rstrip("?!. ")
    return bare + rng.choice(_AFTER) + text[len(bare):].strip()


KINDS: tuple[tuple[Noise, float], ...] = (
    (ascii_only, 3.0), (lower, 2.0), (capitals, 1.0), (punctuation, 2.5), (stretch, 1.5), (drop, 1.0), (double, 0.8),
    (swap, 0.7), (abbreviate, 0.8), (address, 3.0))
# A question that hangs on its letters (names, code, terms) bears no misspelling.
GENTLE: tuple[tuple[Noise, float], ...] = ((ascii_only, 3.0), (lower, 2.0), (punctuation, 2.5), (address, 3.0))


def noisy(text: str, rng: random.Random, *, gentle: bool = False) -> str:
    """The text with one to three kinds of noise. The same generator state gives the same text."""
    kinds = GENTLE if gentle else KINDS
    chosen: list[Noise] = []
    for _ in range(rng.choices((1, 2, 3), (5, 3, 1))[0]):
        kind = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        if kind not in chosen:
            chosen.append(kind)
    for kind in chosen:
        text = kind(text, rng)
    return text


def _free(text: str, change: Callable[[str], str]) -> str:
    """The change, everywhere but in the fixed parts."""
    done, last = [], 0
    for hit in _FIXED.finditer(text):
        done += [change(text[last:hit.start()]), hit[0]]
        last = hit.end()
    return "".join([*done, change(text[last:])])


def _one_word(text: str, change: Callable[[str], str], rng: random.Random, kind: re.Pattern[str]) -> str:
    fixed = [hit.span() for hit in _FIXED.finditer(text)]
    free = [hit for hit in kind.finditer(text) if not any(a < hit.end() and hit.start() < b for a, b in fixed)]
    if not free:
        return text
    hit = rng.choice(free)
    return text[:hit.start()] + change(hit[0]) + text[hit.end():]
