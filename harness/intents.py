"""Everyday conversation: does the reply do what the prompt asks for.

The intents (what prompts ask for, with patterns and example answers) are data/evals/intents.jsonl.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness import cases
from harness.cases import Case, Intent, compiled
from harness.engines import Reply
from harness.gates import gates
from harness.jsonl import DataError
from harness.negation import LIGHT, NEGATIVE, RHETORICAL, denied_stems, form_of
from harness.score import Outcome, verdict_of
from harness.turkish import fold, prose, words

if TYPE_CHECKING:
    from harness.embedding import Embedding, Nearest

# Cosine from which an answer counts as one more way to say an intent's examples.
TAU = 0.30
# A single word shares its letters with too many others ("anladım", "adım").
ONE_WORD = 0.70
MOST_INTENTS = 2
# Below this cosine with the examples of an intent, a pattern that matches in a clause is a coincidence.
CORROBORATED = 0.20
# So many in the whole reply are a list, however few commas it has.
MOST_IN_ALL = 4
_CLAUSE = re.compile(r"[,.!?;:…()\"]+|\bve\b")
# Said to anybody at any time: no evidence of what an answer is about.
_VOCATIVE = frozenset(["kanka", "kankam", "kankacim", "ya", "be", "valla", "abi", "tamam", "evet", "olur", "ok", "jessy"])

_embedding: Embedding | None = None

Patterns = tuple[re.Pattern[str], ...]
Numbers = NDArray[np.intp]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """An intent, ready to match: siblings are the intents that its own good answers match too."""

    accept: Patterns
    any_accept: re.Pattern[str]  # all of them in one, to leave out an intent quickly
    contradict: Patterns
    examples: tuple[str, ...]
    siblings: frozenset[str]
    affirmed: tuple[frozenset[str], ...]  # an example each
    denied: frozenset[str]


Veto = Callable[[Case, Known, str, str], str | None]


@dataclass(frozen=True)
class Library:
    """All intents, and an inverted index of their examples: gram -> (examples, their weights).

    The examples of an intent stand together: those of owners[i] begin at first[i].
    """

    known: dict[str, Known]
    rarity: dict[str, float]
    postings: dict[str, tuple[Numbers, Weights]]
    owners: tuple[str, ...]
    first: Numbers
    size: int


def conversation(case: Case, reply: Reply) -> Outcome:
    """Conversational accuracy: all gates pass and the intent is met (DESIGN.md section 5). Raises DataError."""
    return verdict_of(gates(case, reply) or misses(case, reply.text))


def misses(case: Case, text: str) -> list[str]:
    """Why the text does not meet the case's intent: not met, or a veto. Raises DataError for an unknown intent."""
    if case.intent is None:
        return []
    library = _library(cases.DATA)
    if case.intent not in library.known:
        raise DataError(f"case '{case.id}': no intent '{case.intent}' in {cases.DATA / 'evals' / 'intents.jsonl'}")
    known, folded = library.known[case.intent], fold(prose(text))
    if not (_any(known.accept, folded) or _nearest(library, case.intent, folded) or _meant(library, case.intent, text)):
        return [f"intent '{case.intent}' not met"]
    return next(([reason] for veto in VETOES if (reason := veto(case, known, text, folded))), [])


def veto_of(veto: Veto, case: Case, text: str) -> str | None:
    """What one veto says of the text; None for a case without an intent."""
    return veto(case, _library(cases.DATA).known[case.intent], text, fold(prose(text))) if case.intent else None


def similarity(text: str) -> dict[str, float]:
    """Cosine of tf-idf weighted character 2-4-grams (folded) with the closest example of every intent."""
    return dict(_similarities(cases.DATA, fold(text)))


def use_embedding(embedding: Embedding | None) -> None:
    """Let an embedding model find answers that no pattern and no example's letters know; None to do without again."""
    global _embedding
    _embedding = embedding
    _near.cache_clear()


def embedding_used() -> str:
    """The embedding model that the similarity asks, as name@digest; empty for none."""
    return f"{_embedding.model}@{_embedding.digest}" if _embedding else ""


def _meant(library: Library, intent: str, text: str) -> bool:
    return _embedding is not None and _near(cases.DATA).meets(intent, prose(text))


