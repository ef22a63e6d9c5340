"""What a model says before anything is exported: greedy replies of a base with an adapter, many prompts at a time.

    python -m training ask RECIPE "sana bisi sorucam"
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training import blas
from training.tokenizer import Message

# So many dialogues are worth a process of their own.
FEWEST = 8


class GenerateError(RuntimeError):
    """The process that generates ended without replies: its own last line."""


def replies(base: Path, adapter: Path | None, dialogues: Sequence[Sequence[Message]], *, max_tokens: int = 256, device: str = "cpu") -> list[str]:
    """The greedy reply to each dialogue, as text with its tags. Raises GenerateError.

    `base` is a model directory of mlx-lm, `adapter` a folder of adapters.safetensors, None for the base alone. Runs in
    processes of its own, which have the BLAS and the limits that mlx needs.
    """
    # A process a core, each with one thread: two threads of a BLAS wait for each other, and on a busy machine they do little else.
    count = max(1, min(os.cpu_count() or 1, len(dialogues) // FEWEST)) if device == "cpu" else 1
    asked = {"base": str(base), "adapter": str(adapter) if adapter else None, "max_tokens": max_tokens, "device": device}
    with tempfile.TemporaryDirectory(prefix="jessy-blas-") as links:
        environment = {**os.environ, **blas.environment(Path(links))} if device == "cpu" else None
        with ThreadPoolExecutor(count) as pool:
            parts = list(pool.map(lambda part: _child({**asked, "dialogues": [list(one) for one in dialogues[part::count]]},
                                                      environment and {**environment, "TMPDIR": _own(Path(links), part)}), range(count)))
    found = [""] * len(dialogues)
    for part, said in enumerate(parts):
        found[part::count] = said
    return found


def _own(links: Path, part: int) -> str:
    """A folder of a process's own for what mlx compiles: it writes into a common one without looking whether another does."""
    (folder := links / str(part)).mkdir()
    return str(folder)


def _child(asked: dict[str, Any], environment: dict[str, str] | None) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "training.generate"], input=json.dumps(asked), env=environment, capture_output=True, text=True,
                          encoding="utf-8", check=False)
    if done.returncode:
        raise GenerateError((done.stderr.strip().splitlines() or [f"generation ended with {done.returncode}"])[-1])
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def plain(text: str) -> str:
    """A reply for a terminal: what would move the cursor or change a title is shown as an escape."""
    return "".join(character if character.isprintable() or character == "\n" else ascii(character)[1:-1] for character in text)


def main() -> None:
    """Read the request from standard input, print the replies as one JSON line."""
    asked = json.load(sys.stdin)
    if asked["device"] == "cpu":
        blas.preload()
    print(json.dumps(_generate(asked)), flush=True)


def _generate(asked: dict[str, Any]) -> list[str]:
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    from training.base import chat

    base = Path(asked["base"])
    mx.set_default_device(mx.cpu if asked["device"] == "cpu" else mx.gpu)
    model, config = load_model(base, lazy=False)
    if asked["adapter"]:
        load_adapters(model, asked["adapter"])
    model.eval()
    talk = chat(base)
    stops = config["eos_token_id"]
    generator: Any = BatchGenerator(model, stop_tokens=[[token] for token in (stops if isinstance(stops, list) else [stops])])
    prompts = [talk.tokenizer.encode(talk.render(messages, generate=True), add_special_tokens=False).ids for messages in asked["dialogues"]]
    order = generator.insert(prompts, [asked["max_tokens"]] * len(prompts))
    said: dict[int, list[int]] = {number: [] for number in order}
    while found := generator.next_generated():
        for one in found:
            if one.finish_reason != "stop":
                said[one.uid].append(one.token)
    generator.close()
    return [talk.tokenizer.decode(said[number], skip_special_tokens=True) for number in order]


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
