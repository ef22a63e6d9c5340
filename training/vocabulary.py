"""A base that reads the language of its training text in fewer tokens: byte-level BPE that goes on where the base's ended.

A vocabulary of English spells Turkish in pieces of two or three letters: rows are long, and a word stands in no one place.
New merges are learnt from the recipe's own text and follow the base's, which stay as they are. A new token begins as the
mean of the base's tokens that spell it (Gee et al. 2022, Fast Vocabulary Transfer).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.constants import TokenType
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from training.base import Base, BaseError
from training.dataset import completion, split
from training.entries import Entry
from training.export import Plan, whole, write
from training.noise import noisy
from training.parts import KeyValue, Tensor, read
from training.recipe import Recipe
from training.tokenizer import read_chat

# What stands in fewer places teaches its token nothing.
FEWEST = 3
# A reply counts once for each prompt that it may follow, up to so often.
MOST_REPEATS = 8
# While merges are learnt, a token of the base is one character, beyond those that any text has.
PLANE = 0x10000
MATRICES = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Vocabulary:
    """What is to change of a base's: so many tokens are new, learnt from `text`, which is pieces, each with how often it counts.

    The base's own stay if `unused`, otherwise those that the text needs.
    """

    new: int
    unused: bool
    text: Sequence[tuple[str, int]]

    @property
    def name(self) -> str:
        """In short; of another vocabulary another one."""
        content = json.dumps([self.new, self.unused, self.text], ensure_ascii=False)
        return f"{self.new}t{'' if self.unused else 'u'}{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def vocabulary(recipe: Recipe, entries: Sequence[Entry]) -> Vocabulary | None:
    """What the recipe asks for, from what it trains on; nothing of what is held back. None where it leaves the base's alone."""
    if not recipe.new_tokens and recipe.unused_tokens:
        return None
    taught, _ = split(entries, recipe.dataset.valid, recipe.dataset.seed)
    return Vocabulary(recipe.new_tokens, recipe.unused_tokens, list(_text(recipe, taught)))


