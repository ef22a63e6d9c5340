"""The base of a candidate: which file it is, and that file as a model directory of mlx-lm.

    smollm2                 the embedded default, fetched at the first call
    path/to/model.gguf      a GGUF file
    ollama:gemma:2b         the blob that Ollama's manifest names; nothing is asked of a server
    path/to/directory       an MLX or Hugging Face directory, used as it is
    hf:owner/name           downloaded from the Hugging Face hub, which is asked only for this
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.fetch import NAME, fetch
from harness.files import read_json, sha256, write_text

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.tokenizer import Chat
    from training.vocabulary import Vocabulary

MODEL_LAYER = "application/vnd.ollama.image.model"
REGISTRY = "registry.ollama.ai"
# Of the converter: another number makes directories again that an older one left.
VERSION = 2


class BaseError(ValueError):
    """A base that is not there, or is none: one line that says what was looked for, where, and what would do."""


@dataclass(frozen=True)
class Base:
    """A base that is ready to train: its directory, and its GGUF where it has one (export copies from it)."""

    name: str
    directory: Path
    gguf: Path | None
    sha256: str


def base_gguf(base: str) -> Path:
    """The GGUF file of a base. Raises BaseError for one that has none, FetchFailed, OSError."""
    if base == NAME:
        return fetch() / "model.gguf"
    if base.startswith("ollama:"):
        return ollama_blob(base.removeprefix("ollama:"))
    path = Path(base)
    if not path.is_file():
        raise BaseError(f"base '{base}': no such file; '{NAME}', the path of a GGUF file, ollama:NAME, a model directory or hf:ID is needed")
    return path


def base_of(recipe: Recipe, runs: Path) -> Base:
    """What a recipe trains: its base, with the layers and the vocabulary that it asks for. Raises as `prepare`, and DataError."""
    spelling = None
    if recipe.new_tokens or not recipe.unused_tokens:
        from training.entries import load_entries
        from training.vocabulary import vocabulary

        spelling = vocabulary(recipe, load_entries())
    return prepare(recipe.base, runs, recipe.keep_layers, spelling)


def prepare(base: str, runs: Path, keep_layers: Sequence[int] = (), spelling: Vocabulary | None = None) -> Base:
    """The base as a directory of mlx-lm, made on the first call under `runs`/base; of these layers where any are named, with this vocabulary.

    Then `gguf` is the changed file, and `sha256` still that of the base. Raises BaseError, ConvertError, ExportError, OSError.
    """
    if (keep_layers or spelling) and (base.startswith("hf:") or Path(base).is_dir()):
        raise BaseError(f"base '{base}': {'keep_layers' if keep_layers else 'new_tokens or unused_tokens'} needs a base that is a GGUF file")
    if base.startswith("hf:"):
        return Base(base, _downloaded(base.removeprefix("hf:")), None, "")
    if Path(base).is_dir():
        _check_directory(Path(base))
        return Base(base, Path(base), None, "")
    source = base_gguf(base)
    digest = sha256(source)
    folder = runs / "base" / digest[:16]
    made = source
    if keep_layers:
        from training.prune import spelt

        folder = folder.with_name(f"{folder.name}-{spelt(keep_layers)}")
    if spelling:
        folder = folder.with_name(f"{folder.name}-{spelling.name}")
    if keep_layers or spelling:
        made = folder / "base.gguf"
    if read_json(folder / "manifest.json").get("version") != VERSION or not made.is_file():
        from training.convert import convert
        from training.tokenizer import read_chat

        if made != source:
            folder.mkdir(parents=True, exist_ok=True)
            _changed(source, keep_layers, spelling, made)
        found = read_chat(made)
        config = convert(made, folder)
        write_text(folder / "tokenizer.json", found.tokenizer.to_str())
        write_text(folder / "tokenizer_config.json", json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": found.template, "bos_token": found.bos, "eos_token": found.eos,
             "add_bos_token": found.add_bos, "add_prefix_space": found.space_prefix},
            ensure_ascii=False, indent=1))
        # Written last: a directory with it is complete.
        write_text(folder / "manifest.json", json.dumps(
            {"version": VERSION, "source": source.name, "sha256": digest, "model_type": config["model_type"]}, indent=1))
    return Base(base, folder, made, digest)


def _changed(source: Path, keep_layers: Sequence[int], spelling: Vocabulary | None, out: Path) -> None:
    from training.prune import prune

    if spelling is None:
        prune(source, keep_layers, out)
        return
    from training.vocabulary import respell

    pruned = out.with_name("pruned.gguf")
    try:
        if keep_layers:
            prune(source, keep_layers, pruned)
        respell(pruned if keep_layers else source, spelling, out)
    finally:
        pruned.unlink(missing_ok=True)


def ollama_blob(name: str) -> Path:
    """The model file of an Ollama model, found through its manifest on this disk. Raises BaseError."""
    if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+){0,2}(?::[\w.-]+)?", name) or ".." in name:
        raise BaseError(f"base 'ollama:{name}': not a model name; one such as ollama:gemma:2b is needed")
    model, _, tag = name.partition(":")
    parts = model.split("/")
    home = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    path = home / "manifests" / Path(*((REGISTRY, "library") if len(parts) == 1 else (REGISTRY,) if len(parts) == 2 else ()), *parts, tag or "latest")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        digest = next(layer["digest"] for layer in manifest["layers"] if layer["mediaType"] == MODEL_LAYER)
    except FileNotFoundError:
        raise BaseError(f"base 'ollama:{name}': no manifest {path}; 'ollama pull {name}' brings it, OLLAMA_MODELS names another folder") from None
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise BaseError(f"base 'ollama:{name}': {path} names no model: {type(error).__name__}: {error}") from None
    blob = home / "blobs" / str(digest).replace(":", "-")
    if not re.fullmatch(r"sha256-[0-9a-f]{64}", blob.name) or not blob.is_file():
        raise BaseError(f"base 'ollama:{name}': the manifest names {digest}, and {home / 'blobs'} does not have it; pull it again")
    return blob


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "model*.safetensors", "tokenizer.model", "*.jinja"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BaseError(f"base 'hf:{name}': {str(error).splitlines()[0]}") from None
    _check_directory(folder)
    return folder


def _check_directory(folder: Path) -> None:
    """A directory has a config.json of a known rope and weights that are no pickle. Raises BaseError."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"base '{folder}': no model directory: config.json: {error}") from None
    from training.convert import ARCHITECTURES

    known = [kind.model_type for kind in ARCHITECTURES.values()]
    if config.get("model_type") not in known:
        raise BaseError(f"base '{folder}': model_type '{config.get('model_type')}' is not supported; known are {', '.join(known)}")
    if "quantization" in config or "quantization_config" in config:
        raise BaseError(f"base '{folder}': its weights are quantised; the model before quantisation is needed, or its GGUF")
    if not list(folder.glob("model*.safetensors")):
        raise BaseError(f"base '{folder}': no model*.safetensors; other formats of weights are not read")
    if "rope_theta" not in config and "rope_theta" in (config.get("rope_parameters") or {}) and config.get("model_type") != "qwen3":
        raise BaseError(f"base '{folder}': rope_theta stands in rope_parameters, where mlx-lm does not look for it; "
                        "copy it to the top level of config.json")


def chat(folder: Path) -> Chat:
    """Tokenizer and chat template of a model directory. Raises BaseError."""
    from tokenizers import Tokenizer

    from training.tokenizer import Chat

    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises Exception itself
        raise BaseError(f"base '{folder}': no tokenizer.json with a tokenizer_config.json: {error}") from None
    beside = folder / "chat_template.jinja"
    template = beside.read_text(encoding="utf-8") if beside.is_file() else config.get("chat_template")
    if not isinstance(template, str):
        raise BaseError(f"base '{folder}': no chat template; a chat model is needed")
    bos, eos = (one.get("content", "") if isinstance(one, dict) else one or "" for one in (config.get("bos_token"), config.get("eos_token")))
    return Chat(tokenizer, template, bos, eos, add_bos=bool(bos and config.get("add_bos_token")), space_prefix=bool(config.get("add_prefix_space")))
