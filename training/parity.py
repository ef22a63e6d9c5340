"""Proof that the exported file is what was trained, before anybody is given it.

The file is read back and computed by mlx-lm, and by llama.cpp; both are held against the model that training left: mlx-lm
with the adapter beside the base. Leaves parity.json beside the file. A file that fails is not registered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf

from harness.files import write_text
from training import blas
from training.base import Base, chat
from training.export import OWN
from training.tokenizer import Message

# Share of positions where the likeliest token has to be the same. Rounding to 8 bits moves near-ties, to 4 bits more; an
# adapter stands beside the base's own type, with which llama.cpp rounds activations too.
BARS = {"F32": 0.99, "F16": 0.99, "BF16": 0.95, "Q8_0": 0.95}
COARSE = 0.80
DIALOGUES = 32
# Where in a reply llama.cpp is asked for the next token, as a share of the reply: once a request, so a few.
PLACES = (0.0, 0.3, 0.6, 0.9)
TOP = 10
# llama.cpp keeps keys, values and activations in half precision: of two tokens this near, in nats, it may take the other.
TIE = 0.05
# Less than this in the logits is rounding: an adapter that moves them no further was not exported.
MOVED = 1e-2


class ParityError(RuntimeError):
    """The exported file is not the trained model: one line with the figure and its bar."""


def dialogues(rows: Path) -> list[list[Message]]:
    """Whole rows of a data set, the first to validate with, then the first to train with. Raises OSError, ValueError."""
    found = list[list[Message]]()
    for half in ("valid", "train"):
        with (rows / f"{half}.jsonl").open(encoding="utf-8") as lines:
            found += [row["messages"] for row in map(json.loads, lines) if not row.get("to_intent")][:DIALOGUES - len(found)]
    return found


def prove(base: Base, adapter: Path | None, exported: Path, spoken: Sequence[Sequence[Message]], *, kind: str, device: str = "cpu") -> dict[str, Any]:
    """Measure, write parity.json beside the file, return it. Raises ParityError where it does not hold, after writing.

    A file of kind "adapter" holds no model to read back: llama.cpp is asked with it beside the base's GGUF.
    """
    talk = chat(base.directory)
    parsed = [(ids, before) for ids, before in (talk.row(messages) for messages in spoken)]
    beside = base.gguf if kind == "adapter" else None
    asked = {"base": str(base.directory), "adapter": str(adapter) if adapter else None, "exported": str(beside or exported), "device": device,
             "lora": str(exported) if beside else None,
             "rows": parsed, "points": [(number, place) for number, (ids, before) in enumerate(parsed) for place in _places(before, len(ids))]}
    found = _child("mlx", asked, device)
    theirs = _child("llama", asked, "cpu")
    pairs = list(zip(found["points"], theirs["points"], strict=True))
    same = [ours["silent"] if other["token"] is None else ours["token"] == other["token"] for ours, other in pairs]
    agreed = [equal or _tie(ours, other["token"]) for equal, (ours, other) in zip(same, pairs, strict=True)]
    apart = max((abs(ours["logprobs"][token] - value) for ours, other in pairs
                 for token, value in other["logprobs"].items() if token in ours["logprobs"]), default=0.0)
    result = {"type": kind, "bar": BARS.get(kind, COARSE), "dialogues": len(parsed), "positions": found["positions"], "top1": found["top1"],
              "max_difference": found["max_difference"], "llama_cpp": {"positions": len(agreed), "top1": sum(same) / max(1, len(same)),
                            "top1_or_tie": sum(agreed) / max(1, len(agreed)), "max_logprob_difference": apart},
              "adapter": {"max_change": found["max_change"], "top1_changed": found["top1_changed"]} if adapter else None,
              "key_values_changed": key_values_changed(base.gguf, exported) if base.gguf and not beside else None}
    problems = _problems(result)
    write_text(exported.with_name("parity.json"), json.dumps({**result, "passed": not problems, "problems": problems}, indent=1) + "\n")
    if problems:
        raise ParityError(f"{exported} is not what was trained: {'; '.join(problems)}. Nothing was registered")
    return {**result, "passed": True, "problems": []}


def _problems(result: dict[str, Any]) -> list[str]:
    bar, problems = result["bar"], []
    for who, share in (("read back by mlx-lm", result["top1"]), ("computed by llama.cpp", result["llama_cpp"]["top1_or_tie"])):
        if share is not None and not share >= bar:
            problems.append(f"{who}, the likeliest token is the same at {share:.1%} of the positions, and {result['type']} needs {bar:.0%}")
    if result["adapter"] and not result["adapter"]["max_change"] > MOVED:
        problems.append(f"the adapter moves no logit by more than {result['adapter']['max_change']:.2g}")
    if other := [key for key in result["key_values_changed"] or () if key not in OWN]:
        problems.append(f"key-values differ from the base's: {', '.join(other)}")
    return problems


def _tie(ours: dict[str, Any], token: int | None) -> bool:
    return str(token) in ours["logprobs"] and ours["logprobs"][str(ours["token"])] - ours["logprobs"][str(token)] < TIE


def _places(before: int, length: int) -> list[int]:
    return [before + int(share * (length - before)) for share in PLACES]


def key_values_changed(base: Path, exported: Path) -> list[str]:
    """The keys whose bytes differ between two GGUF files, or that one of them lacks. Raises OSError, ValueError."""
    ours, theirs = (_bytes(path) for path in (base, exported))
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def _bytes(path: Path) -> dict[str, bytes]:
    fields = gguf.GGUFReader(path).fields
    return {key: b"".join(part.tobytes() for part in field.parts) for key, field in fields.items() if not key.startswith("GGUF.")}


def _child(what: str, asked: dict[str, Any], device: str) -> dict[str, Any]:
    """Each in a process of its own: mlx-lm lowers the limit of open files, llama.cpp writes to standard error."""
    with tempfile.TemporaryDirectory(prefix="jessy-blas-") as links:
        extra = {**blas.environment(Path(links)), "OPENBLAS_NUM_THREADS": str(os.cpu_count() or 1)} if what == "mlx" and device == "cpu" else {}
        done = subprocess.run([sys.executable, "-m", "training.parity", what], input=json.dumps(asked), env={**os.environ, **extra},
                              capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        raise ParityError(f"parity could not be measured by {what}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _mlx(asked: dict[str, Any]) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    from training.convert import convert

    mx.set_default_device(mx.cpu if asked["device"] == "cpu" else mx.gpu)

    def logits(model: Any) -> Any:
        """Of every position that predicts a token of a reply, in float32, row by row."""
        for ids, before in asked["rows"]:
            found = model(mx.array([ids]))[0, before - 1:-1].astype(mx.float32)
            mx.eval(found)
            yield found

    def read_back() -> Any:
        with tempfile.TemporaryDirectory(dir=Path(asked["exported"]).parent, prefix=".parity-") as scratch:
            convert(Path(asked["exported"]), Path(scratch))
            return load_model(Path(scratch), lazy=False)[0]

    (plain, config), (trained, _) = (load_model(Path(asked["base"]), lazy=False) for _ in range(2))
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    words = chat(Path(asked["base"])).tokenizer
    if asked["adapter"]:
        load_adapters(trained, asked["adapter"])
    again = trained if asked["lora"] else read_back()
    for model in (plain, trained, again):
        model.eval()
    positions = same = changed = 0
    apart = moved = 0.0
    points: dict[tuple[int, int], dict[str, Any]] = {(number, place): {} for number, place in asked["points"]}
    for number, (base, one, other) in enumerate(zip(logits(plain), logits(trained), logits(again), strict=True)):
        before = asked["rows"][number][1]
        positions += one.shape[0]
        same += int((one.argmax(-1) == other.argmax(-1)).sum())
        changed += int((one.argmax(-1) != base.argmax(-1)).sum())
        apart, moved = max(apart, float(mx.abs(one - other).max())), max(moved, float(mx.abs(one - base).max()))
        for _, place in (point for point in points if point[0] == number):
            row = one[place - before]
            chances = row - mx.logsumexp(row)
            best: Any = mx.argsort(-chances)[:4 * TOP].tolist()
            points[number, place] = {"token": best[0], "silent": best[0] in ends or "\ufffd" in words.decode([best[0]]), "logprobs": {str(token): float(chances[token]) for token in best}}
    back = {"top1": None, "max_difference": None} if asked["lora"] else {"top1": same / max(1, positions), "max_difference": apart}
    return {"positions": positions, **back, "max_change": moved,
            "top1_changed": changed / max(1, positions), "points": list(points.values())}


def _llama(asked: dict[str, Any]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked["exported"]
    params.n_ctx, params.n_parallel = max(len(ids) for ids, _ in asked["rows"]) + 8, 1
    params.verbosity, params.warmup = -1, False
    if asked["lora"]:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = asked["lora"], 1.0
        params.lora_adapters = [info]
    server, points = xllamacpp.Server(params), []
    for number, place in asked["points"]:
        answer = server.handle_completions({"prompt": asked["rows"][number][0][:place], "n_predict": 1, "temperature": 0, "n_probs": TOP})
        if isinstance(answer, str):
            answer = json.loads(answer)
        content = (answer["choices"][0].get("logprobs") or {}).get("content") or []
        top = content[0]["top_logprobs"] if content else []
        # Where the likeliest token ends the reply, or is the first bytes of a letter, llama.cpp says nothing of any.
        points.append({"token": top[0]["id"] if top else None, "logprobs": {str(one["id"]): one["logprob"] for one in top}})
    return {"points": points}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    if sys.argv[1] == "mlx" and request["device"] == "cpu":
        blas.preload()
    print(json.dumps(_mlx(request) if sys.argv[1] == "mlx" else _llama(request)), flush=True)
    os._exit(0)
