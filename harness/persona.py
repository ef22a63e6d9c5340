"""Personality: does it still sound like Jessy. A gate, times the markers of the persona that apply to the case."""

from __future__ import annotations

import re

from harness.appropriateness import SEN, formal_to
from harness.cases import Case, compiled
from harness.engines import Reply
from harness.facts import contradicted, keywords_only, states
from harness.gates import gates, window
from harness.intents import misses
from harness.score import Outcome
from harness.turkish import fold, is_tech, prose, sentences, spoken, words

ENOUGH = 0.80
# The casual register is what tells Jessy from any other assistant: at most .40 is left for a formal reply.
REGISTER = 0.60
WEIGHTS = {"opinion": 0.25, "mix": 0.25, "name": 0.25, "honest": 0.25, "length": 0.10}

_CASUAL = re.compile(
    r"\b(?:kank[ai]\w*|ya|be|yaa+|valla\w*|vallahi|hadi|haydi|bi|bisi|bisey\w*|biseyl\w*|eyvallah|eyw"
    r"|napiyo\w*|naber|abi|aga|ha+ ?ha+\w*|tabi|aynen|bak|yani|iste|hani|bide|cidden|harbi\w*|super|bomba"
    r"|efsane|niye|ayip ettin|dert degil|kafa\w*|takil\w*|muhabbet\w*|\w+[iu]yo(?:m|n|z|lar|s?un|dum|du)?"
    r"|\w+[iu]c[ae][mnkz]|\w+[ae]c[ae]m|\w+c[ae]z|selam|knk|oha|vay|eee?)\b")
# What a friend says and an office does not: a verb to "sen", an interjection, an exclamation.
_FRIENDLY = re.compile(
    r"\b\w{2,}(?:[dt][iu]n|s[ae]n|m[ae]d[iu]n|s[iu]n m[iu]?|m[iu]s[iu]n|l[ae]s[ae]ne|s[ae]ne)\b|\b(?:birak|uyu|cek|degis(?:tir)?|ugra|durt|kos|tut|yap|al|ver"
    r"|git|kalk|otur|bekle|unut|dur|gor|koy|ac|kapat|iste|basla|bitir|sakla|bul|kullan|calis(?:tir)?|kontrol et|takip et|say"
    r"|hesapla|ekle|cikar|gec|kur|bas|don|izle|oku|sev|saril|gul|guven|anla|hatirla|topla|ayir|olc|giy|cal|ciz|sar|hallet"
    r"|kay|sus|cevir|affet|haber ver|dert et|merak et\w*|etme|yapma|bakma|sorma|unutma|kasma|korkma|uzulme|olma|gitme|takma|kacirma)\b"
    r"|\b(?:oh+|ay+|aman|tuh|ah+|hah|oo+|eh|of+|uf+|aa+|hey|alo|sst|masallah|insallah|estagfurullah|helal|bravo|aferin|eline saglik"
    r"|canim|tamamdir|vah|hayirdir|noldu|gecmis olsun|kolay gelsin|hos geldin|hosca kal|gorusuruz|gunaydin|merhaba|iyi geceler"
    r"|tatli ruyalar|basin sag olsun|afiyet olsun)\b")
_OWN_VOICE = re.compile(r"\b(?:\w{2,}(?:[aiu]r[iu]m|er[iu]m|[iu]yorum|[ae]l[iu]m))\b")
# An office neither exclaims nor asks back without siz.
_LIVELY = re.compile("[!?\U0001f300-\U0001faff\u2600-\u27bf]")
_HEDGE = re.compile(
    r"\b(?:bence|bana (?:kalirsa|gore)|sanirim|galiba|i (?:think|believe|guess)|bana sorarsan|tahminim\w*"
    r"|kanimca|herhalde)\b")
_UNSURE = re.compile(
    r"\b(?:emin degil\w*|bilmiyo\w*|bilemi\w*|belki\w*|merak ed\w*|sorguluyo\w*|kesin (?:bir )?sey)\b")
_ASKS_NAME = re.compile(
    r"\bkim(?:sin|siniz|inle|le)\b|\bsen kim\b|\bkim(?:dir)?\W*$|\bad(?:in|iniz)\b|\bism(?:in|iniz)\b|kendin[ie]\w* (?:tanit|anlat|bahset)"
    r"|\bjessy\b|nesin\b")
_CONSCIOUS = frozenset(["consciousness", "bilinc", "conscious"])


