"""Word order: whether a reply's words stand as Turkish puts them, or were thrown into a heap (A11).

A linear model over neighbouring words, fitted to tell the replies of data/train from their own shuffles:
`python -m harness word-order` fits it again and writes harness/word-order.npz. It has seen no reply of data/gold.
Casual Turkish is free in its order, so one pair proves nothing; the sum over a reply does.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from harness.turkish import clean, fold, is_tech, prose

MODEL = Path(__file__).with_name("word-order.npz")
# Words from which a heap can be told: two or three may stand in any order.
LEAST = 5
SEED = 20261123
PENALTY = 1 / 3  # of half the squared weights, beside the summed log loss
COPIES = 3  # shuffles a text and form
SMALLEST = 0.15  # weights under it are left out of the file

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.!?…]+|[,;:\"]|\n")
_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_STOP = ".!?"
_EDGE = ("<", "<", "<")
Classes = tuple[str, str, str]


def disorder(text: str) -> float:
    """Log-odds that the text is a shuffle rather than as it was written; 0 for a text under LEAST words.

    Logistic regression (Cox 1958) on the counts of neighbouring words, endings and punctuation over the root of
    their number.
    """
    tokens = _tokens(text)
    if sum(token[0].isalnum() for token in tokens) < LEAST:
        return 0.0
    weights = _weights()
    return -sum(weights.get(key, 0.0) * value for key, value in _features(tokens).items())


def fit(texts: Sequence[str]) -> dict[int, float]:
    """Weights by feature for these texts, each as written and as typed on a phone, against shuffles of both."""
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    rows = list(_examples(texts))
    counts = Counter(key for features, _ in rows for key in features)
    keys = sorted(key for key, count in counts.items() if count > 2 * COPIES)
    column = {key: number for number, key in enumerate(keys)}
    kept = [[(column[key], value) for key, value in features.items() if key in column] for features, _ in rows]
    ends = np.cumsum([0, *map(len, kept)])
    matrix = csr_matrix(([value for row in kept for _, value in row], [number for row in kept for number, _ in row], ends),
                        shape=(len(rows), len(keys)))
    label = np.array([1.0 if real else -1.0 for _, real in rows])
    transposed = matrix.T.tocsr()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = label * (matrix @ weights)
        value = np.logaddexp(0, -margin).sum() + 0.5 * PENALTY * weights @ weights
        return float(value), PENALTY * weights - transposed @ (label / (1 + np.exp(margin)))

    found = minimize(loss, np.zeros(len(keys)), jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return {key: weight for key, weight in zip(keys, found.x.tolist(), strict=True) if abs(weight) >= SMALLEST}


def save(weights: dict[int, float], path: Path = MODEL) -> None:
    """Write the weights in steps of 1/32 of a unit, keys sorted, so that the same fit gives the same bytes."""
    keys = sorted(weights)
    steps = np.clip(np.rint([32 * weights[key] for key in keys]), -127, 127).astype(np.int8)
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez_compressed(file, keys=np.array(keys, dtype=np.uint32), steps=steps)
    path.with_suffix(".tmp").replace(path)


def shuffled(text: str, draw: random.Random) -> str:
    """The same words, punctuation kept on them, in an order where as few neighbours as possible stay together."""
    written = text.split()
    together = set(zip(written, written[1:], strict=False))
    tries = []
    for _ in range(12):
        order = written[:]
        draw.shuffle(order)
        tries.append((sum(pair in together for pair in zip(order, order[1:], strict=False)), order))
    return " ".join(min(tries, key=lambda found: found[0])[1])


@cache
def _weights() -> dict[int, float]:
    with np.load(MODEL, allow_pickle=False) as stored:
        return dict(zip(stored["keys"].tolist(), (stored["steps"] / 32).tolist(), strict=True))


def _examples(texts: Iterable[str]) -> Iterator[tuple[dict[int, float], bool]]:
    draw = random.Random(SEED)  # noqa: S311
    for text in texts:
        for form in dict.fromkeys((text, phone(text))):
            real = _features(_tokens(form))
            for _ in range(COPIES):
                yield real, True
                yield _features(_tokens(shuffled(form, draw))), False


def phone(text: str) -> str:
    """As many type: no capitals, no punctuation."""
    return " ".join(re.sub(r"[.!?…,;:]+(?=\s|$)", "", clean(text).replace("I", "ı").replace("İ", "i").lower()).split())


def _tokens(text: str) -> list[str]:
    """Words, marks and lines; a piece of inline code is one word."""
    return _TOKEN.findall(clean(prose(_CODE.sub(" code ", text))))


def _features(tokens: Sequence[str]) -> dict[int, float]:
    """Hash of a feature -> its count over the root of the number of tokens."""
    line = _sequence(tokens)
    found: Counter[tuple[str, ...]] = Counter()
    for one, two in zip(line, line[1:], strict=False):
        if two is not _EDGE:
            found.update((("ww", one[0], two[0]), ("33", one[1], two[1]), ("22", one[2], two[2]),
                          ("w3", one[0], two[1]), ("3w", one[1], two[0])))
    for one, two, three in zip(line, line[1:], line[2:], strict=False):
        if two is not _EDGE and three is not _EDGE:
            found.update((("2_2", one[2], three[2]), ("222", one[2], two[2], three[2])))
    found.update(_capitals(tokens))
    root = max(1, sum(classes is not _EDGE for classes in line)) ** 0.5
    return {zlib.crc32("|".join(feature).encode()): count / root for feature, count in found.items()}


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
