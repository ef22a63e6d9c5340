"""Candidates until the suites pass: dataset -> train -> export -> register -> open suites -> gate, or the next recipe.

    python -m training candidate RECIPE [--candidates 6] [--minutes 480] [--dry-run]

What is done stands in runs/<recipe>/loop.json, written after every stage: killed at any moment and started again, the
loop goes on where it was. A stage that breaks ends the loop with the stage's own line. reports/LOG.md has an entry for
every candidate, rejected ones too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.files import alone, read_json, slug, write_text
from training.log import write_entry
from training.next_recipe import Verdict, next_recipe
from training.recipe import Recipe, from_dict, load_recipe, to_toml

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("train", "export", "register", "open", "gate")
OVERRULE = "next.toml"
# So many candidates in a row without a better one, and the rules have nothing left to give.
STALE = 2
# Endings of a training that leave nothing to measure.
BROKEN = ("nan", "memory")
Told = Callable[[str], None]
Json = dict[str, Any]


class LoopError(RuntimeError):
    """A stage broke: its own line. What was made before stays, and the same command goes on."""


@dataclass(frozen=True)
class Options:
    """What a person chose. `against` is the gate's baseline; `minutes` are of all candidates together."""

    runs: Path = Path("runs")
    reports: Path = Path("reports")
    candidates: int = 6
    minutes: float = 480.0
    against: str = "smollm2"
    engine: str = "auto"
    host: str | None = None
    max_cases: int | None = None


def merit(criteria: Sequence[Json]) -> tuple[int, float]:
    """How good a candidate is: the must-criteria that it reached, then the mean of their shares."""
    must = [row for row in criteria if row["level"] == "must"]
    shares = [row["score"] for row in must if row["bar"]["unit"] == "%" and row["score"] is not None]
    return sum(row["verdict"] == "PASS" for row in must), sum(shares) / max(1, len(shares))


