"""A GGUF file as a model directory of mlx-lm: config.json, model.safetensors, tokenizer.json. No torch, one tensor in memory.

What llama.cpp's converters did to the weights of each architecture is taken back: gemma's norms are stored as w + 1.
The rows of llama's q and k stay as they are stored, and `rope_traditional` says so (facts/training.md 2.3).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from harness.files import write_text
from training.header import Array, ConvertError, Header, Json, head_dim
from training.rope import rope_scaling

# Over so many parameters weights are written in bfloat16: float32 would not fit the memory of a laptop.
HALF_FROM = 1_000_000_000


def _names(norms: dict[str, str]) -> dict[str, str]:
    """GGUF names of a block's tensors -> mlx-lm's; `norms` adds what differs."""
    return {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
            "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", **norms}


_TWO_NORMS = {"ffn_norm": "post_attention_layernorm"}
_FOUR_NORMS = {"ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
               "post_ffw_norm": "post_feedforward_layernorm"}


@dataclass(frozen=True)
class Architecture:
    """How one architecture of llama.cpp is one of mlx-lm."""

    model_type: str
    blocks: dict[str, str]
    config: Callable[[Header], Json]
    norm_plus_one: bool = False
    biases: tuple[str, ...] = ()
    free_head: bool = True  # the size of a head need not be hidden size / heads
    linear_rope: bool = True  # mlx-lm's model takes positions divided by a factor


def _common(header: Header) -> Json:
    heads = _heads(header, "attention.head_count", None)
    eos = [header.find(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return {
        "hidden_size": int(header.need("embedding_length")), "num_hidden_layers": int(header.need("block_count")),
        "intermediate_size": int(header.need("feed_forward_length")), "num_attention_heads": heads,
        "num_key_value_heads": _heads(header, "attention.head_count_kv", heads),
        "rms_norm_eps": float(header.need("attention.layer_norm_rms_epsilon")),
        "vocab_size": len(header.find("tokenizer.ggml.tokens") or ()), "rope_theta": float(header.get("rope.freq_base", 10_000.0)),
        "max_position_embeddings": int(header.need("context_length")),
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in header.reader.tensors),
        "bos_token_id": header.find("tokenizer.ggml.bos_token_id"), "eos_token_id": sorted({int(one) for one in eos if one is not None})}


def _heads(header: Header, key: str, default: int | None) -> int:
    found = header.need(key) if default is None else header.get(key, default)
    if not isinstance(found, int):
        raise ConvertError(f"{header.path}: {header.name}.{key} differs from layer to layer, which is not supported")
    return found


def _check_heads(header: Header, kind: Architecture) -> None:
    """What mlx-lm takes for granted of the heads holds. Raises ConvertError."""
    head, even = head_dim(header), int(header.need("embedding_length")) // int(header.need("attention.head_count"))
    if header.get("attention.value_length", head) != head:
        raise ConvertError(f"{header.path}: keys of {head} and values of {header.get('attention.value_length', head)} differ, which is not supported")
    if head != even and not kind.free_head:
        raise ConvertError(f"{header.path}: heads of {head} where hidden size / heads is {even}; mlx-lm's {kind.model_type} has no other")
    turned = int(header.get("rope.dimension_count", head))
    if turned != head and kind.model_type != "phi3":
        raise ConvertError(f"{header.path}: rope turns {turned} of the {head} values of a head; {kind.model_type} turns all of them")


def _llama(header: Header) -> Json:
    return {"head_dim": head_dim(header), "rope_traditional": True}


def _head(header: Header) -> Json:
    return {"head_dim": head_dim(header)}


def _query_scale(header: Header, large: int) -> float:
    """Gemma's largest model divides by hidden size / heads instead of the size of a head; llama.cpp knows it by its layers."""
    if int(header.need("block_count")) == large:
        return float(int(header.need("embedding_length")) // int(header.need("attention.head_count")))
    return float(head_dim(header))


def _gemma2(header: Header) -> Json:
    # mlx-lm's gemma2 has no sliding window: the same up to 4096 tokens, and no row is longer.
    return {"head_dim": head_dim(header), "query_pre_attn_scalar": _query_scale(header, 46),
            "attn_logit_softcapping": float(header.get("attn_logit_softcapping", 50.0)),
            "final_logit_softcapping": float(header.get("final_logit_softcapping", 30.0))}


def _gemma3(header: Header) -> Json:
    window, pattern = header.get("attention.sliding_window", 0), header.get("attention.sliding_window_pattern", 6)
    if not window or not isinstance(pattern, int) or header.get("final_logit_softcapping", 0.0):
        raise ConvertError(f"{header.path}: a gemma3 without its pattern of sliding windows, or with capped logits, is not supported")
    return {"head_dim": head_dim(header), "query_pre_attn_scalar": _query_scale(header, 62), "sliding_window": int(window),
            "sliding_window_pattern": pattern, "rope_local_base_freq": float(header.get("rope.freq_base_swa", 10_000.0))}


def _phi3(header: Header) -> Json:
    head = head_dim(header)
    turned = int(header.get("rope.dimension_count", head))
    # mlx-lm takes int(head * share): a half more, so that it never rounds to one less.
    return {} if turned == head else {"partial_rotary_factor": (turned + 0.5) / head}


def _none(header: Header) -> Json:
    return {}


ARCHITECTURES = {
    "llama": Architecture("llama", _names(_TWO_NORMS), _llama),
    "qwen2": Architecture("qwen2", _names(_TWO_NORMS), _none, biases=("attn_q", "attn_k", "attn_v"), free_head=False),
    "qwen3": Architecture("qwen3", _names(_TWO_NORMS), _head),
    "gemma": Architecture("gemma", _names(_TWO_NORMS), _head, norm_plus_one=True, linear_rope=False),
    "gemma2": Architecture("gemma2", _names(_FOUR_NORMS), _gemma2, norm_plus_one=True, linear_rope=False),
    "gemma3": Architecture("gemma3_text", _names(_FOUR_NORMS), _gemma3, norm_plus_one=True),
    "phi3": Architecture("phi3", _names({**_TWO_NORMS, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}), _phi3,
                         free_head=False, linear_rope=False),
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
# Made from the configuration by who runs the model; no weights to train.
DERIVED = re.compile(r"rope_factors_(?:long|short)\.weight|rope_freqs\.weight")


def architecture(header: Header) -> Architecture:
    """How to read this file. Raises ConvertError."""
    if header.name not in ARCHITECTURES:
        raise ConvertError(f"{header.path}: architecture '{header.name}' is not supported; known are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[header.name]


def mlx_name(kind: Architecture, name: str) -> str:
    """mlx-lm's name of a tensor of a GGUF. Raises ConvertError."""
    stem, _, end = name.rpartition(".")
    if stem in OUTSIDE and end == "weight" and (stem != "output" or kind.model_type not in ("gemma", "gemma2")):
        return f"{OUTSIDE[stem]}.{end}"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if not found or found[2] not in kind.blocks or not (end == "weight" or (end == "bias" and found[2] in kind.biases)):
        raise ConvertError(f"tensor '{name}' has no place in {kind.model_type}")
    return f"model.layers.{found[1]}.{kind.blocks[found[2]]}.{end}"


def weights(header: Header) -> Iterator[tuple[str, Array]]:
    """Every tensor by mlx-lm's name, dequantised to float32, one at a time. Raises ConvertError."""
    kind = architecture(header)
    for tensor in header.reader.tensors:
        if DERIVED.fullmatch(tensor.name):
            continue
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise ConvertError(f"{header.path}: tensor '{tensor.name}' of type {tensor.tensor_type.name}: {error}") from None
        shaped = np.asarray(values, dtype=np.float32).reshape([int(size) for size in reversed(tensor.shape)])
        if kind.norm_plus_one and "norm" in tensor.name:
            shaped = shaped - 1
        yield mlx_name(kind, tensor.name), shaped


def convert(source: Path, out: Path) -> Json:
    """Write the model directory and return its config. Raises ConvertError, OSError.

    A file is written beside its place and then put there, so that no half of one is ever read.
    """
    header = Header(source)
    kind = architecture(header)
    config = {"model_type": kind.model_type, **_common(header), **kind.config(header), **rope_scaling(header, kind.model_type, linear=kind.linear_rope)}
    _check_heads(header, kind)
    out.mkdir(parents=True, exist_ok=True)
    _safetensors(header, kind, out / "model.safetensors")
    write_text(out / "config.json", json.dumps(config, indent=1, sort_keys=True))
    return config


def _safetensors(header: Header, kind: Architecture, path: Path) -> None:
    """Stream the weights: the header from the shapes first, then the bytes in the same order."""
    tensors = [tensor for tensor in header.reader.tensors if not DERIVED.fullmatch(tensor.name)]
    half = sum(int(np.prod(tensor.shape)) for tensor in tensors) > HALF_FROM
    size, offset, index = 2 if half else 4, 0, {}
    for tensor in tensors:
        shape = [int(one) for one in reversed(tensor.shape)]
        length = int(np.prod(shape)) * size
        index[mlx_name(kind, tensor.name)] = {"dtype": "BF16" if half else "F32", "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    head = json.dumps({"__metadata__": {"format": "mlx"}, **index}).encode()
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for _, values in weights(header):
                data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16) if half else values
                file.write(np.ascontiguousarray(data).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
