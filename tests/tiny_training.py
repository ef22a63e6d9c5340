"""A tiny base with a chat template, and recipes that train it in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from tests.tiny_models import Shape, Vocabulary, write

# Every byte is a token; one merge, because a vocabulary has some.
BYTES = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "zz", *(f"<s{number}>" for number in range(15))]

CHATML = ("{% for message in messages %}<s1>{{ message.role }}\n{{ message.content }}<s2>\n{% endfor %}"
          "{% if add_generation_prompt %}<s1>assistant\n{% endif %}")
ROWS = [("naber", "<think>\n1. Hal soruyor, kolay.\n</think>\nİyiyim, sen?"), ("selam", "<think>\n1. Selam, kolay.\n</think>\nSelam kanka!"),
        ("rust zor mu", "<think>\n1. Rust soruyor, orta.\n2. Ödünç almayı anlat.\n</think>\nBaşta zor, sonra rahat."),
        ("iyi geceler", "<think>\n1. Vedalaşıyor, kolay.\n</think>\nİyi geceler!")]


def base(folder: Path, arch: str = "llama") -> Path:
    """A GGUF of a random model that reads and writes bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder / "tiny.gguf", arch, shape=Shape(layers=3, context=1024), vocabulary=Vocabulary(tokens=BYTES, merges=("z z",), template=CHATML, bos=258, eos=259))


def recipe(folder: Path, gguf: Path, name: str = "mine", dataset: str = "", **train: Any) -> Path:
    """A recipe file; `train` are keys of [train]."""
    settings = {"learning_rate": 3e-3, "step_tokens": 2048, "micro_tokens": 1024, "evaluate_every": 5, "valid_rows": 8, "epochs": 1.0,
                "checkpoint_every": 5, "workers": 2, **train}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    path = folder / f"{name}.toml"
    path.write_text(f'base = "{gguf}"\n[dataset]\nrows = 120\nmax_tokens = 420\n{dataset}\n[train]\n{lines}', encoding="utf-8")
    return path


def command(path: Path, runs: Path, stage: str = "train") -> list[str]:
    return [sys.executable, "-m", "training", stage, str(path), "--runs", str(runs)]


def train(path: Path, runs: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the stage in a process of its own, as a person would."""
    return subprocess.run(command(path, runs), capture_output=True, text=True, encoding="utf-8", timeout=300, check=False, **options)


def left(path: Path, runs: Path) -> Path:
    """The folder of the recipe's only candidate."""
    found = [one for one in (runs / path.stem).iterdir() if one.name != "dataset"]
    assert len(found) == 1, found
    return found[0]
