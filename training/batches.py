"""Rows as token ids with a weight each, and the micro-batches that a training step sees.

The order is a pure function of the seed and of the step's number, so a training that was cut off goes on with the very
batch that it would have seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.recipe import Weights
from training.tokenizer import Chat

OPENING = 8
END = "</think>\n"
NOTHING = np.zeros(0, np.int32)


class RowError(ValueError):
    """A row that cannot be trained on: one line with the file, the line, what is wrong and what is needed."""


@dataclass(frozen=True)
class Tokens:
    """One row: token ids, and the weight of predicting each; 0 for what is context.

    `asked` are the ids of what the user said last, `intent` those of the intent's words, where they were read.
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    asked: NDArray[np.int32] = field(default_factory=NOTHING.copy)
    intent: NDArray[np.int32] = field(default_factory=NOTHING.copy)


@dataclass(frozen=True)
class Micro:
    """Rows of one padded length, and the positions that are supervised.

    Shapes: ids (B, L); positions, targets and weights (S,). A position counts through the flattened (B, L); the token
    to predict there is its target. S is rounded up, the places beyond have weight 0. `tokens` counts no padding.
    """

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    tokens: int


def read_rows(path: Path, chat: Chat, weights: Weights, longest: int, *, intents: bool = False) -> list[Tokens]:
    """Every row of a file of the data set, with what is asked and its intent if `intents`. Raises RowError, OSError."""
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            messages, to_intent = _read(line, where)
            row = _tokens(messages, to_intent, chat, weights, where, intents)
            if len(row.ids) > longest:
                raise RowError(f"{where}: {len(row.ids)} tokens; 'dataset.max_tokens' allows {longest}: shorten the row or raise it")
            found.append(row)
    if not found:
        raise RowError(f"{path}: no row; 'python -m training dataset' makes them")
    return found


def intent_end(reply: str) -> int:
    """Where the intent ends in a reply, in characters: behind the first clause of the thinking, "1. Veda ediyor, kolay;".

    The end of the line where it has one clause; 0 in a reply without thinking.
    """
    if END not in reply:
        return 0
    start = reply.find("\n") + 1
    line = reply[start:reply.find("\n", start)]
    return start + (line.find(";") + 1 or len(line))


def intent_words(reply: str) -> range:
    """Where the words of the intent stand in a reply, in characters: " Veda ediyor, kolay" of "1. Veda ediyor, kolay;"; empty without thinking."""
    stop = intent_end(reply)
    start = reply.find("\n") + 1
    number = re.match(r"\d+\.", reply[start:stop])
    return range(start + (number.end() if number else 0), stop - reply[:stop].endswith(";"))


def _read(line: str, where: str) -> tuple[list[dict[str, str]], bool]:
    """The messages of a row, and whether only the intent is learnt of it."""
    try:
        row: Any = json.loads(line, parse_constant=_constant)
        messages, to_intent = row["messages"], bool(row.get("to_intent", False))
        roles, contents = [one["role"] for one in messages], [one["content"] for one in messages]
    except (ValueError, KeyError, TypeError) as error:
        raise RowError(f"{where}: not a row: {type(error).__name__}: {error}; {{\"messages\": [{{\"role\", \"content\"}}, ...]}} is needed") from None
    if wrong := [content for content in contents if not isinstance(content, str)]:
        raise RowError(f"{where}: a content is {wrong[0]!r}; text is needed")
    if not roles or roles[-1] != "assistant":
        raise RowError(f"{where}: the last message is of {roles[-1:] or 'nobody'}; the assistant's is needed, it is what training learns")
    if not contents[-1].strip():
        raise RowError(f"{where}: the completion is empty; there is nothing to learn from it")
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)], to_intent


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no value that a row can have")


def _tokens(messages: Sequence[dict[str, str]], to_intent: bool, chat: Chat, weights: Weights, where: str, intents: bool) -> Tokens:
    ids, before, reply, starts = chat.parsed(messages)
    if before >= len(ids):
        raise RowError(f"{where}: nothing is supervised: the chat template writes no reply")
    if to_intent:
        starts = [start for start in starts if start < intent_end(reply)]
        if not starts:
            raise RowError(f"{where}: 'to_intent' needs a reply with thinking, \"<think>\\n1. ...\\n</think>\\n\"; this one has none")
        ids = ids[:before + len(starts)]
    values = np.zeros(len(ids), dtype=np.float32)
    values[before:] = _roles(reply, starts, weights)
    place = chat.said(messages) if len(messages) > 1 and (weights.prompt or intents) else range(0)
    if weights.prompt:
        values[place.start:place.stop] = weights.prompt
    row = Tokens(np.array(ids, dtype=np.int32), values)
    if not intents:
        return row
    words = intent_words(reply)
    named = [number for number, start in enumerate(starts, start=before) if start in words]
    return replace(row, asked=row.ids[place.start:place.stop], intent=row.ids[named])


