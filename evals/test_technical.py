"""Technical accuracy: the facts that matter are in the answer, and nothing in it contradicts them."""

from harness.facts import technical
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Technical accuracy", over=0.85, level="should")


def test_technical(measure: Measure) -> None:
    measure(BAR, "technical", check=technical)
