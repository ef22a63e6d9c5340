"""Negation: which stems a text denies. Similarity is blind to polarity, so the intents ask this last."""

from __future__ import annotations

import re

from harness.turkish import fold, sentences

# Folded words with the negative infix; what stands before it is the stem. Not the verbal noun: konuşmayı,
# konuşmasını; nor a noun that looks like one: tamam.
NEGATIVE = re.compile(
    r"\b(?!(?:tamam|hamam|namaz|sinema|domates)\w*)(\w{2,}?)(?:m[iu]yo\w*"
    r"|m[ae](?:m|z(?!s[ae])\w*|d[iu]\w*|y[ae]c\w*|y[iu](?:n|n[iu]z|p)|m[iu]s\w*|s[iu]n(?:l[ae]r)?)"
    r"|m[ae](?=\s*(?:[.!?,;…]|$|kanka\b|ya\b|bana\b|artik\b|be\b|sakin\b)))(?!\w)")
_DENIAL = re.compile(r"\b(\w{3,}) (?:degil|yok)\w*")
_IDIOMS = re.compile(
    r"\bkusura bakma\w*|merak etme\w*|dert etme\w*|cekinme\w*|utanma\w*|sorma gitsin|uzulme\w*|hic durma"
    r"|korkma\w*|acele (?:etme\w*|yok)|kimse \w+[ae]m[ae]z\w*|bos verme\w*|sikma\w* canini|canini sikma\w*|(?:sorun|sikinti|problem|dert"
    r"|onemli|fena|kotu|bir sey|bisey) (?:degil|yok)\w*|fark etmez|sadece [^.,!?]* degil|olmaz olur mu|degil m[iu]\b"
    r"|[dt][ae]n \w+[iu] yok\b")
# "Bilmem mi!", "o tatlı krizi yok mu": a negative with the question particle says yes.
RHETORICAL = re.compile(
    r"\b(?:\w{2,}(?:m[ae][mz]|m[iu]yor?\w{0,3}|m[ae]d[iu]\w?|m[ae]y[ae]c[ae][gk]\w*)|yok)"
    r" m[iu](?:s[iu]n|y[iu]m|y[iu]z|yd[iu]\w?|ym[iu]s\w?)?\b")
# Verbs that mean what their object says: "uzağa gitme", "her gün bir olmuyor" deny the object.
LIGHT = frozenset(["ol", "ola", "et", "ede", "yap", "yapa", "al", "ala", "ver", "vere", "de", "diye", "git", "gide",
                    "gel", "gele", "cik", "cika", "kal", "kala", "koy", "at", "gec", "bul", "tut", "sal"])
# What may follow the stem of a verb: "sor" is in sorarsın, not in sorun; "dol" is not in dolapta.
_VERBAL = re.compile(
    r"(?:y?[iu]yo\w*|[aeiu]?r(?:[iu]m|s[iu]n|[iu]z|l[ae]r)?|[dt][iu]\w{0,2}|y?[ae]c[ae]\w*|y?[iu]c[ae]\w*|s[ae]\w{0,3}"
    r"|y?[ae]l[iu]m|y?[ae]y[iu]m|y?[iu]p|m[iu]s\w*|y?[ae]bil\w*|s[iu]n|y?[iu]n(?:[iu]z)?|y?[iu]ver\w*|y?[ae])?")


def denied_stems(text: str) -> frozenset[str]:
    """The stems (at most four folded letters) that the text negates; questions and idioms negate nothing."""
    said = [_IDIOMS.sub(" ", RHETORICAL.sub(" ", fold(s))) for s in sentences(text) if not s.rstrip().endswith("?")]
    return frozenset(found[:4] for s in said for pattern in (NEGATIVE, _DENIAL) for found in pattern.findall(s))


def form_of(stem: str, word: str) -> bool:
    """Whether a folded word is a form of the stem; a short stem has to be followed by what follows verbs."""
    return word.startswith(stem) and (len(stem) >= 4 or _VERBAL.fullmatch(word[len(stem):]) is not None)
