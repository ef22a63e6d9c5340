"""Asking: every case once, nothing lost, transport faults apart from answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.ask import Asker, Failed
from harness.cases import Case, Turn
from harness.engines import Options, Reply, UnknownModel, Unreachable, repeats
from harness.engines.ollama import Ollama
from harness.journal import Journal
from tests.fake_ollama import Busy, Crash, Cut, ErrorLine, FakeOllama, Gone, Hang, Length, always

CASES = [Case(id=f"conv-{n}", kind="conversation", category="opener", prompt=f"{n}. sorum var", intent="opener")
         for n in range(12)]


def ask(server: FakeOllama, journal: Path, cases: list[Case] = CASES, *, in_flight: int = 1, timeout: float = 5,
        trials: int = 1, alone: bool = False) -> Asker:
    """Ask all cases of the server's model, in a session of its own."""

    async def work() -> Asker:
        engine = Ollama(server.host)
        asker = Asker(engine, await engine.card("jessy"), Options(), Journal(journal), in_flight=in_flight,
                      timeout=timeout)
        await asker.prepare()
        if alone:
            for case in cases:
                await asker.ask_alone(case)
        else:
            await asker.ask(cases, trials, lambda: None)
        asker.journal.close()
        await engine.close()
        return asker

    return asyncio.run(work())


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_every_case_is_asked_once_and_warm_up_is_no_case(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"]) as server:
        asker = ask(server, journal)
    prompts = [body["messages"][-1]["content"] for body in server.requests if body["messages"]]
    assert prompts == ["Merhaba", *(case.prompt for case in CASES)]
    assert len(asker.answers) == len(CASES)


def test_options_are_the_same_for_every_request_so_that_the_server_never_reloads(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"]) as server:
        ask(server, journal)
    asked = {json.dumps([body["options"], body["think"], body["truncate"], body["shift"]], sort_keys=True)
             for body in server.requests}
    assert len(asked) == 1
    assert server.requests[0]["options"]["temperature"] == 0
    assert server.requests[0]["truncate"] is False


def test_in_flight_is_bounded(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"], delay=0.05) as server:
        ask(server, journal, in_flight=3)
    assert server.peak == 3


def test_a_killed_run_asks_only_what_is_missing(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"]) as server:
        ask(server, journal, CASES[:5])
        journal.write_text(journal.read_text(encoding="utf-8") + '{"key": "torn off by a ki', encoding="utf-8")
        before = server.chats
        asker = ask(server, journal)
    assert server.chats - before == 1 + len(CASES) - 5  # the warm-up and the rest
    assert sum(isinstance(answer, Reply) and answer.replayed for answer in asker.answers.values()) == 5
    assert len(journal.read_text(encoding="utf-8").splitlines()) == len(CASES)


def test_another_model_behind_the_same_name_is_asked_again(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models={"jessy": "a" * 64}) as server:
        ask(server, journal)
    with FakeOllama(always("Buyur."), models={"jessy": "b" * 64}) as server:
        asker = ask(server, journal)
    assert not any(isinstance(answer, Reply) and answer.replayed for answer in asker.answers.values())


def test_latency_is_never_read_from_the_journal(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"]) as server:
        ask(server, journal)
        before = server.chats
        ask(server, journal, alone=True)
    assert server.chats - before == 1 + len(CASES)


def test_trials_are_asked_apart(journal: Path) -> None:
    with FakeOllama(always("Buyur."), models=["jessy"]) as server:
        asker = ask(server, journal, CASES[:2], trials=3)
    assert len(asker.answers) == 6
    assert {body["options"]["seed"] for body in server.requests} == {0, 1, 2}


def test_a_dialogue_carries_the_models_own_replies(journal: Path) -> None:
    turns = (Turn(user="adım Deniz"), Turn(user="adım neydi benim, hatırlıyor musun"))
    case = Case(id="turn-1", kind="multiturn", category="slot", turns=turns)
    with FakeOllama(lambda messages: f"cevap {len(messages)}", models=["jessy"]) as server:
        answer = ask(server, journal, [case]).answers["multiturn", "turn-1", 0]
    assert isinstance(answer, Reply)
    assert [reply.text for reply in (*answer.earlier, answer)] == ["cevap 1", "cevap 3"]
    assert server.requests[-1]["messages"][1] == {"role": "assistant", "content": "cevap 1"}


@pytest.mark.parametrize("fault, reason", [
    (Cut("Sor kanka, dinliyorum."), "without done:true"), (ErrorLine("model runner has unexpectedly stopped"), "mid-stream"),
    (Busy(), "HTTP 503")], ids=["cut", "error line", "busy"])
def test_a_transport_fault_is_retried_and_never_becomes_an_answer(journal: Path, fault: Any, reason: str) -> None:
    with FakeOllama(after_warm_up(fault), models=["jessy"]) as server:
        asker = ask(server, journal, CASES[:1])
    answer = asker.answers["conversation", "conv-0", 0]
    assert isinstance(answer, Failed)
    assert reason in answer.reason
    assert server.chats == 1 + 4
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 0


def test_a_full_queue_that_drains_costs_nothing(journal: Path) -> None:
    with FakeOllama(always(Busy(first=2, otherwise="Buyur.")), models=["jessy"]) as server:
        asker = ask(server, journal, CASES[:3])
    assert all(isinstance(answer, Reply) for answer in asker.answers.values())


def test_a_server_that_hangs_costs_three_timeouts_and_no_more(journal: Path) -> None:
    with FakeOllama(after_warm_up(Hang()), models=["jessy"]) as server:
        asker = ask(server, journal, timeout=0.2)
    reasons = [answer.reason for answer in asker.answers.values() if isinstance(answer, Failed)]
    assert len(reasons) == len(CASES)
    assert server.chats == 1 + 3
    assert reasons[0] == "no answer within 0.2 s (--timeout)"
    assert reasons[-1].startswith("not asked: ")


def test_a_model_removed_mid_run_keeps_what_was_measured(journal: Path) -> None:
    with FakeOllama(always(Gone(nth=6, otherwise="Buyur.")), models=["jessy"]) as server:
        asker = ask(server, journal)
    kept = [answer for answer in asker.answers.values() if isinstance(answer, Reply)]
    lost = [answer for answer in asker.answers.values() if isinstance(answer, Failed)]
    assert len(kept) == 4 and len(journal.read_text(encoding="utf-8").splitlines()) == 4
    assert "has no model 'jessy'" in lost[0].reason
    assert server.chats == 6


def test_a_server_that_dies_mid_run_keeps_what_was_measured(journal: Path) -> None:
    with FakeOllama(always(Crash(nth=6, otherwise="Buyur.")), models=["jessy"]) as server:
        asker = ask(server, journal)
    assert sum(isinstance(answer, Reply) for answer in asker.answers.values()) == 4
    assert any("no Ollama server answers" in answer.reason or "connection broke" in answer.reason
               for answer in asker.answers.values() if isinstance(answer, Failed))


def test_a_reply_cut_by_the_token_limit_says_so(journal: Path) -> None:
    with FakeOllama(always(Length("Bu uzun bir")), models=["jessy"]) as server:
        answer = ask(server, journal, CASES[:1]).answers["conversation", "conv-0", 0]
    assert isinstance(answer, Reply) and answer.done_reason == "length"


def test_a_reply_stuck_in_a_loop_is_not_waited_for_unless_it_is_timed(journal: Path) -> None:
    stuck = "Sana bisi sorucam, " + "aye, " * 3000
    with FakeOllama(always(stuck), models=["jessy"]) as server:
        looped = ask(server, journal, CASES[:1]).answers["conversation", "conv-0", 0]
        timed = ask(server, journal, CASES[:1], alone=True).answers["conversation", "conv-0", 0]
    assert isinstance(looped, Reply) and looped.done_reason == "loop" and len(looped.text) < len(stuck) / 2
    assert isinstance(timed, Reply) and timed.done_reason == "stop" and len(timed.text) > 14000


@pytest.mark.parametrize("text", [
    "".join(f"{n}. madde: kanka bu da {n * n} eder.\n" for n in range(60)),
    "kanka " * 30 + "".join(f"ama {n} kere söyledim sana. " for n in range(40)),
    "let x = 1;\n" * 20 + "fn main() { println!(\"selam\"); }\n" * 3,
], ids=["numbered list", "a loop that ended", "code"])
def test_a_reply_that_goes_on_is_not_taken_for_a_loop(text: str) -> None:
    assert not repeats(text)


def test_thinking_is_split_off_whether_or_not_the_server_did(journal: Path) -> None:
    raw = "<think>\n1. Soru sormak istiyor, basit.\n</think>\nSor kanka, dinliyorum."
    for thinking_models in ((), ("jessy",)):
        with FakeOllama(always(raw), models=["jessy"], thinking_models=thinking_models, delay=0.05) as server:
            answer = ask(server, journal.with_name(f"{len(thinking_models)}.jsonl"), CASES[:1])
        reply = answer.answers["conversation", "conv-0", 0]
        assert isinstance(reply, Reply)
        assert (reply.text, reply.thinking) == ("Sor kanka, dinliyorum.", "1. Soru sormak istiyor, basit.")
        assert 0 < reply.timing.thinking < reply.timing.wall
        assert server.requests[-1]["think"] is bool(thinking_models)


def test_timing_has_every_part(journal: Path) -> None:
    with FakeOllama(always("Sor kanka, dinliyorum."), models=["jessy"], delay=0.1) as server:
        reply = ask(server, journal, CASES[:1]).answers["conversation", "conv-0", 0]
    assert isinstance(reply, Reply)
    timing = reply.timing
    assert 0 < timing.first_token < timing.wall
    assert timing.prompt > 0 and timing.decode > 0
    assert timing.load + timing.queue + timing.prompt + timing.decode <= timing.wall
    assert reply.prompt_tokens > 0 and reply.reply_tokens > 0


def test_a_server_that_drops_early_turns_is_not_measured(journal: Path) -> None:
    turns = (Turn(user="adım Deniz ve Bursa'da oturuyorum, kedim var"), Turn(user="adım ne"))
    case = Case(id="turn-1", kind="multiturn", category="slot", turns=turns)

    class Forgetful(FakeOllama):
        """Counts only the last message, as a server does that cut the history to its context."""

        async def _stream(self, connection: Any, body: dict[str, Any], *rest: Any, **named: Any) -> None:
            await super()._stream(connection, {**body, "messages": body["messages"][-1:]}, *rest, **named)

    with Forgetful(always("Tamam."), models=["jessy"]) as server:
        answer = ask(server, journal, [case]).answers["multiturn", "turn-1", 0]
    assert isinstance(answer, Failed) and "dropped earlier turns" in answer.reason


def test_no_server_and_no_model_are_told_apart() -> None:
    async def card(host: str) -> None:
        engine = Ollama(host)
        try:
            await engine.card("jesy")
        finally:
            await engine.close()

    with FakeOllama(always("x"), models=["jessy"]) as server, pytest.raises(UnknownModel, match="has no model"):
        asyncio.run(card(server.host))
    with pytest.raises(Unreachable, match="no Ollama server answers at"):
        asyncio.run(card(server.host))


def after_warm_up(fault: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """The warm-up is answered, everything after it gets the fault."""
    return lambda messages: "Merhaba." if messages[-1]["content"] == "Merhaba" else fault