def _text(recipe: Recipe, entries: Sequence[Entry]) -> Iterator[tuple[str, int]]:
    rng = random.Random(f"{recipe.dataset.seed} vocabulary")
    asked = 0
    for entry in entries:
        for prompt in entry.said:
            yield prompt, 1
            if recipe.dataset.noise:
                yield noisy(prompt, rng), 1
        for answer in entry.answers:
            yield completion(answer), max(1, min(MOST_REPEATS, len(entry.said) // len(entry.answers)))
        asked += len(entry.said)
    if recipe.dataset.system:
        yield recipe.dataset.system, asked


def respell(source: Path, wanted: Vocabulary, out: Path) -> None:
    """Write the GGUF `source` with this vocabulary to `out`, whole or not at all; other tensors are copied as they are.

    Raises BaseError for a base that is no byte-level BPE, TokenizerError, ConvertError, ExportError.
    """
    model = read(Base(str(source), source.parent, source, ""))
    values: dict[str, Any] = {one.key: one.value for one in model.key_values}
    if values.get("tokenizer.ggml.model") != "gpt2":
        raise BaseError(f"base '{source}': its tokenizer is '{values.get('tokenizer.ggml.model')}'; new_tokens and unused_tokens need a byte-level BPE, 'gpt2'")
    tokens: list[str] = values["tokenizer.ggml.tokens"]
    types: list[int] = values.get("tokenizer.ggml.token_type") or [int(TokenType.NORMAL)] * len(tokens)
    tokenizer = read_chat(source).tokenizer
    spelt = _spelt(tokenizer, wanted.text)
    learnt = _learnt(spelt, tokens, wanted.new)
    merges: list[str] = values["tokenizer.ggml.merges"]
    if wanted.unused:
        kept = list(range(len(tokens)))
    else:
        kept, merges = _needed(tokens, types, merges, {number for word, _ in spelt for number in word})
    if not merges and not learnt:
        raise BaseError(f"base '{source}': no merge would be left, which no GGUF can say; new_tokens is {wanted.new}, more are needed, or 'unused_tokens = true'")
    pieces: dict[str, tuple[int, ...]] = {}
    known = {token: number for number, token in enumerate(tokens)}
    stays = set(kept)
    for left, right in learnt:
        if known.get(left + right) not in stays:
            pieces.setdefault(left + right, tuple(number for part in (left, right) for number in pieces.get(part) or (known[part],)))
    place = {number: at for at, number in enumerate(kept)}
    changed = {"tokenizer.ggml.tokens": [*(tokens[number] for number in kept), *pieces],
               "tokenizer.ggml.token_type": [*(types[number] for number in kept), *[int(TokenType.NORMAL)] * len(pieces)],
               "tokenizer.ggml.merges": [*merges, *(f"{left} {right}" for left, right in learnt)],
               f"{model.arch}.vocab_size": len(kept) + len(pieces)}
    key_values = [_renumbered(replace(one, value=changed.get(one.key, one.value)), place) for one in model.key_values]
    plans = [_rows(tensor, kept, list(pieces.values())) if tensor.name in MATRICES else _copy(tensor) for tensor in model.tensors]
    with whole(out) as temporary:
        write(temporary, replace(model, key_values=key_values), plans, str(values.get("general.name") or source.stem), int(values.get("general.file_type") or 0))


def _spelt(tokenizer: Tokenizer, text: Sequence[tuple[str, int]]) -> list[tuple[tuple[int, ...], int]]:
    """Every word of the text as the base spells it, with its count."""
    counts: Counter[str] = Counter()
    for piece, count in text:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(piece):
            counts[word] += count
    return [(tuple(token.id for token in tokenizer.model.tokenize(word)), count) for word, count in counts.items()]


def _learnt(spelt: Sequence[tuple[tuple[int, ...], int]], tokens: Sequence[str], new: int) -> list[tuple[str, str]]:
    """The merges that follow, at most `new`: fewer where no pair of tokens stands in FEWEST places any more."""
    if not new:
        return []
    used = {chr(PLANE + number) for word, _ in spelt for number in word}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(vocab_size=len(used) + new, min_frequency=FEWEST, show_progress=False, initial_alphabet=sorted(used))
    learner.train_from_iterator(("".join(chr(PLANE + number) for number in word) for word, count in spelt for _ in range(count)), trainer)

    def text(part: str) -> str:
        return "".join(tokens[ord(character) - PLANE] for character in part)

    return [(text(left), text(right)) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def _needed(tokens: Sequence[str], types: Sequence[int], merges: Sequence[str], used: set[int]) -> tuple[list[int], list[str]]:
    """(numbers of the tokens, merges) that spell what is used as before.

    With what each is put together from, every byte, and whatever is no plain text.
    """
    wanted = {tokens[number] for number in used}
    kept = list[str]()
    # The parts of a token are older than it is, so one pass from the end finds all.
    for merge in reversed(merges):
        left, _, right = merge.partition(" ")
        if left + right in wanted:
            wanted |= {left, right}
            kept.append(merge)
    return ([number for number, token in enumerate(tokens) if token in wanted or len(token) == 1 or types[number] != TokenType.NORMAL], kept[::-1])


def _renumbered(one: KeyValue, place: Mapping[int, int]) -> KeyValue:
    return replace(one, value=place[int(one.value)]) if one.key.startswith("tokenizer.ggml.") and one.key.endswith("_token_id") else one


def _copy(tensor: Tensor) -> Plan:
    assert tensor.raw is not None  # of a GGUF file
    return Plan(tensor, tensor.kind, False, True, tensor.raw)


def _rows(tensor: Tensor, kept: Sequence[int], pieces: Sequence[Sequence[int]]) -> Plan:
    """The rows that stay, then the mean of its pieces for each new token, in F16: gguf cannot write every type that it reads."""
    shape = (len(kept) + len(pieces), *tensor.shape[1:])

    def data() -> NDArray[Any]:
        values = tensor.stored(tensor.values())
        means = [values[list(part)].mean(axis=0, keepdims=True) for part in pieces]
        return gguf.quants.quantize(np.concatenate([values[list(kept)], *means]), Kind.F16)

    return Plan(replace(tensor, shape=shape, kind=Kind.F16), Kind.F16, False, False, data)
