"""Turkish text: casing, folding, words, sentences, and which of them have a predicate.

Never call str.lower() on Turkish: "I".lower() is "i" (Turkish wants "ı") and "İ".lower() is two code points.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def lexicon(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


# Zero-width and directional characters, soft hyphen, variation selectors: invisible, and they split words.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f]")
_APOSTROPHES = re.compile("[’‘ʼ´]")
_ASCII = str.maketrans("çğıöşüâîû", "cgiosuaiu")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_INLINE = re.compile(r"`[^`\n]*`")
_CODE_WORD = re.compile(
    r"(?<!`)`[^`\n]+`(?!`)|\S*(?:::|->|=>|==|[^\W\d]\.\w|\w\.[^\W\d]|\w_\w|(?<!\S)--?\w|[{}\[\]<>=&|\\$@]|\w\([^\s()]*\)|(?<!\S)/\w)"
    r"[^\s`]*?(?=[.,;:!?)]*(?:\s|$))")
_URL = re.compile(r"(?:https?://|www\.)\S+")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_CLAUSE_END = re.compile(r"[,;:()\"]+")

# English terms that Turkish developers use as they are, folded. They say nothing about the reply's language.
TECH = lexicon("""
ai algorithm api app array async auth aws backend background backpropagation backup bash batch benchmark big
binary bit block blockchain branch broker browser bug build byte cache callback cdn checkpoint class cli client
closure cloud cluster code collector commit compile compiler compose config connection constructor container
context control cookie core cors cpu crash crud css data dataset database ddos deadlock debug debugger default
deploy deployment dependency dev device devops dfs bfs dict directory distributed dns docker dockerfile domain
driver embedding encapsulation encoder decoder endpoint engine environment epoch error event exception factory
fallback feature fetch file fine-tuning finetuning fine tuning firewall float flow fork framework frontend
function garbage gateway generator get git github gitlab gpu gradient graph graphql hash hashmap header heap
host html http https image immutable index inheritance injection inline input insert instance int integer
interface interpreter ip iterator java javascript job join json jwt kernel key kubernetes lambda language latency
layer learning library linux list llm load local lock log login logging loop lora loss machine main map
master memory merge message metadata method microservice middleware migration ml mobile model module monolith
mutable mutex network neural nginx node nosql null object offline online oop open optimizer orm os output overfitting
overflow package packet parallel parameter parse parser password patch pattern payload pipeline pixel plugin
pod pointer pool polymorphism pop port post prompt process processor production promise protocol proxy public
private pull push put python query queue race ram react recursion redis redux refactor reference regex registry
release remote render replica repo repository request reset response rest retry return reverse revert root route
router rust runtime sandbox scale scaling schema scope script sdk select semaphore server serverless service
session shard sharding shell singleton snapshot socket software solid source sprint sql ssd ssh ssl stack stage
stash state stateless static status storage stream string struct swap switch synchronous sync syntax system
table tag tcp template terminal test thread throughput timeout tls token tool tooling traceback transaction
transformer tree trigger tuple type typescript udp ui underfitting unit update url user utf utf-8 value
variable vector vpn version virtual volume web webhook websocket wifi windows workflow worker write xml yaml
access analyze attribute authorization autoscale await backoff balancer behavior body bool borrow box bucket buffer cargo
checksum chrome chunk cleanup clone component composite consumer copy counter crate cron curl cursor dangling devtools
direct disk double drop dyn dynamic effect email enum etag exchange exec executor future generic gitignore global guard
headers history ide idempotent ieee impl implement import iso iter jitter jvm lag layout lazy leak limit literal logout
loopback match move namespace nan none npm numpy oom option origin pagination pandas panic partial pip policy poll polling
prefetch primary producer prop protection purge read rebase reflog reject replay requests requirements restart routing
salt scan sha sigkill sleep spawn staging stale std target timer tokio toml topic trace trait undefined unique unsafe
unwrap utc uuid vacuum vec venv vite vtable webpack
""")
_NEUTRAL = lexicon("jessy jessie kanka kankam kankacim ok okey oke bro i think believe guess haha hehe")
_PHRASES = re.compile(r"\bi (?:think|believe|guess)\b")

# A predicate at the end of a sentence, folded: person and tense endings, copula, var/yok/değil.
_FINITE = re.compile(
    r"\w{2,}(?:[iu]yo(?:r\w*|m|n|z|lar)?|[ae]c[ae][kg]\w*|(?<!ge)c[ae][mnz]|m[iu]s(?:[iu]m|t[iu]\w*|s[iu]n"
    r"|[iu]z|l[ae]r)?|[dt][iu](?:m|n|k|r|l[ae]r|rl[ae]r|n[iu]z)?|(?:(?<!l)[ae]r|[iu]r)(?:[iu]m|s[iu]n\w*|[iu]z"
    r"|l[ae]r|d[iu]\w*|m[iu]s)?|m[ae]z\w{0,6}|m[ae]m|[ae]l[iu]m|s[iu]n(?:[iu]z|l[ae]r)?|[ae]y[iu]m"
    r"|m[ae]l[iu]\w*|s[ae][mnk]|y[iu]m|y[iu]z|k[iu])|(?:var|yok)\w{0,6}|(?:degil|gerek|mi|mu)\w*|lazim|mumkun"
    r"|belli|sence|bence|demek|sart|normal|kolay|zor|derim|olsun")
_AORIST = re.compile(r"\w{2,}l[ae]r")
_AFTER = lexicon("buna bunu bunun ona onu onun ondan bundan sana seni bize burada orada boyle oyle o bu zaten icin diye")
# Imperatives, and the aorist of stems in -la, which looks like a plural (bekler, saglar).
_IMPERATIVE = re.compile(
    r"sor|anlat|yaz|bak|dusun|et|ol|de|kullan|bul|al|ver|tut|sil|cek|gec|kur|ac|kapat|bol|don|eris|yap|at|git"
    r"|gel|koy|cik|oku|calistir|baslat|durdur|degistir|cikar|ayir|dene|siler|boler|(?:sag|bas|an|top|sak|bag"
    r"|hesap|tamam|karsi|kopya|hazir)lar?|(?:bek|soy|din|is|temiz|yuk|ek|engel|guncel|on|giz|iz|des|yeni|ince"
    r"|test)ler?")
_VERB = re.compile(
    r"\w{2,}(?:[iu]yo[rmz]?\w*|[ae]c[ae][kg]\w*|m[ae]z\w*|[ae]bil[iu]r\w*|[aiu]r(?:[iu]m|s[iu]n|l[ae]r)"
    r"|d[iu][mk])")
_TAGS = lexicon("kanka kankam ya be yani iste bence sanirim tabi tabii valla haha bana sana hani cidden think i")
_TECH_SUFFIX = re.compile(
    r"(?:l[ae]r)?(?:[iu]m|[iu]n|[iu]m[iu]z)?(?:y?[iueao]|n[iu]n?|[iu]n|s[iu]\w*|y?l[ae]|[dtn][ae]n?|y[ae]"
    r"|l[iu]\w*|ci\w*)?(?:ki\w*|d[iu]r)?")


@lru_cache(maxsize=16384)
def clean(text: str) -> str:
    """The text as a reader sees it: no invisible characters, composed (NFC), one kind of apostrophe."""
    return _APOSTROPHES.sub("'", unicodedata.normalize("NFC", _INVISIBLE.sub("", text)))


def tr_lower(text: str) -> str:
    """Lower case by Turkish rules: I -> ı, İ -> i, in whatever Unicode form it came."""
    return clean(text).replace("İ", "i").replace("I", "ı").lower().replace("i\u0307", "i")


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """What both sides of a match go through: Turkish lower case, diacritics to ASCII, runs of space to one.

    It merges sık and sik, kız and kiz: never decide on such words from folded text alone.
    """
    bare = tr_lower(text).translate(_ASCII)
    if not bare.isascii():
        bare = "".join(c for c in unicodedata.normalize("NFD", bare) if not unicodedata.combining(c))
    return " ".join(bare.split())


def words(text: str) -> list[str]:
    """The words as written; docker'ı is one word, punctuation and emoji are none."""
    return _WORD.findall(clean(text))


