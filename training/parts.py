"""A base as its parts: what a GGUF file is made of, whether the base came as one or as a model directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as ValueType
from numpy.typing import NDArray

from training.base import Base
from training.convert import DERIVED, architecture, mlx_name
from training.header import Array, Header


@dataclass(frozen=True)
class KeyValue:
    """One key-value of a GGUF; `of` is the type of an array's items."""

    key: str
    value: Any
    kind: ValueType
    of: ValueType | None = None


@dataclass(frozen=True)
class Tensor:
    """One tensor of the base: its names in GGUF and in mlx-lm, its shape (out, in), and where its values come from.

    `raw` are the bytes as they are stored, of a GGUF base. `values` are the float32 values as mlx-lm has them, and
    `stored` turns those into what llama.cpp has (gemma's norms, llama's rows of q and k). `mlx` is empty where mlx-lm
    makes it from the configuration.
    """

    name: str
    mlx: str
    shape: tuple[int, ...]
    kind: Kind
    raw: Callable[[], NDArray[Any]] | None
    values: Callable[[], Array]
    stored: Callable[[Array], Array]


@dataclass(frozen=True)
class Model:
    """A base, ready to be written again."""

    arch: str
    key_values: Sequence[KeyValue]
    tensors: Sequence[Tensor]


def read(base: Base) -> Model:
    """The base as its parts. Raises ConvertError, BaseError, OSError."""
    if base.gguf is None:
        from training.keyvalues import read_directory

        return read_directory(base.directory)
    header = Header(base.gguf)
    return Model(header.name, list(_key_values(header)), list(_tensors(header)))


def _key_values(header: Header) -> Iterator[KeyValue]:
    for key, field in header.reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            yield KeyValue(key, field.contents(), field.types[0], field.types[-1] if field.types[0] == ValueType.ARRAY else None)


def _tensors(header: Header) -> Iterator[Tensor]:
    kind = architecture(header)
    for stored in header.reader.tensors:
        norm = kind.norm_plus_one and "norm" in stored.name
        shape = tuple(int(size) for size in reversed(stored.shape))
        mlx = "" if DERIVED.fullmatch(stored.name) else mlx_name(kind, stored.name)
        yield Tensor(stored.name, mlx, shape, stored.tensor_type, _raw(stored), _values(stored, shape, norm), _plus_one if norm else _same)


def _raw(tensor: gguf.ReaderTensor) -> Callable[[], NDArray[Any]]:
    return lambda: np.ascontiguousarray(tensor.data)


def _values(tensor: gguf.ReaderTensor, shape: tuple[int, ...], norm: bool) -> Callable[[], Array]:
    def read() -> Array:
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)
        return values - 1 if norm else values
    return read


def _plus_one(values: Array) -> Array:
    return values + np.float32(1)


def _same(values: Array) -> Array:
    return values
