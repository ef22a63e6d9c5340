"""The Ollama engine: the native chat API, streamed, with every timing that the server gives.

Why each field is sent: facts/evals.md section 3. `truncate` and `shift` are unknown to old servers, which
ignore them; the client has no argument for them, hence the request body is ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import httpx
import ollama

from harness.engines import (
    Card,
    Loaded,
    Message,
    Options,
    Reply,
    RequestFailed,
    Stream,
    Timing,
    UnknownModel,
    Unreachable,
    modelfile,
)

DEFAULT_HOST = "http://127.0.0.1:11434"
# Long enough for a pause between suites (the server's own 5 minutes reload silently), short enough that a
# killed run does not keep the model in memory for ever.
KEEP_ALIVE = "30m"
NANOSECONDS = 1e-9


class _Chunk(ollama.ChatResponse):
    prompt_eval_cached_count: int | None = None


class _Client(ollama.AsyncClient):
    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[_Chunk, None]:
        chunks: AsyncGenerator[_Chunk, None] = await self._request(  # type: ignore[assignment]
            _Chunk, "POST", "/api/chat", json=body, stream=True)
        return chunks

    async def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        answer: httpx.Response = await self._request_raw(method, path, **body)  # type: ignore[no-untyped-call]
        return answer


class Ollama:
    """One Ollama server. Nothing is sent anywhere but to `host`."""

    name = "ollama"

    def __init__(self, host: str | None = None) -> None:
        self.host = address(host)
        # A proxy or a redirect would carry prompts to a machine that the user did not name.
        self._client = _Client(self.host, timeout=httpx.Timeout(None, connect=2.0), follow_redirects=False,
                               trust_env=not is_loopback(self.host))

    async def names(self) -> list[str]:
        return [str(model.model) for model in (await self._call(self._client.list())).models]

    async def card(self, model: str) -> Card:
        listed, shown, version = await asyncio.gather(
            self._call(self._client.list()), self._call(self._client.show(model), model), self.version())
        entry = next((one for one in listed.models if one.model in (model, f"{model}:latest")), None)
        if entry is None:
            raise UnknownModel(f"the Ollama server at {self.host} has no model '{model}'")
        details = shown.details
        return Card(
            name=model, digest=entry.digest or "", engine=self.name, engine_version=version, host=self.host,
            size_bytes=int(entry.size or 0), template=shown.template or "",
            system=modelfile.system(shown.modelfile or ""), parameters="\n".join(sorted((shown.parameters or "").splitlines())),
            capabilities=tuple(shown.capabilities or ()),
            quantization=(details and details.quantization_level) or "",
            parameter_size=(details and details.parameter_size) or "", family=(details and details.family) or "")

    async def version(self) -> str:
        """The server's version."""
        answer = await self._call(self._client.ask("GET", "/api/version"))
        return str(answer.json().get("version", "unknown"))

    async def load(self, card: Card, options: Options) -> Loaded:
        start = time.perf_counter()
        async for _ in self._stream(card, [], options):
            pass
        seconds = time.perf_counter() - start
        running = (await self._call(self._client.ps())).models
        entry = next((one for one in running if one.digest == card.digest), None)
        if entry is None:
            return Loaded(seconds)
        share = (entry.size_vram or 0) / entry.size if entry.size else None
        return Loaded(seconds, entry.context_length, share, int(entry.size) if entry.size else None)

    async def chat(self, card: Card, messages: Sequence[Message], options: Options, *, patient: bool) -> Reply:
        stream = Stream()
        last: _Chunk | None = None
        async with aclosing(self._stream(card, messages, options)) as chunks:
            async for chunk in chunks:
                stream.add(chunk.message.content or "", chunk.message.thinking or "")
                last = chunk
                if not patient and stream.stuck:
                    return stream.reply("loop", Timing(), prompt_tokens=0, reply_tokens=stream.chunks,
                                        cached_tokens=None)
        if last is None or not last.done:
            raise RequestFailed("the stream ended without done:true; the reply is incomplete", retry=True)
        if (last.prompt_eval_count or 0) >= options.num_ctx:
            # Servers that do not know truncate:false cut the prompt and say nothing (facts/evals.md 3.3).
            raise RequestFailed(f"the server cut the prompt to its context of {options.num_ctx} tokens", retry=False)
        return stream.reply(last.done_reason or "stop", _timing(last), prompt_tokens=last.prompt_eval_count or 0,
                            reply_tokens=last.eval_count or 0, cached_tokens=last.prompt_eval_cached_count)

    async def unload(self, model: str) -> None:
        await self._call(self._client.ask(
            "POST", "/api/chat", json={"model": model, "messages": [], "keep_alive": 0, "stream": False}), model)

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _stream(self, card: Card, messages: Sequence[Message], options: Options) -> AsyncGenerator[_Chunk, None]:
        body = {"model": card.name, "messages": list(messages), "stream": True, "think": card.thinks,
                "options": options.request(), "keep_alive": KEEP_ALIVE, "truncate": False, "shift": False}
        try:
            async with aclosing(await self._client.stream(body)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError, ValueError) as error:
            raise self._translated(error, card.name) from None

    async def _call(self, request: Any, model: str = "") -> Any:
        try:
            return await asyncio.wait_for(request, timeout=30)
        except TimeoutError:
            raise Unreachable(f"the Ollama server at {self.host} took over 30 s to answer; "
                              "is it busy with another model?") from None
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError, ValueError) as error:
            raise self._translated(error, model) from None

    def _translated(self, error: Exception, model: str) -> Exception:
        """The fault as one line of ours: what happened, where, and whether asking again may help."""
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError)):
            return Unreachable(f"no Ollama server answers at {self.host}; start one with 'ollama serve', "
                               "or name another with --host")
        if isinstance(error, ollama.ResponseError):
            if error.status_code == 404:
                return UnknownModel(f"the Ollama server at {self.host} has no model '{model}' ({error.error})")
            code = "mid-stream" if error.status_code == -1 else f"HTTP {error.status_code}"
            return RequestFailed(f"the server answered {code}: {error.error}", retry=error.status_code not in (400, 401, 403))
        if isinstance(error, ValueError):
            return RequestFailed(f"the server sent a line that is not JSON: {error}", retry=True)
        return RequestFailed(f"the connection broke: {type(error).__name__} {error}".rstrip(), retry=True)


def address(host: str | None) -> str:
    """The server's URL: `host`, or OLLAMA_HOST, or Ollama's default; 0.0.0.0 is where it listens, not where it is."""
    named = host or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
    with_scheme = named if "://" in named else f"http://{named}"
    parts = urlsplit(with_scheme)
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0") else parts.hostname  # noqa: S104
    port = parts.port or (443 if parts.scheme == "https" else 11434)
    return f"{parts.scheme}://{f'[{name}]' if name and ':' in name else name}:{port}"


def is_loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _timing(last: _Chunk) -> Timing:
    load, prompt, decode, total = ((value or 0) * NANOSECONDS for value in (
        last.load_duration, last.prompt_eval_duration, last.eval_duration, last.total_duration))
    # The server has no field for the queue: it is what is left of its total (facts/evals.md 3.2).
    return Timing(load=load, queue=max(0.0, total - load - prompt - decode), prompt=prompt, decode=decode)
