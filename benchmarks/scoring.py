"""How long scoring takes: 1,000 replies on every criterion that is about them, on one core, after the start.

    python benchmarks/scoring.py [--rounds 3]

Beside it, as a yardstick of the same run, language identification of the same replies by langdetect alone, which is
what a plain harness would pay for its Turkish gate.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import replace

from harness import intents, language
from harness.adversarial import Good
from harness.cases import KINDS, load_cases, load_gold
from harness.engines import Reply
from harness.evidence import SCORERS
from harness.turkish import clean, fold, is_tech, prose
from harness.word_order import disorder

REPLIES = 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    intents.prepare()
    language.is_turkish("Sor kanka, dinliyorum, ne oldu anlat bakalım.")
    replies = _replies()
    for one in replies[:50]:
        _score(one)
    print(f"start (imports, patterns, detectors, gold): {time.perf_counter() - start:.2f} s")
    for number in range(rounds):
        _forget()
        # Another character at the end: no cache knows the texts of the round before.
        fresh = [Good(one.case, replace(one.reply, text=one.reply.text + " " * (number + 1))) for one in replies]
        seconds, checks = _timed(fresh)
        yardstick = _langdetect([one.reply.text for one in fresh])
        print(f"{len(fresh)} replies, {checks} scores: {seconds:.2f} s, {1000 * seconds / checks:.2f} ms a score; "
              f"{seconds / yardstick:.2f} x langdetect alone ({yardstick:.2f} s)")


def _replies() -> list[Good]:
    """Gold replies, as many of each kind as its share of the cases."""
    pool = []
    for kind in KINDS:
        by_id = {case.id: case for case in load_cases(kind, half=None)}
        pool += [Good(by_id[row.case], Reply(row.replies[-1], thinking=row.thinking, earlier=tuple(map(Reply, row.replies[:-1]))))
                 for row in load_gold(kind)]
    return random.Random(1).sample(pool, REPLIES)


def _score(one: Good) -> int:
    checks = [scorer.check for scorer in SCORERS.values() if one.case.kind in scorer.kinds]
    for check in checks:
        check(one.case, one.reply)
    return len(checks)


def _timed(replies: list[Good]) -> tuple[float, int]:
    start = time.process_time()
    checks = sum(map(_score, replies))
    return time.process_time() - start, checks


def _forget() -> None:
    for cached in (clean, disorder, fold, is_tech, prose, language.is_turkish, intents._similarities):
        cached.cache_clear()


def _langdetect(texts: list[str]) -> float:
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    start = time.process_time()
    for text in texts:
        try:
            detect(text)
        except LangDetectException:
            continue
    return time.process_time() - start


if __name__ == "__main__":
    main()
