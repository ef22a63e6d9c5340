"""One training step: loss on supervised positions, gradients, clipping, AdamW; shared by the workers of a team."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten

from training import kernels
from training.adamw import AdamW, Arrays, in_place, numbers, owned
from training.adapters import shards, trained
from training.batches import Micro
from training.recipe import Train
from training.team import Team


def head(model: Module) -> mx.array:
    """The output matrix of a model of mlx-lm, shape (vocabulary, hidden)."""
    return model.lm_head.weight if "lm_head" in model else model.model.embed_tokens.weight  # type: ignore[no-any-return]


def summed_loss(model: Module, *, cpu: bool, through_head: bool = True) -> Callable[..., mx.array]:
    """f(ids, positions, targets, weights) -> weighted sum of cross-entropy over the positions; shapes as in batches.Micro.

    Only supervised positions get logits: they are a fifth of a small model's work. Without `through_head` an
    output matrix that is the embedding too has no gradient of its own: with it, Adam moves the vector of every token that is not said, at every step.
    """
    softcap = getattr(model, "final_logit_softcapping", None)

    def matrix() -> mx.array:
        return head(model) if through_head or "lm_head" in model else mx.stop_gradient(head(model))

    def loss(ids: mx.array, positions: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
        hidden = model.model(ids)
        hidden = hidden.reshape(-1, hidden.shape[-1])[positions]
        if cpu and softcap is None:
            return kernels.cross_entropy(hidden, matrix(), targets, weights)
        logits = (hidden @ matrix().T).astype(mx.float32)
        if softcap is not None:
            logits = mx.tanh(logits / softcap) * softcap
        return (nn.losses.cross_entropy(logits, targets) * weights).sum()

    return loss


def learning_rate(train: Train, iteration: int, iterations: int) -> float:
    """Of the step after `iteration` steps: a linear rise, then a cosine down to `final` of the peak."""
    warm = max(1, round(train.warmup * iterations))
    if iteration < warm:
        return train.learning_rate * (iteration + 1) / warm
    progress = (iteration - warm) / max(1, iterations - warm)
    return train.learning_rate * (train.final + (1 - train.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Stepper:
    """A model with its trained weights and optimiser, and the step on them.

    Master weights are float32; on a GPU the model computes in bfloat16.
    """

    def __init__(self, model: Module, train: Train, team: Team, *, cpu: bool) -> None:
        self.model, self.train, self.team, self.cpu = model, train, team, cpu
        self.names, self.in_place = list(trained(model)), cpu and in_place()
        self.weights = {name: self._master(weight) for name, weight in trained(model).items()}
        # Adapters stay in float32 everywhere, as in mlx-lm: they are small, and their sums are not.
        computed = mx.bfloat16 if not cpu and train.method == "full" else mx.float32
        self._types = dict.fromkeys(self.names, computed)
        if not cpu:
            model.set_dtype(mx.bfloat16)
        self.mine = shards(self.weights, team.size)[team.rank]
        team.lay_out({name: weight.shape for name, weight in self.weights.items()})
        self.optimizer = AdamW({name: self.weights[name] for name in self.mine}, train, team.shown if team.size > 1 else None)
        loss = summed_loss(model, cpu=cpu, through_head=train.head)

        def with_weights(weights: Arrays, *micro: mx.array) -> mx.array:
            model.update(tree_unflatten([(name, weight.astype(self._types[name])) for name, weight in weights.items()]))
            return loss(*micro)

        random = [mx.random.state] if train.dropout else []
        self._gradients = partial(mx.compile, inputs=random, outputs=random)(mx.value_and_grad(with_weights))
        self._loss = mx.compile(with_weights)

    def _master(self, weight: mx.array) -> mx.array:
        weight = weight.astype(mx.float32)
        return owned(weight) if self.in_place else weight

    def step(self, micros: Sequence[Micro], rate: float, *, seed: int = 0) -> float:
        """Train on the micro-batches of a step. Returns the weighted mean loss before it; NaN leaves the weights alone."""
        total = float(sum(micro.weights.sum(dtype=np.float64) for micro in micros)) or 1.0
        loss, gradients = 0.0, Arrays()
        for number in range(self.team.rank, len(micros), self.team.size):
            if self.train.dropout:
                mx.random.seed(seed * 1_000_003 + number)
            value, found = self._gradients(self.weights, *_arrays(micros[number], total))
            gradients = {name: gradients[name] + gradient for name, gradient in found.items()} if gradients else found
            mx.eval(value, gradients)
            loss += float(value)
        gradients, square = self._reduced(gradients)
        parts = self.team.exchange((loss, square))
        loss, norm = sum(part[0] for part in parts), math.sqrt(sum(part[1] for part in parts))
        if math.isfinite(loss) and math.isfinite(norm):
            scale = min(1.0, self.train.clip / (norm + 1e-6)) if self.train.clip else 1.0
            self._apply(gradients, rate, scale)
        return loss if math.isfinite(norm) else math.nan

    def _reduced(self, gradients: Arrays) -> tuple[Arrays, float]:
        """The sum over the workers, of this worker's own part of the weights, and its squared norm."""
        if self.team.size == 1:
            return gradients, float(sum((mx.square(gradient).sum() for gradient in gradients.values()), mx.array(0.0)))
        own = set(self.mine)
        # A step of fewer micro-batches than workers leaves some without a gradient.
        found = gradients or {name: mx.zeros_like(weight) for name, weight in self.weights.items()}
        for name, gradient in found.items():
            if name not in own or self.team.size > 2:
                self.team.put_gradient(name, numbers(gradient))
        self.team.exchange(None)
        square, used = 0.0, set[int]()
        for name in self.mine:
            summed = numbers(found[name])
            # Into the array's own memory, unless it is not the array's alone.
            if not (summed.flags.c_contiguous and summed.flags.writeable) or summed.ctypes.data in used:
                found[name] = owned(found[name])
                summed = numbers(found[name])
            used.add(summed.ctypes.data)
            self.team.add_others(name, summed)
            square += float(np.vdot(summed, summed))
        return {name: found[name] for name in self.mine}, square

    def _apply(self, gradients: Arrays, rate: float, scale: float) -> None:
        self.weights |= self.optimizer.step(gradients, {name: self.weights[name] for name in self.mine}, rate, scale)
        if self.team.size == 1:
            return
        self.team.exchange(None)
        own = set(self.mine)
        for name in self.names:
            if name not in own and self.in_place:
                np.copyto(numbers(self.weights[name]), self.team.shown(name))
            elif name not in own:
                self.weights[name] = mx.array(self.team.shown(name))

    def mean_loss(self, micros: Sequence[Micro]) -> float:
        """The loss of supervised tokens, each counting once whatever its weight, over all workers."""
        loss = count = 0.0
        self.model.eval()
        for number in range(self.team.rank, len(micros), self.team.size):
            micro = micros[number]
            loss += float(self._loss(self.weights, *_arrays(micro, 1.0, flat=True)))
            count += float((micro.weights > 0).sum())
        self.model.train()
        parts = self.team.exchange((loss, count))
        return sum(part[0] for part in parts) / max(1.0, sum(part[1] for part in parts))

    def begin_with(self, weights: Arrays) -> None:
        """Train on from these, of some of the names, in place of the base's own; before the first step."""
        self.weights |= {name: self._master(weight) for name, weight in weights.items()}

    def restore(self, weights: Arrays, optimizer: Arrays) -> None:
        """Go on from a checkpoint's weights and optimiser."""
        self.weights = {name: self._master(weights[name]) for name in self.names}
        self.optimizer.restore(optimizer)

    def settle(self) -> Module:
        """The model with the trained weights in place, to use or to save."""
        self.model.update(tree_unflatten([(name, weight.astype(self._types[name])) for name, weight in self.weights.items()]))
        mx.eval(self.model.parameters())
        return self.model


def _arrays(micro: Micro, total: float, *, flat: bool = False) -> tuple[mx.array, ...]:
    weights = (micro.weights > 0).astype(np.float32) if flat else micro.weights / np.float32(total)
    return mx.array(micro.ids), mx.array(micro.positions), mx.array(micro.targets), mx.array(weights)

