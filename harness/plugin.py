"""The pytest plugin: options, one item a (model, criterion), the verdict block, the exit code, the reports.

    pytest evals --model jessy-v2

Named by the root conftest.py. It does nothing in a run that neither names a model nor collects evals.
"""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import Generator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from harness import ahead, cases, records
from harness.claim import NotWritable, claim
from harness.display import visible
from harness.engines import RequestFailed, UnknownModel, Unreachable
from harness.jsonl import DataError
from harness.measure import Measure
from harness.options import pytest_addoption as pytest_addoption
from harness.options import settings_of
from harness.progress import Progress
from harness.session import Session, Settings, Target, resolve, run_folder

NOT_MEASURED = 3
_TARGETS = pytest.StashKey[list[Target]]()
_JUDGE = pytest.StashKey[Target]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Find the models before anything else starts, so that what is wrong is one line and an exit code."""
    if not config.option.model or hasattr(config, "workerinput") or config.option.help or config.option.version:
        return None
    if config.option.data:
        cases.DATA = config.option.data.resolve()
    try:
        cases.check_files()
        settings = settings_of(config)
        config.stash[_TARGETS] = asyncio.run(resolve(settings))
        if settings.judge:
            from harness import judge

            config.stash[_JUDGE] = judge.find(settings, settings.judge)
        if settings.embed:
            _embed(settings)
    except (Unreachable, RequestFailed) as error:
        print(error, file=sys.stderr)
        return NOT_MEASURED
    except (UnknownModel, DataError) as error:
        raise pytest.UsageError(str(error)) from None
    if settings.look:
        from harness.look import end_with_the_gate

        end_with_the_gate()
    if not config.option.collectonly:
        ahead.start()
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.option.model:
        if config.option.baseline:
            raise pytest.UsageError("--baseline compares with a --model; name one")
        return
    if config.option.data:
        cases.DATA = config.option.data.resolve()
    config.pluginmanager.register(Evals(config), "jessy-evals")
    if getattr(config.option, "dist", "no") not in ("no", "loadgroup"):
        config.option.dist = "loadgroup"  # a machine measures one model at a time
    if hasattr(config.option, "benchmark_autosave"):
        config.option.benchmark_autosave = True
        # A run without the latency criteria has no timings to save, and that is nobody's mistake.
        warnings.filterwarnings("ignore", message="Not saving anything, no benchmarks have been run")
        if config.option.benchmark_storage == "file://./.benchmarks":
            config.option.benchmark_storage = f"file://{settings_of(config).reports / 'benchmarks'}"
        if not config.option.benchmark_compare:
            config.option.benchmark_quiet = True  # its table says in milliseconds what the verdict block says


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "measure" in metafunc.fixturenames:
        evals = _evals(metafunc.config)
        metafunc.parametrize("model", [target.model for target in evals.targets] if evals else [], scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    evals = _evals(config)
    measured = [item for item in items if "measure" in getattr(item, "fixturenames", ())]
    if measured and evals is None:
        raise pytest.UsageError(f"name a model: pytest evals --model NAME; {_known(settings_of(config))}")
    if evals:
        evals.order(items)


@pytest.fixture
def measure(request: pytest.FixtureRequest, model: str) -> Measure:
    """Measures this criterion on this model: `measure(BAR, "conversation", check=...)`."""
    evals = _evals(request.config)
    if evals is None:
        raise pytest.UsageError("name a model: --model NAME")
    first = " ".join((request.module.__doc__ or "").strip().split("\n\n")[0].split())
    sentence = first.partition(": ")[2] or first  # "Technical accuracy: the facts ..."; the bar has the title
    return evals.measure(model, request.node.originalname, sentence[:1].upper() + sentence[1:])


class Evals:
    """One evaluation run, on the controller or in a worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.settings = config, settings_of(config)
        self.worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        self.targets: list[Target] = []
        self.locks: list[FileLock] = []
        self.criteria: dict[str, list[dict[str, Any]]] = {}
        self.replies: dict[str, dict[str, Any]] = {}
        self.known: dict[str, dict[str, Any]] = {}
        self.crashed = 0
        self.written: list[Path] = []
        self.machine: dict[str, Any] = {}
        self.complaint = self.compared = ""
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self._session: Session | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        if self.worker is not None:
            self.targets = [Target(*fields) for fields in self.worker["jessy_targets"]]
            if self.settings.embed:
                _embed(self.settings)
            return
        self.targets = self.config.stash[_TARGETS]
        if self.config.option.collectonly:
            return
        self.machine = records.machine(_embedding())  # now: the commit that is loaded, whatever is edited meanwhile
        try:
            claimed = [claim(self.settings, target) for target in self.targets]
        except NotWritable as error:
            raise pytest.UsageError(str(error)) from None
        self.targets, self.locks = [target for target, _ in claimed], [lock for _, lock in claimed]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["jessy_targets"] = [(one.model, one.engine, one.host, one.run, one.baseline)
                                             for one in self.targets]

    def pytest_report_header(self) -> list[str]:
        return [f"measuring: {one.model} on {one.engine}{f' at {one.host}' if one.host else ''}"
                + (" (baseline)" if one.baseline else "") for one in self.targets]

    def order(self, items: list[pytest.Item]) -> None:
        """All of one model before the next; latency first, while no answer is known, so that a case is asked once."""
        ranks = {target.model: rank for rank, target in enumerate(self.targets)}

        def rank(item: pytest.Item) -> tuple[int, bool]:
            names = getattr(item, "fixturenames", ())
            model = item.callspec.params["model"] if "measure" in names else ""  # type: ignore[attr-defined]
            return ranks.get(model, -1), "benchmark" not in names

        items.sort(key=rank)
        if self.worker is not None:
            for item in items:
                self._join_group(item)

    def measure(self, model: str, name: str, sentence: str) -> Measure:
        """The fixture's value."""
        if self._session is None:
            self._session = Session(self.settings, self.targets)
        return Measure(self._session, model, name, sentence, self._progress)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        measured = getattr(item, "funcargs", {}).get("measure")
        if call.when == "call" and isinstance(measured, Measure) and measured.result and self._session:
            model = item.callspec.params["model"]  # type: ignore[attr-defined]
            report.jessy = {"model": model, "criterion": records.criterion(measured.result),
                            "replies": measured.replies, "known": records.provenance(self._session.run(model))}
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        measured = getattr(report, "jessy", None)
        if measured:
            model = measured["model"]
            self.criteria.setdefault(model, []).append(measured["criterion"])
            self.replies.setdefault(model, {}).update(measured["replies"])
            self.known[model] = measured["known"]
        elif report.failed:
            self.crashed += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._session:
            self._session.close()
        if self.worker is not None or self.config.option.collectonly:
            return
        if self.criteria:
            if exitstatus in (0, 1):
                session.exitstatus = self._exit_code()
            try:
                try:
                    self._ask_judge()
                finally:  # what was measured is written, whatever happens to an opinion
                    self._write_reports(interrupted=exitstatus not in (0, 1))
            except OSError as error:
                self.complaint = f"cannot write the report: {error}; the replies are in the journal, the next run goes on from it"
                session.exitstatus = NOT_MEASURED
        ahead.stop()
        self._release()

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from harness.terminal import verdict_block

        for line, markup in verdict_block(self.settings, self.targets, self.criteria, self.written):
            terminalreporter.write_line(line, **markup)
        if self.compared:
            terminalreporter.write_line(visible(self.compared))
        if self.complaint:
            terminalreporter.write_line(self.complaint, red=True, bold=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_generate_machine_info(self) -> dict[str, Any]:
        # pytest-benchmark's own asks py-cpuinfo, which takes over a second.
        return dict((self.machine or records.machine(_embedding()))["machine"])

    def _exit_code(self) -> int:
        from harness.verdict import Verdict, exit_code

        verdicts = [(row["level"], Verdict(row["verdict"])) for target in self.targets if not target.baseline
                    for row in self.criteria.get(target.model, [])]
        return exit_code(verdicts, strict=self.settings.strict) or (1 if self.crashed else 0)

    def _write_reports(self, *, interrupted: bool) -> None:
        session = {"started": self.started.isoformat(timespec="seconds"), "interrupted": interrupted,
                   "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                   "seconds": round(time.monotonic() - self.clock, 3),
                   "command": " ".join(["pytest", *self.config.invocation_params.args])}
        measured = [target for target in self.targets if target.model in self.criteria]
        side_by_side = None
        if len(measured) > 1:
            side_by_side = records.comparison(self.criteria, self.replies, measured[0].model)
        for target in measured:
            content = records.report(
                self.settings, target, self.criteria[target.model], self.replies[target.model],
                {**self.known[target.model], **self.machine}, session=session, comparison=side_by_side)
            path = records.write(run_folder(self.settings, target), content)
            # Which sealed replies failed is nobody's to learn from: of a look there is no page but the gate's.
            self.written.append(path if self.settings.half == "sealed" else path.with_name("report.html"))
        self.compared = ahead.draw([page.parent for page in self.written if page.suffix == ".html"], self.settings.reports)

    def _ask_judge(self) -> None:
        target = self.config.stash.get(_JUDGE, None)
        if target is None:
            return
        from harness import judge

        for measured in self.targets:
            if measured.model in self.criteria and not self.complaint:
                self.complaint = judge.consult(
                    target, self.settings, self.criteria[measured.model], self.replies[measured.model],
                    run_folder(self.settings, measured) / "judge.jsonl",
                    partial(self._progress, f"{target.model} judges {measured.model}"))

    def _release(self) -> None:
        for target, lock in zip(self.targets, self.locks, strict=False):
            lock.release()
            folder = run_folder(self.settings, target)
            (folder / "run.lock").unlink(missing_ok=True)
            journal = folder / "journal.jsonl"
            if not (folder / "report.json").exists() and not journal.stat().st_size:
                journal.unlink()
                folder.rmdir()

    def _progress(self, label: str, total: int) -> Progress:
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if self.worker is not None or self.config.option.verbose < 0 or capture is None:
            return Progress(label, total, None)
        return Progress(label, total, sys.__stdout__, capture.global_and_fixture_disabled())

    def _join_group(self, item: pytest.Item) -> None:
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")  # type: ignore[attr-defined]
        for target in self.targets:
            if target.model == model:
                item.add_marker(pytest.mark.xdist_group(target.group))


def _embedding() -> str:
    """The embedding model in use; the scorers are not loaded to find that there is none."""
    intents = sys.modules.get("harness.intents")
    return intents.embedding_used() if intents else ""


def _evals(config: pytest.Config) -> Evals | None:
    found = config.pluginmanager.getplugin("jessy-evals")
    return found if isinstance(found, Evals) else None


def _embed(settings: Settings) -> None:
    """Raises UnknownModel, Unreachable."""
    from harness import intents
    from harness.embedding import Embedding
    from harness.engines.ollama import address

    intents.use_embedding(Embedding(settings.embed or "", address(next(iter(settings.hosts), None))))


def _known(settings: Settings) -> str:
    from harness.session import known_models

    return asyncio.run(known_models(settings))
