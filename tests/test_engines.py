"""The two real engines: SmolLM2-135M-Instruct in a real Ollama server and in process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from harness.embedding import Embedding
from harness.engines import Options, Reply, RequestFailed, UnknownModel, modelfile, split_thinking
from harness.engines.embedded import MODELS, Embedded
from harness.engines.ollama import Ollama, address
from harness.fetch import fetch
from tests.conftest import ROOT
from tests.dequantised import dequantised
from tests.real_ollama import SMOLLM2_TEMPLATE, Unavailable, assemble, create, serve

# An engine's threads wait for each other by turning: beside another test they take minutes.
pytestmark = pytest.mark.alone

T = TypeVar("T")
PROMPTS = ("sana bisi sorucam", "merhaba", "What is the capital of France?", "Docker nedir kanka?", "bugün hava nasıl",
           "Write a haiku about rain.", "naber ya", "Rust'ta ownership nedir, kısaca anlat", "2+2 kaç eder",
           "Tell me about Istanbul.")
OPTIONS = Options(num_ctx=1024, num_predict=20, stop=("<|im_end|>",))


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture(scope="module")
def base() -> Path:
    """The folder of the real base model."""
    return fetch()


@pytest.fixture(scope="module")
def real_server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Ollama server that has the base as 'smollm2'."""
    try:
        assemble()
    except Unavailable as reason:
        pytest.skip(str(reason))
    with serve(tmp_path_factory.mktemp("ollama")) as host:
        create(host, "smollm2", base / "model.gguf", template=SMOLLM2_TEMPLATE, parameters={"stop": ["<|im_end|>"]})
        yield host


async def _all(engine: Ollama | Embedded, prompts: tuple[str, ...], options: Options, model: str = "smollm2") -> list[Reply]:
    try:
        card = await engine.card(model)
        await engine.load(card, options)
        return [await engine.chat(card, [{"role": "user", "content": prompt}], options, patient=True) for prompt in prompts]
    finally:
        await engine.unload(model)
        await engine.close()


def test_both_engines_give_the_same_greedy_text(real_server: str, base: Path) -> None:
    models = ROOT / ".cache" / "float32"
    gguf = dequantised(base / "model.gguf", models / "smollm2-f32" / "model.gguf")
    create(real_server, "smollm2-f32", gguf, template=SMOLLM2_TEMPLATE, parameters={"stop": ["<|im_end|>"]})
    served = run(_all(Ollama(real_server), PROMPTS, OPTIONS, model="smollm2-f32"))
    embedded = run(_all(Embedded(models), PROMPTS, OPTIONS, model="smollm2-f32"))
    same = sum(one.text == two.text for one, two in zip(served, embedded, strict=True))
    assert same >= 9, [(one.text, two.text) for one, two in zip(served, embedded, strict=True)]
    assert [one.prompt_tokens for one in served] == [two.prompt_tokens for two in embedded]


def test_a_real_server_gives_every_timing(real_server: str) -> None:
    reply = run(_all(Ollama(real_server), PROMPTS[2:3], OPTIONS))[0]
    timing = reply.timing
    assert min(timing.load, timing.prompt, timing.decode, timing.first_token) > 0
    assert timing.load + timing.queue + timing.prompt + timing.decode <= timing.wall
    assert (reply.reply_tokens, reply.done_reason) == (20, "length")


def test_a_real_servers_card_says_which_model_it_is(real_server: str) -> None:
    async def card() -> Any:
        engine = Ollama(real_server)
        try:
            return await engine.card("smollm2")
        finally:
            await engine.close()

    found = run(card())
    assert len(found.digest) == 64 and found.engine_version == "0.9.3"
    assert found.quantization == "Q4_1" and "im_start" in found.template
    assert modelfile.pinned(found.parameters).stop == ("<|im_end|>",)
    assert not found.thinks


def test_a_real_server_embeds(real_server: str) -> None:
    found = Embedding("smollm2", real_server).vectors(["Sor kanka.", "İyi geceler.", "Sor kanka."])
    assert found.shape[0] == 3 and found.shape[1] > 100
    assert found[0] @ found[2] == pytest.approx(1) and found[0] @ found[1] < 0.999


def test_unloading_frees_the_real_server(real_server: str) -> None:
    async def work() -> tuple[int, int]:
        engine = Ollama(real_server)
        card = await engine.card("smollm2")
        await engine.load(card, OPTIONS)
        during = len((await engine._client.ps()).models)
        await engine.unload("smollm2")
        for _ in range(50):
            after = len((await engine._client.ps()).models)
            if not after:
                break
            await asyncio.sleep(0.1)
        await engine.close()
        return during, after

    assert run(work()) == (1, 0)


@pytest.mark.parametrize("engine", ["ollama", "embedded"])
def test_a_prompt_that_does_not_fit_is_an_error_and_no_answer(engine: str, request: pytest.FixtureRequest) -> None:
    where = Ollama(request.getfixturevalue("real_server")) if engine == "ollama" else Embedded()
    request.getfixturevalue("base")
    with pytest.raises(RequestFailed, match="context"):
        run(_all(where, ("kanka bak şimdi " * 150,), replace(OPTIONS, num_ctx=256)))


def test_embedded_replies_are_the_same_twice(base: Path) -> None:
    options = replace(OPTIONS, num_predict=40)
    once, twice = (run(_all(Embedded(), PROMPTS[:3], options)) for _ in range(2))
    assert [reply.text for reply in once] == [reply.text for reply in twice]


def test_a_modelfiles_system_prompt_reaches_the_embedded_model(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "smollm2"
    folder.mkdir()
    (folder / "model.gguf").symlink_to(base / "model.gguf")
    (folder / "Modelfile").write_text('FROM ./model.gguf\nSYSTEM """You are Jessy, a pirate.\nYou say arr."""\n',
                                      encoding="utf-8")
    with_system, plain = (run(_all(engine, PROMPTS[2:3], OPTIONS))[0] for engine in (Embedded(tmp_path), Embedded()))
    assert with_system.text != plain.text
    assert with_system.prompt_tokens != plain.prompt_tokens


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.gguf").write_bytes(b"GGUF, but not really")

    async def load() -> None:
        engine = Embedded(tmp_path)
        await engine.load(await engine.card("broken"), OPTIONS)

    with pytest.raises(RequestFailed, match=r"broken/model\.gguf"):
        run(load())


def test_an_unknown_embedded_model_is_told(base: Path) -> None:
    with pytest.raises(UnknownModel, match="models/ has no model 'nothing'"):
        run(Embedded(MODELS).card("nothing"))


@pytest.mark.parametrize("raw, text, thinking", [
    ("<think>\n1. Selam.\n</think>\nSelam kanka!", "Selam kanka!", "1. Selam."),
    ("Selam kanka!", "Selam kanka!", ""),
    ("<think>hâlâ düşünüyorum", "", "hâlâ düşünüyorum"),
    ("Önce selam. <think>sonra</think>", "Önce selam. <think>sonra</think>", ""),
])
def test_thinking_is_split_off(raw: str, text: str, thinking: str) -> None:
    assert split_thinking(raw) == (text, thinking)


@pytest.mark.parametrize("named, url", [
    ("127.0.0.1:11500", "http://127.0.0.1:11500"), ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104
    ("http://[::1]:1234", "http://[::1]:1234"), ("https://ollama.example", "https://ollama.example:443"),
    ("gpubox", "http://gpubox:11434")])
def test_hosts_are_read_as_ollama_reads_them(named: str, url: str) -> None:
    assert address(named) == url