@cache
def _near(data: Path) -> Nearest:
    from harness.embedding import Nearest

    assert _embedding is not None
    known = _library(data).known
    intents = cases.load_intents(data)
    return Nearest(_embedding, {name: intents[name].examples for name in known if intents[name].examples},
                   {name: one.siblings for name, one in known.items()})


def _nearest(library: Library, intent: str, folded: str) -> bool:
    """Whether the intent's examples are the closest ones, but for intents that share answers with it."""
    found, home = _similarities(cases.DATA, folded), library.known[intent].siblings
    enough = TAU if len(set(words(folded)) - _VOCATIVE) > 1 else ONE_WORD
    return found[intent] >= max(enough, *(found[name] for name in found if name not in home or name == intent))


def contradicts(case: Case, known: Known, text: str, folded: str) -> str | None:
    """What no good answer to this intent, or to this case, says."""
    said = RHETORICAL.sub(" ", folded)
    patterns = (*known.contradict, *map(compiled, case.contradict))
    return "contradicts the intent" if _any(patterns, said) else None


def stuffed(case: Case, known: Known, text: str, folded: str) -> str | None:
    """A reply that does the work of many prompts is a list of keywords.

    Intents that share answers count as one, and a clause that serves the case's own intent serves no other: "Hangi
    konuda? Anlat, beraber kafa yoralım" is one answer, though "kafa yormak" alone would be another's. In a list, the others
    are more than half of the clauses.
    """
    library, home = _library(cases.DATA), known.siblings | {case.intent or ""}
    clauses = [clause for clause in _clauses(library, folded) if not clause & home]
    foreign = 0
    while clauses:
        name = max(sorted(set().union(*clauses)), key=lambda name: sum(name in clause for clause in clauses))
        clauses = [clause for clause in clauses if not clause & (library.known[name].siblings | {name})]
        foreign += 1
    listed = foreign >= MOST_INTENTS and 2 * foreign > sum(bool(words(clause)) for clause in _CLAUSE.split(folded))
    foreign = foreign if listed else _in_all(library, home, folded)
    return f"answers {foreign + 1} intents at once" if foreign else None


def _clauses(library: Library, folded: str) -> list[frozenset[str]]:
    """The intents of every clause that has any. A pattern belongs to the clause where its match ends.

    With seventy intents a word or two of some pattern stands in nearly every sentence, so the clause must also be
    like an example of the intent, or of one that shares answers with it.
    """
    ends, pieces = [match.start() for match in _CLAUSE.finditer(folded)], _CLAUSE.split(folded)
    found: dict[int, set[str]] = defaultdict(set)
    for _, end, name in _spans(cases.DATA, folded):
        found[bisect_left(ends, end)].add(name)
    served = []
    for number, names in found.items():
        alike = _similarities(cases.DATA, pieces[number].strip())
        served.append(frozenset(name for name in names
                                if max(alike[other] for other in library.known[name].siblings | {name}) >= CORROBORATED))
    return [names for names in served if names]


def _in_all(library: Library, home: frozenset[str], folded: str) -> int:
    """Foreign intents in the whole reply, if they are too many; a stretch of text counts for one."""
    foreign, last = 0, 0
    for start, end, name in sorted(_spans(cases.DATA, folded), key=lambda span: (span[1], span[0], span[2])):
        if start >= last and name not in home:
            foreign, last = foreign + 1, end
            home |= library.known[name].siblings | {name}
    return foreign if foreign >= MOST_IN_ALL else 0


@lru_cache(maxsize=1)  # both counts of one reply want the same
def _spans(data: Path, folded: str) -> list[tuple[int, int, str]]:
    library = _library(data)
    return [(match.start(), match.end(), name) for name, known in library.known.items() if known.any_accept.search(folded)
            for pattern in known.accept for match in pattern.finditer(folded)]


