"""From what a candidate missed to the recipe of the next one: pure rules, each bounded and explained in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.recipe import Recipe

Json = Mapping[str, Any]
Change = tuple[Recipe, str] | None

# Which training category teaches what a criterion asks for.
TEACHES = {"test_turkish": "conversation", "test_personality": "identity", "test_technical": "technical", "test_philosophy": "philosophy",
           "test_emotion": "emotion", "test_multiturn": "multi-turn", "test_iterations": "iteration"}
LARGEST_SHARE, GROWTH = 0.85, 1.5
LEAST_ROWS, MOST_ROWS = 1_500, 200_000
LEARNING_RATES = {"full": (2e-5, 1e-3), "lora": (1e-4, 4e-3), "dora": (1e-4, 4e-3)}
MOST_NOISE, MOST_RANK, LEAST_MICRO = 0.8, 128, 128
# A training uses this share of its minutes, so that a slower hour does not cut it off.
FILL = 0.92
# The best weights in this last part of a training: it was still learning. Before the other: it was no longer.
STILL, NO_LONGER = 0.95, 0.8


@dataclass(frozen=True)
class Verdict:
    """What is known of a candidate: criteria as report.json has them, and the manifest of its training."""

    criteria: Sequence[Json]
    training: Json

    def missed(self, level: str = "") -> dict[str, Json]:
        """The failed criteria with a category that teaches them, by category; of one level if it is named."""
        return {TEACHES[row["name"]]: row for row in self.criteria
                if row["name"] in TEACHES and row["verdict"] == "FAIL" and row["score"] is not None and level in ("", row["level"])}

    @property
    def learnt_until(self) -> float:
        """The share of the training after which the validation loss did not fall any more."""
        return float(self.training["best_iteration"] / max(1, self.training["iteration"]))

    @property
    def room(self) -> float:
        """How many times as long the training may be within the recipe's minutes."""
        minutes = float(self.training["recipe"]["train"]["minutes"])
        return FILL * 60 * minutes / max(1.0, float(self.training["seconds"]))


def next_recipe(recipe: Recipe, verdict: Verdict) -> tuple[Recipe, list[str]] | None:
    """The recipe to try next and why, in words; None where no rule has anything left to change."""
    if verdict.training["stop"] in BROKEN:
        found = BROKEN[verdict.training["stop"]](recipe, verdict)
        return (found[0], [found[1]]) if found else None
    why = []
    for rule in RULES:
        if found := rule(recipe, verdict):
            recipe, words = found
            why.append(words)
    return (recipe, why) if why else None


def _diverged(recipe: Recipe, _: Verdict) -> Change:
    return _rate(recipe, 0.5, "the loss was no number any more")


def _out_of_memory(recipe: Recipe, _: Verdict) -> Change:
    micro = recipe.train.micro_tokens // 2
    if micro < LEAST_MICRO:
        return None
    return replace(recipe, train=replace(recipe.train, micro_tokens=micro)), f"micro_tokens {2 * micro} -> {micro}: the memory was used up"


def _out_of_time(recipe: Recipe, verdict: Verdict) -> Change:
    done = verdict.training["iteration"] / max(1, verdict.training["iterations"])
    return _rows(recipe, FILL * done, f"the time was up after {done:.0%} of the steps")


def _slices(recipe: Recipe, verdict: Verdict) -> Change:
    """More of what teaches a missed criterion: of must ones if there are any, otherwise of all."""
    weights = {name: weight for name, weight in recipe.dataset.weights.items() if weight > 0}
    missed = {name: row for name, row in (verdict.missed("must") or verdict.missed()).items() if name in weights}
    if not missed or len(missed) == len(weights):
        return None
    total = sum(weights.values())
    wanted = {name: weight * min(GROWTH, 1 + _miss(missed[name])) if name in missed else weight for name, weight in weights.items()}
    if sum(wanted[name] for name in missed) / sum(wanted.values()) > LARGEST_SHARE:
        return None
    made = {name: round(weight * total / sum(wanted.values()), 2) for name, weight in wanted.items()}
    said = ", ".join(f"{name} {weights[name]:g} -> {made[name]:g} parts ({row['title']} {row['score']:.1%}, bar > {row['bar']['value']:.0%})"
                     for name, row in missed.items())
    return replace(recipe, dataset=replace(recipe.dataset, weights=made)), said


