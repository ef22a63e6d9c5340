"""Philosophical depth: an own stance, other positions, reasons, concepts put to use, an example, an open end."""

from __future__ import annotations

import re
from collections import Counter

from harness.appropriateness import stems
from harness.cases import Case, compiled
from harness.engines import Reply
from harness.gates import gates, repetition
from harness.language import FUNCTION
from harness.score import Outcome
from harness.turkish import fold, has_predicate, sentences, words

ENOUGH = 4

_STANCE = re.compile(
    r"\b(?:bence|bana (?:kalirsa|gore|oyle geliyor)|benim icin|benim gozumde|sanirim|galiba|i (?:think"
    r"|believe)|dusunuyorum|inaniyorum|kanimca|emin degilim|gibi geliyor|bana sorarsan|suphe\w*"
    r"|yanilabilirim)\b")
_CONTRAST = re.compile(
    r"\b(?:ama|ancak|fakat|oysa\w*|halbuki|ote yandan|diger yandan|buna karsin|bunun karsisinda|yine de"
    r"|tersine|aksine|lakin|ne var ki|bir yandan|kimi(?:leri|si|ne)?|bazi(?:lari|si)?|karsi cikan\w*"
    r"|itiraz\w*)\b")
_REASON = re.compile(
    r"\b(?:cunku|dolayisiyla|bu yuzden|o yuzden|bu nedenle|o nedenle|demek ki|zira|bundan dolayi|sonucta"
    r"|oyleyse|o halde|o zaman|sebebi|nedeni)\b|\w+d[iu]g[iu] icin\b")
_EXAMPLE = re.compile(
    r"\b(?:mesela|ornegin|ornek\w*|gibi dusun|dusun ki|diyelim|tipki|sanki|benzet\w*|hayal et|farz et|misal"
    r"|metafor\w*|analoji\w*|varoluscu\w*|stoac\w*|stoik\w*|theseus|sisifos|sisyphos|magara alegorisi)\b")
_THINKER = re.compile(
    r"\b(sokrates|platon|eflatun|aristo\w*|descartes|dekart|kant|hume|nietzsche|sartre|camus|spinoza|heidegger|hegel|marx|locke"
    r"|wittgenstein|epikur\w*|epiktet\w*|seneca|aurelius|buda\w*|mevlana|yunus emre|ibn\w*|farabi|gazali|kierkegaard|schopenhauer"
    r"|beauvoir|arendt|rawls|mill|bentham|turing|searle|chalmers|dennett|parfit|frankl|freud|jung|foucault|baudrillard|debord"
    r"|derrida|bauman|chomsky|bergson|leibniz|nagel|husserl|popper|russell|kuhn|lacan|levinas|buber|fromm|piaget|vygotsky|berkeley"
    r"|rousseau|hobbes|voltaire|zenon|fodor|barthes|weil|harari|weber|adorno|gadamer|ricoeur|merleau\w*|kahneman|condorcet|ellul"
    r"|illich|sapir|whorf|kohlberg|proust|borges|dostoyevski|tolstoy)(?:'\w{0,6})?\b")
_COMMON = frozenset(word[:5] for word in FUNCTION)
# Gold replies name three at most: more is name-dropping.
MOST_THINKERS = 3
_OPEN = re.compile(
    r"\b(?:bilmiyor\w*|bilemi\w*|bilemey\w*|emin degil\w*|kesin (?:bir )?(?:cevap|yanit)\w*|tek bir (?:cevap"
    r"|dogru)|acik (?:bir )?soru\w*|sinir(?:i|lari|li)\w*|belki\w*|sence|sen ne (?:dersin|dusunuyor\w*)|muamma"
    r"|cozulme\w*)\b")


def depth(case: Case, reply: Reply) -> Outcome:
    """Philosophical depth of one answer: 1 or 0, the six features in the detail (facts/turkish.md 5.2).

    Pass: gates, at least four of six, nothing contradicted, and no list stuffing: rep-3 <= .25, type-token ratio
    >= .45, at least 70 % of the sentences with a finite verb.
    """
    found = features(case, reply.text)
    reasons = gates(case, reply) + stuffing(reply.text)
    if sum(found.values()) < ENOUGH:
        reasons.append(f"{sum(found.values())} of 6: no {', '.join(name for name, has in found.items() if not has)}")
    if not stays_on(case, reply.text):
        reasons.append("off the subject")
    if any(compiled(pattern).search(fold(reply.text)) for pattern in case.contradict):
        reasons.append("contradicts")
    return Outcome(0.0 if reasons else 1.0, not reasons, tuple(reasons), {name: float(has) for name, has in found.items()})


def features(case: Case, text: str) -> dict[str, bool]:
    """The six binaries of depth, by name."""
    said = [fold(sentence) for sentence in sentences(text)]
    whole = " ".join(said)
    return {"stance": _STANCE.search(whole) is not None, "positions": len(_CONTRAST.findall(whole)) >= 1 and len(said) >= 2,
            "reason": any(_REASON.search(s) and len(words(s)) >= 5 for s in said), "concepts": _concepts(case, said),
            "example": (_EXAMPLE.search(whole) or _THINKER.search(whole)) is not None, "open": "?" in text or _OPEN.search(whole) is not None}


def stays_on(case: Case, text: str) -> bool:
    """Whether the text is about the case: four of its concepts, or three and a word of the prompt, in half of the
    sentences, one of them in two and all together seven times.

    An essay on everything names each concept once and moves on.
    """
    said = [fold(sentence) for sentence in sentences(text)]
    asked = stems(case.prompt or "") - _COMMON
    words_of = [{word[:5] for word in words(sentence)} & asked for sentence in said]
    uses = {concept: sum(compiled(concept).search(sentence) is not None for sentence in said) for concept in case.concepts}
    shared = Counter(stem for stems_of in words_of for stem in stems_of)
    touched = sum(bool(own) or any(compiled(concept).search(sentence) for concept in case.concepts)
                  for sentence, own in zip(said, words_of, strict=True))
    named = sum(map(bool, uses.values())) + bool(shared)
    times = [*uses.values(), *shared.values()]
    return not uses or (named >= min(4, len(uses)) and max(times) >= 2 and sum(times) >= min(7, 2 * len(uses))
                        and touched >= 0.5 * len(said))


def stuffing(text: str) -> list[str]:
    """What shows a list of words instead of thought."""
    tokens, said = [fold(word) for word in words(text)], sentences(text)
    reasons = []
    if repetition(tokens) > 0.25:
        reasons.append(f"repeats itself: rep-3 {repetition(tokens):.2f}")
    if tokens and len(set(tokens)) / len(tokens) < 0.45:
        reasons.append(f"few different words: {len(set(tokens)) / len(tokens):.2f}")
    if said and sum(map(has_predicate, said)) < 0.7 * len(said):
        reasons.append("a list: too few sentences with a verb")
    if len(set(_THINKER.findall(fold(text)))) > MOST_THINKERS:
        reasons.append("a list of thinkers")
    return reasons


def _concepts(case: Case, said: list[str]) -> bool:
    """At least two of the case's concepts, in different sentences that have a finite verb."""
    spoken = [{concept for concept in case.concepts if compiled(concept).search(s)} for s in said if has_predicate(s)]
    spoken = [concepts for concepts in spoken if concepts]
    return len(spoken) >= 2 and len(set[str]().union(*spoken)) >= 2
