"""The optimiser: AdamW of mlx, and on a CPU the same in one pass over memory.

mlx's CPU backend computes an update of a weight on one thread without vector instructions and into new memory: a third
of a step of full fine-tuning. native/adamw.c updates weights where they stand.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from training.recipe import Train

Arrays = dict[str, mx.array]
Shown = Callable[[str], Any]
EMBEDDING = "embed_tokens"


class AdamW:
    """Decoupled weight decay, bias correction; `weights` are the float32 arrays that it updates.

    Token vectors have the recipe's `embedding_rate` times the learning rate of the others. `shown(name)` is where a new
    weight is put for others to read, an array of its shape; None where there are none.
    """

    def __init__(self, weights: Arrays, train: Train, shown: Shown | None = None) -> None:
        self.train, self.shown, self.names = train, shown, list(weights)
        self._rates = {name: train.embedding_rate if EMBEDDING in name else 1.0 for name in weights}
        self._of_mlx = optim.AdamW(learning_rate=train.learning_rate, betas=[train.beta1, train.beta2], weight_decay=train.weight_decay,
                                   bias_correction=True)
        self._of_mlx.init(weights)
        self._update = partial(mx.compile, inputs=[self._of_mlx.state], outputs=[self._of_mlx.state])(self._updated)
        self._native = _native()
        if self._native:
            self._own(self.state)

    def _updated(self, gradients: Arrays, weights: Arrays, scale: mx.array) -> Arrays:
        scaled = {name: gradient * scale for name, gradient in gradients.items()}
        new = self._of_mlx.apply_gradients(scaled, weights)
        # An update is proportional to the learning rate, its decay too.
        return {name: weight if self._rates[name] == 1 else weights[name] + self._rates[name] * (weight - weights[name]) for name, weight in new.items()}

    def step(self, gradients: Arrays, weights: Arrays, rate: float, scale: float) -> Arrays:
        """The new weights. Those that were given may be written over."""
        if self._native:
            return self._in_place(self._native, gradients, weights, rate, scale)
        self._of_mlx.learning_rate = rate
        new = self._update(gradients, weights, mx.array(scale))
        mx.eval(new, self._of_mlx.state)
        if self.shown:
            for name, weight in new.items():
                np.copyto(self.shown(name), numbers(weight))
        return new

    def _in_place(self, native: Any, gradients: Arrays, weights: Arrays, rate: float, scale: float) -> Arrays:
        train, state = self.train, self._of_mlx.state
        step = int(state["step"]) + 1
        state["step"] = mx.array(step, state["step"].dtype)
        first, root = 1 - train.beta1**step, math.sqrt(1 - train.beta2**step)
        for name in self.names:
            own = rate * self._rates[name]
            weight, gradient = numbers(weights[name]), np.ascontiguousarray(numbers(gradients[name]))
            m, v = (numbers(state[name][key]) for key in ("m", "v"))
            shown = self.shown(name).ctypes.data if self.shown else None
            native(weight.ctypes.data, m.ctypes.data, v.ctypes.data, gradient.ctypes.data, shown, weight.size, scale, train.beta1, train.beta2,
                   own / first, root, 1 - own * train.weight_decay, self._of_mlx.eps)
        return weights

    @property
    def state(self) -> Arrays:
        """The optimiser's numbers by name: NAME.m, NAME.v and step."""
        found = {"step": self._of_mlx.state["step"]}
        for name in self.names:
            found |= {f"{name}.{key}": value for key, value in self._of_mlx.state[name].items()}
        return found

    def restore(self, state: Mapping[str, mx.array]) -> None:
        """Go on from a checkpoint's numbers."""
        if self._native:
            self._own(state)
            return
        self._of_mlx.state["step"] = state["step"]
        for name in self.names:
            for key in self._of_mlx.state[name]:
                self._of_mlx.state[name][key] = state[f"{name}.{key}"]

    def _own(self, state: Mapping[str, mx.array]) -> None:
        self._of_mlx.state["step"] = state["step"]
        for name in self.names:
            for key in self._of_mlx.state[name]:
                self._of_mlx.state[name][key] = owned(state[f"{name}.{key}"])


def owned(array: mx.array) -> mx.array:
    """The same numbers in memory of their own, which may be written to."""
    return mx.array(np.array(array))


def numbers(array: mx.array) -> Any:
    """The numbers of an evaluated array, not copied."""
    return np.array(array, copy=False)


def in_place() -> bool:
    """Whether weights are updated where they stand."""
    return "JESSY_ADAMW" in os.environ


def _native() -> Any:
    if not in_place():
        return None
    found = ctypes.CDLL(os.environ["JESSY_ADAMW"]).adamw
    found.restype, found.argtypes = None, [*[ctypes.c_void_p] * 5, ctypes.c_size_t, *[ctypes.c_float] * 7]
    return found
