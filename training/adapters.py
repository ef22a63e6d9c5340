"""Which weights of a model are trained, and how they are kept: mlx-lm's own adapter format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from harness.files import write_text
from training.merge import CONFIG, WEIGHTS
from training.recipe import Train

# Architectures that fuse them have one layer for several.
_FUSED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}


class AdapterError(ValueError):
    """A recipe asks this model for what it has not: one line with what it has."""


def make_trainable(model: Module, train: Train) -> dict[str, Any]:
    """Freeze what the recipe does not train, add its adapters, and return the adapter_config.json of mlx-lm.

    Raises AdapterError for more layers than there are and for modules that no layer has.
    """
    layers = model.layers
    if train.layers > len(layers):
        raise AdapterError(f"'train.layers' is {train.layers}, and the model has {len(layers)}")
    count = train.layers or len(layers)
    model.freeze()
    if train.method == "full":
        for layer in layers[len(layers) - count:]:
            layer.unfreeze()
        if count == len(layers):
            model.model.norm.unfreeze()
            if train.embeddings:
                model.unfreeze()
        return {"fine_tune_type": "full", "num_layers": count}
    keys = _keys(layers[0], train.modules)
    parameters = {"rank": train.rank, "scale": train.alpha / train.rank, "dropout": train.dropout, "keys": keys}
    linear_to_lora_layers(model, count, parameters, use_dora=train.method == "dora")
    return {"fine_tune_type": train.method, "num_layers": count, "lora_parameters": parameters}


def _keys(layer: Module, wanted: list[str]) -> list[str]:
    linear = [name for name, module in layer.named_modules() if isinstance(module, Linear | QuantizedLinear)]
    if wanted == ["all"]:
        return sorted(linear)
    by_end = {name.rpartition(".")[2]: name for name in linear}
    found = {module: by_end.get(module) or by_end.get(_FUSED.get(module, "")) for module in wanted}
    if missing := [module for module, name in found.items() if name is None]:
        raise AdapterError(f"'train.modules' has '{missing[0]}', and a layer has {', '.join(sorted(by_end))}; \"all\" takes every one")
    return sorted({name for name in found.values() if name})


def trained(model: Module) -> dict[str, mx.array]:
    """The weights that are trained, by name, in the order of their names."""
    return dict(sorted(dict(tree_flatten(model.trainable_parameters())).items()))


def shards(weights: Mapping[str, mx.array], workers: int) -> list[list[str]]:
    """Names for each worker, about as many numbers for each: largest first to whoever has least."""
    loads, owned = [0] * workers, [list[str]() for _ in range(workers)]
    for name, weight in sorted(weights.items(), key=lambda item: (-item[1].size, item[0])):
        least = loads.index(min(loads))
        loads[least] += weight.size
        owned[least].append(name)
    return [sorted(names) for names in owned]


def save(path: Path, arrays: Mapping[str, mx.array]) -> None:
    """Write a safetensors file whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp.safetensors")
    try:
        mx.save_safetensors(str(temporary), dict(arrays))
        _complete(temporary, arrays)
        temporary.replace(path)
    except RuntimeError as error:
        raise OSError(f"{path}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file, read whole. Raises OSError, ValueError."""
    try:
        found = mx.load(str(path))
        mx.eval(found)
    except RuntimeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name}: not a file of named arrays")
    return found


def _complete(path: Path, arrays: Mapping[str, mx.array]) -> None:
    # mlx does not look whether its writes reached the disk: a full one leaves a short file without a word.
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if path.stat().st_size != 8 + header + sum(array.nbytes for array in arrays.values()):
        raise OSError(f"{path.parent}: the disk is full or the file is limited: {path.stat().st_size} bytes were written, more are needed")


def save_adapter(folder: Path, arrays: Mapping[str, mx.array], config: Mapping[str, Any]) -> None:
    """What mlx-lm's load_adapters reads. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / WEIGHTS, arrays)
    write_text(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True) + "\n")
