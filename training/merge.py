"""What training changed, put back into the base's weights: float32, one tensor at a time, as mlx-lm's own layers fuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from training.header import Array

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"


class MergeError(ValueError):
    """An adapter that cannot be read, or is of another model: one line that says why."""


class Merge:
    """An adapter of mlx-lm (LoRA, DoRA, or trained weights whole), to be asked for each weight of the base."""

    def __init__(self, folder: Path) -> None:
        """Raises MergeError."""
        self.folder = folder
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            self.kind = str(config["fine_tune_type"])
            self.rank, self.scale = (int(config["lora_parameters"]["rank"]), float(config["lora_parameters"]["scale"])) if self.kind != "full" else (0, 1.0)
            self._file = safe_open(folder / WEIGHTS, framework="numpy")
            self.names = set[str](self._file.keys())  # type: ignore[no-untyped-call]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise MergeError(f"{folder}: no adapter: {type(error).__name__}: {error}; 'python -m training train' makes one") from None
        if self.kind not in ("lora", "dora", "full"):
            raise MergeError(f"{folder}: an adapter of kind '{self.kind}'; lora, dora and full are known")

    def touches(self, name: str) -> bool:
        """Whether training changed the weight of this mlx-lm name."""
        return name in self.names or f"{name.removesuffix('.weight')}.lora_a" in self.names

    def merged(self, name: str, weight: Array) -> Array:
        """The trained weight. Shape as given: (out, in), or (size,). Raises MergeError for an adapter of another shape.

        LoRA: W + scale * (A B)^T with A of shape (in, r), B of (r, out). DoRA (arXiv:2402.09353): the same, each row then
        scaled to its own learnt length.
        """
        if name in self.names:
            whole = self.tensor(name)
            if whole.shape != weight.shape:
                raise MergeError(f"{self.folder}: '{name}' is {whole.shape}, and the base has {weight.shape}: an adapter of another model")
            return whole
        stem = name.removesuffix(".weight")
        a, b = self.tensor(f"{stem}.lora_a"), self.tensor(f"{stem}.lora_b")
        if (b.shape[1], a.shape[0]) != weight.shape or a.shape[1] != b.shape[0]:
            raise MergeError(f"{self.folder}: '{stem}' adapts {(b.shape[1], a.shape[0])}, and the base has {weight.shape}: an adapter of another model")
        found = weight + (np.float32(self.scale) * b.T) @ a.T
        if self.kind == "dora":
            found = found * (self.tensor(f"{stem}.m") / np.linalg.norm(found, axis=1))[:, None]
        return found.astype(np.float32, copy=False)

    def tensor(self, name: str) -> Array:
        """One tensor of the file, in float32. Raises MergeError."""
        try:
            return np.asarray(self._file.get_tensor(name), dtype=np.float32)  # type: ignore[no-untyped-call]
        except (SafetensorError, TypeError, ValueError) as error:
            raise MergeError(f"{self.folder / WEIGHTS}: '{name}' cannot be read: {error}") from None

    def check(self, known: set[str]) -> None:
        """Raise MergeError where the adapter has a weight that the base, whose mlx-lm names are given, has not."""
        stems = {name.removesuffix(".weight") for name in known}
        for name in sorted(self.names):
            stem, _, end = name.rpartition(".")
            if name not in known and not (end in ("lora_a", "lora_b", "m") and stem in stems):
                raise MergeError(f"{self.folder}: '{name}' has no place in the base: an adapter of another architecture")
