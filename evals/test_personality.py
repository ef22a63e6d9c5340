"""Personality preserved: casual and warm, bence on opinions and not on facts, tech terms in Turkish, always Jessy."""

from harness.measure import Measure
from harness.persona import personality
from harness.verdict import Bar

BAR = Bar("Personality preserved", over=0.80, level="must")


def test_personality(measure: Measure) -> None:
    measure(BAR, "persona", "conversation", "technical", "philosophy", check=personality)
