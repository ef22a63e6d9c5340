"""From entries to rows: noise, balance, split, tokens.

    python -m training dataset RECIPE

Leaves runs/<recipe>/dataset/{train.jsonl, valid.jsonl, report.html, manifest.json}, the manifest last: where it is,
the stage is complete.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.contamination import Guard, Text, bare, prompts
from harness.files import write_text
from training.batches import intent_end
from training.entries import Answer, Category, Entry
from training.noise import noisy
from training.recipe import Dataset, Recipe
from training.tokenizer import Chat, Message

# So many tries in a row that gave nothing new, and an entry has no more to give.
PATIENCE = 60
BINS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)


@dataclass(frozen=True)
class Row:
    """One training row. Supervised is the last message, thinking and answer; what came before is context.

    A row `to_intent` ends behind the first clause of the thinking, which names what is asked and how hard it is. It
    teaches that decision on one more way of asking, at half the tokens of a whole row or at a tenth.
    """

    entry: str
    category: Category
    subcategory: str
    complexity: str
    messages: tuple[Message, ...]
    tokens: int = 0
    supervised: int = 0
    to_intent: bool = False

    @property
    def user(self) -> str:
        """The last thing that the user says."""
        return self.messages[-2]["content"]


@dataclass
class Refused:
    """Rows that were made and not taken."""

    duplicates: int = 0
    held_back: int = 0
    contaminated: int = 0
    too_long: int = 0


def completion(answer: Answer) -> str:
    """The format that training teaches and evals read: thinking in tags, then the answer."""
    return f"<think>\n{answer.thinking}\n</think>\n{answer.text}"


def split(entries: Sequence[Entry], valid: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """(train, valid): `valid` of each entry's prompts are held back, at least one where it has two; the same for a seed.

    What is held back are ways of asking, not situations: nobody can answer one that he was never taught, so a loss on
    unseen situations rises while the taught ones are still being learnt. A dialogue has one way of asking, so `valid`
    of the dialogues are held back as a whole.
    """
    train, held = list[Entry](), list[Entry]()
    dialogues = [entry.id for entry in entries if entry.turns]
    random.Random(f"{seed} split").shuffle(dialogues)
    apart = set(dialogues[:_share(len(dialogues), valid)])
    for entry in entries:
        if entry.turns:
            (held if entry.id in apart else train).append(entry)
            continue
        prompts = list(entry.prompts)
        random.Random(f"{seed} split {entry.id}").shuffle(prompts)
        unseen = set(prompts[:_share(len(prompts), valid)])
        train.append(entry.model_copy(update={"prompts": tuple(one for one in entry.prompts if one not in unseen)}))
        if unseen:
            held.append(entry.model_copy(update={"prompts": tuple(one for one in entry.prompts if one in unseen)}))
    return train, held


def _share(count: int, valid: float) -> int:
    return max(1, round(count * valid)) if count > 1 else 0


def expand(entries: Sequence[Entry], recipe: Dataset, rows: int, *, chat: Chat, asked: Sequence[Text], refused: Refused,
           seed: str, to_intent: bool = False, apart: Collection[str] = ()) -> list[Row]:
    """About `rows` distinct rows: categories by the recipe's weights, entries of a category in turn.

    A category that runs out of distinct rows gives fewer. Whatever is too close to an eval prompt is refused, and what
    reads like one of the prompts that are kept `apart` (folded, as `bare` leaves them).
    """
    quotas = _quotas(entries, recipe, rows)
    guard, taken, made = Guard(asked), set[str](), list[Row]()
    for category, quota in quotas.items():
        sources = [_variants(entry, recipe, random.Random(f"{seed} {entry.id}")) for entry in entries if entry.category == category]
        tries = [0] * len(sources)
        wanted = len(made) + quota
        while len(made) < wanted and (alive := [i for i, spent in enumerate(tries) if spent < PATIENCE]):
            for i in alive:
                row = replace(next(sources[i]), to_intent=to_intent)
                key = json.dumps(row.messages[:-1] if to_intent else row.messages, ensure_ascii=False)
                tries[i] += 1
                if key in taken:
                    refused.duplicates += 1
                elif apart and bare(row.user) in apart:
                    refused.held_back += 1
                elif guard.near(Text(row.entry, row.user)):
                    refused.contaminated += 1
                elif (measured := _measured(row, chat)).tokens > recipe.max_tokens:
                    refused.too_long += 1
                elif len(made) < wanted:
                    taken.add(key)
                    made.append(measured)
                    tries[i] = 0
    random.Random(f"{seed} order").shuffle(made)
    return made


def _measured(row: Row, chat: Chat) -> Row:
    ids, before, reply, starts = chat.parsed(row.messages)
    supervised = sum(start < intent_end(reply) for start in starts) if row.to_intent else len(ids) - before
    return replace(row, tokens=before + supervised, supervised=supervised)


def _quotas(entries: Iterable[Entry], recipe: Dataset, rows: int) -> dict[Category, int]:
    present = {entry.category for entry in entries}
    weights = {name: weight for name, weight in recipe.weights.items() if name in present and weight > 0}
    return {name: round(rows * weight / sum(weights.values())) for name, weight in weights.items()}


def _variants(entry: Entry, recipe: Dataset, rng: random.Random) -> Iterator[Row]:
    """Without end: plain and noisy ways of the entry, every prompt and every reply in turn."""
    gentle = entry.category in ("technical", "philosophy") or "english" in entry.tags
    answered = list(_plain(entry))
    rng.shuffle(answered)
    while True:
        for users, earlier, answer in answered:
            mistyped = rng.random() < recipe.noise
            said = [noisy(user, rng, gentle=gentle) if mistyped else user for user in users]
            yield Row(entry.id, entry.category, entry.subcategory, entry.complexity, _messages(recipe.system, said, earlier, answer))


def _plain(entry: Entry) -> Iterator[tuple[list[str], list[str], Answer]]:
    """(user turns, earlier replies, answer): each prompt with each reply, or each beginning of a dialogue."""
    for prompt in entry.prompts:
        for reply in entry.replies:
            yield [prompt], [], reply
    for n, turn in enumerate(entry.turns, start=1):
        yield [other.user for other in entry.turns[:n]], [other.text for other in entry.turns[:n - 1]], turn


def _messages(system: str, users: Sequence[str], earlier: Sequence[str], answer: Answer) -> tuple[Message, ...]:
    """Earlier replies stand without their thinking, as a server sends them back."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, said in zip(users, [*earlier, completion(answer)], strict=True):
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": said}]
    return tuple(messages)


