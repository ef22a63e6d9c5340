"""The exported file under a name that people and suites can use: in an Ollama server, and in models/ for the embedded engine.

    python -m training register RECIPE [--host URL] [--engine auto|ollama|embedded]

In Ollama a candidate is a tag, jessy-v2:<candidate>, and becomes jessy-v2 only when the server has it whole and renders
prompts as training did. Whatever fails before that leaves the old model as it was.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import ollama

from harness.engines.embedded import MODELS
from harness.engines.ollama import address, is_loopback
from harness.files import sha256, slug, write_text
from training.base import chat
from training.export import SERVED, exported
from training.recipe import Recipe
from training.served import PROBES, Served, served
from training.tokenizer import Chat, Message

Told = Callable[[str], None]
PREDICT = 24


class RegisterError(RuntimeError):
    """The model was not registered: one line with the reason. The old one stays."""


def to_models(name: str, file: Path, served: Served, models: Path = MODELS) -> Path:
    """Put the model where the embedded engine looks. Returns its folder. Raises RegisterError."""
    folder = models / slug(name)
    temporary = folder / ".model.gguf.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        write_text(folder / "Modelfile", served.modelfile())
        temporary.replace(folder / "model.gguf")
    except OSError as error:
        raise RegisterError(f"{folder} could not be written: {error.strerror or error}; the old model stays") from None
    finally:
        temporary.unlink(missing_ok=True)
    return folder


class Server:
    """An Ollama server that models are registered with. Nothing is sent anywhere but to `host`."""

    def __init__(self, host: str | None = None) -> None:
        self.host = address(host)
        self.client = ollama.Client(self.host, timeout=httpx.Timeout(600, connect=2.0), follow_redirects=False, trust_env=not is_loopback(self.host))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        """Whether a server is there."""
        try:
            self._json("GET", "/api/version")
        except RegisterError:
            return False
        return True

    def create(self, model: str, files: dict[str, Path], served: Served, *, adapters: dict[str, Path] | None = None, quantize: str = "",
               told: Told = print) -> None:
        """Upload what the server lacks, and create the model. Raises RegisterError."""
        try:
            digests = {where: {name: self._uploaded(path, told) for name, path in paths.items()}
                       for where, paths in (("files", files), ("adapters", adapters or {})) if paths}
            last = ""
            for progress in self.client.create(model, quantize or None, None, digests.get("files"), digests.get("adapters"), **served.request(),
                                               stream=True):
                if progress.status and progress.status != last:
                    told(f"{model}: {progress.status}")
                last = progress.status or last
            if last != "success":
                raise RegisterError(f"the server at {self.host} ended the creation of {model} with '{last}' instead of success; the old model stays")
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError, OSError) as error:
            raise self._failed(f"{model} was not created; the old model stays", error) from None

    def _uploaded(self, path: Path, told: Told) -> str:
        """The digest of a file that the server has, or is given now."""
        digest = f"sha256:{sha256(path)}"
        if self._status("HEAD", f"/api/blobs/{digest}") == 200:
            told(f"{path.name}: the server has it")
            return digest
        told(f"{path.name}: uploading {path.stat().st_size / 1e6:.0f} MB")
        return self.client.create_blob(path)

    def name(self, tag: str, model: str) -> None:
        """Let `model` mean the model `tag`. Raises RegisterError."""
        try:
            self.client.copy(tag, model)
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError) as error:
            raise self._failed(f"{tag} was created and is not yet {model}", error) from None

    def delete(self, model: str) -> None:
        """Raises RegisterError."""
        try:
            self.client.delete(model)
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError) as error:
            raise self._failed(f"{model} was not deleted", error) from None

    def prune(self, model: str, keep: int, current: str) -> list[str]:
        """Delete all but the newest `keep` candidates of a name; the current one always stays. Returns the deleted. Raises RegisterError."""
        try:
            listed = self.client.list().models
        except (httpx.HTTPError, ollama.ResponseError, ConnectionError) as error:
            raise self._failed("its models could not be listed", error) from None
        candidates = sorted((one for one in listed if re.fullmatch(rf"{re.escape(model)}:[0-9a-f]{{12}}", one.model or "")),
                            key=lambda one: str(one.modified_at), reverse=True)
        others = [str(one.model) for one in candidates if one.model != current]
        gone = others[max(0, keep - 1):]
        for one in gone:
            self.delete(one)
        return gone

    def template_parity(self, model: str, talk: Chat, system: str) -> dict[str, Any]:
        """Whether the server's prompt is the one that training used. Raises RegisterError where it is not, or cannot be told.

        Where the server renders without generating, the texts are compared. Elsewhere the prompt is sent rendered and
        unrendered, and prompt tokens and greedy replies are compared (DESIGN.md section 6).
        """
        probes = [[{"role": role, "content": content} for role, content in probe] for probe in PROBES]
        rendered = [talk.render([*([{"role": "system", "content": system}] if system and probe[0]["role"] != "system" else []), *probe], generate=True)
                    for probe in probes]
        texts = [text.removeprefix(talk.bos) if talk.add_bos else text for text in rendered]
        shown = [self._shown(model, probe) for probe in probes]
        if all(one is not None for one in shown):
            for probe, wanted, got in zip(probes, texts, shown, strict=True):
                if got not in (wanted, talk.bos + wanted):
                    raise RegisterError(f"{model}: the server renders {got!r} where training saw {wanted!r} (for {probe[-1]['content']!r}); the old model stays")
            return {"by": "rendered text", "probes": len(probes)}
        for probe, wanted in zip(probes, texts, strict=True):
            ours, theirs = self._said(model, {"prompt": wanted, "raw": True}), self._said(model, {"messages": probe})
            if ours != theirs:
                raise RegisterError(f"{model}: the server's template is not the one of training: {theirs[0]} prompt tokens and {theirs[1]!r}, "
                                    f"where the rendered prompt gives {ours[0]} and {ours[1]!r}; the old model stays")
        return {"by": "prompt tokens and greedy replies", "probes": len(probes)}

    def _shown(self, model: str, messages: Sequence[Message]) -> str | None:
        body = {"model": model, "messages": list(messages), "stream": False, "_debug_render_only": True, "options": {"num_predict": 1, "temperature": 0}}
        found = self._json("POST", "/api/chat", body).get("_debug_info")
        return str(found["rendered_template"]) if isinstance(found, dict) and "rendered_template" in found else None

    def _said(self, model: str, prompt: dict[str, Any]) -> tuple[int, str]:
        raw = "raw" in prompt
        body = {"model": model, "stream": False, **({} if raw else {"think": False}), **prompt,
                "options": {"temperature": 0, "seed": 0, "num_predict": PREDICT}}
        found = self._json("POST", "/api/generate" if raw else "/api/chat", body)
        return int(found.get("prompt_eval_count") or 0), str(found.get("response", "") if raw else found.get("message", {}).get("content", ""))

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self.client._client.request(method, path, json=body)
            found = answer.json()
        except (httpx.HTTPError, ValueError, OSError) as error:
            raise self._failed(f"{path} was not answered", error) from None
        if answer.status_code != 200:
            raise RegisterError(f"the Ollama server at {self.host}: {path}: HTTP {answer.status_code}: {found.get('error', found) if isinstance(found, dict) else found}")
        return found if isinstance(found, dict) else {}

    def _status(self, method: str, path: str) -> int:
        answer: httpx.Response = self.client._client.request(method, path)
        return answer.status_code

    def _failed(self, what: str, error: Exception) -> RegisterError:
        said = error.error if isinstance(error, ollama.ResponseError) else f"{type(error).__name__} {error}".strip()
        return RegisterError(f"the Ollama server at {self.host}: {what}: {str(said).splitlines()[0] if said else 'it said nothing'}")


def register(recipe: Recipe, runs: Path, *, engine: str = "auto", host: str | None = None, models: Path = MODELS, told: Told = print) -> list[str]:
    """Register the recipe's exported candidate. Returns where it now is. Raises RegisterError, ExportError, BaseError, ServeError.

    `engine` is ollama, embedded, or auto: the embedded engine, and Ollama where a server answers.
    """
    base, folder, made = exported(recipe, runs)
    talk, adapter = chat(base.directory), made["type"] == "adapter"
    ready = served(talk, recipe.dataset.system, recipe.serve, adapter=adapter)
    file = folder / made["file"]
    if adapter and base.gguf is None:
        raise RegisterError(f"base '{base.name}' is a directory, and a server needs the GGUF that an adapter is for; export the merged model")
    places = list[str]()
    with Server(host) as server:
        there = engine != "embedded" and server.answers()
        if engine == "ollama" and not there:
            raise RegisterError(f"no Ollama server answers at {server.host}; start one with 'ollama serve', or name another with --host")
        if engine != "ollama" and not adapter and made["type"] not in SERVED:
            places.append(str(to_models(recipe.name, file, ready, models)))
        if there:
            tag = f"{recipe.name}:{folder.parent.name}"
            files = {"base.gguf": base.gguf} if adapter and base.gguf else {"model.gguf": file}
            server.create(tag, files, ready, adapters={"adapter.gguf": file} if adapter else None, quantize=made["type"] if made["type"] in SERVED else "",
                          told=told)
            try:
                parity = server.template_parity(tag, talk, recipe.dataset.system)
            except RegisterError:
                # Nobody is to find a tag whose prompts are not those of training.
                server.delete(tag)
                raise
            told(f"{tag}: the server's prompt is that of training, by {parity['by']} of {parity['probes']} dialogues")
            server.name(tag, recipe.name)
            for one in server.prune(recipe.name, recipe.serve.keep, tag):
                told(f"{one}: deleted, {recipe.serve.keep} are kept")
            places.append(f"{recipe.name} ({tag}) at {server.host}")
        if not places:
            raise RegisterError(f"nothing to register with: no Ollama server answers at {server.host}, and an export of type {made['type']} needs one")
    write_text(folder / "Modelfile", ready.modelfile(str(base.gguf.resolve()) if adapter and base.gguf else f"./{made['file']}"))
    return places
