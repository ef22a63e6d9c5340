"""The language gate: whether a reply is Turkish at all (facts/turkish.md 2).

Importing this module loads no detector; the first question about language does (half a second).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from harness import fitted
from harness.fitted import Features, key
from harness.turkish import content_words, fold, lexicon, prose, tr_lower

if TYPE_CHECKING:
    from lingua import LanguageDetector

# Log-odds from which two content words, and more of them, are taken for Azerbaijani. Fitted to data/train alone, the
# model put 9 of 2,168 gold replies over 0.
AZERBAIJANI = (1.5, 0.5)
# Share of words that begin as words of Turkish text do. By the words of data/train alone, the lowest of a gold reply is .50.
KNOWN = 0.45
BEGINNING = 4  # letters

# Turkish words that no English or Azerbaijani reply shares often, folded.
FUNCTION = lexicon("""
acaba ama anladim ancak artik aslinda ayni bana bazen bazi belki ben bence beni benim bi bir biraz bisey bisi biz
boyle bu bugun buna bunu bunun buyur cok cunku da daha dahi de degil demek diye ee ediyor eger elbette en et etmek
evet fakat falan filan galiba gayet gel gerek gibi gore guzel hadi hangi hatta hayir hem hep her herkes hic icin
ile ise iste iyi iyiyim kadar kendi ki kim kimse lazim merak merhaba mi misin mu musun mesela nasil nasilsin ne
neden nedir nerede niye o olan olarak oldu olsun olur ona onu onun oyle peki pek rica sadece sana sanirim sen sence
seni senin selam sey siz sizin simdi sonra soyle su suna sunu tabi tabii tam tamam tamamdir tane tesekkurler tum
ustelik uzere valla var ve veya ya yada yani yeni yine yok yoksa zaten bide cidden gunaydin naber napiyon eyvallah
eyw slm nbr tmm mrb insallah masallah allah allaha emanet saol sagol bay gule hadi boyle abi
anne baba arkadas bugunluk yarin dun sabah aksam gece gun saat hava su cay kahve yemek is okul ev para kotu zor kolay yavas
""")
_SUFFIX = re.compile(
    r"\w{2,}(?:[iu]yo(?:r\w*|m|n|z|lar)?|[ae]c[ae][kg]\w*|[iu]c[ae][mnkz]\w*|l[ae]r(?:[iu]\w{0,4}|[dt][ae]n?"
    r"|[ae])?|[dt][ae]n|n[iu]n|[dt][iu](?:m|n|k|r|l[ae]r|n[iu]z)?|m[iu]s(?:[iu]m|t[iu]\w*|s[iu]n)?"
    r"|m[ae]k(?:t[ae]\w*)?|m[ae]s[iu]\w{0,3}|m[ae]y[ae]\w*|m[ae]z|[ae]r[ae]k|[iu]nc[ae]|s[iu]n(?:[iu]z)?"
    r"|[ae]l[iu]m|[ae]b[iu]l\w*|l[iu][kg]\w{0,4}|y[iu]m|y[iu]z|[iu]m[iu]z\w*|s[iu]z|c[iu]l\w*|[ae]y[iu]m"
    r"|m[ae]l[iu]\w*)")
_ENGLISH = lexicon("""
the are you your yours and it's i'm that's what how that this with have has from they will would could should was
were been not about which there their let's let don't can't won't hello hi hey yes sure thanks thank please help
listening listen ask tell going go ahead want know does did who where when why because just like of to my for it
""")
_ENGLISH_PAIRS = re.compile(
    r"\b(?:(?:is|as|in|of|to) (?:an?|the)|are the|i am|i'm|you are|no problem|well done)\b")
# Azerbaijani written in ASCII: q and x stems, -yir-, -irem: shapes that Turkish spelling does not have.
_AZERI = re.compile(
    r"\w{2,}[ae]yir\w*|(?!hatiram)\w{2,}[iu]r[ae]m|\w+m[ae]q|\w{2,}m[iu]s[ae]m|\w{3,}(?<!cl)[iu]b|\w{4,}[iu]r[iu]k|\w*xs[iu]\w*|cox\w*|yox\w*|xos\w*|xey[ri]\w*"
    r"|vaxt\w*|haq\w*|qar\w+|qal\w+|qo\w+|menim|mene|men|nece\w*|ucun|deyil\w*|eliyir\w*|komek\w*|zehmet\w*"
    r"|sual\w*|edir\w*|gedir\w*|hemise|cunki|yaxin\w*|axsam\w*|baxi\w+|beli")

# Letters that Turkish spelling does not put together, folded.
_FOREIGN = re.compile(r"[qwx]|[ctspk]h|ck|sch|oo|ee|ie|ei\b|ou|gh|tz|\b(?:st|sp|pr)[^aeiou]|[bcdfgkpt]{3}")

_NAMES = {"en": "English", "az": "Azerbaijani", "tr": "another language"}


@lru_cache(maxsize=8192)
def is_turkish(text: str) -> str | None:
    """None where the text passes for Turkish, else the reason (facts/turkish.md 2.4).

    Two of three votes: lingua {tr, en, az}, Turkish function words and endings, and, from twelve content words
    on, langdetect. Under four content words only positive evidence of another language rejects.
    """
    if "ə" in tr_lower(text):
        return "not Turkish: Azerbaijani letter ə"
    if _foreign_letters(text) > 0.3:
        return "not Turkish: another script"
    content = content_words(text)
    folded = [fold(word) for word in content]
    if not content:
        return None
    if len(content) >= BEGINNING and _share(lambda word: beginning(word) in fitted.beginnings(), folded) < KNOWN:
        return "not Turkish: words that nobody says"
    if len(folded) >= 2 and azerbaijani(folded) > AZERBAIJANI[len(folded) > 2]:
        return "not Turkish: Azerbaijani words"
    if _turkish_share(folded) < 0.34 and _ENGLISH_PAIRS.search(fold(text)):
        return "not Turkish: English"
    return _short(content, folded) if len(content) < 4 else _long(content, folded)


def azerbaijani(folded: list[str]) -> float:
    """Log-odds that folded words are Azerbaijani typed in ASCII rather than Turkish."""
    return sum(map(_leaning, folded)) / len(folded) ** 0.5 if folded else 0.0


@lru_cache(maxsize=16384)
def _leaning(word: str) -> float:
    """What one word adds to the log-odds."""
    return fitted.score(fitted.load("azerbaijani"), _shapes([word]))


def fit(azerbaijani_texts: Iterable[str], turkish_texts: Iterable[str]) -> dict[int, float]:
    """Weights that tell Azerbaijani, every ə folded to e, from Turkish, by the shapes of their words."""
    rows = [(_shapes(folded_words(text)), language) for language, texts in ((True, azerbaijani_texts), (False, turkish_texts))
            for text in texts if len(text.split()) >= 3]
    return fitted.logistic(rows, least=2)


def folded_words(text: str) -> list[str]:
    """The content words of a text as the models see them."""
    return [fold(word) for word in content_words(text.replace("ə", "e").replace("Ə", "E"))]


def beginning(word: str) -> int:
    """The hash of a folded word's beginning."""
    return key(word[:BEGINNING])


