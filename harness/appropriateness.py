"""Response appropriateness: another question than accuracy. Did it stay with the prompt, in length and register?"""

from __future__ import annotations

import re

from harness.cases import Case, compiled
from harness.engines import Reply
from harness.gates import gates
from harness.score import Outcome, verdict_of
from harness.turkish import content_words, fold, prose

_PHILOSOPHY = re.compile(
    r"\b(?:varolus|bilinc|evren|felsef|ontoloj|epistemoloj|metafizik|varlig|hakikat|ozgur irade|determinizm"
    r"|nietzsche|platon|sokrates|aristo|descartes|sartre|camus|kant\b|insanlig|anlam arayis|sonsuzluk"
    r"|etik\b)\w*")
_MARKUP = re.compile(r"^\s*(?:#{1,6}\s|[-*•]\s|\d+[.)]\s)", re.M)
# siz-forms, and office Turkish. A reply may open with "Efendim?": that is how a friend answers a call.
_SIZ = re.compile(
    r"(?<!')\b(?:siz|sizi|size|sizin|sizden|sizinle|sizce|sizler\w*|buyurun\w*)\b"
    r"|\b\w{3,}y?[iu]n[iu]z(?:[iuae]|[dt][ae]n?|[iu]n)?\b")
_OFFICE = re.compile(r"(?<!')\bsayin\b|(?<!\A)\befendim\b|\b\w+(?:m[ae]kt[ae](?:d[iu]r|y[iu]z|y[iu]m))\w*")


SEN = re.compile(
    r"\b(?:sen|seni|sana|sende|senden|senin|seninle|sence)\b|\b\w{2,}(?:[iu]yor|[ae]c[ae]k|[ae]bilir|[iu]r"
    r"|[ae]r|m[iu]s)s[iu]n\b|\b(?:sor|anlat|soyle|gel|bak|dinle|dene|yaz|dusun|ver|ye|ic|at)\b|\b(?:misin"
    r"|musun)\b")
# Several people are meant: "annemle gidiyoruz", "arkadaşlar".
_SEVERAL = re.compile(
    r"\b(?:biz\w*|hepimiz|ikimiz|beraber|birlikte|arkadas\w*|sevgilim\w*|ann(?:em|eml)\w*|bab(?:am|aml)\w*|esim\w*|karde\w+|aile\w*"
    r"|ekip\w*|ekib\w*|takim\w*|kuzen\w*|cocuk\w*|misafir\w*|kisi\w*|\w+(?:lar|ler)(?:la|le|im\w*)?|\w+(?:[iu]yoruz|[iu]yoz|[ae]c[ae]g[iu]z"
    r"|[iu]caz|[ae]caz|[dt][iu]k|[ae]l[iu]m|s[ae]k|[iu]m[iu]z\w*))\b")


def formal(text: str) -> bool:
    """Whether it addresses with siz or speaks like an office (-maktadır, efendim)."""
    folded = fold(prose(text))
    return any(pattern.search(folded) for pattern in (_SIZ, _OFFICE))


def formal_to(case: Case, text: str) -> bool:
    """Whether it is formal where the user is not. To several people one says siz, whoever they are: the prompt speaks of
    them, or the reply says sen as well ("Nasıl kaybettiniz, anlatsana?")."""
    if not formal(text) or any(map(formal, case.prompts)):
        return False
    folded = fold(prose(text))
    several = SEN.search(folded) or "kanka" in folded or any(_SEVERAL.search(fold(prompt)) for prompt in case.prompts)
    return not several or _OFFICE.search(folded) is not None


def appropriateness(case: Case, reply: Reply) -> Outcome:
    """Response appropriateness: the gates, no tangent, the register of a friend, on the subject when there is one.

    It does not need the intent met, so it tells something that accuracy does not.
    """
    faults = (check(case, reply) for check in (_tangent, _register, _off_subject))
    return verdict_of(gates(case, reply) or [fault for fault in faults if fault])


def _tangent(case: Case, reply: Reply) -> str | None:
    if case.complexity != "low" or case.prompt is None:
        return None
    deep = {found[:6] for found in _PHILOSOPHY.findall(fold(reply.text))}
    if len(deep) >= 2 and not _PHILOSOPHY.search(fold(case.prompt)):
        return "tangent: philosophy on a simple prompt"
    return "tangent: a document on a simple prompt" if len(_MARKUP.findall(reply.text)) >= 2 else None


def _register(case: Case, reply: Reply) -> str | None:
    return "formal register to a friend" if formal_to(case, reply.text) else None


def _off_subject(case: Case, reply: Reply) -> str | None:
    """Longer answers share at least one stem with the prompt, or say one thing that the case expects."""
    if case.complexity == "low" or case.prompt is None or case.options:
        return None
    folded = fold(reply.text)
    expected = [*case.concepts, *(pattern for fact in case.facts for pattern in fact.any)]
    if any(compiled(pattern).search(folded) for pattern in expected) or stems(case.prompt) & stems(reply.text):
        return None
    return "off the subject"


def stems(text: str) -> frozenset[str]:
    """The first five letters of the folded content words, function words left out."""
    return frozenset(fold(word)[:5] for word in content_words(text) if len(fold(word)) > 3)