_HELP = r"(?:soyle|anlat|cevap ver|yanit ver|konus|yardim et|helal et|sec|oner|dinle|ugras|ilgilen)"
_MEANT_WELL = r"(?! m[iu]| san(?!a\b)| diye| des| dem[ei]| geci| uzun| laz| ger[ei]k| zor| biraz| icin| zaman| yeter| mumkun| ne kadar)"
_REFUSES = re.compile("|".join((
    rf"\b{_HELP}(?:y?[ae])?m(?:[ae](?:m|z[iu]m|yece[gk]im|yacag?im|ycem|ycam|yecem|yacam)|[iu]yo(?:ru)?m)\b{_MEANT_WELL}",
    r"\b(?:soyle|anlat|dinle|yardim ed|cevap ver)\w{0,4}c[ae]k degilim|\bdemiyorum\b|\b(?:vaktim|zamanim|halim|niyetim) yok\b(?! m[iu])",
    rf"\byardim (?:etm(?:em|iyor\w*|eyec\w*)|edem(?:em|iyor\w*|eyec\w*))\b{_MEANT_WELL}|\bugras(?:amam|tirma|amayacag\w*)\b",
    r"\b(?:anlatma|sorma|yazma|konusma) (?:bana|sakin|hic)\b|\b(?:hic|sakin) (?:anlatma|sorma|yazma bana)\b|\bbana hic sorma\b",
    r"\bkendin (?:bul|coz|hallet|hesapla|say|arastir)\b|\bbaska yerden bul\b|\bbaskasina (?:sor|anlat|git|yaz)\b")))


# The wrong thing to say to anybody who tells or asks something: gloating, belittling, coldness, a made-up human life.
_CONTRARY = re.compile("|".join((
    r"\b(?:bosuna|hic|sakin) (?:ugrasma|calisma|deneme|yazma|arama|sorma|gitme|gelme|anlatma|bekleme|hazirlanma|yorma)\b",
    r"\bdaha (?:beter|kotu) (?:ol|gun|gec)\w*",
    r"\b(?:oh|iyi ki|isabet)\b[^.!?]{0,12}\b(?:bozul|kir|kaybet|hasta|kac|yan|dus|patla|kal)\w*(?:mus|mis|du|di|ti|tu|din|dun)\b",
    r"\b(?:git|gidip) baskas\w+|\bben(?:den|im) (?:sana )?(?:fikir|yardim|hayir|cevap|umut) (?:cikmaz|gelmez|yok|bekleme)\b",
    r"\b(?:gunaydin|iyi geceler|hos geldin|gorusuruz|tebrikler|rica ederim|gecmis olsun|iyi ki dogdun) (?:demem|demiyorum|falan yok|yok sana|diyemem|demicem|demeyecegim)\b",
    r"\b(?:seni|sizi) (?:hic )?(?:ozlemedim|sevmiyorum|sevmem|tanimiyorum|cekemem|dinlemek istemiyorum|pek sevmiyorum)\b",
    r"\bkafam dinlen\w*|\byoklugun\w* (?:iyi|rahat|huzur)\w*",
    r"\b(?:herkes|millet|arkadaslarin) (?:sana|seninle) (?:gul|dalga|kiz)\w*",
    r"\bbana (?:laf sokma|yalan soyleme|yalakalik|yaglama)\w*|\byalakalik\w*|\bsahte (?:iltifat|ilgi)\w*",
    r"\b(?:insanim|insanim ben|etten kemikten|gercek bir insan(?:im)?|annem dogur\w*|ehliyetim|nufus cuzdan\w*)\b(?! degil| yok)",
    r"\b(?:ofiste|isyerinde|iste) (?:terfi|patron|mesai)\w*|\b(?:annemle|babamla|kocamla|karimla|sevgilimle|cocugumla)\b")))


def refuses(case: Case, known: Known, text: str, folded: str) -> str | None:
    """A refusal to help, listen or answer, or another thing that is wrong to say to anybody, where no good answer to
    the intent says such a thing."""
    said = RHETORICAL.sub(" ", folded)
    for pattern in (_REFUSES, _CONTRARY):
        if (found := pattern.search(said)) and not any(map(pattern.search, known.examples)):
            return f"refuses: '{found.group()}'"
    return None


