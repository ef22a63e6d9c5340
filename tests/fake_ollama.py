"""A fake Ollama server, for the faults that a real one will not produce on demand, and for the benchmark.

    with FakeOllama(policy=always("Sor kanka, dinliyorum."), models=["jessy"]) as server:
        ...                                                   # server.host, server.requests, server.peak

    python tests/fake_ollama.py --port 0 --delay 0.02 --reply "Sor kanka, dinliyorum."

As a program it prints its address on the first line and runs until it is told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

JSON, NDJSON, PLAIN = "application/json; charset=utf-8", "application/x-ndjson", "text/plain; charset=utf-8"
REPLY = "Sor kanka, dinliyorum."
BUSY = "server busy, please try again.  maximum pending requests exceeded"
STOPPED = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
SIZE = 98_363_178
DETAILS = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
           "parameter_size": "134.52M", "quantization_level": "Q4_1"}
TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
PIECES = 4


@dataclass(frozen=True, slots=True)
class Hang:
    """Takes the request and never answers."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The stream ends without `done:true`; `torn` breaks the connection too."""

    text: str = REPLY
    torn: bool = False


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """HTTP 200, the start of a reply, then a line {"error": ...}."""

    error: str = STOPPED
    text: str = REPLY


@dataclass(frozen=True, slots=True)
class Busy:
    """HTTP 503 to the `first` chats, or to every one."""

    first: int | None = None
    otherwise: str = REPLY


@dataclass(frozen=True, slots=True)
class Gone:
    """From the `nth` chat on, the server no longer has the model."""

    nth: int = 1
    otherwise: str = REPLY


@dataclass(frozen=True, slots=True)
class Crash:
    """At the `nth` chat the server breaks every connection and listens no more."""

    nth: int = 1
    otherwise: str = REPLY


@dataclass(frozen=True, slots=True)
class Length:
    """A reply that the token limit cut: `done_reason:"length"`."""

    text: str = REPLY


Fault = Hang | Cut | ErrorLine | Busy | Gone | Crash | Length
Policy = Callable[[list[dict[str, Any]]], "str | Fault"]


def always(outcome: str | Fault) -> Policy:
    """The policy that answers every dialogue alike."""
    return lambda messages: outcome