def build(recipe: Recipe, entries: Sequence[Entry], chat: Chat, runs: Path, data: Path | None = None) -> dict[str, Any]:
    """Write the data set of a recipe and return its manifest. Raises DataError, OSError."""
    from training.page import render

    folder = runs / recipe.name / "dataset"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    asked, refused, settings = prompts(data), Refused(), recipe.dataset
    parts = dict(zip(("train", "valid"), split(entries, settings.valid, settings.seed), strict=True))
    sizes = {"train": settings.rows, "valid": round(settings.rows * settings.valid)}
    apart = {bare(prompt) for entry in parts["valid"] for prompt in entry.prompts}
    made = {name: expand(part, settings, sizes[name], chat=chat, asked=asked, refused=refused, seed=f"{settings.seed} {name}",
                         apart=apart if name == "train" else ())
            for name, part in parts.items()}
    made["train"] += expand(parts["train"], settings, settings.intent_rows, chat=chat, asked=asked, refused=refused,
                            seed=f"{settings.seed} intents", to_intent=True, apart=apart)
    digests = {}
    for name, rows in made.items():
        text = "".join(json.dumps(_written(row), ensure_ascii=False) + "\n" for row in rows)
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
        write_text(folder / f"{name}.jsonl", text)
    manifest = {
        "recipe": recipe.name, "base": recipe.base, "vocabulary": [recipe.new_tokens, recipe.unused_tokens], "dataset": asdict(settings), "text": text_digest(entries, data),
        "digest": hashlib.sha256("".join(digests.values()).encode()).hexdigest(), "files": digests,
        "entries": {name: len(part) for name, part in parts.items()},
        "asked": {name: sum(len(entry.prompts) or 1 for entry in part) for name, part in parts.items()},
        "duplicates_removed": refused.duplicates, "held_back_removed": refused.held_back, "contaminated_removed": refused.contaminated,
        "too_long_removed": refused.too_long} | {name: _describe(rows) for name, rows in made.items()}
    write_text(folder / "report.html", render(manifest, made))
    write_text(folder / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    return manifest


def _written(row: Row) -> dict[str, Any]:
    return {"messages": row.messages, "entry": row.entry} | ({"to_intent": True} if row.to_intent else {})


def text_digest(entries: Sequence[Entry], data: Path | None = None) -> str:
    """Of what rows are made of and kept apart from: the training text and the eval prompts."""
    content = [repr(entry) for entry in entries] + [repr(text) for text in prompts(data)]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _describe(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and tokens of one half. No row is ever truncated: too long ones are removed."""
    tokens = np.array([row.tokens for row in rows] or [0])
    edges = [0, *BINS, 10**9]
    by_length = {f"<= {high}": int(((tokens > low) & (tokens <= high)).sum()) for low, high in pairwise(edges)}
    by_category: Counter[str] = Counter()
    for row in rows:
        by_category[row.category] += row.tokens
    return {
        "rows": len(rows), "distinct": len({json.dumps(_written(row), ensure_ascii=False) for row in rows}),
        "to_intent": sum(row.to_intent for row in rows),
        "prompts": len({row.user for row in rows}), "unsupervised": sum(row.supervised < 1 for row in rows),
        "tokens": int(tokens.sum()), "supervised_tokens": sum(row.supervised for row in rows),
        "percentiles": {str(p): int(np.percentile(tokens, p)) for p in (50, 90, 99, 100)},
        "histogram": {name: count for name, count in by_length.items() if count},
        "tokens_by_category": dict(by_category.most_common()),
        "by_category": _counted(row.category for row in rows), "by_complexity": _counted(row.complexity for row in rows),
        "by_subcategory": _counted(f"{row.category}: {row.subcategory}" for row in rows)}


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