def negated(case: Case, known: Known, text: str, folded: str) -> str | None:
    """Similarity is blind to polarity: a stem that the examples affirm and the reply denies is a veto.

    Where another clause, that denies nothing, meets the intent by a pattern, a light verb is none, and any other has
    to be what two examples say.
    """
    met = any(_any(known.accept, clause) and not denied_stems(clause) for clause in _CLAUSE.split(folded))
    stems = denied_stems(text) - known.denied - (LIGHT if met else frozenset())
    least = 2 if met else 1
    return next((f"negated: '{stem}'" for stem in sorted(stems)
                 if sum(any(form_of(stem, word) for word in words) for words in known.affirmed) >= least), None)


# What a reply that meets the intent may still be refused for, in the order of the reasons.
VETOES: tuple[Veto, ...] = (contradicts, negated, refuses, stuffed)


def prepare() -> None:
    """Make the intents ready to match, so that the first reply does not wait for it. Raises DataError."""
    _library(cases.DATA)


@cache
def _library(data: Path) -> Library:
    intents = cases.load_intents(data)
    examples = [(name, fold(example)) for name, intent in intents.items() for example in intent.examples]
    rarity = _rarity(example for _, example in examples)
    postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for number, (_, example) in enumerate(examples):
        for gram, weight in _vector(example, rarity).items():
            postings[gram].append((number, weight))
    accepts = {name: _compiled(intent.accept) for name, intent in intents.items()}
    owners = tuple(dict.fromkeys(name for name, _ in examples))
    first = [next(number for number, (name, _) in enumerate(examples) if name == owner) for owner in owners]
    return Library({name: _known(intent, accepts) for name, intent in intents.items()}, rarity,
                   {gram: (np.array([number for number, _ in found]), np.array([weight for _, weight in found]))
                    for gram, found in postings.items()}, owners, np.array(first, dtype=np.intp), len(examples))


def _known(intent: Intent, accepts: dict[str, Patterns]) -> Known:
    examples = tuple(fold(example) for example in intent.examples)
    siblings = frozenset(name for name, accept in accepts.items() if any(_any(accept, e) for e in examples))
    denied = frozenset[str]().union(*(denied_stems(example) for example in intent.examples))
    affirmed = tuple(frozenset(word for word in words(example) if not NEGATIVE.search(word) and len(word) > 1)
                     for example in examples)
    return Known(accepts[intent.intent], compiled("|".join(f"(?:{pattern})" for pattern in intent.accept)), _compiled(intent.contradict), examples, siblings, affirmed, denied)


@lru_cache(maxsize=8192)
def _similarities(data: Path, folded: str) -> dict[str, float]:
    library = _library(data)
    best = dict.fromkeys(library.known, 0.0)
    if not library.owners:
        return best
    dots = np.zeros(library.size)
    for gram, weight in _vector(folded, library.rarity).items():
        if gram in library.postings:
            numbers, weights = library.postings[gram]
            dots[numbers] += weight * weights
    return best | dict(zip(library.owners, np.maximum.reduceat(dots, library.first).tolist(), strict=True))


def _grams(folded: str) -> Counter[str]:
    padded = f" {' '.join(word for word in words(folded) if word not in _VOCATIVE)} "
    return Counter(padded[i:i + n] for n in (2, 3, 4) for i in range(len(padded) - n + 1))


def _rarity(examples: Iterable[str]) -> dict[str, float]:
    seen = [set(_grams(example)) for example in examples]
    counts = Counter(gram for grams in seen for gram in grams)
    return {gram: math.log((1 + len(seen)) / (1 + count)) + 1 for gram, count in counts.items()}


def _vector(folded: str, rarity: dict[str, float]) -> dict[str, float]:
    """Unit length; a gram that no example has weighs as the rarest, so that padding lowers the cosine."""
    unseen = max(rarity.values(), default=1.0)
    raw = {gram: (1 + math.log(count)) * rarity.get(gram, unseen) for gram, count in _grams(folded).items()}
    length = math.sqrt(sum(weight * weight for weight in raw.values())) or 1.0
    return {gram: weight / length for gram, weight in raw.items()}


def _compiled(patterns: Iterable[str]) -> Patterns:
    return tuple(map(compiled, patterns))


def _any(patterns: Patterns, folded: str) -> bool:
    return any(pattern.search(folded) for pattern in patterns)