def sentences(text: str) -> list[str]:
    """Sentences and lines that hold at least one word."""
    return [part.strip() for part in _END.split(clean(text)) if _WORD.search(part)]


@lru_cache(maxsize=8192)
def prose(text: str) -> str:
    """The text without fenced and inline code and URLs."""
    return _URL.sub(" ", _INLINE.sub(" ", _FENCED.sub(" ", clean(text))))


@lru_cache(maxsize=8192)
def spoken(text: str) -> str:
    """The prose with every piece of code as one word, in backticks or bare: Vec::new(), user_id, --force, a.b."""
    return prose(_CODE_WORD.sub(" code ", text))


@lru_cache(maxsize=8192)
def is_tech(word: str) -> bool:
    """Whether a folded word is an English tech term, with or without Turkish suffixes (docker'i, containerlar)."""
    stem, _, _ = word.partition("'")
    return stem in TECH or any(stem[:cut] in TECH and _TECH_SUFFIX.fullmatch(stem[cut:])
                               for cut in range(max(3, len(stem) - 8), len(stem)))


def content_words(text: str) -> list[str]:
    """Lower-cased words that can tell a language: no code, URLs, numbers, tech terms, names, fillers."""
    kept = []
    for word in words(_PHRASES.sub(" ", tr_lower(prose(text)))):
        folded = fold(word)
        if not (folded in _NEUTRAL or folded.isdigit() or is_tech(folded)):
            kept.append(word)
    return kept


