"""Whether the eval set is sound: schema, counts, split, near-duplicates, gold, and contamination by training text.

    python -m harness cases --check
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cases
from harness.cases import KINDS, Case, Kind, load_cases, load_gold, load_intents
from harness.contamination import RATIO, bare, close, overlaps, prompts, training_texts

# Cases a file, both halves; DESIGN.md section 4 wants the halves about equal.
FLOORS: dict[Kind, int] = {"conversation": 480, "technical": 160, "philosophy": 60, "iterations": 120, "persona": 100,
                           "multiturn": 80, "emotion": 80}
CATEGORIES, INTENTS, NOISY = 28, 60, 0.15
MULTIPLE_CHOICE, SPOOFS = 40, 10
PERSONA = {"opinion": 40, "fact": 30, "identity": 30}
DIALOGUES = {"slot": 40, "instruction": 20, "correction": 10, "topic-return": 10}
A_CLASS, PAIRS = 40, 20
FACTS, CONTRADICTIONS = (3, 5), (1, 15)
GOLD, HELD_OUT, HELD_OUT_CASES = 2, 2, 300
# From here on two prompts are one way of asking, and may not stand on both sides of the split.
FAMILY = 84


@dataclass(frozen=True)
class Validation:
    """What the check found: a row of the table for every kind, and a line for every problem."""

    rows: tuple[tuple[str | int, ...], ...]
    problems: tuple[str, ...] = field(default=())


def validate(data: Path | None = None) -> Validation:
    """Check everything. Raises DataError for a file that does not parse."""
    suite = {kind: load_cases(kind, half=None, data=data) for kind in KINDS}
    every = [case for kind in KINDS for case in suite[kind]]
    found = [*_counts(suite, data), *_content(every, data), *_split(every), *_alike(every), *_gold(suite, data),
             *_contamination(data)]
    return Validation(tuple(_row(kind, suite[kind], data) for kind in KINDS), tuple(found))


def _row(kind: Kind, of: Sequence[Case], data: Path | None) -> tuple[str | int, ...]:
    halves = Counter(case.half for case in of)
    good = sum(row.good for row in _gold_rows(kind, data, held_out=False))
    held = sum(row.good for row in _gold_rows(kind, data, held_out=True))
    return (kind, len(of), halves["open"], halves["sealed"], len({case.category for case in of}),
            len({case.group for case in of}), good, held)


def _counts(suite: dict[Kind, tuple[Case, ...]], data: Path | None) -> Iterator[str]:
    for kind, of in suite.items():
        yield from _at_least(f"{kind}: cases", len(of), FLOORS[kind])
    talk = suite["conversation"]
    yield from _at_least("conversation: categories", len({case.category for case in talk}), CATEGORIES)
    yield from _at_least("conversation: intents", len({case.intent for case in talk}), INTENTS)
    noisy = sum(not {"abbrev", "noise"}.isdisjoint(case.tags) for case in talk)
    yield from _at_least("conversation: abbreviated or mistyped prompts", noisy, round(NOISY * len(talk)))
    if "edge" not in {case.category for case in talk}:
        yield "conversation: no category 'edge'"
    yield from _at_least("technical: multiple-choice", sum(bool(case.options) for case in suite["technical"]), MULTIPLE_CHOICE)
    steps = suite["iterations"]
    classes = Counter(case.complexity for case in steps)
    for complexity in cases.WORDS:
        yield from _at_least(f"iterations: {complexity}", classes[complexity], A_CLASS)
    pairs = Counter(case.pair for case in steps)
    yield from _at_least("iterations: minimal pairs", sum(count == 2 for count in pairs.values()), PAIRS)
    yield from _at_least("iterations: spoofs", sum(case.category == "spoof" for case in steps), SPOOFS)
    for name, floor in PERSONA.items():
        yield from _at_least(f"persona: {name}", sum(case.persona == name for case in suite["persona"]), floor)
    for name, floor in DIALOGUES.items():
        yield from _at_least(f"multiturn: {name}", sum(case.category == name for case in suite["multiturn"]), floor)


def _at_least(what: str, count: int, floor: int) -> Iterator[str]:
    if count < floor:
        yield f"{what}: {count}; at least {floor} are needed"


def _content(every: Sequence[Case], data: Path | None) -> Iterator[str]:
    """What a schema cannot see: unknown intents, facts and contradictions out of bounds, halves of a pair."""
    intents = load_intents(data)
    for name, times in Counter(case.id for case in every).items():
        if times > 1:
            yield f"{name}: the id stands in {times} files; ids are unique"
    for case in every:
        if case.intent and case.intent not in intents:
            yield f"{case.id}: unknown intent '{case.intent}'; intents.jsonl has {', '.join(sorted(intents))}"
        if case.kind == "technical" and not case.options:
            yield from _facts(case)
    for kind in ("iterations", "multiturn"):
        pairs: dict[str, list[Case]] = defaultdict(list)
        for case in every:
            if case.kind == kind and case.pair and case.category.startswith(("pair", "slot")):
                pairs[case.pair].append(case)
        for pair, of in pairs.items():
            if len(of) != 2:
                yield f"{of[0].id}: {len(of)} cases in pair '{pair}'; a pair has two"
            elif kind == "iterations" and of[0].complexity == of[1].complexity:
                yield f"{of[0].id}: both cases of pair '{pair}' are {of[0].complexity}; they differ in complexity"


def _facts(case: Case) -> Iterator[str]:
    if not FACTS[0] <= len(case.facts) <= FACTS[1]:
        yield f"{case.id}: {len(case.facts)} facts; {FACTS[0]} to {FACTS[1]} are allowed"
    if not any(fact.critical for fact in case.facts):
        yield f"{case.id}: no critical fact; at least one is needed"
    if not CONTRADICTIONS[0] <= len(case.contradict) <= CONTRADICTIONS[1]:
        yield f"{case.id}: {len(case.contradict)} contradictions; {CONTRADICTIONS[0]} to {CONTRADICTIONS[1]} are allowed"


def _split(every: Sequence[Case]) -> Iterator[str]:
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case in every:
        groups[case.kind, case.group].add(case.half)
    for (kind, group), halves in groups.items():
        if len(halves) > 1:
            yield f"{kind}: group '{group}' stands in both halves; a paraphrase family stays whole"
    for kind in KINDS:
        sizes = Counter(case.half for case in every if case.kind == kind)
        if abs(sizes["open"] - sizes["sealed"]) > 0.05 * max(1, sizes.total()):
            yield f"{kind}: {sizes['open']} open and {sizes['sealed']} sealed; the halves are to be equal"
        on_open, on_sealed = ({case.category for case in every if case.kind == kind and case.half == half}
                              for half in ("open", "sealed"))
        for category in sorted(on_open ^ on_sealed):
            yield f"{kind}: category '{category}' stands in one half only"


def _alike(every: Sequence[Case]) -> Iterator[str]:
    """The same prompt twice anywhere; close ones outside a group; one family on both sides of the split.

    Dialogues are compared whole; the halves of a pair may be alike.
    """
    said = [bare(" / ".join(case.prompts)) for case in every]
    for one, other, score in close(said, said, FAMILY):
        first, second = every[one], every[other]
        if one >= other or (first.pair and first.pair == second.pair):
            continue
        if said[one] == said[other]:
            yield f"{second.id}: near-duplicate: the same prompt as '{first.id}': {second.prompts[-1][:70]!r}"
        elif score >= RATIO and first.group != second.group:
            yield f"{second.id}: near-duplicate: {score} % alike '{first.id}', another group: {second.prompts[-1][:70]!r}"
        elif first.half != second.half and len(said[one].split()) > 2:
            yield f"{second.id}: {score} % alike '{first.id}' in the other half; a paraphrase family stays whole: {second.prompts[-1][:70]!r}"


def _gold_rows(kind: Kind, data: Path | None, *, held_out: bool) -> tuple[cases.Gold, ...]:
    path = (data or cases.DATA) / "gold" / f"{kind}{'-held-out' if held_out else ''}.jsonl"
    return load_gold(kind, data, held_out=held_out) if path.is_file() else ()


def _gold(suite: dict[Kind, tuple[Case, ...]], data: Path | None) -> Iterator[str]:
    held_cases = 0
    for kind, of in suite.items():
        by_id = {case.id: case for case in of}
        for held_out in (False, True):
            rows, replies = _gold_rows(kind, data, held_out=held_out), defaultdict(list)
            for row in rows:
                if row.case not in by_id:
                    yield f"gold/{kind}: case '{row.case}' does not exist"
                elif len(row.replies) != len(by_id[row.case].prompts):
                    yield f"gold/{kind}: {row.case}: {len(row.replies)} replies to {len(by_id[row.case].prompts)} turns"
                elif row.held_out != held_out:
                    yield f"gold/{kind}: {row.case}: held_out is {row.held_out}; held-out replies stand in {kind}-held-out.jsonl"
                elif row.good:
                    replies[row.case].append(bare(" / ".join(row.replies)))
            for name, texts in replies.items():
                if len(set(texts)) < len(texts):
                    yield f"gold/{kind}: {name}: the same reply twice"
            if held_out:
                held_cases += sum(len(texts) >= HELD_OUT for texts in replies.values())
            else:
                short = [name for name in by_id if len(replies[name]) < GOLD]
                if short:
                    yield f"gold/{kind}: {len(short)} cases have fewer than {GOLD} good replies: {', '.join(short[:3])}, ..."
    yield from _at_least(f"gold: cases with {HELD_OUT} held-out replies", held_cases, HELD_OUT_CASES)


def _contamination(data: Path | None) -> Iterator[str]:
    """Training text against the prompts, and against the replies that certify the scorers, word for word."""
    texts = training_texts(data)
    for overlap in overlaps(prompts(data), texts):
        yield f"contamination: {overlap}"
    held = {bare(reply): row.case for kind in KINDS for row in _gold_rows(kind, data, held_out=True) for reply in row.replies}
    for text in texts:
        if len(text.text.split()) >= 6 and (name := held.get(bare(text.text))):
            yield f"contamination: {text.where}: the same as a held-out reply to '{name}'"
