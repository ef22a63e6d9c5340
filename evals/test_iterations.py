"""Iteration efficiency: as many thinking steps as the question needs: 1-2 for chat, 3-5 for tech, 6-9 for depth."""

from harness.iterations import adaptivity, iteration_efficiency
from harness.measure import Measure
from harness.verdict import Bar

BAR = Bar("Iteration efficiency", over=0.80, level="should")


def test_iterations(measure: Measure) -> None:
    measure(BAR, "iterations", "conversation", "technical", "philosophy", check=iteration_efficiency,
            per="complexity", extras=adaptivity)
