"""The engine that has no model: it gives back what a run wrote down, so that a saved run can be scored again.

Replies come from the run's report.json and, where an interrupted run left more, from its journal. What was not asked
then fails now. A time comes from a reply that was timed live, alone, in the report; never from the journal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.engines import Card, Loaded, Message, NotAsked, Options, Reply, Timing, UnknownModel
from harness.files import sha256
from harness.journal import rows_of

Json = dict[str, Any]


class Replay:
    """The replies of one run, by what was asked and in which trial. Raises OSError, ValueError, KeyError or TypeError where its report is none."""

    name = "replay"

    def __init__(self, run: Path) -> None:
        self.run = run
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        known = report["provenance"]
        if "card" not in known:
            raise ValueError(f"{run / 'report.json'} is of a run that never reached its model; there is nothing to score")
        self.card_then = Card(**{**known["card"], "capabilities": tuple(known["card"]["capabilities"])})
        asked = known["options"]
        self.options = Options(**{**asked, "stop": tuple(asked.get("stop", ()))})
        self.loaded = Loaded(known["load_seconds"] or 0.0, known.get("loaded_num_ctx"), known.get("gpu_share"), known.get("memory_bytes"))
        self.in_flight, self.asking_seconds = known["in_flight"], known["asking_seconds"]
        before = known.get("rescored") or {}
        self.origin = {"run": report["run"], "report_sha256": sha256(run / "report.json"), "scorers": known.get("scorers"),
                       "started": report["started"], "commit": before.get("commit") or known.get("commit"),
                       "machine": before.get("machine") or known.get("machine")}
        self._replies = _journaled(run / "journal.jsonl") | _reported(report)

    async def names(self) -> list[str]:
        return [self.card_then.name]

    async def card(self, model: str) -> Card:
        if model != self.card_then.name:
            raise UnknownModel(f"{self.run} is a run of '{self.card_then.name}', not of '{model}'")
        return self.card_then

    async def load(self, card: Card, options: Options) -> Loaded:
        return self.loaded

    async def chat(self, card: Card, messages: Sequence[Message], options: Options, *, patient: bool) -> Reply:
        reply = self._replies.get(_key(messages, options.seed - self.options.seed))
        if reply is None:
            raise NotAsked(f"run {self.run.name} did not ask this")
        if patient and (reply.replayed or not reply.alone):
            raise NotAsked(f"run {self.run.name} did not time this alone")
        return reply

    async def unload(self, model: str) -> None:
        pass

    async def close(self) -> None:
        pass


def _reported(report: Json) -> dict[str, Reply]:
    found = {}
    for name, said in report["replies"].items():
        messages: list[Message] = []
        for turn in said["turns"]:
            messages.append({"role": "user", "content": turn["user"]})
            found[_key(messages, int(name.rpartition("#")[2]))] = _reply(turn)
            messages.append({"role": "assistant", "content": turn["text"]})
    return found


def _reply(turn: Json) -> Reply:
    seconds = {one.name: turn[one.name] for one in fields(Timing) if one.name != "thinking"}
    return Reply(text=turn["text"], thinking=turn["thinking"], done_reason=turn["done_reason"],
                 timing=Timing(**seconds, thinking=turn["thinking_seconds"]), prompt_tokens=turn["prompt_tokens"],
                 reply_tokens=turn["reply_tokens"], cached_tokens=turn["cached_tokens"], alone=turn["alone"], replayed=not turn["live"])


def _journaled(path: Path) -> dict[str, Reply]:
    return {_key(row["messages"], row["trial"]): reply for row, reply in rows_of(path)}


def _key(messages: Sequence[Message], trial: int) -> str:
    return json.dumps([trial, [[one["role"], one["content"]] for one in messages]], ensure_ascii=False)