class FakeOllama:
    """The server: a thread of its own between `with` and its end.

    `requests` holds the body of every /api/chat request, loads and unloads included; `hits` counts the requests
    of each path, `chats` those with messages; `peak` is the most chats that were in flight at once. `models` maps
    the name with its tag to the digest and may be changed between requests. `delay` is the seconds a reply takes:
    its first token comes after half of it.
    """

    def __init__(self, policy: Policy, models: Mapping[str, str] | Iterable[str] = ("jessy",), *,
                 delay: float = 0.0, thinking_models: Iterable[str] = (), port: int = 0,
                 version: str = "0.33.0") -> None:
        digests = models if isinstance(models, Mapping) else {name: _digest(name) for name in models}
        self.models = {_tagged(name): digest for name, digest in digests.items()}
        self.thinking_models = {_tagged(name) for name in thinking_models}
        self.policy, self.delay, self.port, self.version = policy, delay, port, version
        self.requests: list[dict[str, Any]] = []
        self.hits: Counter[str] = Counter()
        self.chats = self.in_flight = self.peak = 0
        self.loaded: dict[str, dict[str, Any]] = {}  # name -> what /api/ps says of it
        self.connections: set[_Connection] = set()
        self.failure: BaseException | None = None  # of the policy: raised where the block ends
        self.listener: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    @property
    def host(self) -> str:
        """The address, once the server runs."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.run(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fake server did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._loop and self._ended:
            self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread:
            self._thread.join(10)
        if self.failure and not error:
            raise self.failure

    async def run(self, started: Callable[[], object]) -> None:
        """Serve until the block ends, or SIGTERM where this is the main thread's loop."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._ended.set)
        self.listener = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self.listener.sockets[0].getsockname()[1]
        started()
        await self._ended.wait()
        self.crash()
        await self.listener.wait_closed()

    def crash(self) -> None:
        """Break every connection and listen no more."""
        if self.listener:
            self.listener.close()
        for connection in tuple(self.connections):
            connection.abort()

    async def answer(self, connection: _Connection, method: str, path: str, raw: bytes) -> None:
        """One request, from its body to the last byte of its response."""
        self.hits[path] += 1
        try:
            body = json.loads(raw) if raw else {}
        except json.JSONDecodeError as error:
            return connection.error(400, f"invalid request: {error}")
        match method, path:
            case ("GET", "/api/version"):
                return connection.json({"version": self.version})
            case ("GET", "/api/tags"):
                return connection.json({"models": [self._tag(name) for name in self.models]})
            case ("GET", "/api/ps"):
                return connection.json({"models": [self._resident(name) for name in self.loaded]})
            case ("POST", "/api/show"):
                return self._show(connection, body)
            case ("POST", "/api/embed"):
                return self._embed(connection, body)
            case ("POST", "/api/chat"):
                return await self._chat(connection, body)
            case ("GET" | "HEAD", "/"):
                return connection.send(200, b"Ollama is running" if method == "GET" else b"", PLAIN)
        return connection.send(404, b"404 page not found", PLAIN)

    async def _chat(self, connection: _Connection, body: dict[str, Any]) -> None:
        self.requests.append(body)
        name = _tagged(body.get("model", ""))
        if name not in self.models:
            return connection.missing(body.get("model", ""))
        if body.get("think") and name not in self.thinking_models:
            return connection.error(400, f'"{body["model"]}" does not support thinking')
        self._keep(name, body)
        if not body.get("messages"):
            reason = "load" if name in self.loaded else "unload"
            return connection.json(_event(body["model"], "", done_reason=reason, done=True))
        self.chats += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._reply(connection, body, self._outcome(body["messages"]))
        finally:
            self.in_flight -= 1

    def _embed(self, connection: _Connection, body: dict[str, Any]) -> None:
        """Vectors of hashed words, shortened to three letters: texts that share stems are alike."""
        if _tagged(body.get("model", "")) not in self.models:
            return connection.missing(body.get("model", ""))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = []
        for text in texts:
            row = [0.0] * 509
            for word in re.findall(r"\w+", text.lower()):
                row[int.from_bytes(hashlib.sha256(word[:3].encode()).digest()[:2]) % 509] += 1.0
            rows.append(row)
        return connection.json({"model": body["model"], "embeddings": rows})

    def _outcome(self, messages: list[dict[str, Any]]) -> str | Fault:
        """What the policy says; a counted fault whose time has not come is its ordinary reply."""
        match self.policy(messages):
            case Busy(first, otherwise) if first is not None and self.chats > first:
                return otherwise
            case (Gone(nth, otherwise) | Crash(nth, otherwise)) if self.chats < nth:
                return otherwise
            case outcome:
                return outcome

    async def _reply(self, connection: _Connection, body: dict[str, Any], outcome: str | Fault) -> None:
        match outcome:
            case Hang():
                await asyncio.get_running_loop().create_future()  # until the connection goes
            case Busy():
                connection.error(503, BUSY)
            case Gone():
                self.models.pop(_tagged(body["model"]), None)
                self.loaded.pop(_tagged(body["model"]), None)
                connection.missing(body["model"])
            case Crash():
                self.crash()
            case Cut(text, torn):
                await self._stream(connection, body, text, {}, torn=torn)
            case ErrorLine(error, text):
                await self._stream(connection, body, text, {"error": error})
            case Length(text):
                await self._stream(connection, body, text, {"done_reason": "length"})
            case str(text):
                await self._stream(connection, body, text, {"done_reason": "stop"})

    async def _stream(self, connection: _Connection, body: dict[str, Any], text: str, end: dict[str, Any], *,
                      torn: bool = False) -> None:
        """The reply in pieces; `end` is its last line: a done_reason, an error, or nothing where it is cut."""
        start = time.perf_counter_ns()
        pieces = list(_pieces(text, thinks=bool(body.get("think"))))
        if "done_reason" not in end:
            pieces = pieces[:len(pieces) // 2]
        streamed, unsent = body.get("stream", True), list[bytes]()
        await self._until(start, 0.5)
        first = time.perf_counter_ns()
        for number, (kind, piece) in enumerate(pieces, start=1):
            if streamed:
                unsent.append(_line(_event(body["model"], piece, kind, done=False)))
            if self.delay:
                if streamed:
                    connection.chunk(unsent)
                await self._until(start, 0.5 + 0.5 * number / len(pieces))
        if "done_reason" in end:
            prompt = sum(len(message.get("content", "").split()) for message in body["messages"])
            counts = {"prompt_eval_count": prompt, "eval_count": len(text.split())}
            end = _event(body["model"], "") | {"done": True} | end | counts | _durations(start, first)
        if not streamed:
            return connection.whole(end, pieces)
        connection.chunk([*unsent, _line(end)] if end else unsent)
        return connection.close() if torn else connection.last_chunk()

    async def _until(self, start_ns: int, share: float) -> None:
        """Wait until this share of the delay is over; epoll wakes up to a millisecond late, which must not add up."""
        if self.delay:
            await asyncio.sleep(max(0.0, share * self.delay - 0.0007 - (time.perf_counter_ns() - start_ns) / 1e9))

    def _keep(self, name: str, body: dict[str, Any]) -> None:
        """keep_alive 0 lets the model go, a negative one keeps it for centuries, as the real server does."""
        keep_alive = str(body.get("keep_alive", "5m"))
        if re.fullmatch(r"[0.]+[a-z]*", keep_alive):
            self.loaded.pop(name, None)
            return
        lasts = timedelta(days=100_000) if keep_alive.startswith("-") else timedelta(minutes=5)
        self.loaded[name] = {"expires_at": (datetime.now(UTC) + lasts).isoformat(),
                             "context_length": body.get("options", {}).get("num_ctx", 4096)}

    def _tag(self, name: str) -> dict[str, Any]:
        return {"name": name, "model": name, "modified_at": _now(), "size": SIZE, "digest": self.models[name],
                "details": DETAILS}

    def _resident(self, name: str) -> dict[str, Any]:
        return {"name": name, "model": name, "size": SIZE, "size_vram": 0, "digest": self.models[name],
                "details": DETAILS, **self.loaded[name]}

    def _show(self, connection: _Connection, body: dict[str, Any]) -> None:
        name = _tagged(body.get("model", ""))
        if name not in self.models:
            return connection.missing(body.get("model", ""))
        thinking = ["thinking"] if name in self.thinking_models else []
        return connection.json({"modelfile": f"FROM {name}", "parameters": "stop    \"<|im_end|>\"",
                                "template": TEMPLATE, "system": "Sen Jessy'sin.", "details": DETAILS,
                                "model_info": {"general.architecture": "llama"}, "modified_at": _now(),
                                "capabilities": ["completion", *thinking]})


class _Connection(asyncio.Protocol):
    """HTTP/1.1 of one connection, as much of it as an Ollama client speaks. One request at a time."""

    def __init__(self, server: FakeOllama) -> None:
        self.server, self.buffer = server, bytearray()
        self.task: asyncio.Task[None] | None = None
        self.chunking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.task is None:
            self._next()

    def _next(self, done: asyncio.Task[None] | None = None) -> None:
        """Start on the next whole request in the buffer, if there is one."""
        self.task = None
        if done and not done.cancelled() and done.exception():
            self.server.failure = done.exception()
            self.close()
        head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if not found or len(rest) < size or self.transport.is_closing():
            return
        del self.buffer[:len(head) + 4 + size]
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self.chunking = False
        self.task = asyncio.get_running_loop().create_task(self.server.answer(self, method, path, rest[:size]))
        self.task.add_done_callback(self._next)

    def send(self, status: int, content: bytes, kind: str) -> None:
        self.transport.write(_head(status, kind, f"Content-Length: {len(content)}") + content)

    def json(self, content: dict[str, Any], status: int = 200) -> None:
        self.send(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), JSON)

    def error(self, status: int, line: str) -> None:
        self.json({"error": line}, status)

    def missing(self, model: str) -> None:
        self.error(404, f"model '{model}' not found")

    def whole(self, end: dict[str, Any], pieces: Iterable[tuple[str, str]]) -> None:
        """The answer to `stream:false`: one object, or an error."""
        if "done_reason" not in end:
            return self.error(500, end.get("error", STOPPED))
        for kind, piece in pieces:
            end["message"][kind] = end["message"].get(kind, "") + piece
        return self.json(end)

    def chunk(self, lines: list[bytes]) -> None:
        """Send these lines of the stream in one write, and forget them; the first of them bring the head."""
        head = b"" if self.chunking else _head(200, NDJSON, "Transfer-Encoding: chunked")
        self.chunking = True
        self.transport.write(head + b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines))
        lines.clear()

    def last_chunk(self) -> None:
        self.transport.write(b"0\r\n\r\n")

    def close(self) -> None:
        """End the connection after what was written."""
        self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()


