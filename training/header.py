"""The key-values and small tensors of a GGUF, as its conversion reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Json = dict[str, Any]


class ConvertError(ValueError):
    """A GGUF that cannot become a model of mlx-lm: one line that says why, and what is known."""


class Header:
    """The key-values of a GGUF."""

    def __init__(self, path: Path) -> None:
        """Raises ConvertError for a file that is none, OSError for one that cannot be read."""
        try:
            self.reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError) as error:
            raise ConvertError(f"{path}: not a GGUF file, or a truncated one: {error}") from None
        self.path = path
        self.name = str(self.find("general.architecture") or "")

    def find(self, key: str) -> Any:
        """The value of a key; None where it has none."""
        field = self.reader.get_field(key)
        return None if field is None else field.contents()

    def need(self, key: str) -> Any:
        """The value of the architecture's own key. Raises ConvertError."""
        found = self.find(f"{self.name}.{key}")
        if found is None:
            raise ConvertError(f"{self.path}: no {self.name}.{key}; the file is not complete")
        return found

    def get(self, key: str, default: Any) -> Any:
        """The value of the architecture's own key, or a default."""
        found = self.find(f"{self.name}.{key}")
        return default if found is None else found

    def tensor(self, name: str) -> Array | None:
        """The values of a small tensor; None where there is none."""
        found = next((one for one in self.reader.tensors if one.name == name), None)
        return None if found is None else np.asarray(gguf.quants.dequantize(found.data, found.tensor_type), dtype=np.float32)


def head_dim(header: Header) -> int:
    """The size of an attention head. Raises ConvertError."""
    return int(header.get("attention.key_length", int(header.need("embedding_length")) // int(header.need("attention.head_count"))))
