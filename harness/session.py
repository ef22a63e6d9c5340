"""One run of the suites: which models, on which engines, in which folders, one model in memory at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.ask import Asker
from harness.cases import Case, Half, Kind, load_cases, some_of_each
from harness.engines import Card, Engine, RequestFailed, UnknownModel, Unreachable
from harness.engines.replay import Replay
from harness.files import slug
from harness.journal import Journal

T = TypeVar("T")
SEALED = "-sealed"


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run, as the command line gave them."""

    models: tuple[str, ...]
    baseline: str | None
    engine: Literal["auto", "ollama", "embedded"]
    hosts: tuple[str, ...]
    trials: int
    strict: bool
    reports: Path
    max_cases: int | None
    in_flight: int | None
    timeout: float
    judge: str | None = None
    embed: str | None = None
    half: Half = "open"
    look: str = ""  # the entry of the ledger that allows the sealed half
    replay: Path | None = None

    @property
    def ending(self) -> str:
        """What tells the folders of the two halves apart: no run goes on with replies of the other."""
        return SEALED if self.half == "sealed" else ""


@dataclass(frozen=True, slots=True)
class Target:
    """A model to measure and where: an engine, the host if it is a server, the folder of its run."""

    model: str
    engine: str
    host: str
    run: str
    baseline: bool = False

    @property
    def group(self) -> str:
        """Targets of one group share a machine, so they are measured one after the other."""
        return self.host or self.engine


def engine_of(target: Target) -> Engine:
    """The engine of a target, with its own connection."""
    if target.engine == "ollama":
        from harness.engines.ollama import Ollama

        return Ollama(target.host)
    if target.engine == Replay.name:
        return Replay(Path(target.host))
    from harness.engines.embedded import Embedded

    return Embedded()


async def card_of(target: Target) -> Card:
    """What the engine knows of a target's model. Raises what the engine raises."""
    engine = engine_of(target)
    try:
        return await engine.card(target.model)
    finally:
        await engine.close()


async def resolve(settings: Settings) -> list[Target]:
    """Where each model is measured, the baseline first. Models that several hosts have are spread over them.

    With `replay`, the folder of a saved run stands in for an engine.

    Raises Unreachable when no server answers that would have to, UnknownModel when a model is nowhere.
    """
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}{settings.ending}"
    if settings.replay:
        return [_replayed(settings.replay, settings.models[0], run)]
    known, silent = await _what_there_is(settings)
    targets: list[Target] = []
    for name in dict.fromkeys([*filter(None, [settings.baseline]), *settings.models]):
        places = [place for place, names in known.items() if name in names or f"{name}:latest" in names]
        if not places:
            raise _nowhere(name, known, silent)
        servers = [place for place in places if place[0] == "ollama"]
        engine, host = (servers or places)[len(targets) % len(servers or places)]
        targets.append(Target(name, engine, host, run, baseline=name == settings.baseline))
    return targets


