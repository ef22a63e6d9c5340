"""Emotional intelligence: the feeling is named, its cause understood, and the person invited to say more."""

from harness.emotion import empathy
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Emotional intelligence", over=0.75, level="nice")


def test_emotion(measure: Measure) -> None:
    measure(BAR, "emotion", check=empathy)