def _miss(row: Json) -> float:
    """How far a share is from its bar, as a part of the bar."""
    return max(0.0, 1 - float(row["score"]) / float(row["bar"]["value"]))


def _longer(recipe: Recipe, verdict: Verdict) -> Change:
    if not verdict.missed() or verdict.learnt_until < STILL or verdict.room < 1.1:
        return None
    return _rows(recipe, min(GROWTH, verdict.room), f"it was still learning after {verdict.training['seconds'] / 60:.0f} of {recipe.train.minutes:g} minutes")


def _more_intents(recipe: Recipe, verdict: Verdict) -> Change:
    """Rows that end behind the intent in place of whole ones, three for one, where time is up and everyday prompts are missed."""
    data = recipe.dataset
    less = round(data.rows * 0.15)
    if "conversation" not in verdict.missed() or verdict.learnt_until < STILL or verdict.room >= 1.1 or data.rows - less < LEAST_ROWS:
        return None
    made = replace(data, rows=data.rows - less, intent_rows=data.intent_rows + 3 * less)
    return replace(recipe, dataset=made), (f"rows {data.rows} -> {made.rows}, intent_rows {data.intent_rows} -> {made.intent_rows}: there is no time for more, "
                                           "and what is asked has to be recognised first")


def _calmer(recipe: Recipe, verdict: Verdict) -> Change:
    if verdict.training["stop"] != "early" and verdict.learnt_until >= NO_LONGER:
        return None
    return _rate(recipe, 0.7, f"the validation loss was best after {verdict.learnt_until:.0%} of the steps")


def _noisier(recipe: Recipe, verdict: Verdict) -> Change:
    noise = round(min(MOST_NOISE, recipe.dataset.noise + 0.1), 2)
    if verdict.learnt_until >= NO_LONGER or noise <= recipe.dataset.noise:
        return None
    return replace(recipe, dataset=replace(recipe.dataset, noise=noise)), f"noise {recipe.dataset.noise:g} -> {noise:g}: it learnt its rows and not the language"


def _larger(recipe: Recipe, verdict: Verdict) -> Change:
    """An adapter that misses a must by far is too small: every linear layer, a higher rank, then all weights."""
    train = recipe.train
    if train.method == "full" or not any(_miss(row) > 0.2 for row in verdict.missed("must").values()):
        return None
    if train.modules != ["all"]:
        return replace(recipe, train=replace(train, modules=["all"])), "every linear layer gets an adapter: a must is missed by far"
    if 2 * train.rank <= MOST_RANK:
        return replace(recipe, train=replace(train, rank=2 * train.rank, alpha=2 * train.alpha)), f"rank {train.rank} -> {2 * train.rank}: a must is missed by far"
    return (replace(recipe, train=replace(train, method="full", layers=0, learning_rate=min(train.learning_rate, 4e-4))),
            "all weights are trained: no rank of an adapter was enough")


def _rows(recipe: Recipe, factor: float, because: str) -> Change:
    data = recipe.dataset
    rows = min(MOST_ROWS, max(LEAST_ROWS, round(data.rows * factor)))
    if rows == data.rows:
        return None
    made = replace(data, rows=rows, intent_rows=round(data.intent_rows * factor))
    return replace(recipe, dataset=made), f"rows {data.rows} -> {made.rows}, intent_rows {data.intent_rows} -> {made.intent_rows}: {because}"


def _rate(recipe: Recipe, factor: float, because: str) -> Change:
    low, high = LEARNING_RATES[recipe.train.method]
    rate = float(f"{min(high, max(low, recipe.train.learning_rate * factor)):.3g}")
    if rate == recipe.train.learning_rate:
        return None
    return replace(recipe, train=replace(recipe.train, learning_rate=rate)), f"learning_rate {recipe.train.learning_rate:g} -> {rate:g}: {because}"


RULES: tuple[Callable[[Recipe, Verdict], Change], ...] = (_slices, _longer, _more_intents, _calmer, _noisier, _larger)
# How a training ended that says nothing of the recipe's quality.
BROKEN: dict[str, Callable[[Recipe, Verdict], Change]] = {"nan": _diverged, "memory": _out_of_memory, "time": _out_of_time}
