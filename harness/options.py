"""The options of `pytest evals`, and the settings of a run that they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import ledger
from harness.session import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    # --strict is pytest's own option; in a run of evals, should and nice criteria then fail the run too.
    group = parser.getgroup("jessy-evals", "measure chat models")
    group.addoption("--model", action="append", default=[], metavar="NAME",
                    help="model to measure; may be given more than once")
    group.addoption("--baseline", metavar="NAME", help="model to compare with; measured too, never fails the run")
    group.addoption("--engine", choices=("auto", "ollama", "embedded"), default="auto",
                    help="auto: Ollama if a server has the model, else the embedded engine (default)")
    group.addoption("--host", action="append", default=[], metavar="URL",
                    help="Ollama server (default: OLLAMA_HOST, or this machine); may be given more than once")
    group.addoption("--trials", type=_positive, default=1, metavar="N", help="ask every case N times")
    group.addoption("--reports", type=Path, default=None, metavar="FOLDER", help="where reports go (default: reports/)")
    group.addoption("--max-cases", type=_positive, metavar="N",
                    help="smoke run: at most N cases a file; the report says partial, and no gate takes it")
    group.addoption("--in-flight", type=_positive, metavar="N",
                    help="requests at once (default: what the engine decodes together); latency is always one at a time")
    group.addoption("--timeout", type=float, default=300.0, metavar="SECONDS", help="per request (default: 300)")
    group.addoption("--judge", metavar="NAME",
                    help="ask another model for its opinion of every reply; shown beside the scores, decides nothing")
    group.addoption("--embed", metavar="NAME",
                    help="find more ways to say the same with an Ollama embedding model; such scorers need a certificate of their own")
    group.addoption("--replay", type=Path, default=None, metavar="RUN", help="no model: score the replies of this run's folder again; "
                    "python -m harness rescore does it and says what changed")
    group.addoption("--data", type=Path, default=None, metavar="FOLDER", help="cases to use instead of data/")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise pytest.UsageError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def settings_of(config: pytest.Config) -> Settings:
    """The settings of a run. Raises pytest.UsageError for a look at the sealed half that no gate began."""
    option = config.option
    reports = (option.reports or config.rootpath / "reports").resolve()
    look = _look(config, reports)
    return Settings(
        half="sealed" if look else "open", look=look,
        models=tuple(option.model), baseline=option.baseline, engine=option.engine, hosts=tuple(option.host),
        trials=option.trials, strict=option.strict, reports=reports,
        max_cases=option.max_cases, in_flight=option.in_flight, timeout=option.timeout, judge=option.judge, embed=option.embed,
        replay=option.replay and option.replay.resolve())


def _look(config: pytest.Config, reports: Path) -> str:
    """The look at the sealed half that this run is, or nothing. Only the gate begins one, and writes it down first."""
    look, option = os.environ.get(ledger.VARIABLE, ""), config.option
    if not look:
        return ""
    how = "the sealed half is measured by: python -m harness gate CANDIDATE --against BASELINE"
    try:
        allowed = len(option.model) == 1 and ledger.Ledger(reports / ledger.NAME).open(look, option.model[0])
    except ledger.LedgerError as error:
        raise pytest.UsageError(str(error)) from None
    if not allowed:
        raise pytest.UsageError(f"{ledger.VARIABLE} names no open look at {', '.join(option.model) or 'a model'} in {reports / ledger.NAME}; {how}")
    if option.baseline or option.max_cases or option.data or option.replay or option.keyword or option.markexpr:
        raise pytest.UsageError(f"a look at the sealed half is one model on every case; {how}")
    return look
