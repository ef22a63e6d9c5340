"""Technical accuracy: which facts an answer states, and whether it denies or contradicts any."""

from __future__ import annotations

import re

from harness.cases import Case, Fact, compiled
from harness.engines import Reply
from harness.gates import gates
from harness.score import Outcome, verdict_of
from harness.turkish import clean, ends_finite, fold, sentences, spoken, words

ENOUGH = 0.75

_NEGATIVE = re.compile(
    r"\w{2,}(?:m[ae]z(?!s[ae])|m[iu]yo|m[ae]d[iu]|m[ae]y[ae]c|m[ae]m[iu]s|m[ae]m\b)\w*|degil\w*|yok\w{0,4}")
_UNLESS = re.compile(r"m[ae]zs[ae]|m[ae]d[ae]n")
# A pattern that itself speaks of a negation (stateless: "durum tutm(az|uyor)") means it.
_MEANS_NEGATION = re.compile(r"m\[|m\(|m[ae][zd]|m[iu]y|degil|yok")
_CLAUSES = re.compile(r"[;,.!?()`]+ ")
_CLAUSE = re.compile(r"[;:,()]+")
_TURNS = re.compile(r"\b(?:yerine|aksine|ama|oysa|halbuki|fakat|degil|ise|zannet\w*|sanil\w*|sanma\w*|sanip)\b")
_BELIEF = re.compile(
    r"\w*(?:'\w+)?,? (?:\w+ ){0,1}(?:san(?:ma|il|iyo|ar|mis|ip)?\w*|diye\w*|degil\w*|zann\w*|dusun\w*|m[iu](?:y\w*|s\w*)?\b|gibi (?:gorun|gel|dur)\w*"
    r"|gorun\w*|olma(?:sa|sin)?\b|de(?:r|rs|se|me)\w*|iddia\w*|yanlis\w*|hata\w*|dogru degil)")
_NOT_ONLY = re.compile(r"\b(?:sadece|yalnizca|yalniz)\b[^.,;!?]*$")


def technical(case: Case, reply: Reply) -> Outcome:
    """Technical accuracy of one answer: 1 or 0; `facts` in the detail is the share of the facts that it states.

    Pass: gates, facts stated / facts >= .75 with every critical one, nothing contradicted, and sentences instead of
    a list of keywords (facts/turkish.md 5.2, technical accuracy). Multiple choice: gates, and the right option named.
    """
    if case.options:
        return verdict_of(gates(case, reply) or _misread(case, reply.text))
    folded = [fold(sentence) for sentence in sentences(reply.text)]
    stated = {fact.name: states(fact, folded) for fact in case.facts}
    share = sum(stated.values()) / len(stated) if stated else 1.0
    reasons = gates(case, reply)
    reasons += [f"critical fact missing: {fact.name}" for fact in case.facts if fact.critical and not stated[fact.name]]
    if share < ENOUGH:
        reasons.append(f"{sum(stated.values())} of {len(stated)} facts; {ENOUGH:.0%} are needed")
    if wrong := contradicted(case, folded):
        reasons.append(f"contradicts: '{wrong}'")
    if keywords_only(reply.text):
        reasons.append("a list of keywords")
    return Outcome(0.0 if reasons else 1.0, not reasons, tuple(reasons), {"facts": share})


# "B)", "b şıkkı", "cevap B", or the reply begins with it: "B, çünkü ...".
_LETTER = re.compile(
    r"(?<![\w'])([A-Da-d])\)|\b([A-Da-d])(?:'\w+)?\s+(?i:ş[ıi]k|sik|seçene|secene)|"
    r"(?i:cevap|cevab[ıi]|yan[ıi]t|do[gğ]rusu|do[gğ]ru olan|[sş][ıi]k)\s*[:=]?\s*\**([A-D])(?![\w])|(?:\A\W*|de[gğ]il\W+)([A-D])(?!\w)")


_ALONE = re.compile(r"(?<![\w`'])([A-D])(?![\w+#`])")