def _shapes(folded: list[str]) -> Features:
    """Words, beginnings, endings and letter triples, over the root of the number of words."""
    found: Counter[tuple[str, str]] = Counter()
    for word in (word.replace("'", "") for word in folded):
        framed = f"^{word}$"
        found.update((("word", word), *((f"end{n}", word[-n:]) for n in (2, 3, 4)), *((f"begin{n}", word[:n]) for n in (3, 4, 5)),
                      *(("triple", framed[at:at + 3]) for at in range(len(framed) - 2))))
    root = len(folded) ** 0.5
    return {key(*shape): count / root for shape, count in found.items()}


def _short(content: list[str], folded: list[str]) -> str | None:
    """One word, a name perhaps, is English only if it is a known English word."""
    english = _share(_ENGLISH.__contains__, folded)
    if _turkish_share(folded) >= 0.34 or (len(content) == 1 and not english):
        return None
    chance = _chances(" ".join(content))
    if chance["en"] >= 0.95 or (chance["en"] >= 0.4 and english):
        return "not Turkish: English"
    return "not Turkish: Azerbaijani" if chance["az"] >= 0.8 else None


def _long(content: list[str], folded: list[str]) -> str | None:
    text = " ".join(content)
    chance, turkish = _chances(text), _turkish_share(folded)
    votes = [chance["tr"] >= 0.5, turkish >= 0.25]
    if sum(votes) == 1 and len(content) >= 12:  # slow, and needless where the others agree
        votes.append(_langdetect(text) == "tr")
    if sum(votes) >= 2 or chance["tr"] >= 0.8 or (chance["tr"] >= 0.2 and turkish >= 0.5):
        return None
    # lingua tells short Turkish from Azerbaijani by a hair: without a word that only Azerbaijani has, Turkish it is.
    if len(content) < 12 and max(chance["tr"] / 0.3, turkish / 0.5) >= 1 and chance["en"] < 0.35 and not any(
            _AZERI.fullmatch(word) or _FOREIGN.search(word) for word in folded):
        return None
    return f"not Turkish: {_NAMES[max(chance, key=lambda language: chance[language])]}"


def _turkish_share(folded: list[str]) -> float:
    return _share(lambda word: word in FUNCTION or _SUFFIX.fullmatch(word), folded)


def _share(test: Callable[[str], object], items: list[str]) -> float:
    return sum(1 for item in items if test(item)) / len(items)


def _foreign_letters(text: str) -> float:
    letters = [c for c in prose(text) if c.isalpha()]
    return sum(c > "ɏ" for c in letters) / len(letters) if letters else 0.0


@cache
def _lingua() -> LanguageDetector:
    from lingua import Language, LanguageDetectorBuilder
    three = (Language.TURKISH, Language.ENGLISH, Language.AZERBAIJANI)
    return LanguageDetectorBuilder.from_languages(*three).build()


def _chances(text: str) -> dict[str, float]:
    values = _lingua().compute_language_confidence_values(text)
    return {value.language.iso_code_639_1.name.lower(): value.value for value in values}


def _langdetect(text: str) -> str:
    from langdetect import DetectorFactory, LangDetectException, detect
    DetectorFactory.seed = 0  # unseeded, the same text gets another label on the next run
    try:
        return str(detect(text))
    except LangDetectException:
        return ""