def ends_finite(sentence: str) -> bool:
    """Whether the sentence ends in a predicate: person or tense ending, imperative, var/yok/değil, question.

    Pronouns may follow it ("buna saga deniyor", "saga deniyor buna"); a word in -lar is the aorist of a verb in -la
    where its clause has two words and more ("adım adım ilerler"), and a plural in a list.
    """
    clause = [word for word in words(_CLAUSE_END.split(fold(sentence).rstrip(" .!?…"))[-1]) if word not in _TAGS]
    while len(clause) > 1 and clause[-1] in _AFTER:
        clause.pop()
    if not clause:
        tail = [word for word in words(fold(sentence)) if word not in _TAGS]
        return bool(tail) and is_finite(tail[-1])
    return is_finite(clause[-1]) or (len(clause) >= 2 and _AORIST.fullmatch(clause[-1]) is not None and not is_tech(clause[-1]))


def has_finite(sentence: str) -> bool:
    """Whether there is a predicate: among the last three words, or verbs that cannot be nouns, one in twenty words."""
    tokens = [word for word in words(fold(sentence)) if word not in _TAGS]
    return any(map(is_finite, tokens[-3:])) or sum(_VERB.fullmatch(word) is not None for word in tokens) * 20 >= len(tokens) > 0


def has_predicate(sentence: str) -> bool:
    """Whether there is one anywhere: as has_finite, or at the end of a clause of three words or more, or a değil."""
    clauses = [words(clause) for clause in _CLAUSE_END.split(fold(sentence))]
    return has_finite(sentence) or any(
        "degil" in clause or (len(clause) >= 3 and is_finite(clause[-1])) for clause in clauses)


@lru_cache(maxsize=8192)
def is_finite(word: str) -> bool:
    """Whether a folded word looks like a predicate; tech terms do not."""
    bare = word.replace("'", "")
    return not is_tech(word) and any(pattern.fullmatch(bare) for pattern in (_FINITE, _IMPERATIVE))