def chosen(case: Case, text: str) -> str | None:
    """The letter of the one option that the text names, by letter or in full; None for none or several.

    "A değil, B" names B. A reply that names one in its first sentence may speak of the others after that.
    """
    said = clean(text)
    for scope in (*sentences(said)[:1], said):
        letters: set[str] = {next(filter(None, hit.groups())).upper() for hit in _LETTER.finditer(scope)
                   if not re.match(r"\W*\w*\W+de[gğ]il", scope[hit.end():])} or set(_ALONE.findall(scope))
        if len(letters) == 1:
            return letters.pop()
        if letters:
            return None
    folded = fold(said)
    letters = {letter for letter, option in zip("ABCD", case.options, strict=True) if asserts(re.escape(fold(option)), folded)}
    return letters.pop() if len(letters) == 1 else None


def _misread(case: Case, text: str) -> list[str]:
    found = chosen(case, text)
    if found is None:
        return ["names no option, or several"]
    return [] if found == case.answer else [f"option {found}; {case.answer} is right"]


def states(fact: Fact, folded: list[str]) -> bool:
    """Whether any of the fact's patterns is said, and not denied, in one of the folded sentences."""
    # A gap in a pattern may reach over the right words into a denial ("... user_id = $2 yaz, user_id'yi URL'den
    # değil"): the clauses alone do not.
    clauses = [clause for sentence in folded for clause in _CLAUSES.split(sentence)]
    return any(asserts(pattern, text) for pattern in fact.any for text in [*folded, " ".join(folded), *clauses])


def contradicted(case: Case, folded: list[str]) -> str | None:
    """The first wrong thing that the sentences assert, as it was written."""
    return next((sentence[:60] for pattern in case.contradict for sentence in folded if asserts(pattern, sentence, claim=True)), None)


def asserts(pattern: str, folded: str, *, claim: bool = False) -> bool:
    """Whether the pattern matches somewhere where it is not denied: "X değil", "X yok", "Xmaz", "X getirmiyor".

    A `claim` is not made by who only speaks of it: "X sanma", "X diye düşünülür", "X yerine Y".
    """
    means_it = _MEANS_NEGATION.search(pattern) is not None
    return any((means_it or not _denied(text, match)) and not (claim and _reported(text, match))
               for text in (folded, folded.replace("'", "")) for match in compiled(pattern).finditer(text))


def keywords_only(text: str) -> bool:
    """Whether a text of 15 words and more has a predicate in under 30 % of its sentences.

    It stands at the end of the sentence, or of a clause of five words and more.
    """
    said = sentences(spoken(text))
    return len(words(spoken(text))) >= 15 and sum(map(_speaks, said)) < 0.3 * len(said)


def _speaks(sentence: str) -> bool:
    return ends_finite(sentence) or any(len(words(clause)) >= 5 and ends_finite(clause) for clause in _CLAUSE.split(sentence))


def _reported(folded: str, match: re.Match[str]) -> bool:
    """Whether the match is turned around inside ("X yerine", "oysa", "sanma"), or said to be somebody's belief after it."""
    return _TURNS.search(match.group(), 1) is not None or _BELIEF.match(folded, match.end()) is not None


def _denied(folded: str, match: re.Match[str]) -> bool:
    """Whether the match, or the predicate within three words of it in the same clause, is negative."""
    begin = folded.rfind(" ", 0, match.start()) + 1
    clause = re.split(r"[,;:.!?()]|\b(?:ama|fakat|ancak|ve)\b", folded[match.end():])[0]
    inside = folded[begin:match.end()] + clause.partition(" ")[0]
    if any(map(_NEGATIVE.fullmatch, words(inside))):
        return True
    if _UNLESS.search(inside):
        return False  # "kilitlemezsen olmaz" asks for the lock
    if ends_finite(inside):
        return False
    following = words(clause.partition(" ")[2])[:3]
    predicate = next((word for word in following if _NEGATIVE.fullmatch(word) or ends_finite(word)), "")
    return _NEGATIVE.fullmatch(predicate) is not None and not _NOT_ONLY.search(folded[:match.start()])
