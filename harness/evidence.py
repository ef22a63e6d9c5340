"""The evidence on the scorers: labelled replies, and replies made to fool, scored on every criterion."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness import adversarial, cases
from harness.adversarial import Bad, Good
from harness.appropriateness import appropriateness
from harness.cases import KINDS, Gold, Kind, load_cases, load_gold
from harness.dialogue import dialogue
from harness.emotion import empathy
from harness.engines import Reply
from harness.facts import technical
from harness.intents import conversation
from harness.iterations import BANDS, iteration_efficiency, iterations
from harness.persona import personality
from harness.philosophy import depth
from harness.score import Check

SEED = 20261123
SAMPLE = 60  # good replies of a criterion that a family's bad ones are made of

_ALWAYS = ("A1", "A2", "A5", "A6", "A10", "A11", "A12", "A16", "A18", "A19", "A21")


@dataclass(frozen=True)
class Scorer:
    """The check of a criterion, the kinds of cases it scores, and the families it has to refuse."""

    check: Check
    kinds: tuple[Kind, ...]
    families: tuple[str, ...]


# By the name of the test in evals/; tests/test_certify.py holds them equal.
SCORERS: Mapping[str, Scorer] = {
    "test_turkish": Scorer(conversation, ("conversation",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A9", "A14", "A15", "A24")),
    "test_technical": Scorer(technical, ("technical",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A9", "A14", "A15")),
    "test_philosophy": Scorer(depth, ("philosophy",), (*_ALWAYS, "A3", "A4", "A7", "A9", "A14", "A15")),
    "test_iterations": Scorer(iteration_efficiency, ("iterations", "conversation", "technical", "philosophy"),
                              (*_ALWAYS, "A3", "A7", "A9", "A14", "A17")),
    "test_personality": Scorer(personality, ("persona", "conversation", "technical", "philosophy"),
                               (*_ALWAYS, "A7", "A13", "A14")),
    "test_appropriateness": Scorer(appropriateness, ("conversation", "technical", "philosophy", "persona", "emotion"),
                                   (*_ALWAYS, "A9")),
    "test_multiturn": Scorer(dialogue, ("multiturn",), (*_ALWAYS, "A3", "A7", "A14", "A20")),
    "test_emotion": Scorer(empathy, ("emotion",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A14", "A23", "A24")),
}
@dataclass(frozen=True)
class Judged:
    """A bad reply with what its criterion's scorer said of it."""

    criterion: str
    bad: Bad
    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What was scored: everything that the certificate counts, and that `--show` prints."""

    good: Mapping[str, Sequence[tuple[Good, bool, bool, tuple[str, ...]]]]  # criterion -> reply, held out, kept, reasons
    bad: Sequence[Judged]


def examine(sample: int = SAMPLE, tick: Callable[[str], None] = lambda name: None, criteria: Collection[str] = ()) -> Evidence:
    """Score the good replies and the bad ones on these criteria, or on all. Raises DataError."""
    known, held = _good(held_out=False), _good(held_out=True)
    good: dict[str, list[tuple[Good, bool, bool, tuple[str, ...]]]] = {}
    bad: list[Judged] = []
    for name, scorer in SCORERS.items():
        if criteria and name not in criteria:
            continue
        tick(name)
        good[name] = []
        for held_out, replies in ((False, known), (True, held)):
            for one in (one for kind in scorer.kinds for one in replies[kind] if name != "test_iterations" or _in_band(one)):
                outcome = scorer.check(one.case, one.reply)
                good[name].append((one, held_out, outcome.passed, outcome.reasons))
        for made in _bad(name, scorer, known, sample):
            outcome = scorer.check(made.case, made.reply)
            bad.append(Judged(name, made, outcome.passed, outcome.reasons))
    return Evidence(good, bad)


def _good(*, held_out: bool) -> dict[Kind, list[Good]]:
    found: dict[Kind, list[Good]] = {}
    for kind in KINDS:
        by_id = {case.id: case for case in load_cases(kind, half=None)}
        found[kind] = [Good(by_id[row.case], _reply(row)) for row in load_gold(kind, held_out=held_out)]
    return found


def _reply(row: Gold) -> Reply:
    return Reply(row.replies[-1], thinking=row.thinking, earlier=tuple(map(Reply, row.replies[:-1])))


def _in_band(one: Good) -> bool:
    """Not every author of a good reply wrote as many steps as its class wants: such a trace is no good one."""
    low, high = BANDS[one.case.complexity]
    return low <= iterations(one.reply) <= high


def _bad(name: str, scorer: Scorer, known: Mapping[Kind, Sequence[Good]], sample: int) -> Iterator[Bad]:
    pool = [one for kind in scorer.kinds for one in known[kind]]
    for family in scorer.families:
        draw = random.Random(f"{SEED} {name} {family}")
        for kind in scorer.kinds:
            # The first kind is the criterion's own; the others lend it some cases each.
            share = sample if kind == scorer.kinds[0] else max(1, sample // 4)
            chosen = draw.sample(known[kind], min(share, len(known[kind])))
            yield from adversarial.generated(family, chosen, known[kind] if kind == scorer.kinds[0] else pool, draw)
    for kind in scorer.kinds:
        by_id = {case.id: case for case in load_cases(kind, half=None)}
        for held_out in (False, True):
            for row in _written(kind, held_out=held_out):
                if row.family in scorer.families and _applies(name, row.family, kind):
                    yield from _forms(Bad(row.family, by_id[row.case], _reply(row), written=True, held_out=held_out))


def _applies(name: str, family: str, kind: Kind) -> bool:
    """A9 beside the question is no fault of length or register; A8 is judged by what knows the right answer."""
    return not (name == "test_appropriateness" and family == "A9") and not (name == "test_personality" and kind != "persona")


def _forms(bad: Bad) -> Iterator[Bad]:
    """Azerbaijani counts as it is and in ASCII."""
    yield bad
    if bad.family == "A6":
        yield replace(bad, reply=replace(bad.reply, text=adversarial.azeri_ascii(bad.reply.text)))


def _written(kind: Kind, *, held_out: bool) -> tuple[Gold, ...]:
    path = cases.DATA / "gold" / f"{kind}-bad{'-held-out' if held_out else ''}.jsonl"
    return load_gold(kind, good=False, held_out=held_out) if path.is_file() else ()
