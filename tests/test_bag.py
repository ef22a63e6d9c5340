"""The bag of words before the first step: its vectors name the intent of what was never asked so, and stay where nothing is learnt of them."""

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from training.bag import fit
from training.batches import Tokens

mx.set_default_device(mx.cpu)

INTENTS, WORDS, FILLERS = 6, 8, 10
# Tokens: the words of each intent, then fillers of all, then two tokens of each intent's name, then one that nobody says.
VOCABULARY = INTENTS * WORDS + FILLERS + 2 * INTENTS + 1


def vectors() -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(VOCABULARY, 32)) + 3).astype(np.float32)


def rows(count: int, seed: int) -> tuple[list[Tokens], list[int]]:
    """Each has two words of one intent among four fillers."""
    rng, made, meant = np.random.default_rng(seed), list[Tokens](), list[int]()
    for _ in range(count):
        intent = int(rng.integers(INTENTS))
        asked = np.r_[intent * WORDS + rng.integers(WORDS, size=2), INTENTS * WORDS + rng.integers(FILLERS, size=4)].astype(np.int32)
        name = (INTENTS * WORDS + FILLERS + 2 * intent + np.arange(2)).astype(np.int32)
        made.append(Tokens(asked, np.zeros(6, np.float32), rng.permutation(asked), name))
        meant.append(int(name[0]))
    return made, meant


def named(found: NDArray[np.float32], seed: int) -> float:
    """The share of new prompts whose summed vectors are nearest to the first token of their intent."""
    made, meant = rows(400, seed)
    centred = found - found.mean(axis=0)
    names = sorted(set(meant))
    said = [names[int(np.argmax(centred[names] @ centred[row.asked].sum(axis=0)))] for row in made]
    return float(np.mean(np.array(said) == np.array(meant)))


def test_its_vectors_name_the_intent_of_prompts_that_it_never_saw() -> None:
    before = vectors()
    after = fit(before, rows(3000, 1)[0], 40, seed=3)
    assert named(before, 2) < 0.4 and named(after, 2) > 0.95
    assert after.shape == before.shape and after.dtype == np.float32


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    one, same, other = (fit(vectors(), rows(600, 1)[0], 1.5, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_the_input_is_left_alone_and_few_rows_are_enough() -> None:
    before = vectors()
    kept = before.copy()
    assert not np.array_equal(fit(before, rows(3, 1)[0], 0.1, seed=0), kept)
    assert np.array_equal(before, kept)


def test_rows_without_an_intent_are_one_line() -> None:
    bare = Tokens(np.arange(4, dtype=np.int32), np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"'train\.bag_epochs' needs rows with an intent") as raised:
        fit(vectors(), [bare], 1, seed=0)
    assert "\n" not in str(raised.value)


def test_vectors_that_are_no_numbers_are_one_line() -> None:
    with pytest.raises(ArithmeticError, match=r"its step 1: the base's token vectors are damaged"):
        fit(np.full((VOCABULARY, 32), np.nan, np.float32), rows(20, 1)[0], 1, seed=0)
