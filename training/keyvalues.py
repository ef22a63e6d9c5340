"""A model directory of mlx-lm or Hugging Face as the parts of a GGUF: what llama.cpp's converters write, for the known kinds.

A base that came as a GGUF never passes through here: its key-values are copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as ValueType
from gguf.constants import GGML_QUANT_VERSION, TokenType
from tokenizers import Tokenizer

from training.base import BaseError, chat
from training.convert import ARCHITECTURES, OUTSIDE, Architecture
from training.header import Array, Json
from training.parts import KeyValue, Model, Tensor
from training.rope import LLAMA3, llama3_factors
from training.tokenizer import WORDS, pre_tokenizer

# Every kind of word that the expressions cut in different ways. Two pre-tokenizers that agree on it are the same here.
PROBE = ("Bugün 3 kedi gördüm, I've SEEN 12345 of them!!! they'll\n\n  \t görüşürüz   kanka\r\n x=1;y_2 'tis 🙂🙂 naïve é\u0301 ''S 'lL\n"
         "   indented 1.5e10 a.b.c@d  \u00a0end 汉字かな \u0939\u093f\u0928\u094d\u0926\u0940 100%  ")
_ROLES = ("bos", "eos", "unk", "pad")


def read_directory(folder: Path) -> Model:
    """The parts of a model directory. Raises BaseError for what no GGUF says, or what is not known to say it."""
    config: Json = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    arch = next((name for name, kind in ARCHITECTURES.items() if kind.model_type == config.get("model_type")), "")
    if not arch:
        raise BaseError(f"base '{folder}': model_type '{config.get('model_type')}' is not known; known are "
                        f"{', '.join(kind.model_type for kind in ARCHITECTURES.values())}")
    tensors = [*_weights(folder, arch, config), *_derived(folder, config)]
    rows = next((tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight"), 0)
    return Model(arch, [*_sizes(folder, arch, config), *_words(folder, config, rows)], tensors)


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key, value, ValueType.STRING)


def _number(key: str, value: int) -> KeyValue:
    return KeyValue(key, int(value), ValueType.UINT32)


def _real(key: str, value: float) -> KeyValue:
    return KeyValue(key, float(value), ValueType.FLOAT32)


def _sizes(folder: Path, arch: str, config: Json) -> Iterator[KeyValue]:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head = int(config.get("head_dim") or hidden // heads)
    yield _text("general.type", "model")
    yield _number("general.quantization_version", GGML_QUANT_VERSION)
    for key, name in (("block_count", "num_hidden_layers"), ("context_length", "max_position_embeddings"), ("embedding_length", "hidden_size"),
                      ("feed_forward_length", "intermediate_size"), ("attention.head_count", "num_attention_heads"), ("vocab_size", "vocab_size")):
        yield _number(f"{arch}.{key}", config[name])
    yield _number(f"{arch}.attention.head_count_kv", config.get("num_key_value_heads") or heads)
    yield _real(f"{arch}.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    yield _real(f"{arch}.rope.freq_base", config.get("rope_theta") or (1e6 if arch == "gemma3" else 1e4))
    if arch == "phi3":
        yield _number("phi3.rope.dimension_count", int(head * float(config.get("partial_rotary_factor") or 1.0)))
    else:
        yield _number(f"{arch}.attention.key_length", head)
        yield _number(f"{arch}.attention.value_length", head)
        yield _number(f"{arch}.rope.dimension_count", head)
    if arch == "gemma2":
        yield _real("gemma2.attn_logit_softcapping", config.get("attn_logit_softcapping") or 50.0)
        yield _real("gemma2.final_logit_softcapping", config.get("final_logit_softcapping") or 30.0)
    if arch in ("gemma2", "gemma3", "phi3"):
        default = 4096 if arch == "gemma2" else 512 if arch == "gemma3" else int(config["max_position_embeddings"])
        yield _number(f"{arch}.attention.sliding_window", config.get("sliding_window") or default)
    if arch == "gemma3":
        _check_pattern(folder, config)
    if arch in ("gemma2", "gemma3"):
        _check_scale(folder, arch, config, head)
    yield from _scaling(folder, arch, config)


def _check_pattern(folder: Path, config: Json) -> None:
    # llama.cpp has this one built in; a file may say another, and mlx-lm would read it.
    if int(config.get("sliding_window_pattern", 6)) != 6 or float(config.get("rope_local_base_freq", 10_000.0)) != 10_000.0:
        raise BaseError(f"base '{folder}': a gemma3 with sliding_window_pattern {config.get('sliding_window_pattern')} and rope_local_base_freq "
                        f"{config.get('rope_local_base_freq')}; llama.cpp has 6 and 10000 built in")


def _check_scale(folder: Path, arch: str, config: Json, head: int) -> None:
    large = int(config["num_hidden_layers"]) == {"gemma2": 46, "gemma3": 62}[arch]
    due = int(config["hidden_size"]) // int(config["num_attention_heads"]) if large else head
    if float(config.get("query_pre_attn_scalar", due)) != due:
        raise BaseError(f"base '{folder}': query_pre_attn_scalar {config['query_pre_attn_scalar']}; llama.cpp divides by {due} there")


def _scaling(folder: Path, arch: str, config: Json) -> Iterator[KeyValue]:
    scaling = config.get("rope_scaling") or {}
    name = scaling.get("rope_type") or scaling.get("type") or "default"
    if name == "linear" and ARCHITECTURES[arch].linear_rope:
        yield _text(f"{arch}.rope.scaling.type", "linear")
        yield _real(f"{arch}.rope.scaling.factor", scaling["factor"])
    elif name not in ("default", "linear") and not (name == "llama3" and arch == "llama"):
        raise BaseError(f"base '{folder}': rope scaling '{name}' of {arch} cannot be exported from a directory; its GGUF as the base can")


def _derived(folder: Path, config: Json) -> Iterator[Tensor]:
    """llama3's rope scaling is a tensor in a GGUF."""
    scaling = config.get("rope_scaling") or {}
    if (scaling.get("rope_type") or scaling.get("type")) != "llama3":
        return
    if any(float(scaling.get(key, value)) != value for key, value in LLAMA3.items()):
        raise BaseError(f"base '{folder}': llama3's rope scaling with {scaling}; known is {LLAMA3}")
    head = int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))
    factors = llama3_factors(float(scaling["factor"]), float(config.get("rope_theta") or 1e4), head)
    yield Tensor("rope_freqs.weight", "", factors.shape, Kind.F32, None, lambda: factors, lambda values: values)


