"""Turkish conversational accuracy: everyday prompts are answered in Turkish, in kind and to the point."""

from harness.intents import conversation
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Turkish conversational accuracy", over=0.90, level="must")


def test_turkish(measure: Measure) -> None:
    measure(BAR, "conversation", check=conversation)
