"""The `measure` fixture: what a file of evals/ calls. Asks the cases, scores the replies, decides against the bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING, Any

import pytest

from harness import ahead
from harness.ask import Answer, Asker, Failed
from harness.cases import Case, Kind
from harness.engines import Reply, RequestFailed, UnknownModel, Unreachable
from harness.jsonl import DataError
from harness.progress import Progress
from harness.score import Check, Outcome
from harness.session import Session
from harness.verdict import Bar, Counts, Result, Verdict, decide

if TYPE_CHECKING:
    from harness.stats import Estimate

Extras = Callable[[Sequence[tuple[Case, Reply, Outcome]]], Mapping[str, float | str | None]]
Row = dict[str, Any]


class Measure:
    """Measures one criterion of one model; the result is kept for the report, and a miss fails the item."""

    def __init__(self, session: Session, model: str, name: str, sentence: str,
                 progress: Callable[[str, int], Progress]) -> None:
        self._session, self._run = session, session.run(model)
        self._name, self._sentence, self._progress = name, sentence, progress
        self.result: Result | None = None
        self.replies: dict[str, Row] = {}

    def __call__(self, bar: Bar, *kinds: Kind, check: Check, per: str = "category", pairs: bool = False,
                 extras: Extras | None = None) -> None:
        """Score every case of these kinds with `check`; the score is the macro-mean over the values of `per`.

        `per` names a field of Case. With `pairs`, the halves of a counterfactual pair pass together or not
        at all. `extras` adds figures that stand beside the score.
        """
        cases = self._cases(kinds)
        answers = self._answers(bar, cases)
        if answers is None:
            return
        try:
            judged = [(case, trial, answer, check(case, answer) if isinstance(answer, Reply) else None)
                      for case, trial, answer in answers]
        except (Unreachable, UnknownModel) as error:  # the model of --embed went away
            self._finish(Result(self._name, self._sentence, bar, Verdict.NOT_MEASURED, Counts(), note=str(error)))
            return
        rows = [_row(*one) for one in judged]
        if pairs:
            _join_pairs({case.id: case for case in cases}, rows)
        scored = [(case, answer, outcome) for case, _, answer, outcome in judged
                  if isinstance(answer, Reply) and outcome is not None]
        self._conclude(bar, cases, rows, per=per, extras=dict(extras(scored)) if extras and scored else {})

    def latency(self, bar: Bar, *kinds: Kind, benchmark: Any) -> None:
        """The 95th percentile of the wall clock of warm requests, one at a time, against the bar in seconds.

        Stops as soon as enough requests were too slow to decide (curtailed sampling). The times go to
        pytest-benchmark, one a round, for its statistics and --benchmark-compare.
        """
        cases = self._cases(kinds)
        asker = self._asker(bar)
        if asker is None:
            return
        ahead.wait()
        answers: list[Answer] = []
        with self._progress(self._label("one at a time"), len(cases)) as progress:
            for case in cases:
                answers.append(self._session.wait(asker.ask_alone(case)))
                self._keep(case, 0, answers[-1])
                progress.advance()
                if _decided(bar, answers, len(cases)):
                    break
        _benchmark(benchmark, [answer.timing.wall for answer in answers if isinstance(answer, Reply)])
        self._conclude_latency(bar, cases, answers)

    def _cases(self, kinds: Sequence[Kind]) -> list[Case]:
        try:
            return [case for kind in kinds for case in self._session.cases(kind)]
        except DataError as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)

    def _answers(self, bar: Bar, cases: Sequence[Case]) -> list[tuple[Case, int, Answer]] | None:
        asker = self._asker(bar)
        if asker is None:
            return None
        trials = self._session.settings.trials
        todo = sum((case.kind, case.id, trial) not in asker.answers for case in cases for trial in range(trials))
        ahead.import_scoring()
        with self._progress(self._label(), todo) as progress:
            self._session.wait(asker.ask(cases, trials, progress.advance))
        answers = [(case, trial, asker.answers[case.kind, case.id, trial])
                   for trial in range(trials) for case in cases]
        for answer in answers:
            self._keep(*answer)
        return answers

    def _asker(self, bar: Bar) -> Asker | None:
        """The warm model; without one the criterion is not measured."""
        try:
            return self._session.wait(self._run.open())
        except (Unreachable, UnknownModel, RequestFailed, TimeoutError) as error:
            reason = str(error) or f"the model did not load within {self._session.settings.timeout:g} s"
            self._finish(Result(self._name, self._sentence, bar, Verdict.NOT_MEASURED, Counts(), note=reason))
            return None

    def _conclude(self, bar: Bar, cases: Sequence[Case], rows: Sequence[Row], *, per: str,
                  extras: Mapping[str, float | str | None]) -> None:
        from harness import stats

        by_id = {case.id: case for case in cases}
        rows = [row | _unit(by_id[row["case"]], per) for row in rows]
        counted = [row for row in rows if not row["seen"]]
        scored = [row for row in counted if row["score"] is not None]
        strata = stats.by_stratum(scored)
        estimate = stats.share(strata) if strata else None
        counts = _counts(counted)
        needed = stats.needed(estimate.score, bar.value) if estimate and bar.reached(estimate.score) else None
        verdict, note = decide(bar, estimate, counts, needed)
        self._finish(Result(
            self._name, self._sentence, bar, verdict, counts, estimate, note or _errors(rows),
            stats.minimal_detectable(bar.value, estimate.n) if estimate else None, len(rows) - len(counted),
            {name: {"score": sum(scores) / len(scores), "n": len(scores)} for name, scores in strata.items()},
            tuple(rows), extras))

    def _conclude_latency(self, bar: Bar, cases: Sequence[Case], answers: Sequence[Answer]) -> None:
        from harness import stats

        rows = [_latency_row(bar, case, answer) | _unit(case, "category")
                for case, answer in zip(cases, answers, strict=False)]
        walls = [answer.timing.wall for answer in answers if isinstance(answer, Reply)]
        estimate: Estimate | None = stats.quantile(walls, 0.95) if walls else None
        verdict, note = decide(bar, estimate, _counts(rows), stats.needed_for_quantile(0.95))
        if len(answers) < len(cases):
            note = f"decided after {len(answers)} of {len(cases)}: more than 5 % are too slow already"
        asker = self._run.asker
        load = asker.loaded.seconds if asker and asker.loaded else None
        extras = {"model load, s": load, "median, s": stats.quantile(walls, 0.5).score if walls else None}
        self._finish(Result(self._name, self._sentence, bar, verdict, _counts(rows), estimate,
                            note or _errors(rows), None, 0, {}, tuple(rows), extras))

    def _finish(self, result: Result) -> None:
        self.result = result
        if result.verdict is Verdict.PASS:
            return
        counts = result.bar.level == "must" or self._session.settings.strict
        if counts and not self._run.target.baseline:
            pytest.fail(result.line, pytrace=False)
        pytest.xfail(result.line)

    def _keep(self, case: Case, trial: int, answer: Answer) -> None:
        if isinstance(answer, Reply):
            self.replies[f"{case.id}#{trial}"] = _reply_row(case, answer)

    def _label(self, how: str = "") -> str:
        return " · ".join(filter(None, [self._run.target.model, self._name, how]))


def _decided(bar: Bar, answers: Sequence[Answer], n: int) -> bool:
    """Whether so many of n answers were too slow that their p95 misses the bar, however fast the rest are."""
    slow = sum(isinstance(answer, Reply) and not bar.reached(answer.timing.wall) for answer in answers)
    return slow >= n - ceil(0.95 * (n - 1))


def _benchmark(benchmark: Any, walls: Sequence[float]) -> None:
    """Hand measured seconds to pytest-benchmark: its clock is set forward by each of them, one a round."""
    if not walls or benchmark.disabled:  # it disables itself under pytest-xdist
        return
    clock, left = [0.0], iter(walls)

    def replay() -> None:
        clock[0] += next(left)

    benchmark._timer = lambda: clock[0]
    benchmark.pedantic(replay, rounds=len(walls))


def _row(case: Case, trial: int, answer: Answer, outcome: Outcome | None) -> Row:
    row: Row = {"case": case.id, "trial": trial, "score": None, "passed": False, "reasons": [], "detail": {},
                "error": None, "unscored": None}
    if isinstance(answer, Failed):
        row["error"] = answer.reason
    elif outcome is not None:
        row |= {"score": outcome.score, "passed": outcome.passed, "reasons": list(outcome.reasons),
                "detail": dict(outcome.detail)}
    return row


def _unit(case: Case, per: str) -> Row:
    """What the case counts as: the group that it is drawn with, the stratum that it is averaged in, or not at all."""
    return {"group": case.group, "stratum": getattr(case, per), "seen": case.seen}


def _latency_row(bar: Bar, case: Case, answer: Answer) -> Row:
    if isinstance(answer, Failed):
        return _row(case, 0, answer, None)
    wall, passed = answer.timing.wall, bar.reached(answer.timing.wall)
    reasons = () if passed else (f"{wall:.2f} s for {answer.reply_tokens} tokens, of which decoding "
                                 f"{answer.timing.decode:.2f} s, prompt {answer.timing.prompt:.2f} s",)
    return _row(case, 0, answer, Outcome(wall, passed, reasons, {"tokens": answer.reply_tokens}))


def _join_pairs(by_id: Mapping[str, Case], rows: Sequence[Row]) -> None:
    """Both halves of a counterfactual pair, or neither: an answer that ignores the history must not earn half."""
    for row in rows:
        pair = by_id[row["case"]].pair
        if pair is None or row["score"] is None:
            continue
        other = next((one for one in rows if one is not row and one["trial"] == row["trial"]
                      and by_id[one["case"]].pair == pair), None)
        if other is None or other["error"]:
            row |= {"score": None, "passed": False, "unscored": "the other half of its pair was not measured"}
        elif row["passed"] and not other["passed"] and other["score"] is not None:
            row |= {"score": 0.0, "passed": False, "reasons": [f"its pair failed: {other['case']}"]}


def _counts(rows: Sequence[Row]) -> Counts:
    return Counts(scored=sum(row["score"] is not None for row in rows),
                  errored=sum(row["error"] is not None for row in rows),
                  unscored=sum(row["unscored"] is not None for row in rows))


def _errors(rows: Sequence[Row]) -> str:
    first = next((row["error"] for row in rows if row["error"]), None)
    return f"a request failed: {first}" if first else ""


def _reply_row(case: Case, reply: Reply) -> Row:
    turns = [_turn(user, one) for user, one in zip(case.prompts, (*reply.earlier, reply), strict=True)]
    return {"kind": case.kind, "category": case.category, "complexity": case.complexity, "turns": turns}


def _turn(user: str, reply: Reply) -> Row:
    timing = asdict(reply.timing)
    return {"user": user, "text": reply.text, "thinking": reply.thinking, "done_reason": reply.done_reason,
            **{name: round(seconds, 6) for name, seconds in timing.items() if name != "thinking"},
            "thinking_seconds": round(reply.timing.thinking, 6), "prompt_tokens": reply.prompt_tokens,
            "reply_tokens": reply.reply_tokens, "cached_tokens": reply.cached_tokens,
            "live": not reply.replayed, "alone": reply.alone}