def _head(status: int, kind: str, length: str) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()


def _event(model: str, content: str, /, kind: str = "content", **rest: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "", kind: content}
    return {"model": model, "created_at": _now(), "message": message, **rest}


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _durations(start: int, first: int) -> dict[str, int]:
    """The four durations in ns. A tenth of the wait for the first token is the load: never 0 on a warm server."""
    now = time.perf_counter_ns()
    load = (first - start) // 10 + 1
    return {"total_duration": now - start + 2, "load_duration": load,
            "prompt_eval_duration": max(first - start - load, 1), "eval_duration": now - first}


def _pieces(text: str, thinks: bool) -> Iterator[tuple[str, str]]:
    """(field, text) of each piece of the stream: the first word, then the rest in about equal parts."""
    inside = re.fullmatch(r"<think>(.*?)(?:</think>(.*))?", text, re.DOTALL) if thinks else None
    parts = [("thinking", inside[1].strip()), ("content", (inside[2] or "").strip())] if inside else [("content", text)]
    for kind, part in parts:
        words = re.findall(r"\s*\S+\s*", part) or [part][:len(part)]
        step = max(1, -(-(len(words) - 1) // (PIECES - 1)))
        for at in range(-step + 1, len(words), step):
            yield kind, "".join(words[max(at, 0):at + step])


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _digest(name: str) -> str:
    return hashlib.sha256(_tagged(name).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def main() -> None:
    options = argparse.ArgumentParser(description="A fake Ollama server that gives one reply to everything.")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--delay", type=float, default=0.0, help="seconds a reply takes")
    options.add_argument("--reply", default=REPLY)
    options.add_argument("--model", action="append", help="a model it has; more than once for several (jessy)")
    chosen = options.parse_args()
    server = FakeOllama(always(chosen.reply), chosen.model or ["jessy"], delay=chosen.delay, port=chosen.port)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.run(lambda: print(server.host, flush=True)))


if __name__ == "__main__":
    main()
