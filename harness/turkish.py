"""Turkish text: casing, folding, words, and whether a reply is Turkish at all.

Never call str.lower() on Turkish: "I".lower() is "i" (Turkish wants "ı") and "İ".lower() is two code points.
Importing this module loads no detector; the first question about language does (half a second).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lingua import LanguageDetector


def _lexicon(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Zero-width and directional characters, soft hyphen, variation selectors: invisible, and they split words.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f]")
_APOSTROPHES = re.compile("[’‘ʼ´]")
_ASCII = str.maketrans("çğıöşüâîû", "cgiosuaiu")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_INLINE = re.compile(r"`[^`\n]*`")
_URL = re.compile(r"(?:https?://|www\.)\S+")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_CLAUSE_END = re.compile(r"[,;:()\"]+")

# English terms that Turkish developers use as they are, folded. They say nothing about the reply's language.
TECH = _lexicon("""
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
_NEUTRAL = _lexicon("jessy jessie kanka kankam kankacim ok okey oke bro i think believe guess haha hehe")
_PHRASES = re.compile(r"\bi (?:think|believe|guess)\b")

# Turkish words that no English or Azerbaijani reply shares often, folded.
_FUNCTION = _lexicon("""
acaba ama anladim ancak artik aslinda ayni bana bazen bazi belki ben bence beni benim bi bir biraz bisey bisi biz
boyle bu bugun buna bunu bunun buyur cok cunku da daha dahi de degil demek diye ee ediyor eger elbette en et etmek
evet fakat falan filan galiba gayet gel gerek gibi gore guzel hadi hangi hatta hayir hem hep her herkes hic icin
ile ise iste iyi iyiyim kadar kendi ki kim kimse lazim merak merhaba mi misin mu musun mesela nasil nasilsin ne
neden nedir nerede niye o olan olarak oldu olsun olur ona onu onun oyle peki pek rica sadece sana sanirim sen sence
seni senin selam sey siz sizin simdi sonra soyle su suna sunu tabi tabii tam tamam tamamdir tane tesekkurler tum
ustelik uzere valla var ve veya ya yada yani yeni yine yok yoksa zaten bide cidden gunaydin naber napiyon eyvallah
eyw slm nbr tmm mrb insallah masallah allah allaha emanet saol sagol bay gule hadi boyle abi
anne baba arkadas bugunluk yarin dun sabah aksam gece gun saat hava su cay kahve yemek is okul ev para kotu zor kolay yavas
""")
_SUFFIX = re.compile(
    r"\w{2,}(?:[iu]yo(?:r\w*|m|n|z|lar)?|[ae]c[ae][kg]\w*|[iu]c[ae][mnkz]\w*|l[ae]r(?:[iu]\w{0,4}|[dt][ae]n?"
    r"|[ae])?|[dt][ae]n|n[iu]n|[dt][iu](?:m|n|k|r|l[ae]r|n[iu]z)?|m[iu]s(?:[iu]m|t[iu]\w*|s[iu]n)?"
    r"|m[ae]k(?:t[ae]\w*)?|m[ae]s[iu]\w{0,3}|m[ae]y[ae]\w*|m[ae]z|[ae]r[ae]k|[iu]nc[ae]|s[iu]n(?:[iu]z)?"
    r"|[ae]l[iu]m|[ae]b[iu]l\w*|l[iu][kg]\w{0,4}|y[iu]m|y[iu]z|[iu]m[iu]z\w*|s[iu]z|c[iu]l\w*|[ae]y[iu]m"
    r"|m[ae]l[iu]\w*)")
_ENGLISH = _lexicon("""
the are you your yours and it's i'm that's what how that this with have has from they will would could should was
were been not about which there their let's let don't can't won't hello hi hey yes sure thanks thank please help
listening listen ask tell going go ahead want know does did who where when why because just like of to my for it
""")
_ENGLISH_PAIRS = re.compile(
    r"\b(?:(?:is|as|in|of|to) (?:an?|the)|are the|i am|i'm|you are|no problem|well done)\b")
