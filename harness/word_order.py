"""Word order: whether a reply's words stand as Turkish puts them, or were thrown into a heap (A11).

A linear model over neighbouring words, fitted to tell texts from their own shuffles. Casual Turkish is free in its
order, so one pair proves nothing; the sum over a reply does.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import sqrt

from harness import fitted
from harness.fitted import Example, Features, key
from harness.turkish import clean, fold, is_tech, spoken

# Fewer words stand in many orders.
LEAST = 5
SEED = 20261123
COPIES = 3  # shuffles a text and form

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.!?…]+|[,;:\"]|\n")
_STOP = ".!?"
_EDGE = ("<", "<", "<")
Classes = tuple[str, str, str]


@lru_cache(maxsize=4096)  # every criterion asks
def disorder(text: str) -> float:
    """Log-odds that the text is a shuffle rather than as it was written; 0 for a text under LEAST words."""
    tokens = _tokens(text)
    if sum(token[0].isalnum() for token in tokens) < LEAST:
        return 0.0
    line = _sequence(tokens)
    order = sum(_pair(one, two) for one, two in pairwise(line) if two is not _EDGE)
    order += sum(_triple(one[2], two[2], three[2]) for one, two, three in zip(line, line[1:], line[2:], strict=False)
                 if two is not _EDGE and three is not _EDGE)
    order += sum(fitted.load("order").get(key(*feature), 0.0) for feature in _capitals(tokens))
    return -float(order) / _root(line)


def fit(texts: Iterable[str]) -> dict[int, float]:
    """Weights from texts of four words and more, each as written and as typed on a phone, and shuffles of both."""
    return fitted.logistic(list(_examples(text for text in texts if len(text.split()) >= 4)), least=2 * COPIES + 1)


def shuffled(text: str, draw: random.Random) -> str:
    """The same words, punctuation kept on them, in an order where as few neighbours as possible stay together."""
    written = text.split()
    together = set(pairwise(written))
    tries = []
    for _ in range(12):
        order = written[:]
        draw.shuffle(order)
        tries.append((sum(pair in together for pair in pairwise(order)), order))
    return " ".join(min(tries, key=lambda found: found[0])[1])


def phone(text: str) -> str:
    """As many type: no capitals, no punctuation."""
    return " ".join(re.sub(r"[.!?…,;:]+(?=\s|$)", "", clean(text).replace("I", "ı").replace("İ", "i").lower()).split())


def _examples(texts: Iterable[str]) -> Iterator[Example]:
    draw = random.Random(SEED)
    for text in texts:
        for form in dict.fromkeys((text, phone(text))):
            real = _features(_tokens(form))
            for _ in range(COPIES):
                yield real, True
                yield _features(_tokens(shuffled(form, draw))), False


def _tokens(text: str) -> list[str]:
    """Words, marks and lines; a piece of code is one word."""
    return _TOKEN.findall(clean(spoken(text)))


def _features(tokens: Sequence[str]) -> Features:
    """Counts of neighbouring words, endings and marks, over the root of the number of tokens."""
    line = _sequence(tokens)
    found: Counter[tuple[str, ...]] = Counter()
    for one, two in pairwise(line):
        if two is not _EDGE:
            found.update(_pairs(one, two))
    for one, two, three in zip(line, line[1:], line[2:], strict=False):
        if two is not _EDGE and three is not _EDGE:
            found.update(_triples(one[2], two[2], three[2]))
    found.update(_capitals(tokens))
    root = _root(line)
    return {key(*feature): count / root for feature, count in found.items()}


def _root(line: Sequence[Classes]) -> float:
    return sqrt(max(1, sum(classes is not _EDGE for classes in line)))


def _pairs(one: Classes, two: Classes) -> tuple[tuple[str, str, str], ...]:
    return (("ww", one[0], two[0]), ("33", one[1], two[1]), ("22", one[2], two[2]), ("w3", one[0], two[1]), ("3w", one[1], two[0]))


def _triples(one: str, two: str, three: str) -> tuple[tuple[str, ...], ...]:
    return (("2_2", one, three), ("222", one, two, three))


@lru_cache(maxsize=65536)
def _pair(one: Classes, two: Classes) -> float:
    """What two neighbours add to the score."""
    weights = fitted.load("order")
    return sum(weights.get(key(*feature), 0.0) for feature in _pairs(one, two))


@lru_cache(maxsize=65536)
def _triple(one: str, two: str, three: str) -> float:
    """What three neighbours add to it."""
    weights = fitted.load("order")
    return sum(weights.get(key(*feature), 0.0) for feature in _triples(one, two, three))


def _sequence(tokens: Sequence[str]) -> list[Classes]:
    """The classes of the tokens, an edge before every sentence and at the end."""
    line = [_EDGE]
    for token in tokens:
        classes = _classes(token)
        if classes[0] not in _STOP:
            line.append(classes)
        elif line[-1] is not _EDGE:
            line += [classes, _EDGE]
    return line if line[-1] is _EDGE else [*line, (".", ".", "."), _EDGE]


@lru_cache(maxsize=16384)
def _classes(token: str) -> Classes:
    """The folded word, its last three and its last two letters; tech terms and numbers are one class each."""
    if not token[0].isalnum():
        mark = token[0] if token[0] in ',;:!?"' else "."
        return mark, mark, mark
    word = fold(token)
    if is_tech(word):
        return word, "#tech", "#tech"
    if word[0].isdigit():
        return "#number", "#number", "#number"
    bare = word.replace("'", "")
    return word, f"-{bare[-3:]}", f"-{bare[-2:]}"


def _capitals(tokens: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Capitals inside sentences and small letters at their beginning, where the text uses both.

    Names are none: runs of capitals (Kadir İnanır), an apostrophe (Paris'te), a single letter (B şıkkı).
    """
    if not any(token[0].islower() for token in tokens):
        return
    begins = True
    capital = [token[0].isupper() and not token[1:].isupper() for token in tokens]
    for number, token in enumerate(tokens):
        if not token[0].isalnum():
            begins = begins or token[0] not in ",;:"  # what is quoted begins again
            continue
        beside = any(capital[max(0, number - 1):number] + capital[number + 1:number + 2])
        name = not begins and (beside or "'" in token or len(token) == 1)
        if token[0].isalpha() and not name and not is_tech(fold(token)) and (begins or capital[number]):
            yield ("capital", "begins" if begins else "inside", str(capital[number]))
        begins = False
