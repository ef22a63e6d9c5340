"""One look: a pytest run of one model on the sealed half, and whether what the model was taught is in the exam."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from harness.contamination import Guard, Text, bare, prompts, training_texts
from harness.engines import split_thinking
from harness.files import read_json, slug
from harness.jsonl import DataError, rows
from harness.ledger import VARIABLE
from harness.records import ROOT
from harness.session import SEALED, Settings, Target

__all__ = ["SEALED", "end_with_the_gate", "leaks", "measure", "prompted"]

SPOKEN = 4  # words: shorter prompts ("sen jessy misin") come up in an honest system prompt by themselves

Json = dict[str, Any]


def measure(settings: Settings, target: Target, name: str) -> tuple[int, Json | None]:
    """Run the suites as a person would, on the sealed half, under the look of this name.

    Returns pytest's exit code and the report that it left, if it left one. Ctrl-C ends the run, not the gate around it:
    pytest writes what it has, and KeyboardInterrupt is raised after that.
    """
    words = [sys.executable, "-m", "pytest", "evals", "--model", target.model, "--engine", target.engine, "--reports", str(settings.reports),
             "--trials", str(settings.trials), "--timeout", str(settings.timeout), "-p", "no:cacheprovider"]
    words += ["--host", target.host] if target.host else []
    words += ["--in-flight", str(settings.in_flight)] if settings.in_flight else []
    # Somebody's own options would make a partial run, and spend the look on it.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    run = subprocess.Popen(words, cwd=ROOT, env={**environment, VARIABLE: name}, process_group=0)
    try:
        code = run.wait()
    except BaseException:
        run.send_signal(signal.SIGINT)
        run.wait()
        raise
    found = [report for path in (settings.reports / slug(target.model)).glob(f"*{SEALED}/report.json")
             if (report := read_json(path)).get("look") == name]
    return code, (found[0] if found else None)


def end_with_the_gate() -> None:
    """Called in that run: if the gate around it is killed, the run ends too, and does not slow down whatever is timed next."""
    # A shell starts what stands before an & with SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


def leaks(files: Sequence[Path]) -> list[str]:
    """Texts of data/train, and of these files of training rows, that are too close to a prompt of the eval set; a line each.

    Raises DataError for a file that holds no rows.
    """
    guard = Guard(prompts())
    return [str(found) for text in [*training_texts(), *_rows(files)] if (found := guard.near(text))]


def prompted(model: str, *told: str) -> list[str]:
    """Prompts of the eval set that the model is told beforehand, in its system prompt or template: an answer could follow each."""
    said = f" {bare(' '.join(told))} "
    return [f"the system prompt or template of {model} holds the prompt of case '{prompt.where}': {prompt.text[:80]!r}" for prompt in prompts()
            if len(key := bare(prompt.text).split()) >= SPOKEN and f" {' '.join(key)} " in said]


def _rows(files: Sequence[Path]) -> Iterator[Text]:
    """Every message of training rows: JSON lines with `messages` or `prompt`/`completion`, as trainers read them."""
    for path in files:
        for number, row in rows(path):
            said = row.get("messages") or [{"role": key, "content": row[key]} for key in ("prompt", "completion", "text") if isinstance(row.get(key), str)]
            texts = [str(message.get("content", "")) for message in said if isinstance(message, dict) and message.get("role") != "system"]
            if not texts:
                raise DataError(f"{path}:{number}: neither 'messages' nor 'prompt' and 'completion' nor 'text'; name files of training rows")
            yield from (Text(f"{path.name}:{number}", split_thinking(text)[0] or text) for text in texts)