def _roles(text: str, starts: Sequence[int], weights: Weights) -> list[float]:
    """The weight of each token by where it starts in the reply."""
    thought = text.find(END) + len(END) if END in text else 0
    # The first line after the tag: "1. Veda ediyor, kolay; vedalaş."
    first = text.find("\n", text.find("\n") + 1) if thought else 0
    opening = sum(start < thought for start in starts) + OPENING
    return [weights.intent if start < first else weights.thinking if start < thought else weights.opening if number < opening else weights.answer
            for number, start in enumerate(starts)]


def bucket(tokens: int) -> int:
    """The padded length of a row: few lengths are few compiled steps, many are little padding."""
    step = 8 if tokens <= 128 else 16 if tokens <= 256 else 32
    return -(-tokens // step) * step


def micro_batch(rows: Sequence[Tokens], length: int, batch: int, context: int = 0) -> Micro:
    """Rows as one micro-batch of shape (batch, length); rows that are missing are empty and count nothing."""
    ids = np.full((batch, length), context, dtype=np.int32)
    weights = np.zeros((batch, length), dtype=np.float32)
    for number, row in enumerate(rows):
        ids[number, :len(row.ids)] = row.ids
        weights[number, :len(row.ids)] = row.weights
    # The hidden state at p predicts the token at p + 1.
    row_numbers, places = np.nonzero(weights[:, 1:])
    size = -(-max(len(places), 1) // 64) * 64
    positions, targets, values = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.float32)
    positions[:len(places)] = row_numbers * length + places
    targets[:len(places)] = ids[row_numbers, places + 1]
    values[:len(places)] = weights[row_numbers, places + 1]
    return Micro(ids, positions, targets, values, sum(len(row.ids) for row in rows))


class Batches:
    """The steps of a training, each a list of micro-batches.

    Rows of one bucket stand together, so that little is padding; which of them, and in what order, is drawn anew for
    every epoch from (seed, epoch).
    """

    def __init__(self, rows: Sequence[Tokens], *, step_tokens: int, micro_tokens: int, seed: int) -> None:
        self.rows, self.seed, self.micro_tokens = rows, seed, micro_tokens
        self.micros = max(1, round(step_tokens / micro_tokens))
        self.per_epoch = max(1, len(self._order(0)) // self.micros)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def step(self, number: int) -> list[Micro]:
        """The micro-batches of a step, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return [self._micro(members) for members in self._epoch[1][place * self.micros:(place + 1) * self.micros]]

    def _micro(self, members: Sequence[int]) -> Micro:
        rows = [self.rows[member] for member in members]
        length = max(bucket(len(row.ids)) for row in rows)
        return micro_batch(rows, length, self._size(length))

    def _size(self, length: int) -> int:
        # The nearest number and not the one below: workers wait for each other, so micro-batches are better of one size.
        return max(1, round(self.micro_tokens / length))

    def _order(self, epoch: int) -> list[list[int]]:
        """Row numbers of each micro-batch of an epoch: drawn, laid by length, cut, and the pieces drawn again."""
        rng = np.random.default_rng([self.seed, epoch])
        drawn = sorted((int(member) for member in rng.permutation(len(self.rows))), key=lambda member: -bucket(len(self.rows[member].ids)))
        made = []
        while drawn:
            size = self._size(bucket(len(self.rows[drawn[0]].ids)))
            made.append(drawn[:size])
            drawn = drawn[size:]
        return [made[number] for number in rng.permutation(len(made))]


def every(rows: Sequence[Tokens], micro_tokens: int) -> Iterator[Micro]:
    """Every row once, shortest first: for measuring."""
    pending: list[Tokens] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        length = bucket(len(row.ids))
        if pending and (length * (len(pending) + 1) > micro_tokens):
            yield _fitted(pending)
            pending = []
        pending.append(row)
    if pending:
        yield _fitted(pending)


def _fitted(rows: Sequence[Tokens]) -> Micro:
    return micro_batch(rows, max(bucket(len(row.ids)) for row in rows), len(rows))
