"""Token vectors that know what is asked before the first step: a bag of words, fitted in about a minute.

The vectors of what the user said last are added up and divided by the root of their number; by the same vectors, that sum
predicts the words of the intent. Both stand in one space (StarSpace, Wu et al. 2018, arXiv:1709.03856; a bag that
classifies is fastText's, Joulin et al. 2017, arXiv:1607.01759), which is what a model is that reads and writes by one
matrix; one with an output matrix of its own has to learn that half by steps. Layers that average what they read then
only have to pass it on: their queries are zero, so that they attend to every place alike until they learn better.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from numpy.typing import NDArray

from training.adamw import EMBEDDING, Arrays
from training.batches import Tokens
from training.recipe import Train
from training.team import Team

BATCH = 512
RATE, LAST = 3e-3, 0.02
# What is asked in more tokens says what is asked in the first ones.
LONGEST = 40


def begun(weights: Arrays, train: Train, rows: Sequence[Tokens], team: Team) -> Arrays:
    """What stands in place of the base's weights at the first step, by name. Raises ValueError, ArithmeticError."""
    changed = Arrays()
    for layer in train.averaging_layers:
        queries = [name for name in weights if f".layers.{layer}.self_attn.q_proj." in name]
        if not queries:
            raise ValueError(f"'train.averaging_layers' has {layer}, and the candidate has no layer of that number with a q_proj; the first is 0")
        changed |= {name: mx.zeros_like(weights[name]) for name in queries}
    if train.bag_epochs:
        name = next(one for one in weights if EMBEDDING in one)
        # One worker's, for all: it takes a fraction of the training, and two would have to round alike.
        fitted = fit(np.array(weights[name]), rows, train.bag_epochs, train.seed) if team.rank == 0 else np.zeros(0, np.float32)
        changed[name] = mx.array(team.exchange(fitted)[0])
    return changed


def fit(vectors: NDArray[np.float32], rows: Sequence[Tokens], epochs: float, seed: int) -> NDArray[np.float32]:
    """The vectors, shape (vocabulary, hidden), after `epochs` over the rows that say something and name an intent.

    A half of the target is the first token of the intent, which decides what follows, the other half all of its tokens.
    What the vectors have in common, their mean, stays as it is. Raises ValueError where no row names an intent.
    """
    told = [(row.asked[:LONGEST], row.intent) for row in rows if len(row.asked) and len(row.intent)]
    if not told:
        raise ValueError("'train.bag_epochs' needs rows with an intent, \"<think>\\n1. ...;\", and something asked; there is none")
    mean = vectors.mean(axis=0)
    weights = {"vectors": mx.array(vectors - mean), "bias": mx.zeros((len(vectors),))}
    optimizer = optim.Adam(learning_rate=RATE)
    optimizer.init(weights)

    def loss(weights: dict[str, mx.array], asked: mx.array, there: mx.array, target: mx.array) -> mx.array:
        total = (weights["vectors"][asked] * there[..., None]).sum(axis=1) / mx.sqrt(there.sum(axis=1, keepdims=True))
        logits = total @ weights["vectors"].T + weights["bias"]
        return -(target * (logits - mx.logsumexp(logits, axis=1, keepdims=True))).sum() / len(target)

    state = [weights, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(asked: mx.array, there: mx.array, target: mx.array) -> mx.array:
        value, gradients = mx.value_and_grad(loss)(weights, asked, there, target)
        weights.update(optimizer.apply_gradients(gradients, weights))
        return value

    size = min(BATCH, len(told))
    steps = max(1, round(epochs * len(told) / size))
    rng = np.random.default_rng([seed, len(told)])
    order = np.concatenate([rng.permutation(len(told)) for _ in range(-(-steps * size // len(told)))])
    for number in range(steps):
        optimizer.learning_rate = mx.array(RATE * max(LAST, 1 - number / steps))
        value = step(*_batch([told[one] for one in order[number * size:(number + 1) * size]], len(vectors)))
        mx.eval(state, value)
        if not np.isfinite(float(value)):
            raise ArithmeticError(f"the loss of the bag of words is {float(value)} at its step {number + 1}: the base's token vectors are damaged")
    return np.asarray(np.array(weights["vectors"]) + mean, dtype=np.float32)


def _batch(told: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]], vocabulary: int) -> tuple[mx.array, mx.array, mx.array]:
    """(ids, 1 where there is one, share of each token in the target), shapes (B, LONGEST), (B, LONGEST), (B, vocabulary)."""
    asked, there = np.zeros((len(told), LONGEST), np.int32), np.zeros((len(told), LONGEST), np.float32)
    target = np.zeros((len(told), vocabulary), np.float32)
    for number, (said, intent) in enumerate(told):
        asked[number, :len(said)], there[number, :len(said)] = said, 1
        target[number, intent[0]] += 0.5
        np.add.at(target[number], intent, 0.5 / len(intent))
    return mx.array(asked), mx.array(there), mx.array(target)
