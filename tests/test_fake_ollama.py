"""The fake server speaks Ollama's protocol to Ollama's own client, faults included: otherwise it could hide them.

The field names and the order of the events are those that the real 0.9.3 sent (tests/real_ollama.py).
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from ollama import AsyncClient, ChatResponse, ResponseError

from tests.fake_ollama import (
    BUSY,
    REPLY,
    STOPPED,
    Busy,
    Crash,
    Cut,
    ErrorLine,
    FakeOllama,
    Fault,
    Gone,
    Hang,
    Length,
    always,
)

T = TypeVar("T")

QUESTION = [{"role": "user", "content": "sana bisi sorucam"}]
THOUGHT = "<think>\n1. Soru geliyor.\n</think>\n\nSor kanka."


def test_a_reply_comes_in_pieces_and_ends_with_all_durations() -> None:
    with FakeOllama(always(REPLY)) as server:
        events = run(stream(server))
    *pieces, last = events
    assert len(pieces) > 1
    assert text(events) == REPLY
    assert not any(event.done for event in pieces)
    assert (last.done, last.done_reason) == (True, "stop")
    parts = [last.load_duration, last.prompt_eval_duration, last.eval_duration]
    assert last.total_duration and all(parts)
    assert last.total_duration >= sum(part or 0 for part in parts)
    assert (last.prompt_eval_count, last.eval_count) == (3, 3)


def test_a_reply_that_is_not_streamed_is_the_same_text() -> None:
    with FakeOllama(always(REPLY)) as server:
        answer = run(ask(server.host))
    assert answer.message.content == REPLY
    assert answer.done_reason == "stop"


def test_the_policy_sees_the_dialogue() -> None:
    with FakeOllama(lambda messages: messages[-1]["content"].upper()) as server:
        assert text(run(stream(server))) == "SANA BISI SORUCAM"


def test_a_policy_that_raises_fails_the_test_around_it() -> None:
    with pytest.raises(KeyError, match="nope"), FakeOllama(lambda messages: messages[0]["nope"]) as server, \
            pytest.raises(httpx.RemoteProtocolError):
        run(stream(server))


def test_delay_is_real_and_the_first_token_comes_at_half_of_it() -> None:
    async def clocked(server: FakeOllama) -> tuple[list[float], list[ChatResponse]]:
        start, times, events = time.perf_counter(), [], []
        async with AsyncClient(server.host) as client:
            async for event in await client.chat("jessy", QUESTION, stream=True):
                times.append(time.perf_counter() - start)
                events.append(event)
        return times, events

    with FakeOllama(always("Sor kanka, dinliyorum seni."), delay=0.4) as server:
        times, (*_, last) = run(clocked(server))
    assert 0.19 <= times[0] < times[-1]  # lower bounds only: a loaded machine may be late, never early
    assert times[-1] >= 0.39
    assert last.total_duration and last.total_duration / 1e9 >= 0.39
    assert last.eval_duration and 0.1 < last.eval_duration / 1e9 < last.total_duration / 1e9


def test_identity_settings_and_residency_are_told() -> None:
    async def look(server: FakeOllama) -> None:
        async with AsyncClient(server.host) as client:
            assert [(m.model, m.digest) for m in (await client.list()).models] == [("jessy:latest", "abc")]
            shown = await client.show("jessy")
            assert shown.capabilities == ["completion", "thinking"]
            assert shown.details and shown.details.quantization_level == "Q4_1"
            assert shown.template and shown.parameters
            loaded = await client.chat("jessy", [], options={"num_ctx": 512}, keep_alive=-1)
            assert (loaded.done, loaded.done_reason, loaded.message.content) == (True, "load", "")
            [resident] = (await client.ps()).models
            assert (resident.digest, resident.context_length) == ("abc", 512)
            unloaded = await client.chat("jessy", [], keep_alive=0)
            assert unloaded.done_reason == "unload"
            assert not (await client.ps()).models

    with FakeOllama(always(REPLY), models={"jessy": "abc"}, thinking_models=["jessy"]) as server:
        run(look(server))
        assert httpx.get(f"{server.host}/api/version").json() == {"version": server.version}
        assert server.hits["/api/ps"] == 2


def test_every_chat_body_is_kept() -> None:
    options = {"temperature": 0, "num_ctx": 512}
    with FakeOllama(always(REPLY)) as server:
        run(ask(server.host, [], options=options))
        run(stream(server, options=options, think=False))
    assert [body["options"] for body in server.requests] == [options, options]
    assert server.requests[1]["think"] is False
    assert server.chats == 1


def test_requests_in_flight_together_are_counted() -> None:
    async def together(server: FakeOllama) -> None:
        async with AsyncClient(server.host) as client:
            await asyncio.gather(*(client.chat("jessy", QUESTION) for _ in range(3)))

    with FakeOllama(always(REPLY), delay=0.1) as server:
        run(together(server))
    assert server.peak == 3


def test_one_connection_serves_many_requests() -> None:
    with FakeOllama(always(REPLY)) as server, httpx.Client() as client:
        for _ in range(3):
            body = {"model": "jessy", "messages": QUESTION}
            assert client.post(f"{server.host}/api/chat", json=body).text.count('"done":false') == 3
            assert len(server.connections) == 1


def test_thinking_is_split_off_only_when_asked_of_a_model_that_has_it() -> None:
    with FakeOllama(always(THOUGHT), models=["jessy", "plain"], thinking_models=["jessy"]) as server:
        split = run(stream(server, think=True))
        raw = run(stream(server, think=False))
        plain = run(stream(server, model="plain"))
        with pytest.raises(ResponseError, match="does not support thinking") as refused:
            run(stream(server, model="plain", think=True))
    assert "".join(event.message.thinking or "" for event in split) == "1. Soru geliyor."
    assert text(split) == "Sor kanka."
    assert text(raw) == text(plain) == THOUGHT
    assert refused.value.status_code == 400


def test_thinking_that_never_closes_leaves_no_content() -> None:
    with FakeOllama(always(Length("<think>1. Bir. 2. İki.")), thinking_models=["jessy"]) as server:
        events = run(stream(server, think=True))
    assert "".join(event.message.thinking or "" for event in events) == "1. Bir. 2. İki."
    assert (text(events), events[-1].done_reason) == ("", "length")


def test_an_unknown_model_is_not_found() -> None:
    with FakeOllama(always(REPLY)) as server:
        with pytest.raises(ResponseError, match="model 'x' not found") as missing:
            run(stream(server, model="x"))
        shown = httpx.post(f"{server.host}/api/show", json={"model": "x"})
    assert missing.value.status_code == shown.status_code == 404
    assert shown.json() == {"error": "model 'x' not found"}


def test_hang_never_answers() -> None:
    with FakeOllama(always(Hang())) as server, pytest.raises(httpx.ReadTimeout):
        run(stream(server, timeout=0.2))


def test_cut_ends_without_done() -> None:
    with FakeOllama(always(Cut())) as server:
        events = run(stream(server))
    assert REPLY.startswith(text(events)) and text(events) != REPLY
    assert not any(event.done for event in events)


def test_a_torn_stream_is_a_protocol_error() -> None:
    with FakeOllama(always(Cut(torn=True))) as server, pytest.raises(httpx.RemoteProtocolError):
        run(stream(server))


def test_an_error_line_comes_after_the_start_of_the_reply() -> None:
    with FakeOllama(always(ErrorLine())) as server:
        answer = httpx.post(f"{server.host}/api/chat", json={"model": "jessy", "messages": QUESTION})
        with pytest.raises(ResponseError, match=re.escape(STOPPED)):
            run(stream(server))
    assert answer.status_code == 200
    assert answer.text.count("\n") == 2


def test_busy_passes_after_the_first_requests() -> None:
    with FakeOllama(always(Busy(first=2))) as server:
        for _ in range(2):
            with pytest.raises(ResponseError, match=BUSY) as refused:
                run(stream(server))
            assert refused.value.status_code == 503
        assert text(run(stream(server))) == REPLY


def test_busy_can_stay() -> None:
    with FakeOllama(always(Busy())) as server:
        for _ in range(3):
            with pytest.raises(ResponseError, match=BUSY):
                run(stream(server))


def test_a_model_that_is_gone_is_gone_everywhere() -> None:
    with FakeOllama(always(Gone(nth=2))) as server:
        assert text(run(stream(server))) == REPLY
        with pytest.raises(ResponseError, match="model 'jessy' not found"):
            run(stream(server))
        assert httpx.get(f"{server.host}/api/tags").json() == {"models": []}


def test_a_crash_breaks_the_connection_and_refuses_the_next() -> None:
    with FakeOllama(always(Crash(nth=2))) as server:
        assert text(run(stream(server))) == REPLY
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            run(stream(server))
        with pytest.raises(ConnectionError):
            run(ask(server.host))


@pytest.mark.parametrize("fault", [Cut(), ErrorLine()])
def test_a_fault_is_an_error_where_nothing_is_streamed(fault: Fault) -> None:
    with FakeOllama(always(fault)) as server, pytest.raises(ResponseError) as failed:
        run(ask(server.host))
    assert failed.value.status_code == 500


def test_as_a_program_it_prints_its_address_and_ends_on_request() -> None:
    program = [sys.executable, str(Path(__file__).with_name("fake_ollama.py")), "--reply", "Selam!"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host = process.stdout.readline().strip()
        try:
            assert run(ask(host)).message.content == "Selam!"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def ask(host: str, messages: Sequence[Mapping[str, str]] = QUESTION, **body: Any) -> ChatResponse:
    async with AsyncClient(host) as client:
        answer: ChatResponse = await client.chat("jessy", messages, **body)
        return answer


async def stream(server: FakeOllama, *, model: str = "jessy", timeout: float = 5.0, **body: Any) -> list[ChatResponse]:
    async with AsyncClient(server.host, timeout=timeout) as client:
        return [event async for event in await client.chat(model, QUESTION, stream=True, **body)]


def text(events: list[ChatResponse]) -> str:
    return "".join(event.message.content or "" for event in events)