# Azerbaijani written in ASCII: q and x stems, -yir-, -irem: shapes that Turkish spelling does not have.
_AZERI = re.compile(
    r"\w{2,}[ae]yir\w*|(?!hatiram)\w{2,}[iu]r[ae]m|\w+m[ae]q|\w{2,}m[iu]s[ae]m|\w{3,}(?<!cl)[iu]b|\w{4,}[iu]r[iu]k|\w*xs[iu]\w*|cox\w*|yox\w*|xos\w*|xey[ri]\w*"
    r"|vaxt\w*|haq\w*|qar\w+|qal\w+|qo\w+|menim|mene|men|nece\w*|ucun|deyil\w*|eliyir\w*|komek\w*|zehmet\w*"
    r"|sual\w*|edir\w*|gedir\w*|hemise|cunki|yaxin\w*|axsam\w*|baxi\w+|beli")

# Letters that Turkish spelling does not put together, folded.
_FOREIGN = re.compile(r"[qwx]|[ctspk]h|ck|sch|oo|ee|ie|ei\b|ou|gh|tz|\b(?:st|sp|pr)[^aeiou]|[bcdfgkpt]{3}")

# A predicate at the end of a sentence, folded: person and tense endings, copula, var/yok/değil.
_FINITE = re.compile(
    r"\w{2,}(?:[iu]yo(?:r\w*|m|n|z|lar)?|[ae]c[ae][kg]\w*|(?<!ge)c[ae][mnz]|m[iu]s(?:[iu]m|t[iu]\w*|s[iu]n"
    r"|[iu]z|l[ae]r)?|[dt][iu](?:m|n|k|r|l[ae]r|rl[ae]r|n[iu]z)?|(?:(?<!l)[ae]r|[iu]r)(?:[iu]m|s[iu]n\w*|[iu]z"
    r"|l[ae]r|d[iu]\w*|m[iu]s)?|m[ae]z\w{0,6}|m[ae]m|[ae]l[iu]m|s[iu]n(?:[iu]z|l[ae]r)?|[ae]y[iu]m"
    r"|m[ae]l[iu]\w*|s[ae][mnk]|y[iu]m|y[iu]z|k[iu])|(?:var|yok)\w{0,6}|(?:degil|gerek|mi|mu)\w*|lazim|mumkun"
    r"|belli|sence|bence|demek|sart|normal|kolay|zor|derim|olsun")
_AORIST = re.compile(r"\w{2,}l[ae]r")
_AFTER = _lexicon("buna bunu bunun ona onu onun ondan bundan sana seni bize burada orada boyle oyle o bu zaten icin diye")
# Imperatives, and the aorist of stems in -la, which looks like a plural (bekler, saglar).
_IMPERATIVE = re.compile(
    r"sor|anlat|yaz|bak|dusun|et|ol|de|kullan|bul|al|ver|tut|sil|cek|gec|kur|ac|kapat|bol|don|eris|yap|at|git"
    r"|gel|koy|cik|oku|calistir|baslat|durdur|degistir|cikar|ayir|dene|siler|boler|(?:sag|bas|an|top|sak|bag"
    r"|hesap|tamam|karsi|kopya|hazir)lar?|(?:bek|soy|din|is|temiz|yuk|ek|engel|guncel|on|giz|iz|des|yeni|ince"
    r"|test)ler?")
_VERB = re.compile(
    r"\w{2,}(?:[iu]yo[rmz]?\w*|[ae]c[ae][kg]\w*|m[ae]z\w*|[ae]bil[iu]r\w*|[aiu]r(?:[iu]m|s[iu]n|l[ae]r)"
    r"|d[iu][mk])")
_TAGS = _lexicon("kanka kankam ya be yani iste bence sanirim tabi tabii valla haha bana sana hani cidden think i")
_NAMES = {"en": "English", "az": "Azerbaijani", "tr": "another language"}
_TECH_SUFFIX = re.compile(
    r"(?:l[ae]r)?(?:[iu]m|[iu]n|[iu]m[iu]z)?(?:y?[iueao]|n[iu]n?|[iu]n|s[iu]\w*|y?l[ae]|[dtn][ae]n?|y[ae]"
    r"|l[iu]\w*|ci\w*)?(?:ki\w*|d[iu]r)?")


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


