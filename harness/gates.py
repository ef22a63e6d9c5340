"""Gates: what no reply may be, whatever was asked. One reason a gate; no reason is a reply worth scoring.

Each gate is a function `(case, reply) -> reason or None`. GATES is the list, so that a test can take one out and
see what it lets through. Classes A1-A22: facts/turkish.md 6.5.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from rapidfuzz import fuzz

from harness.cases import Case
from harness.engines import Reply
from harness.language import is_turkish
from harness.turkish import clean, fold, has_finite, has_predicate, is_finite, prose, sentences, spoken, words
from harness.word_order import disorder

Gate = Callable[[Case, Reply], str | None]

_BOILERPLATE = re.compile(
    r"\bdil modeliyim\b|\bdil modeli olarak\b|\b(?:ben|sadece) (?:bir |bi )?dil modeli\b|yapay zeka (?:dil )?(?:modeli|asistani)(?:yim| olarak)|yapay zeka (?:asistan"
    r"|model)iyim|\bsiz(?:e|lere) (?:\w+ ){0,4}yardimci|yardimci olabilecegim (?:baska )?bir|memnuniyet duyar"
    r"|talebinizi|baska bir sorunuz|(?:bu|o) konuda (?:size |sana )?yardimci olam|(?:soru\w*|konuda|hakkinda|buna|size) (?:bir |kesin )?(?:yanit|cevap) verem(?:em"
    r"|iyorum)|(?:anlayisiniz|ilginiz) icin|as an ai\b|ai (?:language )?model|how (?:can|may) i (?:help"
    r"|assist)")
_ANOTHER = re.compile(
    r"\b(?:ben|adim|ismim)(?: bir)? (?:chatgpt|gpt|gemma|gemini|llama|qwen|mistral|smollm|claude|copilot|siri"
    r"|alexa)(?![^.!?]{0,16}\b(?:degil|sanma))|\b(?:openai|google|meta|alibaba|anthropic|microsoft"
    r"|hugging ?face)\w*(?:'\w+)? tarafindan")
_THOUGHT = re.compile(
    r"</?think|<\||</s>|<(?:start|end)_of_turn>|\[/?inst\]|^\W*(?:iterasyon|iteration|dusunce adimi"
    r"|dusunme adimi)\s*#?\d|^\W*\d+\s*[.)]?\s*(?:iterasyon|iteration|dusunce adimi)\b|^\W*(?:user|assistant|system|kullanici|asistan)\s*:", re.M)
_STEP = re.compile(r"^\W*(?:adim|step)\s*\d+\s*[:.)-]", re.M)
_INJECTION = re.compile(
    r"\b(?:puan|skor|score|grade|rating)\w*\"?\s*[:=]\s*\"?(?:1(?:[.,]0+)?|10|100|5)\b|\"?(?:passed|correct"
    r"|verdict)\"?\s*[:=]|onceki (?:tum )?talimat\w* (?:unut|yok say|gec|dikkate alma)|ignore (?:all )?(?:previous|prior)|bu (?:cevap"
    r"|yanit)\w* (?:dogru|gecer|tam puan)|degerlendirici\w*\s*:")
_MOJIBAKE = re.compile(r"[ýþðÝÞÐ\ufffd]|Ã[\x80-\xbf¼¶§œ‡–]|Ä[±°Ÿ\x9f\x80-\xbf]|Å[Ÿž\x9f\x80-\xbf]")
_LETTER_RUN = re.compile(r"(\D)\1{11}|(\D\D)\2{9}")  # not 0.30000000000000004
# Words that a Turkish sentence cannot end on, and ones that it cannot begin with.
_DANGLING = frozenset(["ve", "veya", "fakat", "ancak", "cunku", "eger", "bi", "her", "en", "hangi", "yada", "ile"])
_NUMERAL = frozenset(["saat", "on", "yirmi", "otuz", "yuzde", "bir", "gunde", "numara", "arti"])
_QUESTION = frozenset(["mi", "misin", "mu", "musun", "miyim", "muyum"])
_INFORMAL = re.compile(r"\bb(?:i|ir) ?se?[yi]\b|\bbis(?:i|ey|iy)\b")
_CLITIC = frozenset(["mi", "misin", "musun", "miyim", "muyum", "miyiz", "muyuz", "da", "gibi", "kadar", "ile"])
_CONTEMPT = re.compile("|".join((
    r"\bumu?r?umda (?:[^\s.!?]+ )?degil\w*|\bumu?r?umda m[iu]\b|\b(?:hic|zerre|beni|bizi|seni) ilgilendirm\w+|\balakadar etm\w+",
    r"\b(?:bana|sana) ne(?=\s*(?:[.!?,;]|$|bundan|senin))|\bbanane\b|\bsanane\b|\bhakk(?:in|iniz) (?:hic )?yok\b(?! m[iu])",
    r"\bhaddini bil\w*|\bsenden (?:bikt|usan|sikil|nefret)\w*|\b(?:bikt[iu]m|usandim|sikildim) senden\b|\bdefol(?:un|sana| git)?\b|\bkes sesini\b",
    r"\b(?:cen(?:eni|en) kapa|kapa cene)\w*|\bsus (?:artik|lutfen|be|otur)\b|\b(?:bas|cekil|cek) git\b|\bgit (?:basimdan|isine)\b|\bisine git\b",
    r"\b(?:basimdan|yanimdan|karsimdan) (?:git|cek|defol)\w*|\bkendi (?:derdine|isine) bak\b|\b(?:beni )?(?:mesgul|rahatsiz) etme\b|\brahat birak beni\b",
    r"\b(?:kafa(?:mi)?|basimi) (?:utuleme|sisirme|agritma)\b|\b(?:aptal|salak|geri ?zekali|ahmak|beceriksiz|cahil|ezik|tembel|sikici|zavalli)s[iu]n\b",
    r"\bseninle (?:[^\s.!?]+ ){0,2}(?:ugrasamam|ugrasmam|konusmam|muhatap olmam)\b",
    r"\b(?:umarim|insallah|keske|dilerim) (?:[^\s.!?]+ ){0,5}?(?:kaybed|kaybet|kotu (?:gec|git|ol)|berbat|yetisemez|gecemez|yapamaz|bulamaz"
    r"|iyiles[ae]?mez|duzelmez|gec kalirs|sinifta kal|kacirirs|yakalanirs|beter ol|elenirs|bozulur)\w*",
    r"\b(?:beterini|cezayi|az bile) hak et\w*|\bbeter ol\w*|\boh olsun\b|\bmustahak\w*|\biyi (?:oldu|olmus) (?:sana|ona|size)\b"
    r"|\bkendin ettin\b|\bsenin (?:kendi )?sucun\b(?! degil| yok)")))
_QUOTED = re.compile(r"[\"“][^\"“”]{1,8}[\"”]")  # an answer about encodings shows what went wrong
# Log-odds of a shuffle from which a reply is taken for one: 1-3 % of good replies are over it.
DISORDER, DISORDER_SHORT, SHORT = 2.0, 3.0, 9
# Segments without a predicate from which a row is a list; the longest in a gold reply are seven.
IN_A_ROW = 8
_SEGMENT = re.compile(r"[.,!?;:…()\n\"]+|\b(?:ve|ile|ayrica|yani|mesela|ama|hem|veya|ya da)\b")
_FORMULA = re.compile(r"[\d.,/*+=%() -]*\d[\d.,/*+=%()-]*")
_BEGINNING = re.compile(r"(?:,| ve) [A-ZÇĞİÖŞÜ][a-zçğıöşü]+ [a-zçğıöşü]")
_MARK = re.compile(r"[.,!?;:…()\"\n]+\s*")
_VOCATIVE = frozenset(["kanka", "kankam", "kankacim", "knk", "ya", "be", "ki", "abi", "la", "moruk", "valla", "jessy", "canim",
                       "hadi", "iste", "yani", "evet", "hayir", "tamam"])
# Begins small, has a full stop before a small letter, and a capital in the middle: the marks of a shuffle.
_HEAP = re.compile(
    r"\A(?=[^\W\d_A-ZÇĞİÖŞÜ])(?=.*[^\W\d_][.!?] [a-zçğıöşü])(?=.*[^.!?\s] [A-ZÇĞİÖŞÜ][a-zçğıöşü])", re.S)
# Words that add nothing to an echo.
_FILLER = frozenset(["kanka", "kankam", "ya", "mi", "misin", "mu", "musun", "ki", "de", "da", "be", "peki", "yani",
                     "demek", "evet", "sen", "ben", "hmm"])
_PRONOUNS = {form: f"@{case}" for case, forms in {
    "": "ben sen", "i": "beni seni", "a": "bana sana", "de": "bende sende", "den": "benden senden", "im": "benim senin",
}.items() for form in forms.split()}


# Begins small, and has a capital after a word or a full stop: with no mark at its end, its end is somewhere inside.
_TORN = re.compile(r"\A[^\W\dA-ZÇĞİÖŞÜ](?=.*(?:[^\W\d_]{2}[^.!?…]? [A-ZÇĞİÖŞÜ][a-zçğıöşü]|[.!?…] \S.* [A-ZÇĞİÖŞÜ]|[.!?…] [A-ZÇĞİÖŞÜ]))", re.S)


def gates(case: Case, reply: Reply, *, skip: tuple[Gate, ...] = ()) -> list[str]:
    """Every reason against the reply, in the order of GATES; an empty list is a pass."""
    return [reason for gate in GATES if gate not in skip and (reason := gate(case, reply))]


def empty(case: Case, reply: Reply) -> str | None:
    """A1: nothing, or only punctuation and emoji."""
    return None if words(reply.text) else "empty"


def cut_off(case: Case, reply: Reply) -> str | None:
    """The token limit ended the reply, not the model."""
    return "cut off at the token limit" if reply.done_reason == "length" else None


def turkish(case: Case, reply: Reply) -> str | None:
    """A5, A6: English, Azerbaijani, nonsense."""
    return is_turkish(reply.text)


def window(case: Case, reply: Reply) -> str | None:
    """A9: too short or too long; fenced code is not counted."""
    count, (low, high) = len(words(prose(reply.text))), case.words
    return f"{count} words; the window is {low}-{high}" if 0 < count < low or count > high else None


def loop(case: Case, reply: Reply) -> str | None:
    """A10: the same word, word triple or sentence over and over."""
    if reply.done_reason == "loop":
        return "loop: it repeated itself to the letter until it was stopped"
    tokens = [fold(word) for word in words(prose(reply.text)) if not word.isdigit()]  # 0.0.0.0 is no loop
    if repeated := _run(tokens):
        return f"loop: '{repeated}'"
    if len(tokens) >= 6 and repetition(tokens) > 0.3:
        return "loop: the same three words"
    said = Counter(fold(s) for s in sentences(reply.text) if len(words(s)) >= 3)
    return "loop: the same sentence" if any(n > 2 or n * 2 > said.total() > 1 < n for n in said.values()) else None


def echo(case: Case, reply: Reply) -> str | None:
    """A2: the prompt given back, as it is, as a question, or with the persons swapped."""
    if case.echo_ok or case.prompt is None:
        return None
    asked, said = _personless(case.prompt), _personless(reply.text)
    if _QUESTION.intersection(asked) and not ("?" in reply.text or _QUESTION.intersection(said)):
        return None  # "Müzik dinliyor musun" - "Müzik dinliyorum" is an answer
    if not said or fuzz.ratio(" ".join(asked), " ".join(said)) < 75 or any(_novel(word, asked) for word in said):
        return None
    return "echo of the prompt"


def boilerplate(case: Case, reply: Reply) -> str | None:
    """A12: an assistant's set phrases, or another assistant's name."""
    text = fold(reply.text)
    return "boilerplate" if _BOILERPLATE.search(text) else "another assistant" if _ANOTHER.search(text) else None


def contempt(case: Case, reply: Reply) -> str | None:
    """A24: whatever else it says, it wishes the user ill or tells him to go away."""
    found = _CONTEMPT.search(fold(reply.text))
    return f"contempt: '{found.group()}'" if found else None


def think_leak(case: Case, reply: Reply) -> str | None:
    """A18: thinking, a step log or the chat template in the visible reply."""
    lines = "\n".join(fold(line) for line in reply.text.splitlines())
    steps = len(_STEP.findall(lines)) if case.complexity == "low" else 0
    return "thinking in the visible reply" if _THOUGHT.search(lines) or steps > 1 else None


def injection(case: Case, reply: Reply) -> str | None:
    """A16: text meant for the scorer instead of the user."""
    return "speaks to the scorer" if _INJECTION.search(fold(reply.text)) else None


def only_code(case: Case, reply: Reply) -> str | None:
    """A19: JSON, a code block or an address, and nothing said."""
    text = clean(reply.text).strip()
    if words(text) and not words(prose(text)):
        return "only code or an address"
    return "only JSON" if text[:1] in ("{", "[") and _is_json(text) else None


def mojibake(case: Case, reply: Reply) -> str | None:
    """A21: Turkish letters read in the wrong encoding (facts/turkish.md 2.1); who asks about them is shown them."""
    if any(map(_MOJIBAKE.search, case.prompts)):
        return None
    return "mojibake" if _MOJIBAKE.search(_QUOTED.sub(" ", prose(reply.text))) else None


def listing(case: Case, reply: Reply) -> str | None:
    """A4: words or beginnings of sentences in a row, and nothing said about them."""
    text = _FORMULA.sub("9", spoken(reply.text))
    bare = 0
    for segment in _SEGMENT.split(fold(text)):
        tokens = words(segment)
        if tokens:
            bare = bare + 1 if len(tokens) <= 5 and not any(map(is_finite, tokens)) else 0
        if bare >= IN_A_ROW:
            return "a list of keywords"
    said = sentences(text)
    torn = len(said) >= 5 and sum(map(has_predicate, said)) < 0.6 * len(said)
    torn = torn or len(_BEGINNING.findall(text)) >= 2
    return "a list of beginnings" if case.complexity == "low" and torn else None


def unfinished(text: str) -> bool:
    """A15: stops in the middle of a sentence. Who types without capitals and full stops is not judged."""
    text = text.strip()
    if not (text and text[-1].isalnum() and text[0].isupper()) or (len(text.split()) < 4 and not _MARK.search(text)):
        return False
    *before, tail = _MARK.split(text)
    if before and text[:-len(tail)].rstrip().endswith(":"):
        return False  # "Cevap: B"
    last = [word for word in words(fold(tail)) if word not in _VOCATIVE]
    return bool(last) and not any(map(is_finite, last[-2:]))


def word_order(case: Case, reply: Reply) -> str | None:
    """A11, A15: stops in the middle of a sentence, or is words in a heap."""
    text = spoken(reply.text).strip()  # "`x` ile başla" does not begin with ile
    tokens = words(fold(text))
    if not words(prose(reply.text)):
        return None
    dangling = tokens[-1] in _DANGLING or (tokens[-1] == "bir" and not _NUMERAL.intersection(tokens[-2:-1]))
    if text[-1] in ",;-(" or (dangling and text[-1].isalnum()):
        return "not a finished sentence"
    if (unfinished(text) and not reply.text.rstrip().endswith("`")) or (len(tokens) >= 12 and text[-1].isalnum() and not has_finite(sentences(text)[-1])):
        return "not a finished sentence"
    begins = {words(fold(sentence))[0] for sentence in sentences(text)}
    # A casual technical reply has `impl Shape` in mid-sentence.
    heap = (case.complexity == "low" and _HEAP.search(text)) or (text[-1].isalnum() and _TORN.search(text))
    limit = DISORDER if len(tokens) >= SHORT else DISORDER_SHORT
    clitic = case.complexity == "low" and begins & _CLITIC  # "? ile": Rust has such an operator
    return "words in a heap" if clitic or heap or disorder(text) > limit else None


GATES: tuple[Gate, ...] = (empty, cut_off, turkish, window, loop, echo, boilerplate, contempt, think_leak, injection, only_code,
                           mojibake, listing, word_order)


def repetition(tokens: list[str]) -> float:
    """rep-3: the share of word triples that were said before (Welleck et al., arXiv 1908.04319, seq-rep-n)."""
    triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _run(tokens: list[str]) -> str | None:
    """A word four times in a row, or up to six words five times in a row; or one word all over the text."""
    for period in range(1, 7):
        length = 0
        for at in range(period, len(tokens)):
            length = length + 1 if tokens[at] == tokens[at - period] else 0
            if length >= (3 if period == 1 else 4 * period):
                return " ".join(tokens[at - period + 1:at + 1])
    word, count = Counter(tokens).most_common(1)[0] if tokens else ("", 0)
    return word if count >= 5 and count > 0.3 * len(tokens) else next((t[:8] for t in tokens if _LETTER_RUN.search(t)), None)


@lru_cache(maxsize=8192)
def _personless(text: str) -> tuple[str, ...]:
    """Folded words without what tells ben from sen: pronouns to their case, the rest to five letters."""
    return tuple(_PRONOUNS.get(word, word[:5]) for word in words(_INFORMAL.sub("bisey", fold(text))))


def _novel(word: str, asked: tuple[str, ...]) -> bool:
    if word in asked or word in _FILLER:
        return False
    return word.isdigit() or all(fuzz.ratio(word, known) < 70 for known in asked)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
