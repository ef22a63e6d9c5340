"""Rope scaling: how a GGUF says it and how mlx-lm reads it.

What mlx-lm would not compute is refused: a model that is trained with other positions than it is served with learns the
wrong thing.
"""

from __future__ import annotations

import numpy as np

from training.header import Array, ConvertError, Header, Json, head_dim

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_scaling(header: Header, model_type: str, *, linear: bool) -> Json:
    """The rope_scaling of config.json for a model type of mlx-lm, if any; `linear`: it takes that kind. Raises ConvertError."""
    name, factor = str(header.get("rope.scaling.type", "linear")), float(header.get("rope.scaling.factor", header.get("rope.scale_linear", 0.0)))
    if any(tensor.name.startswith("rope_factors_") for tensor in header.reader.tensors):
        return _longrope(header, model_type)
    if float(header.get("rope.scaling.attn_factor", 1.0)) != 1.0 or (name not in ("none", "linear") and factor not in (0.0, 1.0)):
        raise ConvertError(f"{header.path}: rope scaling '{name}' is not supported; known are none, linear, llama3's rope_freqs and phi3's rope_factors")
    factors = header.tensor("rope_freqs.weight")
    if factors is not None:
        return _llama3(header, model_type, factors, plain=name == "none" or factor in (0.0, 1.0))
    if name == "none" or factor in (0.0, 1.0):
        return {}
    if not linear:
        raise ConvertError(f"{header.path}: linear rope scaling by {factor} is not supported in {model_type}")
    return {"rope_scaling": {"rope_type": "linear", "factor": factor}}


def llama3_factors(factor: float, base: float, dims: int) -> Array:
    """What llama3's rope scaling divides the frequencies by. Shape (dims / 2,). As in LlamaModel of llama.cpp's conversion."""
    low, high, context = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"], LLAMA3["original_max_position_embeddings"]
    wave = 2 * np.pi * base ** (np.arange(0, dims, 2) / dims)
    smooth = np.clip((context / wave - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _llama3(header: Header, model_type: str, factors: Array, *, plain: bool) -> Json:
    """The parameters that gave rope_freqs: a GGUF keeps the tensor and not them. Raises ConvertError."""
    factor, dims = round(float(factors.max()), 4), head_dim(header)
    expected = llama3_factors(factor, float(header.get("rope.freq_base", 10_000.0)), dims)
    if model_type != "llama" or not plain or factors.shape != expected.shape or np.abs(factors - expected).max() > 1e-4 * factor:
        raise ConvertError(f"{header.path}: rope_freqs is not llama3's rope scaling by {factor} with factors 1 and 4 over 8192 positions; "
                           "no other is known")
    return {"rope_scaling": {"rope_type": "llama3", "factor": factor, **LLAMA3}} if factor > 1 else {}


def _longrope(header: Header, model_type: str) -> Json:
    """Phi-3's two tables: llama.cpp uses the short one up to the original context, and so does training. Raises ConvertError."""
    short, context = header.tensor("rope_factors_short.weight"), int(header.need("context_length"))
    original = int(header.get("rope.scaling.original_context_length", context))
    scale = float(np.sqrt(1 + np.log(context / original) / np.log(original))) if context > original else 1.0
    if model_type != "phi3" or short is None or abs(float(header.get("rope.scaling.attn_factor", 1.0)) - scale) > 1e-4:
        raise ConvertError(f"{header.path}: rope_factors are not phi3's longrope from {original} to {context} positions; no other is known")
    table = [float(one) for one in short]
    # mlx-lm computes with long_factor alone, whatever the length.
    return {"original_max_position_embeddings": original, "rope_scaling": {"type": "longrope", "short_factor": table, "long_factor": table}}
