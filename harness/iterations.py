"""Iteration efficiency: as many thinking steps as the prompt deserves, and a good answer at the end of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz import fuzz

from harness.cases import Case, Complexity
from harness.engines import Reply
from harness.facts import technical
from harness.gates import gates
from harness.intents import conversation
from harness.philosophy import depth
from harness.score import Outcome, verdict_of
from harness.turkish import fold, words

BANDS: dict[Complexity, tuple[int, int]] = {"low": (1, 2), "medium": (3, 5), "high": (6, 9)}
SAME = 85  # token_sort_ratio from which two steps are one

_NUMBER = re.compile(
    r"[\s>*_#\[(-]*(?:(?:adım|step|[iy]terasyon|iteration|d[uü][sş][uü]nce)\s*#?)?\d{1,2}\s*(?:[.):\]]|-\s"
    r"|–)[*_\s]*", re.I)


def iteration_efficiency(case: Case, reply: Reply) -> Outcome:
    """c * e: c is 1 if the reply passes its own quality check, e how near the steps are to the class's band.

    Passes in the band with a good answer. The criterion is the mean over the three classes of the mean score;
    the best constant policy gets .744 (facts/turkish.md 4.3, after OptimalThinkingBench, arXiv 2508.13141).
    """
    low, high = BANDS[case.complexity]
    count, answer = iterations(reply), quality(case, reply)
    reasons = list(answer.reasons)
    if not low <= count <= high:
        reasons.append(f"{count} iterations; {case.complexity} is {low}-{high}")
    score = efficiency(count, (low, high)) if answer.passed else 0.0
    return Outcome(score, not reasons, tuple(reasons), {
        "iterations": count, "lo": low, "hi": high, "complexity": case.complexity,
        "steps_claimed": len(claimed(reply.thinking)) if reply.thinking.strip() else 1})


def efficiency(count: int, band: tuple[int, int]) -> float:
    """e(k): 1 in the band, hi/k above it, k/lo below it, 0 for a trace that says nothing."""
    low, high = band
    return high / count if count > high else min(1.0, count / low)


def iterations(reply: Reply) -> int:
    """Distinct thinking steps. A model that answers without thinking used one; an empty trace counts none."""
    return len(steps(reply.thinking)) if reply.thinking.strip() else 1


def steps(thinking: str) -> list[str]:
    """The distinct steps of a trace: numbered lines, or else paragraphs between blank lines; no repeats."""
    kept: list[str] = []
    for step in claimed(thinking):
        folded = fold(step)
        if words(folded) and all(fuzz.token_sort_ratio(folded, fold(other)) < SAME for other in kept):
            kept.append(step)
    return kept


def claimed(thinking: str) -> list[str]:
    """Every step that the trace says it has, empty and repeated ones too."""
    lines = thinking.strip().splitlines()
    numbered = [number for number, line in enumerate(lines) if _NUMBER.match(line)]
    if not numbered:
        return [part.strip() for part in re.split(r"\n\s*\n", thinking.strip()) if part.strip()]
    ends = [*numbered[1:], len(lines)]
    return [" ".join(_unnumbered(line) for line in lines[start:end]).strip()
            for start, end in zip(numbered, ends, strict=True)]


def _unnumbered(line: str) -> str:
    return _NUMBER.sub("", line).strip()


def quality(case: Case, reply: Reply) -> Outcome:
    """The reply's own check, by what the case expects of it: an intent, facts, concepts, or only the gates."""
    if case.intent is not None:
        return conversation(case, reply)
    if case.facts or case.options:
        return technical(case, reply)
    return depth(case, reply) if case.concepts else verdict_of(gates(case, reply))


def adaptivity(rows: Sequence[tuple[Case, Reply, Outcome]]) -> dict[str, float | str | None]:
    """Figures beside the score: share in the band, Spearman(class, k), distinct steps / steps, and the cost by class."""
    from scipy.stats import spearmanr

    ranks = [list(BANDS).index(case.complexity) for case, _, _ in rows]
    used = [iterations(reply) for _, reply, _ in rows]
    varied = len(set(ranks)) > 1 and len(set(used)) > 1
    inside = [low <= k <= high for k, (low, high) in zip(used, (BANDS[case.complexity] for case, _, _ in rows), strict=True)]
    claims = sum(len(claimed(reply.thinking)) if reply.thinking.strip() else 1 for _, reply, _ in rows)
    figures: dict[str, float | str | None] = {
        "share in band": _mean(inside), "Spearman(class, iterations)": float(spearmanr(ranks, used).statistic) if varied else None,
        "distinct steps / steps": sum(used) / claims if claims else None}
    for complexity in BANDS:
        replies = [reply for case, reply, _ in rows if case.complexity == complexity]
        figures[f"tokens, {complexity}"] = _mean([reply.reply_tokens for reply in replies])
        figures[f"seconds, {complexity}"] = _mean([reply.timing.wall for reply in replies])
    return figures


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
