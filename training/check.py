"""Whether the training text is fit to train on: schema, counts, bands, our own scorers, language, duplicates, contamination.

    python -m training dataset --check
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.appropriateness import formal
from harness.cases import WORDS, Case, Kind, load_intents
from harness.contamination import RATIO, Text, alike, bare, overlaps, prompts
from harness.emotion import empathy
from harness.engines import Reply
from harness.facts import keywords_only
from harness.gates import gates
from harness.intents import misses
from harness.iterations import BANDS
from harness.language import is_turkish
from harness.persona import markers
from harness.philosophy import depth
from harness.turkish import content_words, fold, tr_lower, words
from training.entries import SUBCATEGORIES, Answer, Category, Entry

# Entries a subcategory; where only the category has a floor it stands under "".
FLOORS: dict[Category, dict[str, int]] = {
    "conversation": {"greetings and small talk": 50, "questions and answers": 75, "casual chat": 50, "slang and idioms": 25},
    "technical": {"rust": 30, "architecture": 30, "performance": 20, "debugging": 20},
    "philosophy": {"consciousness and AI": 15, "ethics": 15, "technology's impact": 10, "existential": 10},
    "iteration": {"complexity detection": 20, "fast answers": 15, "deep thinking": 15},
    "identity": {"": 40},
    "emotion": {"": 40},
    "multi-turn": {"": 60},
}
# Prompts and replies an entry.
LEAST: dict[Category, tuple[int, int]] = {
    "conversation": (8, 3), "technical": (3, 1), "philosophy": (3, 1), "iteration": (4, 1), "identity": (5, 2), "emotion": (4, 2)}
DIFFICULTY = {"low": "kolay", "medium": "orta", "high": "zor"}
CASUAL_WORDS = (2, 14)
TURNS = (2, 6)
_KINDS: dict[str, Kind] = {"technical": "technical", "philosophy": "philosophy", "emotion": "emotion"}
_WINDOWS = {"emotion": (5, 60), "multi-turn": (1, 60), "identity": (1, 40)}

# On unfolded text: folding makes sık and sik the same word.
_PROFANE = re.compile(
    r"\b(?:siktir\w*|sike(?:yim|rim|r)\w*|sikt\w*|s[ıi]çt\w*|amk|aq|amına\w*|amcık\w*|orospu\w*|piç\w*|göt(?!ür)\w*|yarrak\w*"
    r"|yarak\w*|ibne\w*|pezeveng\w*|kahpe\w*|gavat\w*|taşşak\w*|fuck\w*|shit\w*)\b")
_PERSONAL = re.compile(
    r"(?:\+90|\b0)[\s(]*5\d\d[\s)]*\d{3}[\s-]?\d\d[\s-]?\d\d\b|(?<!\w)(?!git@)[\w.+-]+@[\w-]+\.[a-z]{2,}\b|\bTR\d{2}(?:\s?\d{4}){3,}"
    r"|\b[1-9]\d{10}\b|\b(?:\d{4}[\s-]?){3}\d{4}\b")


def problems(entries: Sequence[Entry], data: Path | None = None) -> list[str]:
    """Everything that is wrong, one line each, with the entry's id. No line is a sound set. Raises DataError."""
    found, intents = [*_counts(entries)], load_intents(data)
    for entry in entries:
        found += [f"{entry.id}: {fault}" for fault in _faults(entry, intents)]
    return [*found, *_alike(entries), *_contaminated(entries, data)]


def _counts(entries: Sequence[Entry]) -> Iterator[str]:
    by_category = Counter(entry.category for entry in entries)
    by_subcategory = Counter((entry.category, entry.subcategory) for entry in entries)
    for category, floors in FLOORS.items():
        for subcategory, floor in floors.items():
            count = by_subcategory[category, subcategory] if subcategory else by_category[category]
            if count < floor:
                yield f"{category}{subcategory and ', '}{subcategory}: {count} entries; at least {floor} are needed"
        if missing := [name for name in SUBCATEGORIES[category] if not by_subcategory[category, name]]:
            yield f"{category}: no entry of subcategory {', '.join(missing)}"


def _faults(entry: Entry, intents: Collection[str]) -> Iterator[str]:
    yield from _shape(entry)
    if entry.intent and entry.intent not in intents:
        yield f"unknown intent '{entry.intent}'; data/evals/intents.jsonl has {', '.join(sorted(intents))}"
        return
    for said in entry.said:
        yield from _text(said, profane="insult" in (entry.intent or "", *entry.tags))
    # A mistyped prompt of three words, or one that quotes an error message, tells no detector its language.
    alone = [said for said in entry.said if len(content_words(said)) >= 5 and entry.language == "tr"]
    for said in (*alone, " . ".join(entry.said)):
        if "english" not in entry.tags and (foreign := is_turkish(said)):
            yield f"prompt {foreign}: {said[:60]!r}"
    for number, answer in enumerate(entry.answers):
        yield from _thinking(entry, answer)
        yield from _text(f"{answer.thinking}\n{answer.text}", profane=False)
        asked = entry.turns[number].user if entry.turns else entry.prompts[0]
        yield from (f"reply {fault}: {answer.text[:70]!r}" for fault in _reply(entry, asked, answer))