def prose(text: str) -> str:
    """The text without fenced and inline code and URLs."""
    return _URL.sub(" ", _INLINE.sub(" ", _FENCED.sub(" ", clean(text))))


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


@lru_cache(maxsize=8192)
def is_turkish(text: str) -> str | None:
    """None where the text passes for Turkish, else the reason (facts/turkish.md 2.4).

    Two of three votes: lingua {tr, en, az}, Turkish function words and endings, and, from twelve content words
    on, langdetect. Under four content words only positive evidence of another language rejects.
    """
    if "ə" in tr_lower(text):
        return "not Turkish: Azerbaijani letter ə"
    if _foreign_letters(text) > 0.3:
        return "not Turkish: another script"
    content = content_words(text)
    folded = [fold(word) for word in content]
    if not content:
        return None
    if _share(_AZERI.fullmatch, folded) > 0.15:
        return "not Turkish: Azerbaijani words"
    if _turkish_share(folded) < 0.34 and _ENGLISH_PAIRS.search(fold(text)):
        return "not Turkish: English"
    return _short(content, folded) if len(content) < 4 else _long(content, folded)


def _short(content: list[str], folded: list[str]) -> str | None:
    """One word, a name perhaps, is English only if it is a known English word."""
    english = _share(_ENGLISH.__contains__, folded)
    if _turkish_share(folded) >= 0.34 or (len(content) == 1 and not english):
        return None
    chance = _chances(" ".join(content))
    if chance["en"] >= 0.95 or (chance["en"] >= 0.4 and english):
        return "not Turkish: English"
    return "not Turkish: Azerbaijani" if chance["az"] >= 0.8 else None


def _long(content: list[str], folded: list[str]) -> str | None:
    text = " ".join(content)
    chance, turkish = _chances(text), _turkish_share(folded)
    votes = [chance["tr"] >= 0.5, turkish >= 0.25]
    if sum(votes) == 1 and len(content) >= 12:  # slow, and needless where the others agree
        votes.append(_langdetect(text) == "tr")
    if sum(votes) >= 2 or chance["tr"] >= 0.8 or (chance["tr"] >= 0.2 and turkish >= 0.5):
        return None
    # lingua tells short Turkish from Azerbaijani by a hair: without a word that only Azerbaijani has, Turkish it is.
    if len(content) < 12 and max(chance["tr"] / 0.3, turkish / 0.5) >= 1 and chance["en"] < 0.35 and not any(
            _AZERI.fullmatch(word) or _FOREIGN.search(word) for word in folded):
        return None
    return f"not Turkish: {_NAMES[max(chance, key=lambda language: chance[language])]}"


def _turkish_share(folded: list[str]) -> float:
    return _share(lambda word: word in _FUNCTION or _SUFFIX.fullmatch(word), folded)


def _share(test: Callable[[str], object], items: list[str]) -> float:
    return sum(1 for item in items if test(item)) / len(items)


def _foreign_letters(text: str) -> float:
    letters = [c for c in prose(text) if c.isalpha()]
    return sum(c > "ɏ" for c in letters) / len(letters) if letters else 0.0


@cache
def _lingua() -> LanguageDetector:
    from lingua import Language, LanguageDetectorBuilder
    three = (Language.TURKISH, Language.ENGLISH, Language.AZERBAIJANI)
    return LanguageDetectorBuilder.from_languages(*three).build()


def _chances(text: str) -> dict[str, float]:
    values = _lingua().compute_language_confidence_values(text)
    return {value.language.iso_code_639_1.name.lower(): value.value for value in values}


def _langdetect(text: str) -> str:
    from langdetect import DetectorFactory, LangDetectException, detect
    DetectorFactory.seed = 0  # unseeded, the same text gets another label on the next run
    try:
        return str(detect(text))
    except LangDetectException:
        return ""
