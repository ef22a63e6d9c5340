"""Certify the scorers: good replies kept, replies made to fool them refused, on every criterion.

    python -m harness certify

The certificate is a plain dictionary, the same bytes for the same scorers, cases, gold replies and seed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

from harness import adversarial, cases, gates, intents
from harness import certificate as standing
from harness.adversarial import FAMILIES
from harness.cases import KINDS, Case, load_cases, load_gold
from harness.engines import Reply
from harness.evidence import SAMPLE, SCORERS, SEED, Evidence, Judged, Scorer
from harness.intents import conversation

FORMAT = 1
KEPT, REFUSED, A_FAMILY, CONSTANT, WRONG_INTENT, INVARIANT = 0.90, 0.95, 0.90, 0.25, 0.03, 0.98

Json = dict[str, Any]


def certificate(evidence: Evidence, sample: int = SAMPLE, tick: Callable[[str], None] = lambda name: None, alike: Callable[[], Json] | None = None) -> Json:
    """The rates of the evidence, and what is measured beside it; `problems` is empty where the scorers are certified.

    `alike` gives what `constants` does, where that was begun elsewhere.
    """
    criteria = {name: _criterion(name, evidence) for name in SCORERS}
    tick("invariance")
    invariance = {name: _invariance(name, scorer, evidence, sample) for name, scorer in SCORERS.items()}
    tick("constants")
    same_answers = (alike or constants)()
    tick("deletion")
    content: Json = {
        "format": FORMAT, "scorers": standing.scorers(intents.embedding_used()), "evidence": standing.evidence(), "seed": SEED, "sample": sample,
        "criteria": criteria,
        "families": certificate_families(evidence),
        "invariance": invariance, "constants": same_answers, "deletion": deletion(evidence), "rules": rules()}
    return {**content, "problems": problems(content), "weak": weak(content)}


def weak(content: Json) -> list[str]:
    """What passes its bar only with the replies that rules were written on: read it before you trust the family."""
    return [f"{family} ({FAMILIES[family]}): {cell['rate']:.1%} of all, {cell['unseen']['rate']:.1%} of the {cell['unseen']['n']} unseen"
            for family, cell in content["families"].items() if cell.get("unseen", cell)["rate"] < A_FAMILY <= cell["rate"]]


def certificate_families(evidence: Evidence) -> Json:
    """The rates of every family, over all criteria."""
    by_family = {family: [judged for judged in evidence.bad if judged.bad.family == family] for family in FAMILIES}
    return {family: _family(judged) for family, judged in by_family.items() if judged}


def problems(content: Json) -> list[str]:
    """Every figure that misses its bar, in words."""
    found = []
    for name, row in content["criteria"].items():
        found += _under(f"{name}: held-out good replies kept", row["kept"]["held_out"], KEPT)
        found += [] if row["tnr"] >= REFUSED else [f"{name}: bad replies refused {row['tnr']:.1%}; {REFUSED:.0%} are needed"]
        found += _under(f"{name}: same verdict in another spelling", content["invariance"][name], INVARIANT)
    for family, cell in content["families"].items():
        found += _under(f"{family} ({FAMILIES[family]}) refused", cell, A_FAMILY)
    for what, limit in (("best", CONSTANT), ("best_pair", CONSTANT), ("wrong_intent", WRONG_INTENT)):
        if (share := content["constants"][what]["share"]) > limit:
            found.append(f"constants: {what} {share:.1%}; at most {limit:.0%} is allowed")
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
    """Kept and refused; `tnr` is the mean over families, so that a family with many replies does not hide another, and
    over unseen replies, so that no rule is praised for the replies that it was written on."""
    kept = {label: [passed for _, held_out, passed, _ in evidence.good[name] if held_out == is_held]
            for label, is_held in (("known", False), ("held_out", True))}
    mine = [judged for judged in evidence.bad if judged.criterion == name]
    families = {family: _family([judged for judged in mine if judged.bad.family == family]) for family in FAMILIES
                if any(judged.bad.family == family for judged in mine)}
    held = _rate(sum(kept["held_out"]), len(kept["held_out"]))
    return {"tpr": held["rate"], "tnr": round(sum(cell.get("unseen", cell)["rate"] for cell in families.values()) / len(families), 4),
            "kept": {"held_out": held, "known": _rate(sum(kept["known"]), len(kept["known"]))}, "families": families}


def _family(judged: Sequence[Judged]) -> Json:
    """The rate over all replies of a family; `unseen` is that of the generated and the held-out ones, where there are others."""
    cell = _pooled(iter(judged))
    unseen = [one for one in judged if one.bad.held_out or not one.bad.written]
    if len(unseen) < len(judged):
        cell["unseen"] = _pooled(iter(unseen))
    return cell


def _invariance(name: str, scorer: Scorer, evidence: Evidence, sample: int) -> Json:
    """How often a good reply gets the same verdict in another spelling (A22), all spellings together."""
    draw = random.Random(f"{SEED} {name} invariance")
    rows = evidence.good[name]
    same = [scorer.check(one.case, replace(one.reply, text=text)).passed == kept
            for one, _, kept, _ in draw.sample(rows, min(sample, len(rows)))
            for text in adversarial.spellings(one.reply.text).values()]
    return _rate(sum(same), len(same))


def constants() -> Json:
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
    accept = [pattern for intent in cases.load_intents().values() for pattern in (*intent.accept, *intent.contradict)]
    by_kind["intents"] = {"cases": len(load_cases("conversation", half=None)), "patterns": len(accept),
                          "whole sentences": sum(map(_sentence, accept))}
    return by_kind


def _sentence(pattern: str) -> bool:
    """Five words and more without a choice or an open ending: a text, not a rule."""
    return len(pattern.split()) >= 5 and not set("|\\[(*+?") & set(pattern.replace("\\b", ""))
