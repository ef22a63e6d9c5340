"""Certify the scorers: good replies kept, replies made to fool them refused, on every criterion.

    python -m harness certify

The result is a plain dictionary, the same bytes for the same scorers, cases, gold replies and seed.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from harness import adversarial, cases, gates, intents
from harness import certificate as standing
from harness.adversarial import FAMILIES, Bad, Good
from harness.appropriateness import appropriateness
from harness.cases import KINDS, Case, Gold, Kind, load_cases, load_gold
from harness.dialogue import dialogue
from harness.display import visible
from harness.emotion import empathy
from harness.engines import Reply
from harness.facts import technical
from harness.files import write_text
from harness.intents import conversation
from harness.iterations import BANDS, iteration_efficiency, iterations
from harness.jsonl import DataError
from harness.persona import personality
from harness.philosophy import depth
from harness.score import Check

SEED = 20261123
SAMPLE = 60  # good replies of a criterion that a family's bad ones are made of
FORMAT = 1
KEPT, REFUSED, A_FAMILY, CONSTANT, WRONG_INTENT, INVARIANT = 0.90, 0.95, 0.90, 0.25, 0.03, 0.98

_ALWAYS = ("A1", "A2", "A5", "A6", "A10", "A11", "A12", "A16", "A18", "A19", "A21")


@dataclass(frozen=True)
class Scorer:
    """The check of a criterion, the kinds of cases it scores, and the families it has to refuse."""

    check: Check
    kinds: tuple[Kind, ...]
    families: tuple[str, ...]


# By the name of the test in evals/; tests/test_certify.py holds them equal.
SCORERS: Mapping[str, Scorer] = {
    "test_turkish": Scorer(conversation, ("conversation",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A9", "A14", "A15")),
    "test_technical": Scorer(technical, ("technical",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A9", "A14", "A15")),
    "test_philosophy": Scorer(depth, ("philosophy",), (*_ALWAYS, "A3", "A4", "A7", "A9", "A14", "A15")),
    "test_iterations": Scorer(iteration_efficiency, ("iterations", "conversation", "technical", "philosophy"),
                              (*_ALWAYS, "A3", "A7", "A9", "A14", "A17")),
    "test_personality": Scorer(personality, ("persona", "conversation", "technical", "philosophy"),
                               (*_ALWAYS, "A7", "A13", "A14")),
    "test_appropriateness": Scorer(appropriateness, ("conversation", "technical", "philosophy", "persona", "emotion"),
                                   (*_ALWAYS, "A9")),
    "test_multiturn": Scorer(dialogue, ("multiturn",), (*_ALWAYS, "A3", "A7", "A14", "A20")),
    "test_emotion": Scorer(empathy, ("emotion",), (*_ALWAYS, "A3", "A4", "A7", "A8", "A14", "A23")),
}
Json = dict[str, Any]


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


def examine(sample: int = SAMPLE, tick: Callable[[str], None] = lambda name: None) -> Evidence:
    """Score the good replies and the bad ones on every criterion. Raises DataError."""
    known, held = _good(held_out=False), _good(held_out=True)
    good: dict[str, list[tuple[Good, bool, bool, tuple[str, ...]]]] = {}
    bad: list[Judged] = []
    for name, scorer in SCORERS.items():
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


def certificate(evidence: Evidence, sample: int = SAMPLE, tick: Callable[[str], None] = lambda name: None) -> Json:
    """The rates of the evidence, and what is measured beside it; `problems` is empty where the scorers are certified."""
    criteria = {name: _criterion(name, evidence) for name in SCORERS}
    tick("invariance")
    invariance = {name: _invariance(name, scorer, evidence, sample) for name, scorer in SCORERS.items()}
    tick("constants")
    constants = _constants()
    tick("deletion")
    content: Json = {
        "format": FORMAT, "scorers": standing.scorers(), "evidence": standing.evidence(), "seed": SEED, "sample": sample,
        "criteria": criteria,
        "families": {family: _pooled(judged for judged in evidence.bad if judged.bad.family == family) for family in FAMILIES
                     if any(judged.bad.family == family for judged in evidence.bad)},
        "invariance": invariance, "constants": constants, "deletion": deletion(evidence), "rules": rules()}
    return {**content, "problems": problems(content)}


def command(*, sample: int | None = None, out: Path | None = None, check: bool = False, show: str | None = None) -> int:
    """`python -m harness certify`: 0 certified, 1 not, or with `check` another certificate than the one that lies there."""
    path, sample = out or standing.FILE, SAMPLE if sample is None else sample

    def tick(name: str) -> None:
        if sys.stderr.isatty():
            print(f"  {name}", file=sys.stderr)

    try:
        found = examine(sample, tick)
        if show:
            return _show(found, *show.partition(":")[::2])
        content = certificate(found, sample, tick)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 4
    print("\n".join(table(content)))
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if not check:
        write_text(path, text)
        print(f"certificate: {path.name} {standing.digest(content)}")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        print(f"{path.name} is not the certificate of these scorers; run: python -m harness certify", file=sys.stderr)
        return 1
    return 1 if content["problems"] else 0


def table(content: Json) -> Iterator[str]:
    """The certificate on the terminal: a line a criterion, a line a family, what stands beside them, and the problems."""
    yield f"{'criterion':<22}{'kept, held out':>22}{'kept, known':>13}{'refused':>9}{'same spelled otherwise':>24}"
    for name, row in content["criteria"].items():
        held, known = row["kept"]["held_out"], row["kept"]["known"]
        yield (f"{name:<22}{held['hits']:>9} of {held['n']:<4}{held['rate']:>6.1%}{known['rate']:>13.1%}{row['tnr']:>9.1%}"
               f"{content['invariance'][name]['rate']:>24.1%}")
    yield ""
    for family, cell in content["families"].items():
        worst = min((row["families"][family]["rate"], name) for name, row in content["criteria"].items() if family in row["families"])
        yield f"{family:<5}{FAMILIES[family]:<48}{cell['hits']:>6} of {cell['n']:<6}{cell['rate']:>6.1%}   worst {worst[0]:.1%} {worst[1]}"
    yield ""
    constants = content["constants"]
    yield (f"one answer to all: {constants['best']['share']:.1%}; two in one: {constants['best_pair']['share']:.1%}; "
           f"accepted for another intent: {constants['wrong_intent']['share']:.2%}")
    yield f"without a gate: {', '.join(f'{gate} {sum(through.values())}' for gate, through in content['deletion'].items())} get through"
    yield "rules: " + ", ".join(f"{kind} {row['patterns']} for {row['cases']} cases" for kind, row in content["rules"].items())
    yield ""
    yield from content["problems"] or ["certified"]


def _show(found: Evidence, criterion: str, family: str) -> int:
    """What the scorer gets wrong, for who writes its rules: refused good replies, accepted bad ones. Nothing held out."""
    name = criterion if criterion in SCORERS else f"test_{criterion}"
    if name not in SCORERS or (family and family not in FAMILIES):
        print(f"--show {criterion}:{family}: criteria are {', '.join(SCORERS)}; families are {', '.join(FAMILIES)}", file=sys.stderr)
        return 4
    wrong = [(one.case, one.reply, "; ".join(reasons)) for one, held_out, kept, reasons in found.good[name] if not held_out and not kept]
    if family:
        wrong = [(one.bad.case, one.bad.reply, "accepted") for one in found.bad
                 if one.criterion == name and one.bad.family == family and one.passed and not one.bad.held_out]
    for case, reply, reason in wrong:
        print(visible(f"{case.id}: {case.prompts[-1]}\n    {reply.text}\n    {reason}"))
    print(f"{len(wrong)} {'accepted' if family else 'refused'}")
    return 0


def problems(content: Json) -> list[str]:
    """Every figure that misses its bar, in words."""
    found = []
    for name, row in content["criteria"].items():
        found += _under(f"{name}: held-out good replies kept", row["kept"]["held_out"], KEPT)
        found += [] if row["tnr"] >= REFUSED else [f"{name}: bad replies refused {row['tnr']:.1%}; {REFUSED:.0%} are needed"]
        for family, cell in row["families"].items():
            found += _under(f"{name}: {family} ({FAMILIES[family]}) refused", cell, A_FAMILY)
        found += _under(f"{name}: same verdict in another spelling", content["invariance"][name], INVARIANT)
    constants = content["constants"]
    for what, limit in (("best", CONSTANT), ("best_pair", CONSTANT), ("wrong_intent", WRONG_INTENT)):
        if constants[what]["share"] > limit:
            found.append(f"constants: {what} {constants[what]['share']:.1%}; at most {limit:.0%} is allowed")
    found += [f"deletion: no family gets through without '{gate}': it is dead code" for gate, through in content["deletion"].items() if not through]
    return found


def _under(what: str, cell: Mapping[str, int | float], bar: float) -> list[str]:
    return [] if cell["rate"] >= bar else [f"{what} {cell['rate']:.1%} of {cell['n']}; {bar:.0%} are needed"]


def _rate(hits: int, n: int) -> Json:
    return {"rate": round(hits / n, 4) if n else 0.0, "hits": hits, "n": n}


def _pooled(judged: Iterator[Judged]) -> Json:
    refused = [not one.passed for one in judged]
    return _rate(sum(refused), len(refused))


def _criterion(name: str, evidence: Evidence) -> Json:
    """Kept and refused; `tnr` is the mean over families, so that a family with many replies does not hide another."""
    kept = {label: [passed for _, held_out, passed, _ in evidence.good[name] if held_out == is_held]
            for label, is_held in (("known", False), ("held_out", True))}
    mine = [judged for judged in evidence.bad if judged.criterion == name]
    families = {family: _family([judged for judged in mine if judged.bad.family == family]) for family in FAMILIES
                if any(judged.bad.family == family for judged in mine)}
    held = _rate(sum(kept["held_out"]), len(kept["held_out"]))
    return {"tpr": held["rate"], "tnr": round(sum(cell["rate"] for cell in families.values()) / len(families), 4),
            "kept": {"held_out": held, "known": _rate(sum(kept["known"]), len(kept["known"]))}, "families": families}


def _family(judged: Sequence[Judged]) -> Json:
    cell = _pooled(iter(judged))
    for label, chosen in (("written", [one for one in judged if one.bad.written and not one.bad.held_out]),
                          ("written, held out", [one for one in judged if one.bad.held_out])):
        if chosen:
            cell[label] = _pooled(iter(chosen))
    return cell


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


def _invariance(name: str, scorer: Scorer, evidence: Evidence, sample: int) -> Json:
    """How often a good reply gets the same verdict in another spelling (A22), all spellings together."""
    draw = random.Random(f"{SEED} {name} invariance")
    rows = evidence.good[name]
    same = [scorer.check(one.case, replace(one.reply, text=text)).passed == kept
            for one, _, kept, _ in draw.sample(rows, min(sample, len(rows)))
            for text in adversarial.spellings(one.reply.text).values()]
    return _rate(sum(same), len(same))


def _constants() -> Json:
    """What one and the same answer scores on the whole conversation suite: the best gold reply, the best two of them
    together, and how often a gold reply is accepted where another intent was asked for."""
    suite = load_cases("conversation", half=None)
    asked = Counter(case.intent or "" for case in suite)
    one_of_each = {case.intent or "": case for case in reversed(suite)}
    intent_of = {case.id: case.intent or "" for case in suite}
    replies = [(intent_of[row.case], row.replies[-1]) for row in load_gold("conversation")]
    met = {text: _met(text, one_of_each) for _, text in replies}
    weight = {text: sum(asked[name] for name in names) for text, names in met.items()}
    wrong = sum(weight[text] - asked[own] * (own in met[text]) for own, text in replies)
    pairs = sum(len(suite) - asked[own] for own, _ in replies)
    best = max(weight, key=lambda text: (weight[text], text))
    pair, pair_weight = _best_pair(met, asked, one_of_each)
    return {"best": {"share": round(weight[best] / len(suite), 4), "text": best},
            "best_pair": {"share": round(pair_weight / len(suite), 4), "text": pair},
            "wrong_intent": {"share": round(wrong / pairs, 4), "hits": wrong, "n": pairs}}


def _met(text: str, one_of_each: Mapping[str, Case]) -> frozenset[str]:
    """The intents that the text passes for. The intent decides, not the prompt, so one case of each is enough."""
    return frozenset(name for name, case in one_of_each.items() if conversation(case, Reply(text)).passed)


def _best_pair(met: Mapping[str, frozenset[str]], asked: Mapping[str, int], one_of_each: Mapping[str, Case],
               tries: int = 400) -> tuple[str, int]:
    """The best two replies said one after the other: pairs in the order of what their parts pass for together, until
    no pair can be better, or after so many."""
    texts = sorted(met, key=lambda text: (-sum(asked[name] for name in met[text]), text))[:120]
    bounds = sorted(((sum(asked[name] for name in met[one] | met[two]), one, two) for one, two in combinations(texts, 2)),
                    key=lambda found: (-found[0], found[1], found[2]))
    best, weight = "", 0
    for bound, one, two in bounds[:tries]:
        if bound <= weight:
            break
        together = f"{one} {two}"
        reached = sum(asked[name] for name in _met(together, one_of_each))
        if reached > weight:
            best, weight = together, reached
    return best, weight


def deletion(evidence: Evidence, most: int = 8) -> dict[str, dict[str, int]]:
    """For every gate and veto, the families of which replies get through without it; `most` replies a family and criterion are tried.

    Only a reply that one gate alone refuses can get through.
    """
    alone: dict[str, dict[str, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    for judged in evidence.bad:
        if not judged.passed and len(judged.reasons) == 1:
            name = _gate_of(judged)
            if name and sum(one.criterion == judged.criterion for one in alone[name][judged.bad.family]) < most:
                alone[name][judged.bad.family].append(judged)
    found = {}
    for name in (*(gate.__name__ for gate in gates.GATES), *(veto.__name__ for veto in intents.VETOES)):
        with without(name):
            through = {family: sum(SCORERS[one.criterion].check(one.bad.case, one.bad.reply).passed for one in judged)
                       for family, judged in sorted(alone[name].items())}
        found[name] = {family: count for family, count in through.items() if count}
    return found


@contextmanager
def without(name: str) -> Iterator[None]:
    """The scorers without the gate or veto of this name."""
    all_gates, all_vetoes = gates.GATES, intents.VETOES
    gates.GATES = tuple(gate for gate in all_gates if gate.__name__ != name)
    intents.VETOES = tuple(veto for veto in all_vetoes if veto.__name__ != name)
    try:
        yield
    finally:
        gates.GATES, intents.VETOES = all_gates, all_vetoes


def _gate_of(judged: Judged) -> str | None:
    """The gate or veto that gave the only reason."""
    case, reply, reason = judged.bad.case, judged.bad.reply, judged.reasons[0].rpartition("turn ")[2]
    reason = reason.partition(": ")[2] if reason[:1].isdigit() and ": " in reason else reason
    for gate in gates.GATES:
        if gate(case, reply) == reason:
            return gate.__name__
    return next((veto.__name__ for veto in intents.VETOES if intents.veto_of(veto, case, reply.text) == reason), None)


def rules() -> Json:
    """Rules against cases: a suite with more rules than cases has learnt its cases by heart."""
    by_kind: Json = {}
    for kind in KINDS:
        suite = load_cases(kind, half=None)
        patterns = {pattern for case in suite for pattern in (
            *case.contradict, *case.concepts, *case.cause, *(p for fact in case.facts for p in fact.any),
            *(p for turn in case.turns for p in (*turn.must, *turn.must_not)))}
        by_kind[kind] = {"cases": len(suite), "patterns": len(patterns), "whole sentences": sum(map(_sentence, patterns))}
    accept = [pattern for intent in cases.load_intents().values() for pattern in intent.accept]
    by_kind["intents"] = {"cases": len(load_cases("conversation", half=None)), "patterns": len(accept),
                          "whole sentences": sum(map(_sentence, accept))}
    return by_kind


def _sentence(pattern: str) -> bool:
    """Five words and more without a choice or an open ending: a text, not a rule."""
    return len(pattern.split()) >= 5 and not set("|\\[(*+?") & set(pattern.replace("\\b", ""))
