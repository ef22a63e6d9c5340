"""Optional: similarity by an embedding model of Ollama, beside the letters (`--embed MODEL`). Never needed.

It only adds answers that mean what an intent's examples say in other words; the vetoes come after it as ever, because
embeddings are blind to polarity (facts/turkish.md 6.4). A run with it has other scorers, with a certificate of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import ollama
from numpy.typing import NDArray

from harness.engines import UnknownModel, Unreachable

Vectors = NDArray[np.float64]
# Below this cosine two texts are strangers, whatever the model.
FLOOR = 0.30
# Of the similarities between examples of different intents, those over tau are so many.
STRANGERS = 0.05


@dataclass
class Embedding:
    """An embedding model on an Ollama server. Raises UnknownModel or Unreachable, when it is made or used."""

    model: str
    host: str
    digest: str = ""
    _known: dict[str, Vectors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            with ollama.Client(self.host, trust_env=False) as client:
                names = {str(one.model): one.digest or "" for one in client.list().models}
        except (ConnectionError, ollama.ResponseError) as error:
            raise Unreachable(f"no Ollama server answers at {self.host} for --embed {self.model}: {error}") from None
        if self.model not in names and f"{self.model}:latest" not in names:
            raise UnknownModel(f"--embed {self.model}: the Ollama server at {self.host} has {', '.join(sorted(names)) or 'no model'}")
        self.digest = names.get(self.model) or names[f"{self.model}:latest"]

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, a row a text; a text is asked for once."""
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        for start in range(0, len(missing), 64):
            part = missing[start:start + 64]
            try:
                with ollama.Client(self.host, trust_env=False) as client:
                    found = np.array(client.embed(self.model, part).embeddings, dtype=np.float64)
            except (ConnectionError, ollama.ResponseError) as error:
                raise Unreachable(f"--embed {self.model} at {self.host} failed: {error}") from None
            norms = np.linalg.norm(found, axis=1, keepdims=True)
            self._known.update(zip(part, found / np.where(norms == 0, 1, norms), strict=True))
        return np.array([self._known[text] for text in texts])


class Nearest:
    """Which intent's examples are closest to a text, by cosine."""

    def __init__(self, embedding: Embedding, examples: Mapping[str, Sequence[str]], siblings: Mapping[str, frozenset[str]]) -> None:
        self.embedding, self.siblings = embedding, siblings
        self.owners = [name for name, texts in examples.items() for _ in texts]
        self.matrix = embedding.vectors([text for texts in examples.values() for text in texts])
        self.tau = self._strangers()

    def meets(self, intent: str, text: str) -> bool:
        """Whether the intent's examples are the closest but for its siblings', and closer than strangers are."""
        best = self._best(self.embedding.vectors([text])[0])
        home = self.siblings[intent] - {intent}
        return best.get(intent, 0.0) >= max(self.tau, *(value for name, value in best.items() if name not in home))

    def _best(self, vector: Vectors) -> dict[str, float]:
        best: dict[str, float] = {}
        for name, value in zip(self.owners, (self.matrix @ vector).tolist(), strict=True):
            best[name] = max(best.get(name, -1.0), value)
        return best

    def _strangers(self) -> float:
        """The similarity that only STRANGERS of the examples reach with an example of an unrelated intent, or FLOOR."""
        closest = [max((value for name, value in self._best(row).items() if name not in self.siblings[own] | {own}), default=0.0)
                   for own, row in zip(self.owners, self.matrix, strict=True)]
        return max(FLOOR, float(np.quantile(closest, 1 - STRANGERS))) if closest else 1.0
