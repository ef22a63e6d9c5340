"""Four operations of a language model, written for mlx's CPU backend, with their own gradients.

There an exponential of mlx takes 10 ns a number; 2^x made of additions and multiplications takes a quarter of it, and
the values agree with mlx's own to a few units in the last place (tests/test_kernels.py). On a GPU mlx's own kernels are the better ones, and none of this is used.
"""

from __future__ import annotations

import sys
from typing import Any

import mlx.core as mx
from mlx.nn.layers import linear
from mlx.nn.layers.base import Module

LOG2E = 1.4426950408889634
# Added and taken away again, it rounds a float32 to an integer, which then stands in its lowest bits.
_ROUND = 12582912.0  # 1.5 * 2^23
# 2^x = sum of (ln 2)^n / n! x^n; up to the sixth power exact to a unit in the last place for |x| <= 1/2.
_POWERS = (1.0, 0.6931471805599453, 0.2402265069591007, 0.05550410866482158, 0.009618129107628477, 0.0013333558146428443,
           0.00015403530393381608)
_LEAST = -126.0
# So many columns of the logits at a time stay in a core's cache.
COLUMNS = 2048


def exp2(x: mx.array) -> mx.array:
    """2^x of float32 in [-126, 127]."""
    shifted = x + _ROUND
    rest = x - (shifted - _ROUND)
    power = rest * _POWERS[-1] + _POWERS[-2]
    for factor in _POWERS[-3::-1]:
        power = power * rest + factor
    return mx.view(mx.view(power, mx.int32) + mx.left_shift(mx.view(shifted, mx.int32), 23), mx.float32)


def _call(function: Any, *arguments: mx.array) -> Any:
    # A custom_function is called like the function that it was made of; mlx's stubs do not say so.
    return function(*arguments)


@mx.custom_function
def _swiglu(gate: mx.array, x: mx.array) -> tuple[mx.array, mx.array]:
    sigmoid = 1 / (1 + exp2(mx.clip(gate * -LOG2E, _LEAST, -_LEAST)))
    return gate * sigmoid * x, sigmoid


@_swiglu.vjp
def _swiglu_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
    (gate, x), out, sigmoid = primals, cotangents[0], outputs[1]
    silu = gate * sigmoid
    return out * x * (sigmoid + silu * (1 - sigmoid)), out * silu


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x."""
    product: mx.array = _call(_swiglu, gate, x)[0]
    return product


@mx.custom_function
def _softmax2(scores: mx.array, mask: mx.array) -> mx.array:
    scores = scores + mask
    powers = exp2(mx.maximum(scores - scores.max(-1, keepdims=True), _LEAST))
    return powers / powers.sum(-1, keepdims=True)


@_softmax2.vjp
def _softmax2_vjp(primals: Any, cotangents: Any, shares: Any) -> tuple[mx.array, mx.array]:
    weighted = cotangents * shares
    return (weighted - shares * weighted.sum(-1, keepdims=True)) * (1 / LOG2E), mx.zeros_like(primals[1])


def attention(queries: mx.array, keys: mx.array, values: mx.array, cache: Any = None, scale: float = 1.0, mask: Any = None,
              sinks: Any = None) -> mx.array:
    """Scaled dot-product attention as mlx_lm.models.base has it: causal without a cache, and mlx's own in every other case.

    Shapes: queries (B, H, L, D); keys and values (B, K, L, D) with H a multiple of K.
    """
    if cache is not None or sinks is not None or mask not in ("causal", None):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
    batch, heads, length, width = queries.shape
    groups = keys.shape[1]
    above = mx.triu(mx.full((length, length), -1e9 if mask else 0.0), 1)
    grouped = (queries * (scale * LOG2E)).reshape(batch, groups, heads // groups * length, width)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, heads, length, length)
    shares: mx.array = _call(_softmax2, scores, above).reshape(batch, groups, heads // groups * length, length)
    return (shares @ values).reshape(batch, heads, length, width)


@mx.custom_function
def _cross_entropy(hidden: mx.array, head: mx.array, targets: mx.array, weights: mx.array) -> list[mx.array]:
    """The summed loss; each block's factor of its powers; then 2^(logits - the block's largest) of each block."""
    blocks, tops, sums = [], [], []
    for start in range(0, head.shape[0], COLUMNS):
        logits = hidden @ head[start:start + COLUMNS].T
        tops.append(top := logits.max(-1, keepdims=True))
        blocks.append(powers := exp2(mx.maximum((logits - top) * LOG2E, _LEAST)))
        sums.append(powers.sum(-1, keepdims=True))
    each = mx.concatenate(tops, -1)
    top = each.max(-1, keepdims=True)
    factors = mx.exp(each - top)
    total = (mx.concatenate(sums, -1) * factors).sum(-1, keepdims=True)
    losses = (mx.log(total) + top)[:, 0] - (hidden * head[targets]).sum(-1)
    return [(losses * weights).sum(), factors / total, *blocks]


@_cross_entropy.vjp
def _cross_entropy_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
    hidden, head, targets, weights = primals
    scaled = (weights * cotangents[0])[:, None]
    to_hidden, to_head = mx.zeros_like(hidden), []
    for number, powers in enumerate(outputs[2:]):
        start = number * COLUMNS
        hit = mx.arange(start, start + powers.shape[1])[None] == targets[:, None]
        gradient = powers * (outputs[1][:, number:number + 1] * scaled) - mx.where(hit, scaled, 0.0)
        to_hidden = to_hidden + gradient @ head[start:start + COLUMNS]
        to_head.append(gradient.T @ hidden)
    return to_hidden, mx.concatenate(to_head, 0), mx.zeros_like(targets), mx.zeros_like(weights)


def cross_entropy(hidden: mx.array, head: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    """Sum over n of weights[n] * -log softmax(head @ hidden[n])[targets[n]], without ever holding all logits and their gradient.

    Shapes: hidden (N, D), head (V, D), targets (N,) of integers, weights (N,), which get no gradient.
    """
    loss: mx.array = _call(_cross_entropy, hidden, head, targets, weights)[0]
    return loss


@mx.custom_function
def _linear(x: mx.array, weight: mx.array) -> mx.array:
    return x @ weight.T


@_linear.vjp
def _linear_vjp(primals: Any, cotangents: Any, _: Any) -> tuple[mx.array, mx.array]:
    x, weight = primals
    # mlx's own is the transpose of a product: whoever reads it next, number by number, goes across all its rows.
    return cotangents @ weight, cotangents.reshape(-1, cotangents.shape[-1]).T @ x.reshape(-1, x.shape[-1])


class Linear(linear.Linear):
    """A linear layer whose weight's gradient lies in memory as the weight does."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out)."""
        product: mx.array = _call(_linear, x, self["weight"])
        return product + self["bias"] if "bias" in self else product


def install(model: Module) -> None:
    """Give a model of mlx-lm these operations, where its module uses them by the names that mlx-lm has for them."""
    for _, layer in model.named_modules():
        if type(layer) is linear.Linear:
            layer.__class__ = Linear
    module = sys.modules[type(model).__module__]
    for name, own in (("swiglu", swiglu), ("scaled_dot_product_attention", attention)):
        if hasattr(module, name):
            setattr(module, name, own)
