"""Candidates side by side: reuse the reports that are still true, measure the missing ones, compare them all.

    python -m harness bench jessy-v3 jessy-v2 gemma:2b --against jessy-v1 --trials 2
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness import cases, certificate
from harness.compare import NotComparable, compare
from harness.compare_page import findings, headline, table, write
from harness.display import visible
from harness.engines import Card, RequestFailed, UnknownModel, Unreachable
from harness.engines.modelfile import pinned
from harness.jsonl import DataError
from harness.records import ROOT, case_digests, hardware
from harness.saved import ReportError, Saved, labelled, load, of_model
from harness.session import Settings, Target, card_of, resolve

NOT_MEASURED, USAGE = 3, 4

Json = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What `bench` was asked for: names of models or paths of reports, and the options that `pytest evals` gets."""

    models: tuple[str, ...]
    against: str | None
    reports: Path
    data: Path | None
    trials: int
    max_cases: int | None
    engine: Literal["auto", "ollama", "embedded"]
    hosts: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Everything to compare, once each, the baseline first."""
        return list(dict.fromkeys([*filter(None, [self.against]), *self.models]))

    def settings(self, models: tuple[str, ...]) -> Settings:
        """The settings of a run of these models."""
        return Settings(models=models, baseline=None, engine=self.engine, hosts=self.hosts, trials=self.trials, strict=False,
                        reports=self.reports, max_cases=self.max_cases, in_flight=None, timeout=300.0)

    def pytest(self, model: str) -> list[str]:
        """The command that measures a model: what a person would type."""
        options = [("--engine", self.engine if self.engine != "auto" else None), *(("--host", host) for host in self.hosts),
                   ("--trials", self.trials if self.trials > 1 else None), ("--max-cases", self.max_cases), ("--data", self.data)]
        given = [str(word) for name, value in options if value is not None for word in (name, value)]
        return ["pytest", "evals", "--model", model, *given, "--reports", str(self.reports)]


def command(wanted: Wanted) -> int:
    """Compare. Returns 0, 3 where a model was not measured or reports are not comparable, 4 for bad input."""
    if len(wanted.names) < 2 and wanted.trials < 2:
        print(f"nothing to compare with: name a second model, or ask '{wanted.names[0]}' twice with --trials 2", file=sys.stderr)
        return USAGE
    if wanted.data:
        cases.DATA = wanted.data
    try:
        runs = labelled(_runs(wanted))
        against = next((run.label for run in runs[:1] if wanted.against), None)
        page = write(runs, wanted.reports, against)
    except NotMeasured as error:
        return _refused(str(error), error.code)
    except (Unreachable, RequestFailed, TimeoutError) as error:
        return _refused(str(error), NOT_MEASURED)
    except NotComparable as error:
        return _refused(f"not compared:\n{error}", NOT_MEASURED)
    except (UnknownModel, DataError, ReportError) as error:
        return _refused(str(error), USAGE)
    except OSError as error:
        return _refused(f"cannot write the comparison: {error}; name another folder with --reports", USAGE)
    for line in words(compare(runs, against)):
        print(visible(line))
    print(f"comparison: {page}")
    return 0


def words(comparison: Json) -> list[str]:
    """A comparison on the terminal."""
    return ["", headline(comparison), *(f"  {line}" for line in findings(comparison)), *comparison["limits"], "", *table(comparison), ""]


class NotMeasured(Exception):
    """`pytest evals` left nothing to compare: one line, and the exit code to pass on."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def _runs(wanted: Wanted) -> list[Saved]:
    """A report for each name: read, reused or measured now. Raises what reading and measuring raise."""
    saved = {name: load(_file(name)) for name in wanted.names if _file(name).is_file()}
    missing = tuple(name for name in wanted.names if name not in saved)
    targets = {target.model: target for target in asyncio.run(resolve(wanted.settings(missing)))} if missing else {}
    for name, target in targets.items():
        known, reason = _reusable(target, wanted)
        print(visible(f"{name}: {reason}"), flush=True)
        saved[name] = known or _measured(name, wanted)
    return [saved[name] for name in wanted.names]


def _file(name: str) -> Path:
    path = Path(name)
    return path if path.name == "report.json" else path / "report.json"


def _reusable(target: Target, wanted: Wanted) -> tuple[Saved | None, str]:
    """The newest complete report of the model if it would be the same today, but for chance; and what is done about it."""
    if wanted.max_cases:
        return None, f"measured now: --max-cases {wanted.max_cases} makes a partial run, and those are not reused"
    complete = [run for run in of_model(target.model, wanted.reports)
                if not run.report["partial"] and not run.report["interrupted"] and run.report["status"] != "NOT MEASURED"]
    if not complete:
        return None, f"measured now: no complete report in {wanted.reports}"
    newest = complete[0]
    if reason := _outdated(newest, asyncio.run(card_of(target)), wanted):
        return None, f"measured now: run {newest.report['run']} {reason}"
    return newest, f"reused: run {newest.report['run']}, of the same model, cases, options, scorers and machine"


def _outdated(run: Saved, card: Card, wanted: Wanted) -> str:
    """Why the report is not what a run would give today; nothing where it is."""
    known = run.provenance
    was, now = (_identity(one) for one in (known.get("card") or {}, asdict(card)))
    if changed := sorted(key for key in now if was.get(key) != now[key]):
        return f"is of another model ({', '.join(changed)})"
    if known.get("options") != pinned(card.parameters).request():
        return "had other options"
    if known.get("case_digests") != case_digests():
        return "had other cases"
    if (known.get("scorers") or {}).get("digest") != certificate.scorers():
        return "had other scorers (python -m harness rescore scores it again without the model)"
    if known.get("trials", 1) < wanted.trials:
        return f"asked each case {known.get('trials', 1)} x, not {wanted.trials} x"
    return "" if run.machine == hardware() else "was on another machine"


def _identity(card: Json) -> Json:
    """What makes two cards one model as it is served, wherever and under whichever name."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in card.items() if key not in ("name", "host")}


def _measured(model: str, wanted: Wanted) -> Saved:
    """Run `pytest evals` in a process of its own and read what it leaves. Raises NotMeasured."""
    words = wanted.pytest(model)
    print(visible(f"$ {' '.join(words)}"), flush=True)
    before = {run.path for run in of_model(model, wanted.reports)}
    code = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False).returncode
    written = [run for run in of_model(model, wanted.reports) if run.path not in before] or of_model(model, wanted.reports)[:1]
    if code not in (0, 1) or not written:  # 1: a bar was missed, which is what a comparison is for
        raise NotMeasured(f"'{model}' was not measured: pytest evals ended with {code}; nothing is compared", code if code in (3, 4) else NOT_MEASURED)
    return written[0]


def _refused(line: str, code: int) -> int:
    print("\n".join(visible(part) for part in line.splitlines()), file=sys.stderr)
    return code
