"""The same weights without quantisation, for comparing engines.

With 4-bit weights llama.cpp also rounds the activations, to 8 bits and by kernels that differ between versions;
greedy text then parts at the first near-tie. In float32 nothing is rounded but the last bits.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize


def dequantised(source: Path, target: Path) -> Path:
    """Write `source`'s tensors in float32 and its key-values as they are; kept when it is there already."""
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    writer = GGUFWriter(unfinished, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(target)
    return target
