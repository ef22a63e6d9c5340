"""The base of a candidate: where its GGUF is."""

from __future__ import annotations

from pathlib import Path

from harness.fetch import NAME, fetch


def base_gguf(base: str) -> Path:
    """The GGUF file of a base: `smollm2` (fetched at the first call), or a path. Raises FetchFailed, OSError."""
    if base == NAME:
        return fetch() / "model.gguf"
    path = Path(base)
    if not path.is_file():
        raise FileNotFoundError(f"base '{base}': no such file; '{NAME}' or the path of a GGUF file is needed")
    return path
