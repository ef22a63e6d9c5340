"""Response time: 95 of 100 warm requests, one at a time, are answered in full before the bar."""

from pytest_benchmark.fixture import BenchmarkFixture

from harness.measure import Measure
from harness.verdict import Bar

SIMPLE = Bar("Simple-query response time, p95", under=5.0, level="must")
COMPLEX = Bar("Complex-query response time, p95", under=60.0, level="should")


def test_simple_latency(measure: Measure, benchmark: BenchmarkFixture) -> None:
    measure.latency(SIMPLE, "conversation", benchmark=benchmark)


def test_complex_latency(measure: Measure, benchmark: BenchmarkFixture) -> None:
    measure.latency(COMPLEX, "philosophy", benchmark=benchmark)