def _weights(folder: Path, arch: str, config: Json) -> Iterator[Tensor]:
    kind, tied = ARCHITECTURES[arch], bool(config.get("tie_word_embeddings", arch.startswith("gemma")))
    for path in sorted(folder.glob("model*.safetensors")):
        for name, shape in _shapes(path).items():
            if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
                continue
            gguf_name = _gguf_name(folder, kind, name)
            yield Tensor(gguf_name, name, shape, Kind.F32, None, _reader(path, name), _stored(kind, config, gguf_name))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of every array in a safetensors file, by its name."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(int(size) for size in head[name]["shape"]) for name in sorted(head) if name != "__metadata__"}


def _reader(path: Path, name: str) -> Callable[[], Array]:
    import mlx.core as mx

    def read() -> Array:
        # Lazily: this array comes from the disk, and is let go.
        loaded: Any = mx.load(str(path), stream=mx.cpu)
        return np.array(loaded[name].astype(mx.float32, stream=mx.cpu))
    return read


def _gguf_name(folder: Path, kind: Architecture, name: str) -> str:
    """mlx-lm's name of a weight -> llama.cpp's. Raises BaseError."""
    stem, _, end = name.rpartition(".")
    for gguf_name, mlx_stem in OUTSIDE.items():
        if stem == mlx_stem:
            return f"{gguf_name}.{end}"
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    block = next((key for key, value in kind.blocks.items() if found and value == found[2]), None)
    if found is None or block is None or not (end == "weight" or (end == "bias" and block in kind.biases)):
        raise BaseError(f"base '{folder}': weight '{name}' has no place in a GGUF of {kind.model_type}")
    return f"blk.{found[1]}.{block}.{end}"


def _stored(kind: Architecture, config: Json, name: str) -> Callable[[Array], Array]:
    if kind.norm_plus_one and "norm" in name:
        return lambda values: values + np.float32(1)
    block = name.split(".")[2] if name.startswith("blk.") else ""
    if kind.model_type == "llama" and block in ("attn_q", "attn_k") and not config.get("rope_traditional"):
        heads = int(config["num_attention_heads"])
        turned = heads if block == "attn_q" else int(config.get("num_key_value_heads") or heads)
        return lambda values: permuted(values, turned)
    return lambda values: values


