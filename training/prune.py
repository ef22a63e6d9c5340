"""A shallower base: some of its layers, in their order, as a GGUF file of its own.

A step and a reply cost less without the others. Gromov et al. 2024 find that large models lose little with layers of the
upper half, once some training heals them; what a small one loses, the suites say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from training.base import Base, BaseError
from training.export import Plan, whole, write
from training.parts import read

# Layers that take turns with windows of attention: what a layer does follows from its number.
POSITIONAL = ("gemma2", "gemma3")
BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


def prune(source: Path, layers: Sequence[int], out: Path) -> None:
    """Write the GGUF `source` with these layers only, numbered anew, to `out`, whole or not at all.

    Every tensor and key-value that stays is copied as it is, but for the number of layers. Raises BaseError, ConvertError,
    ExportError.
    """
    model = read(Base(str(source), source.parent, source, ""))
    values = {one.key: one.value for one in model.key_values}
    depth = int(values.get(f"{model.arch}.block_count") or 0)
    if not layers or any(low >= high for low, high in pairwise([-1, *layers, depth])):
        raise BaseError(f"base '{source}': keep_layers is {list(layers)}; its layers are 0 to {depth - 1}, and they are needed in ascending order")
    apart = [one.key for one in model.key_values if one.key.startswith(f"{model.arch}.") and isinstance(one.value, list) and len(one.value) == depth]
    if model.arch in POSITIONAL or apart:
        raise BaseError(f"base '{source}': the layers of {model.arch} differ by their number{f' ({apart[0]})' if apart else ''}; "
                        "none can be left out, remove 'keep_layers'")
    number = {layer: place for place, layer in enumerate(layers)}
    key_values = [replace(one, value=len(layers)) if one.key == f"{model.arch}.block_count" else one for one in model.key_values]
    plans = []
    for tensor in model.tensors:
        block = BLOCK.fullmatch(tensor.name)
        if block and int(block[1]) not in number:
            continue
        assert tensor.raw is not None  # of a GGUF file
        named = replace(tensor, name=f"blk.{number[int(block[1])]}.{block[2]}") if block else tensor
        plans.append(Plan(named, tensor.kind, False, True, tensor.raw))
    with whole(out) as temporary:
        write(temporary, replace(model, key_values=key_values), plans, str(values.get("general.name") or source.stem), int(values.get("general.file_type") or 0))


def spelt(layers: Sequence[int]) -> str:
    """The layers in short: 0-9,28-29."""
    runs = list[list[int]]()
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
