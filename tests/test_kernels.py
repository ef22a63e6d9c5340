"""The kernels for mlx's CPU: the same values and the same gradients as mlx's own operations, where numbers are hard too."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.nn.layers.activations import silu

from training import kernels


@pytest.fixture(autouse=True)
def on_the_cpu() -> Any:
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)) * scale


def close(ours: mx.array, theirs: mx.array, tolerance: float = 2e-6) -> None:
    found, expected = np.asarray(ours), np.asarray(theirs)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def same(ours: Callable[..., mx.array], theirs: Callable[..., mx.array], *inputs: mx.array, tolerance: float = 2e-6) -> None:
    """Values, and the gradients of a random weighting of them, in eager and in compiled form."""
    out = theirs(*inputs)
    weighting = draw(*out.shape, seed=99)
    numbers = list(range(len(inputs)))
    expected = mx.grad(lambda *x: (theirs(*x) * weighting).sum(), argnums=numbers)(*inputs)
    gradient = mx.grad(lambda *x: (ours(*x) * weighting).sum(), argnums=numbers)
    for value, found in ((ours(*inputs), gradient(*inputs)), (mx.compile(ours)(*inputs), mx.compile(gradient)(*inputs))):
        close(value, out, tolerance)
        for one, other in zip(found, expected, strict=True):
            close(one, other, tolerance)


def test_powers_of_two_are_exact_to_the_last_places() -> None:
    x = mx.array(np.linspace(-126, 127, 200_001, dtype=np.float32))
    exact = np.exp2(np.asarray(x, dtype=np.float64))
    assert np.abs(np.asarray(kernels.exp2(x)) / exact - 1).max() < 4e-7
    assert [float(one) for one in kernels.exp2(mx.array([0.0, 1.0, -1.0, 10.0]))] == [1.0, 2.0, 0.5, 1024.0]


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_swiglu(scale: float) -> None:
    same(kernels.swiglu, lambda gate, x: silu(gate) * x, draw(3, 7, 33, scale=scale), draw(3, 7, 33, seed=1))


@pytest.mark.parametrize(("heads", "groups", "length"), [(4, 4, 1), (9, 3, 17), (8, 1, 40)])
@pytest.mark.parametrize("mask", ["causal", None])
def test_attention(heads: int, groups: int, length: int, mask: str | None) -> None:
    inputs = draw(2, heads, length, 16, scale=3), draw(2, groups, length, 16, seed=1, scale=3), draw(2, groups, length, 16, seed=2)
    same(lambda q, k, v: kernels.attention(q, k, v, scale=0.25, mask=mask), lambda *x: mx.fast.scaled_dot_product_attention(*x, scale=0.25, mask=mask), *inputs,
         tolerance=2e-5)


def test_attention_looks_at_nothing_that_comes_later() -> None:
    queries, keys, values = draw(1, 2, 9, 8), draw(1, 2, 9, 8, seed=1), draw(1, 2, 9, 8, seed=2)
    changed = mx.concatenate([keys[:, :, :5], keys[:, :, 5:] + 100], axis=2)
    before, after = (kernels.attention(queries, one, values, scale=0.3, mask="causal")[:, :, :5] for one in (keys, changed))
    assert mx.array_equal(before, after)


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("vocabulary", [50, kernels.COLUMNS, 3 * kernels.COLUMNS + 17])
def test_cross_entropy(scale: float, vocabulary: int) -> None:
    hidden, head = draw(11, 24, scale=scale), draw(vocabulary, 24, seed=1)
    targets = mx.random.randint(0, vocabulary, (11,), key=mx.random.key(3))
    weights = mx.array([0.0, 2.0, *[1.0] * 9])
    same(lambda hidden, head: kernels.cross_entropy(hidden, head, targets, weights),
         lambda hidden, head: (nn.losses.cross_entropy(hidden @ head.T, targets) * weights).sum(), hidden, head, tolerance=1e-5)


def test_a_weight_of_zero_takes_a_position_out() -> None:
    hidden, head, targets = draw(4, 8), draw(30, 8, seed=1), mx.array([1, 2, 3, 4])
    loss = mx.grad(lambda hidden: kernels.cross_entropy(hidden, head, targets, mx.array([1.0, 0.0, 1.0, 0.0])))(hidden)
    assert not mx.any(loss[1::2]) and mx.all(mx.abs(loss[0::2]).sum(-1) > 0)