class Loop:
    """The candidates of one recipe, as loop.json has them."""

    def __init__(self, recipe: Recipe, options: Options, told: Told = print) -> None:
        self.first, self.options, self.told = recipe, options, told
        self.folder = options.runs / recipe.name
        self.path = self.folder / "loop.json"
        self.state: Json = read_json(self.path) if self.path.is_file() else {"seconds": 0.0, "attempts": []}
        if "attempts" not in self.state:
            raise LoopError(f"{self.path} cannot be read: it holds every candidate so far; restore it, or move it away to begin anew")

    @property
    def attempts(self) -> list[Json]:
        """One a candidate, in order: recipe, why, what each stage left, and the outcome once there is one."""
        found: list[Json] = self.state["attempts"]
        return found

    def run(self) -> int:
        """Make candidates until one passes or a reason to stop. Returns 0 when one passed, 1 otherwise. Raises LoopError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder / ".loop.lock", LoopError(f"{self.folder} has a loop in another process; wait for it or end it")):
            self._begin()
            while not (reason := self.stop()):
                attempt = self._current()
                self._attempt(attempt)
                if attempt["stages"]["train"]["stop"] in BROKEN:
                    raise LoopError(f"{self.first.name} {attempt['candidate']}: {attempt['reason']}; the same command goes on with another recipe")
        self.told(reason)
        return 0 if self.attempts and self.attempts[-1]["outcome"] == "passed" else 1

    def _begin(self) -> None:
        """Finish what a kill left between an outcome and its entry in the log, and say where the recipe's file is not what is gone on with."""
        for attempt in self.attempts:
            if attempt["outcome"] and not attempt.get("logged"):
                self._conclude(from_dict(attempt["recipe"]), attempt)
        if self.attempts and asdict(self.first) != self.attempts[0]["recipe"]:
            self.told(f"the recipe {self.first.name} is not the one that this loop began with; the loop goes on, {self._how_to_overrule()}, "
                      f"and without {self.path} it begins anew")

    def stop(self) -> str:
        """Why no other candidate is begun; "" while there is no reason."""
        done = [one for one in self.attempts if one["outcome"]]
        if len(done) < len(self.attempts):
            return ""
        if done and done[-1]["outcome"] == "passed":
            return f"{self.first.name} {done[-1]['candidate']} passed"
        if len(done) >= self.options.candidates:
            return f"{len(done)} candidates were made, and --candidates allows {self.options.candidates}"
        if self.state["seconds"] >= 60 * self.options.minutes:
            return f"{self.state['seconds'] / 60:.0f} minutes were used, and --minutes allows {self.options.minutes:g}"
        if self._overruled():
            return ""
        measured = [merit(one["criteria"]) for one in done if one["criteria"]]
        if len(measured) > STALE and max(measured[-STALE:]) <= max(measured[:-STALE]):
            return f"{STALE} candidates in a row were no better than the best before; {self._how_to_overrule()}"
        if done and self._proposed() is None:
            return f"no rule has anything left to change; {self._how_to_overrule()}"
        return ""

    def plan(self) -> list[str]:
        """What the loop would do now, in words."""
        if reason := self.stop():
            return [reason]
        open_one = self.attempts[-1] if self.attempts and not self.attempts[-1]["outcome"] else None
        recipe, why = (from_dict(open_one["recipe"]), open_one["why"]) if open_one else self._choose()
        number = len(self.attempts) + (0 if open_one else 1)
        left = [name for name in STAGES if name not in (open_one or {"stages": {}})["stages"]]
        return [f"candidate {number} of at most {self.options.candidates}, {self.state['seconds'] / 60:.0f} of {self.options.minutes:g} minutes used",
                *(f"  {line}" for line in why), f"stages: {', '.join(left)} (gate against {self.options.against}, if the must-criteria pass)",
                "recipe:", *(f"  {line}" for line in to_toml(recipe).splitlines())]

    def _how_to_overrule(self) -> str:
        return f"a recipe of your own in {self.folder / OVERRULE} is tried next"

    def _overruled(self) -> bool:
        return (self.folder / OVERRULE).is_file()

    def _proposed(self) -> tuple[Recipe, list[str]] | None:
        last = self.attempts[-1]
        return next_recipe(from_dict(last["recipe"]), Verdict(last["criteria"], last["stages"]["train"]))

    def _choose(self) -> tuple[Recipe, list[str]]:
        if self._overruled():
            recipe = load_recipe(self.folder / OVERRULE, name=self.first.name)
            return recipe, [f"a person's own recipe, {OVERRULE}"]
        if not self.attempts:
            return self.first, ["the recipe as it is"]
        proposed = self._proposed()
        assert proposed is not None  # stop() asked
        return proposed

    def _current(self) -> Json:
        """The candidate that is being made, or a new one."""
        if self.attempts and not self.attempts[-1]["outcome"]:
            return self.attempts[-1]
        recipe, why = self._choose()
        attempt: Json = {"recipe": asdict(recipe), "why": why, "candidate": "", "stages": {}, "criteria": [], "outcome": "", "reason": ""}
        self.attempts.append(attempt)
        (self.folder / "recipes").mkdir(exist_ok=True)
        write_text(self.folder / "recipes" / f"{len(self.attempts)}.toml", to_toml(recipe))
        self._save()
        (self.folder / OVERRULE).unlink(missing_ok=True)
        return attempt

    def _save(self) -> None:
        write_text(self.path, json.dumps(self.state, indent=1, ensure_ascii=False) + "\n")

    def _attempt(self, attempt: Json) -> None:
        """The stages that are not done yet, and the outcome."""
        recipe = from_dict(attempt["recipe"])
        self.told(f"candidate {len(self.attempts)} of at most {self.options.candidates}")
        for line in attempt["why"]:
            self.told(f"  {line}")
        for stage in STAGES:
            if stage in attempt["stages"] or attempt["outcome"]:
                continue
            begun = time.monotonic()
            try:
                attempt["stages"][stage] = getattr(self, f"_{stage}")(recipe, attempt)
            finally:
                self.state["seconds"] += time.monotonic() - begun
                self._save()
            if not attempt["outcome"] and stage != STAGES[-1]:
                table(self.attempts)
        self._conclude(recipe, attempt)

    def _conclude(self, recipe: Recipe, attempt: Json) -> None:
        if not attempt["outcome"]:
            attempt["outcome"], attempt["reason"] = "passed", attempt["stages"]["gate"]["said"]
        write_entry(self.options.reports / "LOG.md", recipe, attempt)
        attempt["logged"] = True
        self._save()
        table(self.attempts)

    def _train(self, recipe: Recipe, attempt: Json) -> Json:
        from training.train import REASONS, TrainError, train

        try:
            made = train(recipe, self.options.runs)
        except TrainError as error:
            raise LoopError(str(error)) from None
        attempt["candidate"] = made["candidate"]
        if made["stop"] in BROKEN:
            attempt["outcome"], attempt["reason"] = "rejected", REASONS[made["stop"]]
        return made

    def _export(self, recipe: Recipe, _: Json) -> Json:
        from training.export import ExportError, stage
        from training.parity import ParityError

        try:
            return stage(recipe, self.options.runs, told=self.told)
        except (ExportError, ParityError) as error:
            raise LoopError(str(error)) from None

    def _register(self, recipe: Recipe, _: Json) -> Json:
        from training.register import RegisterError, register

        try:
            places = register(recipe, self.options.runs, engine=self.options.engine, host=self.options.host, told=self.told)
        except RegisterError as error:
            raise LoopError(str(error)) from None
        for place in places:
            self.told(place)
        return {"places": places}

    def _open(self, recipe: Recipe, attempt: Json) -> Json:
        """The open suites, as a person would run them."""
        started = attempt.setdefault("open_since", datetime.now(UTC).isoformat(timespec="seconds"))
        self._save()
        if (found := self._report(recipe, started)) is None:
            most = ["--max-cases", str(self.options.max_cases)] if self.options.max_cases else []
            code = self._child("pytest", str(ROOT / "evals"), "--model", recipe.name, "--reports", str(self.options.reports.resolve()), *self._where(), *most)
            found = self._report(recipe, started)
            if found is None or code not in (0, 1):
                raise LoopError(f"pytest evals --model {recipe.name} ended with exit code {code} and measured nothing; see its lines above")
        path, report = found
        attempt["criteria"] = [{key: row[key] for key in ("name", "title", "level", "verdict", "score", "low", "high", "n", "bar", "note")}
                               | {"breakdown": row["breakdown"]} for row in report["criteria"]]
        if report["exit"]:
            attempt["outcome"], attempt["reason"] = "rejected", missed(report["criteria"])
        return {"report": str(path), "exit": report["exit"]}

    def _report(self, recipe: Recipe, since: str) -> tuple[Path, Json] | None:
        """The newest measured report of the model's open half that was begun since; None where there is none."""
        from harness.saved import is_sealed

        home = self.options.reports / slug(recipe.name)
        found = [(path, read_json(path)) for path in sorted(home.glob("*/report.json"))]
        whole = [(path, report) for path, report in found
                 if report.get("started", "") >= since and not report.get("interrupted") and report.get("exit") in (0, 1)
                 and not is_sealed(report) and not report["provenance"].get("rescored")]
        return max(whole, key=lambda one: str(one[1]["started"]), default=None)

    def _gate(self, recipe: Recipe, attempt: Json) -> Json:
        """The sealed half decides. What it says beyond its verdict is not for the next recipe."""
        rows = (self.folder / "dataset" / "train.jsonl").resolve()
        code = self._child("harness", "gate", recipe.name, "--against", self.options.against, "--trained-on", str(rows),
                           "--reports", str(self.options.reports.resolve()), *self._where())
        said = {0: "the gate says PASS", 1: "the gate says FAIL", 2: "the gate says INCONCLUSIVE"}.get(code)
        if said is None:
            raise LoopError(f"python -m harness gate {recipe.name} ended with exit code {code}; see its lines above")
        if code:
            attempt["outcome"], attempt["reason"] = "rejected", said
        return {"exit": code, "said": said}

    def _where(self) -> list[str]:
        return ["--engine", self.options.engine, *(["--host", self.options.host] if self.options.host else [])]

    def _child(self, module: str, *arguments: str) -> int:
        self.told(" ".join(["python -m", module, *arguments]))
        return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode


def missed(criteria: Sequence[Json]) -> str:
    """The must-criteria that were not reached, in words."""
    from harness.display import amount, bar_text

    rows = [row for row in criteria if row["level"] == "must" and row["verdict"] != "PASS"]
    return "; ".join(f"{row['title']} {amount(row['score'], row['bar']['unit'], row['bar']['value'])}, bar {bar_text(row['bar'])}" for row in rows)


def table(attempts: Sequence[Json]) -> None:
    """Every candidate so far: what it scored, what it cost, and how it ended or what is next."""
    from rich.console import Console
    from rich.table import Table

    from harness.display import amount

    names = {row["name"]: row["title"] for one in attempts for row in one["criteria"] if row["level"] == "must"}
    shown = Table("", "candidate", *names.values(), "minutes", "GB", "outcome")
    for number, one in enumerate(attempts, start=1):
        of, made = {row["name"]: row for row in one["criteria"]}, one["stages"].get("train")
        scores = [amount(of[name]["score"], of[name]["bar"]["unit"], of[name]["bar"]["value"]) if name in of else "—" for name in names]
        cost = [f"{made['seconds'] / 60:.0f}", f"{made['memory']:.1f}"] if made else ["—", "—"]
        shown.add_row(str(number), one["candidate"] or "—", *scores, *cost, one["outcome"] or next(f"next: {stage}" for stage in (*STAGES, "outcome") if stage not in one["stages"]))
    Console(file=sys.stdout, highlight=False).print(shown)
