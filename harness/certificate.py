"""The certificate of the scorers: where it lies, what it is about, and what it says of a score.

`python -m harness certify` writes it; a report carries its digest, and the gate refuses a run whose scorers are not
the certified ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

from harness import cases

HOME = Path(__file__).parent
FILE = HOME.parent / "reports" / "certificate.json"
# Everything that a verdict on a reply follows from.
SCORERS = ("appropriateness", "cases", "dialogue", "emotion", "facts", "fitted", "gates", "intents", "iterations", "language",
           "negation", "persona", "philosophy", "score", "turkish", "word_order")
LIBRARIES = ("lingua-language-detector", "langdetect", "rapidfuzz")

Json = dict[str, Any]


def scorers(embedding: str = "") -> str:
    """SHA-256 of the scorers' code, what they learnt, the cases with their patterns, the libraries' versions, and the
    embedding model, name@digest, that helps them."""
    files = [*(HOME / f"{name}.py" for name in SCORERS), HOME / "fitted.npz", *sorted((cases.DATA / "evals").glob("*.jsonl"))]
    return _sha256([*files, *(f"{name} {metadata.version(name)}" for name in LIBRARIES), embedding])


def evidence() -> str:
    """SHA-256 of what certifies them: the labelled replies and the code that makes and counts the bad ones."""
    return _sha256([*(HOME / f"{name}.py" for name in ("adversarial", "certify", "evidence")), *sorted((cases.DATA / "gold").glob("*.jsonl"))])


def load(path: Path = FILE) -> Json | None:
    """The certificate; None where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "scorers" in content and "criteria" in content else None


def digest(content: Json) -> str:
    """SHA-256 of a certificate's content, in 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def standing(embedding: str = "", path: Path = FILE) -> Json:
    """What a run's provenance says of its scorers: their digest, the certificate's, whether it certifies them, or why not."""
    current, content = scorers(embedding), load(path)
    row: Json = {"digest": current, "certificate": content and digest(content), "certified": False}
    if content is None:
        return row | {"reason": "there is no certificate; run: python -m harness certify"}
    if content["scorers"] != current:
        return row | {"reason": "the certificate is about other scorers or cases; run: python -m harness certify"}
    if content["problems"]:
        return row | {"reason": f"the certificate has {len(content['problems'])} problems; the first: {content['problems'][0]}"}
    return row | {"certified": True, "reason": "", "weak": content.get("weak", []), "rates": {
        name: {"tpr": part["tpr"], "tpr_n": part["kept"]["held_out"]["n"], "tnr": part["tnr"],
               "tnr_n": sum(cell.get("unseen", cell)["n"] for cell in part["families"].values())} for name, part in content["criteria"].items()}}


def refusal(provenance: Json) -> str | None:
    """Why the gate takes no run with this provenance, by its scorers; None where they are certified."""
    row = provenance.get("scorers") or {}
    return None if row.get("certified") else f"scorers are not certified: {row.get('reason') or 'the report names no certificate'}"


def corrected(criterion: Json, rates: Json | None) -> Json | None:
    """The share that a perfect scorer would have given: theta = (p + TNR - 1) / (TPR + TNR - 1), with its 95 % interval.

    Rogan and Gladen 1978, doi 10.1093/oxfordjournals.aje.a112510; variance by the delta method, from those of p, TPR
    and TNR. None where the scores are graded. TNR comes from replies made to fool, not from a model's own mistakes.
    """
    scores = {outcome["score"] for outcome in criterion["outcomes"]} - {None}
    if not rates or not scores or not scores <= {0.0, 1.0} or criterion["low"] is None or criterion["high"] is None:
        return None
    p, tpr, tnr = criterion["score"], rates["tpr"], rates["tnr"]
    power = tpr + tnr - 1
    if power <= 0:
        return None
    theta = min(1.0, max(0.0, (p + tnr - 1) / power))
    z = NormalDist().inv_cdf(0.975)
    rates_variance = theta**2 * tpr * (1 - tpr) / rates["tpr_n"] + (1 - theta) ** 2 * tnr * (1 - tnr) / rates["tnr_n"]
    # Each side by its own distance: the interval of a share near 0 or 1 is not symmetric.
    down, up = (sqrt(side**2 + z**2 * rates_variance) / power for side in (p - criterion["low"], criterion["high"] - p))
    return {"score": theta, "low": max(0.0, theta - down), "high": min(1.0, theta + up)}


def _sha256(parts: Iterable[Path | str]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        name, content = (part.name, part.read_bytes()) if isinstance(part, Path) else (part, b"")
        whole.update(f"{name} {len(content)} ".encode() + content)
    return whole.hexdigest()
