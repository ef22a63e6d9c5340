"""What every engine gives back: the same Reply, the same Card, the same errors, whoever ran the model."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

Message = Mapping[str, str]  # {"role": "user" | "assistant" | "system", "content": ...}


class Unreachable(Exception):
    """No server answers there, or it stopped answering. Nothing was measured."""


class UnknownModel(Exception):
    """The engine answers, and does not have this model."""


class RequestFailed(Exception):
    """One request came back without an answer: a transport fault, never a wrong answer.

    `retry` says whether the same request may succeed a moment later.
    """

    def __init__(self, line: str, *, retry: bool) -> None:
        super().__init__(line)
        self.retry = retry


class NotAsked(RequestFailed):
    """A question that a saved run does not have. Unlike a fault it says nothing about the next one."""

    def __init__(self, line: str) -> None:
        super().__init__(line, retry=False)


@dataclass(frozen=True, slots=True)
class Options:
    """Sampling options, the same for every request to a model, warm-up included (Ollama reloads on a change)."""

    num_ctx: int = 4096
    num_predict: int = 1024
    temperature: float = 0.0
    seed: int = 0
    repeat_penalty: float = 1.0  # Ollama's default depends on its version, and it changes greedy text
    stop: tuple[str, ...] = ()

    def request(self) -> dict[str, Any]:
        """The `options` object of a chat request."""
        options: dict[str, Any] = {"num_ctx": self.num_ctx, "num_predict": self.num_predict,
                                   "temperature": self.temperature, "seed": self.seed,
                                   "repeat_penalty": self.repeat_penalty}
        if self.stop:
            options["stop"] = list(self.stop)
        return options


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one request went, in seconds. `wall` is the client's clock, the parts the server's.

    `first_token` runs until the first visible or thinking token, `thinking` until the first visible one.
    """

    wall: float = 0.0
    load: float = 0.0
    queue: float = 0.0
    prompt: float = 0.0
    decode: float = 0.0
    first_token: float = 0.0
    thinking: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said to the last message, with its thinking and its timings.

    `done_reason` is "stop", "length" when the token limit cut the reply, or "loop" when it only repeated itself
    and we stopped listening. `earlier` holds the replies to the turns before, in a dialogue. `cached_tokens` is
    None where the engine does not tell. `alone`: nothing else was in flight, so the timing is a latency;
    `replayed`: read back from the journal, so it is not.
    """

    text: str
    thinking: str = ""
    done_reason: str = "stop"
    timing: Timing = field(default_factory=Timing)
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cached_tokens: int | None = None
    earlier: tuple[Reply, ...] = ()
    alone: bool = False
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """Which model, exactly: recorded in the report and diffed between base and candidate."""

    name: str
    digest: str
    engine: str
    engine_version: str
    host: str = ""
    size_bytes: int = 0
    quantization: str = ""
    parameter_size: str = ""
    family: str = ""
    template: str = ""
    system: str = ""
    parameters: str = ""
    capabilities: tuple[str, ...] = ()

    @property
    def thinks(self) -> bool:
        """Whether the model has a thinking mode that the request can switch on."""
        return "thinking" in self.capabilities


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model in memory: seconds that loading took, the context it really got, the share of it on the GPU, its bytes.

    None where the engine does not tell.
    """

    seconds: float
    num_ctx: int | None = None
    gpu_share: float | None = None
    memory_bytes: int | None = None


class Engine(Protocol):
    """Runs one model at a time. Every method raises Unreachable, UnknownModel or RequestFailed, nothing else."""

    name: str

    async def names(self) -> list[str]:
        """The models that it has."""
        ...

    async def card(self, model: str) -> Card:
        """Identity and settings of a model."""

    async def load(self, card: Card, options: Options) -> Loaded:
        """Bring the model into memory with these options."""

    async def chat(self, card: Card, messages: Sequence[Message], options: Options, *, patient: bool) -> Reply:
        """Ask, and wait for the whole reply; unless `patient`, not for one that is stuck in a loop."""

    async def unload(self, model: str) -> None:
        """Give its memory back."""

    async def close(self) -> None:
        """Let go of the connection."""


THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def split_thinking(text: str, thinking: str = "") -> tuple[str, str]:
    """(visible answer, thinking) of a raw reply; what the server already separated is kept.

    A tag that never closes means that the budget ran out while thinking: all of it is thinking.
    """
    stripped = text.lstrip()
    if thinking or not stripped.startswith(THINK_OPEN):
        return text.strip(), thinking.strip()
    inside, closed, answer = stripped[len(THINK_OPEN):].partition(THINK_CLOSE)
    return (answer.strip() if closed else ""), inside.strip()


LOOK_EVERY = 120  # characters between two looks for a loop
_LOOP = re.compile(r"(.{1,80}?)\1{5,}\Z", re.DOTALL)


def repeats(text: str) -> bool:
    """Whether the last 480 characters are one unit of up to 80, six times or more."""
    tail = text[-480:]
    found = _LOOP.search(tail)
    return len(tail) == 480 and found is not None and found.end() - found.start() >= 400


class Stream:
    """A reply as it arrives: its text, and when the first token and the first visible token came."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._first_token = self._first_visible = 0.0
        self.chunks = self._characters = self._looked_at = 0
        self._looped = False

    def add(self, text: str = "", thinking: str = "") -> None:
        """One chunk. Empty chunks (a role, an end mark) carry no token and stop no clock."""
        self.chunks += bool(text or thinking)
        self._characters += len(text) + len(thinking)
        now = time.perf_counter() - self._start
        if text or thinking:
            self._first_token = self._first_token or now
        self._thinking.append(thinking)
        self._text.append(text)
        if text and not self._first_visible and self._visible():
            self._first_visible = now

    @property
    def stuck(self) -> bool:
        """Whether the reply has come to repeat itself to the letter; greedy decoding does not leave such a loop."""
        if self._characters - self._looked_at >= LOOK_EVERY:
            self._looked_at = self._characters
            self._looped = repeats("".join(self._text) or "".join(self._thinking))
        return self._looped

    def reply(self, done_reason: str, timing: Timing, *, prompt_tokens: int, reply_tokens: int,
              cached_tokens: int | None) -> Reply:
        """The finished reply; `timing` brings the server's parts, the client's are filled in here."""
        wall = time.perf_counter() - self._start
        answer, thoughts = split_thinking("".join(self._text), "".join(self._thinking))
        thinking = (self._first_visible or wall) - self._first_token if thoughts else 0.0
        return Reply(text=answer, thinking=thoughts, done_reason=done_reason,
                     timing=replace(timing, wall=wall, first_token=self._first_token, thinking=thinking),
                     prompt_tokens=prompt_tokens, reply_tokens=reply_tokens, cached_tokens=cached_tokens)

    def _visible(self) -> bool:
        raw = "".join(self._text).strip()
        return bool(split_thinking(raw)[0]) and not THINK_OPEN.startswith(raw)
