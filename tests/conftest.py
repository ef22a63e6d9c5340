"""Shared by the tests: a run of the suites as a user starts it, against a fake server, on a few cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, always

ROOT = Path(__file__).resolve().parent.parent
GOOD = "Sor kanka, dinliyorum."


# Files of minutes begin first: at the end of the run one process would be left alone with them.
FIRST = ("test_train", "test_export", "test_candidate", "test_plugin", "test_base", "test_step", "test_certify", "test_gate_command",
         "test_bench", "test_rescore", "test_kernels", "test_judge")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))
    for item in items:
        if item.path.is_relative_to(ROOT / "tests"):
            item.add_marker(pytest.mark.filterwarnings("error"))


@dataclass(frozen=True)
class Finished:
    """A finished `pytest evals`: its exit code, what it printed, and the reports that it left."""

    code: int
    output: str
    reports: Path

    def report(self, model: str = "jessy") -> dict[str, Any]:
        """report.json of the newest run of a model."""
        path = max(self.reports.glob(f"{model}*/*/report.json"))
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return loaded

    def lines(self, word: str) -> list[str]:
        """The printed lines that hold a word."""
        return [line for line in self.output.splitlines() if word in line]


Evals = Callable[..., Finished]


@pytest.fixture
def few_cases(tmp_path: Path) -> Path:
    """A data folder with six everyday prompts that one reply answers."""
    rows = [{"id": f"conv-{number}", "category": ("opener", "request")[number % 2], "prompt": prompt, "intent": "opener"}
            for number, prompt in enumerate(["bi şey sorcam", "sana bir sorum olacak", "bi soru sorabilir miyim",
                                             "müsaitsen bi şey danışıcam", "kafama bi şey takıldı", "sorum var sana"])]
    intent = {"intent": "opener", "accept": [r"\bsor\b", r"\bdinliyorum\b"], "contradict": [r"\bsorma\b"],
              "examples": [GOOD, "Buyur, sor bakalım."]}
    write_cases(tmp_path / "data", "conversation", rows)
    write_cases(tmp_path / "data", "intents", [intent])
    return tmp_path / "data"


def write_cases(data: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """Write data/evals/<kind>.jsonl."""
    path = data / "evals" / f"{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def evals(tmp_path: Path) -> Evals:
    """Run `pytest evals` in a process of its own, with reports in a temporary folder."""

    def run(*arguments: str | Path, reports: Path | None = None, timeout: float = 120) -> Finished:
        reports = reports or tmp_path / "reports"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--reports", str(reports), *map(str, arguments)],
            cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment(), check=False)
        return Finished(done.returncode, done.stdout + done.stderr, reports)

    return run


def environment() -> dict[str, str]:
    """This environment without what would point a run at the user's own server or options."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "PYTEST_"))}


@pytest.fixture
def good_server() -> Iterator[FakeOllama]:
    """A server whose model `jessy` has the right answer to the few cases."""
    with FakeOllama(always(GOOD), models=["jessy"]) as server:
        yield server
