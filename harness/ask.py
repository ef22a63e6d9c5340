"""Ask: cases in, replies out. Every case is asked once a trial, whatever number of criteria score it.

Transport is retried, answers never. A reply that did not come is a Failed with its reason, not an empty answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from harness.cases import Case
from harness.engines import (
    Card,
    Engine,
    Loaded,
    Message,
    NotAsked,
    Options,
    Reply,
    RequestFailed,
    UnknownModel,
    Unreachable,
)
from harness.journal import Journal, key

T = TypeVar("T")
ATTEMPTS = 4
# This many cases in a row without an answer: the server is gone, and waiting for the rest helps nobody.
GIVE_UP_AFTER = 3
WARM_UP: tuple[Message, ...] = ({"role": "user", "content": "Merhaba"},)


@dataclass(frozen=True, slots=True)
class Failed:
    """A case that got no answer, and why."""

    reason: str


Answer = Reply | Failed
Asked = tuple[str, str, int]  # kind, case id, trial


class Asker:
    """Asks one model, and remembers what it said.

    `in_flight` bounds the requests at once, `timeout` one request, in seconds. `advance` is told of every
    reply of a batch.
    """

    def __init__(self, engine: Engine, card: Card, options: Options, journal: Journal, *, in_flight: int,
                 timeout: float) -> None:
        self.engine, self.card, self.options, self.journal = engine, card, options, journal
        self.in_flight, self.timeout = in_flight, timeout
        self.loaded: Loaded | None = None
        self.answers: dict[Asked, Answer] = {}
        self.first_request = self.last_reply = 0.0
        self._failures_in_a_row = 0
        self._gave_up = ""

    async def prepare(self) -> None:
        """Load the model and let it generate once, so that no case pays for a cold start.

        Raises Unreachable, UnknownModel or RequestFailed.
        """
        self.loaded = await self._retried(lambda: self.engine.load(self.card, self.options))
        await self._retried(lambda: self.engine.chat(self.card, WARM_UP, self.options, patient=False))

    async def ask(self, cases: Iterable[Case], trials: int, advance: Callable[[], None]) -> None:
        """Have an answer for every case and trial in `answers`."""
        waiting = iter([(case, trial) for trial in range(trials) for case in cases
                        if (case.kind, case.id, trial) not in self.answers])

        async def work() -> None:
            for case, trial in waiting:
                self.answers[case.kind, case.id, trial] = await self._answer(case, trial, fresh=False)
                advance()

        await asyncio.gather(*(work() for _ in range(self.in_flight)))

    async def ask_alone(self, case: Case) -> Answer:
        """A fresh answer with nothing else in flight, for its timing. Kept as the case's answer if it is the first."""
        answer = await self._answer(case, 0, fresh=True)
        if isinstance(answer, Reply):
            answer = replace(answer, alone=True)
        self.answers.setdefault((case.kind, case.id, 0), answer)
        return answer

    async def _answer(self, case: Case, trial: int, *, fresh: bool) -> Answer:
        if self._gave_up:
            return Failed(f"not asked: {self._gave_up}")
        try:
            reply = await self._turns(case.prompts, trial, fresh=fresh)
        except (Unreachable, UnknownModel, RequestFailed, TimeoutError) as error:
            return self._failed(error)
        self._failures_in_a_row = 0
        return reply

    def _failed(self, error: Exception) -> Failed:
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = f"no answer within {self.timeout:g} s (--timeout)"
        self._failures_in_a_row += not isinstance(error, NotAsked)
        if isinstance(error, (Unreachable, UnknownModel)) or self._failures_in_a_row >= GIVE_UP_AFTER:
            self._gave_up = self._gave_up or reason
        return Failed(reason)

    async def _turns(self, prompts: Sequence[str], trial: int, *, fresh: bool) -> Reply:
        messages: list[Message] = []
        earlier: list[Reply] = []
        for prompt in prompts:
            messages.append({"role": "user", "content": prompt})
            reply = await self._request(messages, trial, fresh=fresh)
            if earlier and 0 < reply.prompt_tokens <= earlier[-1].prompt_tokens:
                raise RequestFailed("the server dropped earlier turns of the dialogue: its prompt did not grow "
                                    f"({earlier[-1].prompt_tokens} -> {reply.prompt_tokens} tokens)", retry=False)
            messages.append({"role": "assistant", "content": reply.text})
            earlier.append(reply)
        return replace(earlier[-1], earlier=tuple(earlier[:-1]))

    async def _request(self, messages: Sequence[Message], trial: int, *, fresh: bool) -> Reply:
        options = replace(self.options, seed=self.options.seed + trial)
        name = key(self.card, messages, options, trial)
        if not fresh and (known := self.journal.find(name)):
            return known
        self.first_request = self.first_request or perf_counter()
        reply = await self._retried(lambda: self.engine.chat(self.card, messages, options, patient=fresh))
        self.last_reply = perf_counter()
        self.journal.add(name, self.card.name, messages, trial, reply)
        return reply

    async def _retried(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async for attempt in AsyncRetrying(stop=stop_after_attempt(ATTEMPTS), retry=retry_if_exception(_passing),
                                           wait=wait_random_exponential(0.25, max=4), reraise=True):
            with attempt:
                async with asyncio.timeout(self.timeout):
                    return await request()
        raise AssertionError("tenacity reraises the last error")


def _passing(error: BaseException) -> bool:
    """A fault that may be gone in a moment. A timeout is not: it has already cost as much as it may."""
    return isinstance(error, Unreachable) or (isinstance(error, RequestFailed) and error.retry)
