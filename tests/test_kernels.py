"""The kernels for mlx's CPU: the same values and the same gradients as mlx's own operations, where numbers are hard too."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.nn.layers.activations import silu
from mlx.nn.layers.linear import Linear

from tests.tiny_training import base, left, recipe, train
from training import blas, kernels, watch


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


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_is_mlx_s_and_its_gradient_lies_as_its_weight(bias: bool) -> None:
    theirs = Linear(24, 40, bias=bias)
    ours = kernels.Linear(24, 40, bias=bias)

    def call(layer: Any) -> Callable[..., mx.array]:
        def of(x: mx.array, *weights: mx.array) -> mx.array:
            layer.update(dict(zip(("weight", "bias"), weights, strict=False)))
            out: mx.array = layer(x)
            return out

        return of

    inputs = [draw(3, 5, 24), draw(40, 24, seed=1), *([draw(40, seed=2)] if bias else [])]
    same(call(ours), call(theirs), *inputs)
    gradient = mx.grad(lambda weight: (call(ours)(inputs[0], weight, *inputs[2:]) ** 2).sum())(inputs[1])
    mx.eval(gradient)
    assert np.array(gradient, copy=False).flags.c_contiguous


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


PRODUCTS = """
import ctypes, json, sys
import numpy as np
library = ctypes.CDLL(sys.argv[1])
draw, pointer, worst = np.random.default_rng(0), ctypes.c_void_p, 0.0
for m, n, k in json.loads(sys.argv[2]):
    for ta in (False, True):
        for tb in (False, True):
            for alpha, beta in ((1.0, 0.0), (0.5, 2.0)):
                a = draw.standard_normal((k, m) if ta else (m, k)).astype(np.float32)
                b = draw.standard_normal((n, k) if tb else (k, n)).astype(np.float32)
                c = np.full((m, n), np.nan, np.float32) if beta == 0 else draw.standard_normal((m, n)).astype(np.float32)
                exact = alpha * ((a.T if ta else a).astype(np.float64) @ (b.T if tb else b)) + (beta * c if beta else 0)
                library.cblas_sgemm(101, 112 if ta else 111, 112 if tb else 111, m, n, k, ctypes.c_float(alpha), a.ctypes.data_as(pointer), a.shape[1],
                                    b.ctypes.data_as(pointer), b.shape[1], ctypes.c_float(beta), c.ctypes.data_as(pointer), n)
                worst = max(worst, float(np.abs(c - exact).max() / k ** 0.5))
print(json.dumps(worst))
"""


def products(shapes: list[tuple[int, int, int]], folder: Path) -> float:
    """The largest error of any product of these shapes, plain and transposed, scaled and added, in units of the root of its depth."""
    environment = {**os.environ, **blas.environment(folder, "bfloat16")}
    done = subprocess.run([sys.executable, "-c", PRODUCTS, environment["JESSY_GEMM"], json.dumps(shapes)], env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


needs_bfloat16 = pytest.mark.skipif(sys.platform != "linux" or not blas.has_bfloat16(), reason="this CPU has no AVX512-BF16, or there is no gcc")


@needs_bfloat16
def test_products_in_bfloat16_are_as_exact_as_bfloat16_is(tmp_path: Path) -> None:
    error = products([(17, 129, 577), (64, 48, 512), (103, 100, 104), (96, 192, 1537), (16, 2048, 33), (512, 576, 96)], tmp_path)
    # Eight bits of each factor: an error of 1/512 at most of each of k products of unit size, and 1e-6 would be float32's.
    assert 1e-4 < error < 2e-2


@needs_bfloat16
def test_small_products_stay_exact(tmp_path: Path) -> None:
    assert products([(3, 5, 7), (15, 200, 600), (48, 31, 64), (64, 64, 31), (1, 1000, 2000)], tmp_path) < 1e-5


@needs_bfloat16
def test_a_model_trained_in_bfloat16_products_learns_as_well(tmp_path: Path) -> None:
    losses = {}
    for kind in ("float32", "bfloat16"):
        path = recipe(tmp_path, base(tmp_path / "base"), name=kind, products=kind, method="full", workers=1, step_tokens=1024)
        done = train(path, tmp_path / "runs")
        assert done.returncode == 0 and ("libjessygemm" in done.stdout) == (kind == "bfloat16"), done.stdout
        losses[kind] = json.loads((left(path, tmp_path / "runs") / "manifest.json").read_text(encoding="utf-8"))["best"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_without_the_cpu_for_it_float32_is_used_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "has_bfloat16", lambda: False)
    assert "JESSY_GEMM" not in blas.environment(tmp_path, "bfloat16")
    start = {"device": "cpu", "gflops": 400.0, "blas": "libopenblas.so.0", "products": "bfloat16", "trained": 1, "rows": 1, "iterations": 1, "workers": 1}
    assert any("needs a CPU with AVX512-BF16" in line for line in watch._start(start, tmp_path))