def permuted(values: Array, heads: int) -> Array:
    """Rows of llama's q or k as llama.cpp has them: each head's two halves interleaved. Shape (heads * size, ...)."""
    size = values.shape[0] // heads
    return values.reshape(heads, 2, size // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


@dataclass(frozen=True)
class _Vocabulary:
    tokens: list[str]
    types: list[int]
    merges: list[str]


def _words(folder: Path, config: Json, rows: int) -> Iterator[KeyValue]:
    """The tokenizer. Raises BaseError for a pre-tokenizer that is not in the table: a guess would cut other words."""
    talk = chat(folder)
    parsed: Json = json.loads(talk.tokenizer.to_str())
    model = parsed["model"]
    if model.get("type") != "BPE":
        raise BaseError(f"base '{folder}': a tokenizer of type {model.get('type')}; BPE is known, and SentencePiece's as BPE")
    words = _vocabulary(parsed, max(rows, int(config.get("vocab_size", 0))))
    pieces = bool(model.get("byte_fallback"))
    yield _text("tokenizer.ggml.model", "llama" if pieces else "gpt2")
    yield _text("tokenizer.ggml.pre", "default" if pieces else _pre(folder, talk.tokenizer))
    yield KeyValue("tokenizer.ggml.tokens", words.tokens, ValueType.ARRAY, ValueType.STRING)
    yield KeyValue("tokenizer.ggml.token_type", words.types, ValueType.ARRAY, ValueType.INT32)
    if pieces:
        yield KeyValue("tokenizer.ggml.scores", _scores(words), ValueType.ARRAY, ValueType.FLOAT32)
        yield KeyValue("tokenizer.ggml.add_space_prefix", talk.space_prefix, ValueType.BOOL)
    else:
        yield KeyValue("tokenizer.ggml.merges", words.merges, ValueType.ARRAY, ValueType.STRING)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for role in _ROLES:
        token = settings.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token in (known := {text: number for number, text in enumerate(words.tokens)}):
            yield _number(f"tokenizer.ggml.{'unknown' if role == 'unk' else 'padding' if role == 'pad' else role}_token_id", known[token])
    yield KeyValue("tokenizer.ggml.add_bos_token", talk.add_bos, ValueType.BOOL)
    yield _text("tokenizer.chat_template", talk.template)


def _vocabulary(parsed: Json, size: int) -> _Vocabulary:
    by_id = {number: token for token, number in parsed["model"]["vocab"].items()}
    added = {one["id"]: one for one in parsed.get("added_tokens", ())}
    by_id |= {number: one["content"] for number, one in added.items()}
    unknown = parsed["model"].get("unk_token")
    tokens, types = [], []
    for number in range(max(size, max(by_id) + 1)):
        token = by_id.get(number, f"[PAD{number}]")
        tokens.append(token)
        types.append(int(
            TokenType.UNUSED if number not in by_id else TokenType.UNKNOWN if token == unknown
            else TokenType.CONTROL if number in added and (added[number]["special"] or re.fullmatch(r"<\|.*\|>", token))
            else TokenType.USER_DEFINED if number in added else TokenType.BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", token) else TokenType.NORMAL))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in parsed["model"].get("merges", ())]
    return _Vocabulary(tokens, types, merges)


def _scores(words: _Vocabulary) -> list[float]:
    """By the rank of its merge, the first is the best: llama.cpp merges the highest score first."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(words.merges):
        rank.setdefault(merge.replace(" ", "", 1), number)
    return [-float(rank.get(token, len(words.merges) if kind == TokenType.NORMAL else 0)) for token, kind in zip(words.tokens, words.types, strict=True)]


def _pre(folder: Path, tokenizer: Tokenizer) -> str:
    """The name that llama.cpp has for how this tokenizer cuts words."""
    own, whole = tokenizer.pre_tokenizer, bool(getattr(tokenizer.model, "ignore_merges", False))
    cut = own.pre_tokenize_str(PROBE) if own else None
    name = next((name for name, words in WORDS.items() if words.whole == whole and pre_tokenizer(words).pre_tokenize_str(PROBE) == cut), None)
    # llama.cpp leaves letters as they are; so does NFC with what people type.
    if name is None or (tokenizer.normalizer is not None and "NFC" not in str(tokenizer.normalizer)):
        raise BaseError(f"base '{folder}': its pre-tokenizer is none of {', '.join(WORDS)}; a GGUF of this model as the base has it already")
    return name
