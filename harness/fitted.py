"""What the scorers learnt from text: weights of two linear models and the beginnings of known words.

`python -m harness fit` makes harness/fitted.npz again from data/train, data/gold (never its held-out files),
data/turkish.txt and data/azerbaijani.txt. Features are hashed (crc32), weights are kept in steps of 1/32: half a
megabyte, read in 20 ms.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("fitted.npz")
PENALTY = 1 / 3  # of half the squared weights, beside the summed log loss
SMALLEST = 0.2  # weights under it are left out of the file
STEPS = 32

Features = Mapping[int, float]
Example = tuple[Features, bool]


@lru_cache(maxsize=1 << 18)
def key(*parts: str) -> int:
    """The hash of a feature."""
    return zlib.crc32("|".join(parts).encode())


def score(weights: Mapping[int, float], features: Features) -> float:
    """Log-odds of the model: the sum of the weights of the features that it knows."""
    return sum(weights.get(feature, 0.0) * value for feature, value in features.items())


def logistic(rows: Sequence[Example], *, least: int) -> dict[int, float]:
    """Weights of a ridge logistic regression without intercept (Cox 1958), both classes of equal weight.

    Features that fewer than `least` rows have are left out.
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    counts = Counter(feature for features, _ in rows for feature in features)
    known = sorted(feature for feature, count in counts.items() if count >= least)
    column = {feature: number for number, feature in enumerate(known)}
    kept = [[(column[feature], value) for feature, value in features.items() if feature in column] for features, _ in rows]
    matrix = csr_matrix(([value for row in kept for _, value in row], [number for row in kept for number, _ in row],
                         np.cumsum([0, *map(len, kept)])), shape=(len(rows), len(known)))
    label = np.array([1.0 if positive else -1.0 for _, positive in rows])
    share = float((label > 0).mean())
    weight = np.where(label > 0, 0.5 / share, 0.5 / (1 - share))
    transposed = matrix.T.tocsr()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = label * (matrix @ weights)
        value = (weight * np.logaddexp(0, -margin)).sum() + 0.5 * PENALTY * weights @ weights
        return float(value), PENALTY * weights - transposed @ (weight * label / (1 + np.exp(margin)))

    found = minimize(loss, np.zeros(len(known)), jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return {feature: value for feature, value in zip(known, found.x.tolist(), strict=True) if abs(value) >= SMALLEST}


@cache
def load(name: str) -> Mapping[int, float]:
    """The weights of a model, "order" or "azerbaijani", by feature."""
    with np.load(FILE, allow_pickle=False) as stored:
        return dict(zip(stored[name].tolist(), (stored[f"{name}_steps"] / STEPS).tolist(), strict=True))


@cache
def beginnings() -> frozenset[int]:
    """The hashed beginnings of the words that somebody used."""
    with np.load(FILE, allow_pickle=False) as stored:
        return frozenset(stored["beginnings"].tolist())


def save(models: Mapping[str, Mapping[int, float]], known: Iterable[int], path: Path = FILE) -> None:
    """Write everything, keys sorted, so that the same fit gives the same content."""
    arrays: dict[str, NDArray[np.generic]] = {"beginnings": np.array(sorted(set(known)), dtype=np.uint32)}
    for name, weights in models.items():
        features = sorted(weights)
        arrays[name] = np.array(features, dtype=np.uint32)
        steps = np.rint([STEPS * weights[feature] for feature in features])
        arrays[f"{name}_steps"] = np.clip(steps, -32000, 32000).astype(np.int16)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(path)
