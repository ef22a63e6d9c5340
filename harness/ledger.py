"""The ledger of the sealed half: reports/ledger.jsonl, a line an event, each line with the SHA-256 of the one before.

A look at the sealed half is a line written before the model is asked, so a look that was killed counts as well. Lines
are only ever added; one that was changed, taken out or put in between breaks the chain, and no gate decides on it. It
shows tampering, it cannot prevent it: who rewrites the whole file is found by its history in git.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from harness.cases import KINDS, load_cases
from harness.files import alone

NAME = "ledger.jsonl"
# At the twelfth look a bar of 90 % asks for 234 of 240, at the first for 226; from there on new cases say more.
LOOKS = 12
ALPHA = 0.05
SKETCH = 64
FIRST = "0" * 64
# Set by the gate for the pytest run of one look; the plugin measures the sealed half with nothing else.
VARIABLE = "JESSY_LOOK"

Kind = Literal["look begun", "look ended", "look failed", "decision"]


class LedgerError(ValueError):
    """The ledger cannot be used: one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The sealed cases: the digest of the case files, and a sketch of what is asked (the smallest hashes of its prompts)."""

    digest: str
    prompts: tuple[str, ...]

    def same_as(self, prompts: Sequence[str]) -> bool:
        """Whether a look with this sketch was at these cases: from half of the prompts on.

        By what is asked and not by the files' digest: a mended pattern, or one new case, makes no new exam.
        """
        return 2 * len(set(self.prompts) & set(prompts)) >= min(len(self.prompts), len(prompts))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `look` is the hash of the line that began the look; `report` and `against` are digests of reports."""

    kind: Kind
    time: str = ""
    model: str = ""
    model_digest: str = ""
    case_digest: str = ""
    prompts: tuple[str, ...] = ()
    look: str = ""
    report: str = ""
    against: str = ""
    outcome: str = ""
    previous: str = FIRST

    @property
    def line(self) -> str:
        """The line as it stands in the file."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in ("", ())})

    @property
    def hash(self) -> str:
        """SHA-256 of the line; the name of a look, for a line that begins one."""
        return _hash(self)


@cache
def _hash(entry: Entry) -> str:
    return hashlib.sha256(entry.line.encode()).hexdigest()


class Ledger:
    """The lines of the ledger, in their order. Only `locked` gives one that may be added to."""

    def __init__(self, path: Path) -> None:
        """Raises LedgerError, naming the first bad line."""
        self.path, self.entries = path, _read(path)
        self._writable = False

    def looks(self, exam: Exam) -> list[Entry]:
        """Every look at these cases so far, whoever's: of candidates, of baselines, and those that were killed."""
        return [entry for entry in self.entries if entry.kind == "look begun" and exam.same_as(entry.prompts)]

    def number(self, look: str) -> int | None:
        """Which look at its cases this was, from 1; None for a look that is not in the ledger."""
        begun = self.begun(look)
        if begun is None:
            return None
        return [entry.hash for entry in self.looks(Exam(begun.case_digest, begun.prompts))].index(look) + 1

    def begun(self, look: str) -> Entry | None:
        """The line that began a look; None for a look that is not in the ledger."""
        return next((entry for entry in self.entries if entry.kind == "look begun" and entry.hash == look), None)

    def ended(self, look: str) -> Entry | None:
        """The line that ends a look, with the digest of its report; None while there is none."""
        return next((entry for entry in self.entries if entry.look == look and entry.kind in ("look ended", "look failed")), None)

    def open(self, look: str, model: str) -> bool:
        """Whether this is a look at this model that was begun and not ended."""
        begun = self.begun(look)
        return begun is not None and begun.model == model and self.ended(look) is None

    def add(self, entry: Entry) -> Entry:
        """Append one line and have the disk confirm it. Raises OSError."""
        if not self._writable:
            raise RuntimeError("a ledger is written under its lock")
        previous = self.entries[-1].hash if self.entries else FIRST
        entry = replace(entry, previous=previous, time=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (entry.line + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)
        self.entries.append(entry)
        return entry


@contextmanager
def locked(reports: Path) -> Iterator[Ledger]:
    """The ledger of a reports folder, for one gate alone. Raises LedgerError, also where another gate has it, and OSError."""
    reports.mkdir(parents=True, exist_ok=True)
    with alone(reports / "ledger.lock", LedgerError(f"another gate is at work in {reports} (it holds ledger.lock); wait for it to end")):
        ledger = Ledger(reports / NAME)
        ledger._writable = True
        yield ledger
        ledger._writable = False


def confidence(number: int) -> float:
    """The confidence that the gate asks for at a look: 1 - 0.05 / 2^number.

    Weighted Bonferroni: each look spends half of the error that is left, so all looks together spend at most 5 %,
    however many there are. 0.05 / number would not do: it adds up to 15 % over twelve looks.
    """
    return float(1 - ALPHA / 2**number)


def exam(data: Path | None = None) -> Exam:
    """The sealed cases of data/. Raises DataError."""
    from harness.contamination import bare
    from harness.records import case_digests

    asked = {hashlib.sha256(bare(" / ".join(case.prompts)).encode()).hexdigest()[:12]
             for kind in KINDS for case in load_cases(kind, half="sealed", data=data)}
    return Exam(digest_of_cases(case_digests(data)), tuple(sorted(asked)[:SKETCH]))


def digest_of_cases(digests: dict[str, str]) -> str:
    """One digest of the digests of the case files, as a report has them."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> list[Entry]:
    if not path.is_file():
        return []
    entries: list[Entry] = []
    previous = FIRST
    *lines, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None or entry.previous != previous or entry.line.encode() != line:
            raise LedgerError(_broken(path, number, "it does not follow from the line before" if entry else "it is not an entry"))
        entries.append(entry)
        previous = entry.hash
    if rest:
        raise LedgerError(_broken(path, len(lines) + 1, "it is not whole"))
    return entries


def _broken(path: Path, number: int, why: str) -> str:
    return f"{path}: line {number} breaks the chain: {why}; restore the file as it was committed (git log -p {path.name}), no gate decides on it"


def _entry(line: bytes) -> Entry | None:
    try:
        row: Any = json.loads(line)
        entry = Entry(**{**row, "prompts": tuple(row.get("prompts", ()))})
    except (ValueError, TypeError, AttributeError):
        return None
    return entry if entry.kind in get_args(Kind) else None
