"""Tiny GGUF models with random weights, one for each architecture that a base may have.

They say nothing sensible, and exactly the same nonsense in llama.cpp and in mlx-lm if both read them alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FEED, CONTEXT = 64, 2, 4, 2, 16, 128, 256
_PAIR = (chr(256 + ord("a")), chr(256 + ord("b")))
VOCABULARY = [*(chr(256 + number) for number in range(256)), "".join(_PAIR), *(f"<s{number}>" for number in range(15))]
BOS, EOS = 257, 258
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_FOUR_NORMS = ("gemma2", "gemma3")


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a GGUF. What is None is not written."""

    model: str = "gpt2"
    pre: str = "smollm"
    tokens: Sequence[str] = tuple(VOCABULARY)
    types: Sequence[int] = (*[1] * 257, *[3] * 15)
    merges: Sequence[str] | None = (" ".join(_PAIR),)
    scores: Sequence[float] | None = None
    bos: int | None = BOS
    eos: int | None = EOS
    add_bos: bool | None = False
    add_space_prefix: bool | None = None
    template: str | None = TEMPLATE


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    hidden: int = HIDDEN
    layers: int = LAYERS
    heads: int = HEADS
    kv_heads: int = KV_HEADS
    head: int = HEAD
    feed: int = FEED
    context: int = CONTEXT
    rope_base: float = 10_000.0
    turned: int = 0  # by rope, of a head's values; 0: all
    window: int = CONTEXT


SHAPES = {"gemma3": Shape(layers=6, rope_base=1_000_000.0)}  # every sixth of its layers sees everything


@dataclass(frozen=True)
class Extra:
    """What a file has besides: key-values as they are (an int as uint32), tensors in float32, and what it is called."""

    values: Mapping[str, int | float | str] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    name: str = ""


def write(path: Path, arch: str, *, seed: int = 0, dtype: Kind = Kind.F32, shape: Shape | None = None,
          vocabulary: Vocabulary | None = None, extra: Extra | None = None, only: str = "") -> Path:
    """Write a random model of an architecture; matrices in `dtype` (those whose name has `only` in it), the rest in float32."""
    sizes, words, more = shape or SHAPES.get(arch, Shape()), vocabulary or Vocabulary(), extra or Extra()
    writer = gguf.GGUFWriter(path, arch)
    if more.name:
        writer.add_name(more.name)
    _sizes(writer, arch, sizes)
    _words(writer, words)
    for key, value in more.values.items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)  # type: ignore[operator]
    draw = np.random.default_rng(seed)
    for name, values in [*_tensors(arch, sizes, len(words.tokens), draw), *more.tensors.items()]:
        if values.ndim == 1 or dtype == Kind.F32 or only not in name:
            writer.add_tensor(name, np.asarray(values, dtype=np.float32))
        elif dtype in BLOCKS:
            writer.add_tensor(name, random_blocks(draw, values.shape, dtype), raw_dtype=dtype)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sizes(writer: gguf.GGUFWriter, arch: str, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(shape.rope_base)
    if arch != "phi3":
        writer.add_key_length(shape.head)
        writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.turned or shape.head)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if arch in _FOUR_NORMS or arch == "phi3":
        writer.add_sliding_window(shape.window)


def _words(writer: gguf.GGUFWriter, words: Vocabulary) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(list(words.tokens))
    writer.add_token_types(list(words.types))
    adders: list[tuple[Any, Any]] = [
        (words.merges, writer.add_token_merges), (words.scores, writer.add_token_scores), (words.bos, writer.add_bos_token_id),
        (words.eos, writer.add_eos_token_id), (words.add_bos, writer.add_add_bos_token),
        (words.add_space_prefix, writer.add_add_space_prefix), (words.template, writer.add_chat_template)]
    for value, add in adders:
        if value is not None:
            add(value)


# A block of the K-quants that gguf reads and cannot write: bytes, where its scales stand (float16), and how the minimum's
# scale follows from the first so that the values lie around zero.
BLOCKS = {Kind.Q2_K: (80, 1.5), Kind.Q3_K: (108, 0.0), Kind.Q4_K: (0, 7.5), Kind.Q5_K: (0, 15.5), Kind.Q6_K: (208, 0.0),
          Kind.IQ4_NL: (0, 0.0), Kind.IQ4_XS: (0, 0.0)}


def random_blocks(draw: np.random.Generator, shape: tuple[int, ...], kind: Kind) -> NDArray[np.uint8]:
    """Random bits with scales that make weights of about 1 / sqrt(columns). Shape (rows, bytes of a row)."""
    size, length = gguf.GGML_QUANT_SIZES[kind]
    place, minimum = BLOCKS[kind]
    blocks = draw.integers(0, 256, (int(np.prod(shape)) // size, length), dtype=np.uint8)

    def scaled(scale: NDArray[np.float64]) -> NDArray[np.uint8]:
        for offset, factor in ((place, 1.0), (place + 2, minimum)):
            if factor:
                blocks[:, offset:offset + 2] = (scale * factor).astype(np.float16)[:, None].view(np.uint8)
        return blocks

    spread = draw.uniform(0.5, 1.5, len(blocks))
    deviation = float(np.std(gguf.quants.dequantize(scaled(spread / 64), kind)))
    return scaled(spread / 64 / deviation / np.sqrt(shape[-1])).reshape(shape[0], -1)


def _tensors(arch: str, shape: Shape, vocabulary: int, draw: np.random.Generator) -> list[tuple[str, NDArray[np.float32]]]:
    hidden, heads, kv_heads, head, feed = shape.hidden, shape.heads, shape.kv_heads, shape.head, shape.feed

    def matrix(*shape: int) -> NDArray[np.float32]:
        return np.asarray(draw.standard_normal(shape) / np.sqrt(shape[-1]), dtype=np.float32)

    def norm(size: int = hidden) -> NDArray[np.float32]:
        return np.asarray(1 + 0.2 * draw.standard_normal(size), dtype=np.float32)

    found: list[tuple[str, Any]] = [("token_embd.weight", matrix(vocabulary, hidden)), ("output_norm.weight", norm())]
    if arch in ("llama", "phi3"):
        found.append(("output.weight", matrix(vocabulary, hidden)))
    for block in range(shape.layers):
        parts: list[tuple[str, Any]] = [("attn_norm.weight", norm()), ("ffn_norm.weight", norm()),
                                        ("attn_output.weight", matrix(hidden, heads * head)), ("ffn_down.weight", matrix(hidden, feed))]
        if arch == "phi3":
            parts += [("attn_qkv.weight", matrix((heads + 2 * kv_heads) * head, hidden)), ("ffn_up.weight", matrix(2 * feed, hidden))]
        else:
            parts += [("attn_q.weight", matrix(heads * head, hidden)), ("attn_k.weight", matrix(kv_heads * head, hidden)),
                      ("attn_v.weight", matrix(kv_heads * head, hidden)), ("ffn_gate.weight", matrix(feed, hidden)),
                      ("ffn_up.weight", matrix(feed, hidden))]
        if arch == "qwen2":
            parts += [(f"attn_{one}.bias", 0.1 * matrix(1, size * head)[0]) for one, size in (("q", heads), ("k", kv_heads), ("v", kv_heads))]
        if arch in ("qwen3", "gemma3"):
            parts += [("attn_q_norm.weight", norm(head)), ("attn_k_norm.weight", norm(head))]
        if arch in _FOUR_NORMS:
            parts += [("post_attention_norm.weight", norm()), ("post_ffw_norm.weight", norm())]
        found += [(f"blk.{block}.{name}", values) for name, values in parts]
    return found
