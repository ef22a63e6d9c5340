"""Multi-turn and context awareness: what was said, corrected or asked for earlier still holds in the last turn."""

from harness.dialogue import dialogue
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Multi-turn and context awareness", over=0.75, level="nice")


def test_multiturn(measure: Measure) -> None:
    measure(BAR, "multiturn", check=dialogue, pairs=True)