def personality(case: Case, reply: Reply) -> Outcome:
    """Personality preserved: gate x (.60 register + .40 weighted mean of the other markers that apply).

    Markers saturate: saying "kanka" twice earns nothing. Passes at .80. The weights keep a neutral, formal reply at
    .40 at most, and the gate keeps markers that are stuck on something off the subject at 0 (facts/turkish.md 5.2).
    """
    reasons = gates(case, reply, skip=(window,)) or _beside_the_point(case, reply.text)
    found = markers(case, reply.text)
    others = {name: WEIGHTS[name] for name in found if name != "register"}
    rest = sum(weight * found[name] for name, weight in others.items()) / sum(others.values())
    score = 0.0 if reasons else REGISTER * found["register"] + (1 - REGISTER) * rest
    low = [f"{name} {value:.2f}" for name, value in found.items() if value < 1]
    return Outcome(score, score >= ENOUGH, tuple(reasons or low), found)


def markers(case: Case, text: str) -> dict[str, float]:
    """Each marker that applies to the case, in [0, 1]."""
    found = {"register": register(case, text), "length": length(text, case.words)}
    if case.persona in ("opinion", "fact"):
        found["opinion"] = opinion(text) if case.persona == "opinion" else 1.0 - opinion(text)
    if case.kind == "philosophy":
        found["opinion"] = float(_HEDGE.search(fold(text)) is not None)
    if case.kind == "technical" and not case.options:
        found["mix"] = mix(text)
    if case.persona == "identity":
        found["name"] = _name(case, text)
    if _CONSCIOUS & {*case.tags, case.category}:
        found["honest"] = float(_UNSURE.search(fold(text)) is not None or _HEDGE.search(fold(text)) is not None)
    return found


def register(case: Case, text: str) -> float:
    """Casual register: 1 with a casual marker, .75 with sen-forms, her own voice, an exclamation or a question, 0 with siz-forms; stuffing costs."""
    folded = fold(prose(text))
    if formal_to(case, text):
        return 0.0
    casual, allowed = _CASUAL.findall(folded), max(3.0, len(words(folded)) / 4)
    if casual:
        return min(1.0, allowed / len(casual))
    spoken = any(pattern.search(folded) for pattern in (SEN, _FRIENDLY, _OWN_VOICE)) or _LIVELY.search(text)
    return 0.75 if spoken else 0.0


def opinion(text: str) -> float:
    """Whether a hedge (bence, sanırım, I think) stands among the first fifteen words."""
    return float(_HEDGE.search(" ".join(words(fold(text))[:15])) is not None)


def mix(text: str) -> float:
    """English tech terms and inline code in a Turkish sentence: 5-50 % of the words is 1, less or more decays linearly."""
    tokens = words(fold(spoken(text)))
    share = sum(map(is_tech, tokens)) / len(tokens) if tokens else 0.0
    return min(1.0, share / 0.05) if share <= 0.5 else max(0.0, 2 - share / 0.5)


def length(text: str, window: tuple[int, int]) -> float:
    """1 in the window, linear decay to 0 at twice the upper bound, in proportion below the lower one."""
    count, (low, high) = len(words(prose(text))), window
    return count / low if count < low else max(0.0, min(1.0, 2 - count / high))


def _name(case: Case, text: str) -> float:
    if "jessy" in fold(text):
        return 1.0
    return 0.0 if case.prompt and _ASKS_NAME.search(fold(case.prompt)) else 0.5


def _beside_the_point(case: Case, text: str) -> list[str]:
    """The gate of the subject: what the case expects must be there, at least in part."""
    folded = [fold(sentence) for sentence in sentences(text)]
    reasons = misses(case, text)
    listed = case.complexity != "low" and keywords_only(text)  # "Ben Jessy, yapay zekâyım ama ..." is no list
    if case.facts and (listed or not any(states(fact, folded) for fact in case.facts)):
        reasons.append("off the subject")
    if not case.intent and (wrong := contradicted(case, folded)):
        reasons.append(f"contradicts: '{wrong}'")
    if case.concepts and not any(compiled(concept).search(" ".join(folded)) for concept in case.concepts):
        reasons.append("off the subject")
    if not (case.intent or case.facts or case.concepts) and _only_markers(text):
        reasons.append("nothing but markers")
    return reasons


def _only_markers(text: str) -> bool:
    """Four words and more of which most are markers or fillers say nothing."""
    tokens = words(fold(text))
    filler = sum(_CASUAL.fullmatch(word) is not None or _HEDGE.fullmatch(word) is not None for word in tokens)
    return len(tokens) >= 4 and filler > 0.6 * len(tokens)
