"""Philosophical depth: deep questions get a stance, more than one side, reasons, and what stays open."""

from harness.measure import Measure
from harness.philosophy import depth
from harness.verdict import Bar

BAR = Bar("Philosophical depth", over=0.80, level="should")


def test_philosophy(measure: Measure) -> None:
    measure(BAR, "philosophy", check=depth)