def _replayed(folder: Path, model: str, run: str) -> Target:
    from harness.saved import ReportError, load

    try:
        load(folder / "report.json")
        Replay(folder)
    except ReportError as error:  # sealed, or changed by hand
        raise UnknownModel(str(error)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownModel(f"{folder} is no run that can be scored again: {type(error).__name__}: {error}") from None
    return Target(model, Replay.name, str(folder), run)


async def known_models(settings: Settings) -> str:
    """One line: which models there are, and where."""
    known, silent = await _what_there_is(settings)
    return "; ".join([*_lists(known), *silent])


def run_folder(settings: Settings, target: Target) -> Path:
    """The folder of a target's run: reports/<model>/<run>."""
    return settings.reports / slug(target.model) / target.run


async def _what_there_is(settings: Settings) -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """The models of every engine that answers, and the complaint of every one that does not."""
    known: dict[tuple[str, str], list[str]] = {}
    silent: list[str] = []
    if settings.engine != "embedded":
        from harness.engines.ollama import Ollama

        for host in settings.hosts or (None,):
            server = Ollama(host)
            try:
                known["ollama", server.host] = await asyncio.wait_for(server.names(), timeout=10)
            except (Unreachable, TimeoutError) as error:
                silent.append(str(error) or f"the Ollama server at {server.host} took over 10 s to list its models")
            finally:
                await server.close()
    if settings.engine != "ollama":
        from harness.engines.embedded import Embedded

        known["embedded", ""] = await Embedded().names()
    return known, silent


def _nowhere(name: str, known: dict[tuple[str, str], list[str]], silent: list[str]) -> Exception:
    from rapidfuzz import process

    lists = _lists(known)
    if silent:
        return Unreachable("; ".join([f"cannot measure '{name}': {silent[0]}", *lists]))
    everything = sorted({known_name for names in known.values() for known_name in names})
    near = process.extractOne(name, everything, score_cutoff=60)
    hint = f"; did you mean '{near[0]}'?" if near else "; 'make eval' fetches smollm2, 'ollama pull NAME' the others"
    return UnknownModel(f"no model '{name}': {'; '.join(lists)}{hint}")


def _lists(known: dict[tuple[str, str], list[str]]) -> list[str]:
    return [f"{host or 'models/'} has {', '.join(names) or 'nothing'}" for (_, host), names in known.items()]


class Run:
    """What is known of one target while its items run: the asker, and the folder that the replies go to."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self.settings, self.target = settings, target
        self.folder = run_folder(settings, target)
        self.engine = engine_of(target)
        self.asker: Asker | None = None
        self.broken: Exception | None = None

    async def open(self) -> Asker:
        """The asker, with the model loaded and warm. Raises what the engine raises; the second time at once."""
        if self.broken:
            raise self.broken
        if self.asker is None:
            try:
                self.asker = await self._opened()
            except Exception as error:
                self.broken = error
                raise
        return self.asker

    async def close(self) -> None:
        """Unload the model and let go of the journal. What goes wrong here has nothing to do with what was measured."""
        if self.asker:
            self.asker.journal.close()
        try:
            await self.engine.unload(self.target.model)
        except (Unreachable, UnknownModel, RequestFailed):
            pass
        finally:
            await self.engine.close()

    async def _opened(self) -> Asker:
        from harness.engines.modelfile import pinned

        card = await self.engine.card(self.target.model)
        journal = Journal(self.folder / "journal.jsonl")
        if isinstance(self.engine, Replay):  # nothing is loaded; what it was asked with, and how long loading took, is known
            again = Asker(self.engine, card, self.engine.options, journal, in_flight=self.engine.in_flight, timeout=self.settings.timeout)
            again.loaded = self.engine.loaded
            return again
        asker = Asker(self.engine, card, pinned(card.parameters), journal,
                      in_flight=self.settings.in_flight or _in_flight(self.target), timeout=self.settings.timeout)
        await asker.prepare()
        return asker


class Session:
    """The runs of one process. Opening the run of another model closes the one before."""

    def __init__(self, settings: Settings, targets: list[Target]) -> None:
        self.settings, self.targets = settings, targets
        self._runner = asyncio.Runner()
        self._current: Run | None = None
        self._cases: dict[Kind, tuple[Case, ...]] = {}

    def run(self, model: str) -> Run:
        """The run of a model; the model before is unloaded."""
        if self._current is None or self._current.target.model != model:
            self._close_current()
            target = next(one for one in self.targets if one.model == model)
            self._current = Run(self.settings, target)
        return self._current

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the session's loop."""
        return self._runner.run(work)

    def cases(self, kind: Kind) -> tuple[Case, ...]:
        """The cases of a kind in the half that is measured, fewer in a smoke run. Raises DataError."""
        if kind not in self._cases:
            cases, most = load_cases(kind, half=self.settings.half), self.settings.max_cases
            self._cases[kind] = some_of_each(cases, most) if most else cases
        return self._cases[kind]

    def close(self) -> None:
        """Unload the last model and stop the loop."""
        self._close_current()
        self._runner.close()

    def _close_current(self) -> None:
        if self._current:
            self.wait(self._current.close())
        self._current = None


def _in_flight(target: Target) -> int:
    """How many requests at once: as many as decode together, otherwise waiting would be billed to the model."""
    if target.engine == "embedded":
        from harness.engines.embedded import SLOTS

        return SLOTS
    # Ollama's own default is 1, and it tells no client; the variable is known only where the server is local.
    return max(1, int(os.environ.get("OLLAMA_NUM_PARALLEL") or 1))
