"""The embedded engine: llama.cpp in this process, for machines without Ollama.

A model is a folder models/<name>/ with model.gguf and, optionally, an Ollama Modelfile (its SYSTEM and
PARAMETER lines count; the chat template is the GGUF's own). card.json caches what identifies it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.engines import (
    Card,
    Loaded,
    Message,
    Options,
    Reply,
    RequestFailed,
    Stream,
    Timing,
    UnknownModel,
    modelfile,
)
from harness.files import sha256, slug, write_text

MODELS = Path(__file__).resolve().parent.parent.parent / "models"
SLOTS = 4  # sequences that decode together; 4 gave 1.3 to 1.9 x the tokens a second of 1 on two cores
MILLISECONDS = 1e-3


class Embedded:
    """llama.cpp through xllamacpp, one model at a time."""

    name = "embedded"

    def __init__(self, models: Path = MODELS) -> None:
        self._models = models
        self._server: Any = None
        self._loaded = ""

    async def names(self) -> list[str]:
        return sorted(path.parent.name for path in self._models.glob("*/model.gguf"))

    async def card(self, model: str) -> Card:
        folder = self._folder(model)
        if folder is None:
            raise UnknownModel(f"{self._models.name}/ has no model '{model}'")
        return _card(model, folder)

    async def load(self, card: Card, options: Options) -> Loaded:
        before, start = _resident(), time.perf_counter()
        await self.unload(card.name)
        self._server = await asyncio.to_thread(_server, self._models / slug(card.name) / "model.gguf", options)
        self._loaded = card.name
        return Loaded(time.perf_counter() - start, options.num_ctx, 0.0, _grown(before))

    async def chat(self, card: Card, messages: Sequence[Message], options: Options, *, patient: bool) -> Reply:
        if self._loaded != card.name:
            await self.load(card, options)
        with_system = card.system and messages[0]["role"] != "system"
        asked = [{"role": "system", "content": card.system}, *messages] if with_system else list(messages)
        return await asyncio.to_thread(_chat, self._server, {
            **options.request(), "max_tokens": options.num_predict, "messages": asked, "stream": True,
            "cache_prompt": True, "reasoning_format": "none",
            "chat_template_kwargs": {"enable_thinking": card.thinks}}, patient)

    async def unload(self, model: str) -> None:
        self._server, self._loaded = None, ""

    async def close(self) -> None:
        await self.unload(self._loaded)

    def _folder(self, model: str) -> Path | None:
        folder = self._models / slug(model)
        return folder if (folder / "model.gguf").is_file() else None


_grew = False


def _grown(before: int | None) -> int | None:
    """Bytes that loading added to this process: weights and context. Known for its first model alone, whose memory the next reuses."""
    global _grew
    first, _grew, now = not _grew, True, _resident()
    return now - before if first and before is not None and now is not None and now > before else None


def _resident() -> int | None:
    """Bytes of this process in memory; None where the system has no /proc."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else None


def _server(gguf: Path, options: Options) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel = options.num_ctx * SLOTS, SLOTS
    params.verbosity, params.warmup = -1, False
    params.cache_ram_mib = 0  # by default it keeps 8 GiB of old prompts, and repeats look fast
    params.ctx_shift = False
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise RequestFailed(f"llama.cpp cannot load {gguf.parent.name}/{gguf.name}: {error}", retry=False) from None


def _chat(server: Any, request: dict[str, Any], patient: bool) -> Reply:
    stream = Stream()
    last: dict[str, Any] = {}

    def arrived(chunk: dict[str, Any]) -> bool:
        """Called in llama.cpp's thread for every chunk; True ends the generation."""
        last.update(chunk)
        for choice in chunk.get("choices", ()):
            last["reason"] = choice.get("finish_reason") or last.get("reason")
            stream.add(choice["delta"].get("content") or "")
        return not patient and stream.stuck

    server.handle_chat_completions(request, arrived)
    if error := last.get("error"):
        raise RequestFailed(f"llama.cpp: {error.get('message', error)}", retry=False)
    if not last.get("reason") and stream.stuck:
        return stream.reply("loop", Timing(), prompt_tokens=0, reply_tokens=stream.chunks, cached_tokens=None)
    if not last.get("reason"):
        raise RequestFailed("llama.cpp ended the stream without a reason", retry=True)
    took = last.get("timings", {})
    cached = took.get("cache_n", 0)
    timing = Timing(prompt=took.get("prompt_ms", 0) * MILLISECONDS, decode=took.get("predicted_ms", 0) * MILLISECONDS)
    return stream.reply(last["reason"], timing, prompt_tokens=cached + took.get("prompt_n", 0),
                        reply_tokens=took.get("predicted_n", 0), cached_tokens=cached)


def _card(model: str, folder: Path) -> Card:
    import xllamacpp

    gguf, text = folder / "model.gguf", ""
    if (folder / "Modelfile").is_file():
        text = (folder / "Modelfile").read_text(encoding="utf-8")
    facts = _identity(gguf, folder / "card.json")
    return Card(name=model, engine=Embedded.name, engine_version=f"xllamacpp {xllamacpp.__version__}",
                digest=facts["digest"], size_bytes=facts["size"], quantization=facts["quantization"],
                parameter_size=facts["parameter_size"], family=facts["family"], template=facts["template"],
                system=modelfile.system(text), parameters=modelfile.parameters(text),
                capabilities=("thinking",) if "enable_thinking" in facts["template"] else ())


def _identity(gguf: Path, cache: Path) -> dict[str, Any]:
    """Digest and header of the file; read once, then from card.json while size and time of change are the same."""
    stat = gguf.stat()
    stamp = {"size": stat.st_size, "changed_ns": stat.st_mtime_ns}
    if cache.is_file():
        known: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        if stamp.items() <= known.items():
            return known
    facts = {**stamp, "digest": sha256(gguf), **_header(gguf)}
    write_text(cache, json.dumps(facts, ensure_ascii=False, indent=1))
    return facts


def _header(gguf: Path) -> dict[str, Any]:
    from gguf import GGUFReader, LlamaFileType

    try:
        fields = GGUFReader(gguf).fields
    except (ValueError, IndexError, OverflowError) as error:
        raise RequestFailed(f"{gguf.parent.name}/{gguf.name} is not a GGUF file: {error}", retry=False) from None

    def field(name: str) -> Any:
        return fields[name].contents() if name in fields else ""

    kind = field("general.file_type")
    return {"template": field("tokenizer.chat_template"), "family": field("general.architecture"),
            "parameter_size": field("general.size_label"),
            "quantization": LlamaFileType(kind).name.removeprefix("MOSTLY_") if kind != "" else ""}