def _shape(entry: Entry) -> Iterator[str]:
    least = LEAST.get(entry.category)
    if least and len(entry.prompts) < least[0]:
        yield f"{len(entry.prompts)} prompts; {entry.category} needs at least {least[0]}"
    if least and len(entry.replies) < least[1]:
        yield f"{len(entry.replies)} replies; {entry.category} needs at least {least[1]}"
    if entry.turns and not TURNS[0] <= len(entry.turns) <= TURNS[1]:
        yield f"{len(entry.turns)} turns; {TURNS[0]} to {TURNS[1]} are allowed"
    low, high = BANDS[entry.complexity]
    if not low <= entry.iterations <= high:
        yield f"{entry.iterations} iterations; {entry.complexity} is {low}-{high}"


def _thinking(entry: Entry, answer: Answer) -> Iterator[str]:
    lines = answer.thinking.split("\n")
    if not entry.turns and len(lines) != entry.iterations:
        yield f"thinking has {len(lines)} lines, iterations is {entry.iterations}: {lines[0][:60]!r}"
    low, high = BANDS[entry.complexity]
    if not low <= len(lines) <= high:
        yield f"thinking has {len(lines)} lines; {entry.complexity} is {low}-{high}: {lines[0][:60]!r}"
    if not all(re.match(rf"{number}\. \S", line) for number, line in enumerate(lines, start=1)):
        yield f"thinking is not numbered 1., 2., ...: {lines[0][:60]!r}"
    word = DIFFICULTY[entry.complexity]
    if word not in words(fold(lines[0])):
        yield f"the first line of thinking does not say '{word}', as {entry.complexity} does: {lines[0][:60]!r}"
    if foreign := is_turkish(re.sub(r"^\d\. ", "", answer.thinking, flags=re.M)):
        yield f"thinking {foreign}: {lines[0][:60]!r}"


def _reply(entry: Entry, asked: str, answer: Answer) -> Iterator[str]:
    """What the project's own gates and criteria say of it."""
    case, reply = _case(entry, asked), Reply(answer.text, thinking=answer.thinking)
    yield from gates(case, reply)
    if formal(answer.text):
        yield "in a formal register"
    if entry.category == "conversation" and not CASUAL_WORDS[0] <= len(words(answer.text)) <= CASUAL_WORDS[1]:
        yield f"of {len(words(answer.text))} words; casual replies have {CASUAL_WORDS[0]}-{CASUAL_WORDS[1]}"
    if entry.intent:
        yield from misses(case, answer.text)
    if entry.emotion and not (outcome := empathy(case, reply)).passed:
        yield f"fails emotion ({'; '.join(outcome.reasons)})"
    if entry.category == "philosophy" and not (outcome := depth(case, reply)).passed:
        yield f"fails depth ({'; '.join(outcome.reasons)})"
    if entry.category == "technical" and keywords_only(answer.text):
        yield "is a list of keywords"
    if entry.persona:
        found = markers(case.model_copy(update={"persona": entry.persona, "kind": "persona"}), answer.text)
        if low := [name for name in ("opinion", "name") if found.get(name, 1.0) < 0.5]:
            yield f"fails personality ({', '.join(low)})"


def _case(entry: Entry, asked: str) -> Case:
    kind = _KINDS.get(entry.category, "conversation")
    window = _WINDOWS.get(entry.category, WORDS[entry.complexity])
    return Case(id=entry.id, kind=kind, category="training", prompt=asked, complexity=entry.complexity, words=window,
                echo_ok=True, intent=entry.intent, emotion=entry.emotion, polarity=entry.polarity, cause=entry.cause,
                crisis=entry.crisis)


def _text(text: str, *, profane: bool) -> Iterator[str]:
    if hit := _PERSONAL.search(text):
        yield f"personal data: {hit[0]!r}"
    if not profane and (hit := _PROFANE.search(tr_lower(text))):
        yield f"profanity: {hit[0]!r}"


def _alike(entries: Sequence[Entry]) -> Iterator[str]:
    """Prompts that are the same after folding, or close ones of two entries; dialogues are compared whole."""
    said = [(entry, text) for entry in entries for text in (entry.prompts or (" / ".join(turn.user for turn in entry.turns),))]
    folded = [bare(text) for _, text in said]
    for one, other, score in alike(folded, RATIO):
        if folded[one] == folded[other] or said[one][0] is not said[other][0]:
            (entry, text), (again, _) = said[other], said[one]
            how = "the same" if folded[one] == folded[other] else f"{score} % alike"
            yield f"{entry.id}: near-duplicate: prompt {how} as in '{again.id}': {text[:70]!r}"
    replies: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for answer in entry.answers:
            if len(words(answer.text)) >= 6:
                replies[bare(answer.text)].append(entry.id)
    for text, ids in replies.items():
        if len(ids) > 1:
            yield f"{ids[1]}: near-duplicate: reply the same as in '{ids[0]}': {text[:70]!r}"


def _contaminated(entries: Sequence[Entry], data: Path | None) -> Iterator[str]:
    texts = [Text(entry.id, text) for entry in entries for text in (*entry.said, *(answer.text for answer in entry.answers))]
    for overlap in overlaps(prompts(data), texts):
        yield f"contamination: {overlap}"
