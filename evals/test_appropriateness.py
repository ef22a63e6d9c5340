"""Response appropriateness: no tangent, no boilerplate, and as long as the question deserves."""

from harness.appropriateness import appropriateness
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Response appropriateness", over=0.85, level="should")


def test_appropriateness(measure: Measure) -> None:
    measure(BAR, "conversation", "technical", "philosophy", "persona", "emotion", check=appropriateness)
