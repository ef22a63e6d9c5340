"""Tiny GGUF models with random weights, one for each architecture that a base may have.

They say nothing sensible, and exactly the same nonsense in llama.cpp and in mlx-lm if both read them alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FEED, CONTEXT = 64, 2, 4, 2, 16, 128, 256
_PAIR = (chr(256 + ord("a")), chr(256 + ord("b")))
VOCABULARY = [*(chr(256 + number) for number in range(256)), "".join(_PAIR), *(f"<s{number}>" for number in range(15))]
BOS, EOS = 257, 258
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_FOUR_NORMS = ("gemma2", "gemma3")


def write(path: Path, arch: str, *, seed: int = 0, dtype: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32) -> Path:
    """Write a random model of an architecture; matrices in `dtype`, norms in float32."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    layers = 6 if arch == "gemma3" else LAYERS  # every sixth of its layers sees everything
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0 if arch == "gemma3" else 10_000.0)
    if arch != "phi3":
        writer.add_key_length(HEAD)
        writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if arch in _FOUR_NORMS or arch == "phi3":
        writer.add_sliding_window(CONTEXT)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([1] * 257 + [3] * 15)
    writer.add_token_merges([" ".join(_PAIR)])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, values in _tensors(arch, layers, np.random.default_rng(seed)):
        if values.ndim == 1 or dtype == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(arch: str, layers: int, draw: np.random.Generator) -> list[tuple[str, NDArray[np.float32]]]:
    def matrix(*shape: int) -> NDArray[np.float32]:
        return np.asarray(draw.standard_normal(shape) / np.sqrt(shape[-1]), dtype=np.float32)

    def norm(size: int = HIDDEN) -> NDArray[np.float32]:
        return np.asarray(1 + 0.2 * draw.standard_normal(size), dtype=np.float32)

    found: list[tuple[str, Any]] = [("token_embd.weight", matrix(len(VOCABULARY), HIDDEN)), ("output_norm.weight", norm())]
    if arch in ("llama", "phi3"):
        found.append(("output.weight", matrix(len(VOCABULARY), HIDDEN)))
    for block in range(layers):
        parts: list[tuple[str, Any]] = [("attn_norm.weight", norm()), ("ffn_norm.weight", norm()),
                                        ("attn_output.weight", matrix(HIDDEN, HEADS * HEAD)), ("ffn_down.weight", matrix(HIDDEN, FEED))]
        if arch == "phi3":
            parts += [("attn_qkv.weight", matrix((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN)), ("ffn_up.weight", matrix(2 * FEED, HIDDEN))]
        else:
            parts += [("attn_q.weight", matrix(HEADS * HEAD, HIDDEN)), ("attn_k.weight", matrix(KV_HEADS * HEAD, HIDDEN)),
                      ("attn_v.weight", matrix(KV_HEADS * HEAD, HIDDEN)), ("ffn_gate.weight", matrix(FEED, HIDDEN)),
                      ("ffn_up.weight", matrix(FEED, HIDDEN))]
        if arch == "qwen2":
            parts += [(f"attn_{one}.bias", 0.1 * matrix(1, size * HEAD)[0]) for one, size in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS))]
        if arch in ("qwen3", "gemma3"):
            parts += [("attn_q_norm.weight", norm(HEAD)), ("attn_k_norm.weight", norm(HEAD))]
        if arch in _FOUR_NORMS:
            parts += [("post_attention_norm.weight", norm()), ("post_ffw_norm.weight", norm())]
        found += [(f"blk.{block}.{name}", values) for name, values in parts]
    return found
