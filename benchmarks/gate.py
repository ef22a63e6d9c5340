"""How often the gate errs, of models whose true score is known: luck let through, good models held up, lost categories missed.

    python benchmarks/gate.py [--loops 200]

Reports are simulated (tests/simulated.py), decisions are the product's. The seeds are fixed: it prints the same each time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

# The simulated reports lie beside the tests that use them, which are no part of the installed package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from harness.gate import Decision, decide  # noqa: E402
from harness.verdict import Verdict  # noqa: E402
from tests.simulated import LATENCY, TURKISH, coin, fast, in_memory, looked_at, report, retrained  # noqa: E402

BASE = "b" * 64


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--loops", type=int, default=200)
    loops = options.parse_args().loops
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for truth in (0.85, 0.90):
            found = [retrained(truth, seed, place) for seed in range(loops)]
            print(f"ten candidates right in {truth:.0%} of 120 cases, each gated until one passes: {sum(passed for passed, _ in found)} of {loops} loops pass; "
                  f"by the score alone {sum(over for _, over in found)}", flush=True)
        for truth in (0.94, 0.96, 0.97, 0.98):
            passed = sum(once(truth, seed, place).verdict is Verdict.PASS for seed in range(loops))
            print(f"a candidate right in {truth:.0%} of 240 cases, at the second look: {passed} of {loops} pass", flush=True)
        for before, after in ((0.95, 0.0), (0.95, 0.25), (0.95, 0.5)):
            found_lost = sum(lost(before, after, seed, place) for seed in range(loops))
            print(f"one category of 8 cases falls from {before:.0%} to {after:.0%}, the others rise from 85% to 97%: named in {found_lost} of {loops}", flush=True)


def once(truth: float, seed: int, place: Path) -> Decision:
    """A candidate of this truth against a baseline right in 85 %, at the second look."""
    chance, book = random.Random(seed), in_memory(place)
    before = looked_at(book, report({TURKISH: coin(chance, 0.85), LATENCY: fast}, model="old", digest=BASE))
    return decide(looked_at(book, report({TURKISH: coin(chance, truth), LATENCY: fast})), before, book)


def lost(before: float, after: float, seed: int, place: Path) -> bool:
    """Whether the gate names the category that fell, at a candidate that is better elsewhere."""
    chance, book = random.Random(seed), in_memory(place)
    baseline = looked_at(book, report({TURKISH: coin(chance, 0.85, **{"cat-7": before}), LATENCY: fast}, model="old", digest=BASE))
    candidate = looked_at(book, report({TURKISH: coin(chance, 0.97, **{"cat-7": after}), LATENCY: fast}))
    return any(category.p is not None and category.name == "cat-7" for row in decide(candidate, baseline, book).rows for category in row.categories)


if __name__ == "__main__":
    main()
