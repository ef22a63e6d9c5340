"""Registering: a real server gets the model whole, with the prompt of training, or keeps the one that it had."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ollama
import pytest

from harness.engines import Options
from harness.engines.embedded import Embedded
from harness.fetch import fetch
from tests.conftest import ROOT, Evals
from tests.real_ollama import Unavailable, assemble, serve
from training.base import chat
from training.export import exported, stage
from training.generate import replies
from training.recipe import Export, Recipe, Serve, load_recipe
from training.register import RegisterError, Server, register, to_models
from training.served import PROBES, Served, ServeError, served, take_apart
from training.tokenizer import Chat, read_chat

# A few rows by heart, from the real base and through every stage: what it says of them is decided, not a tie that rounding breaks.
ROWS = """
[dataset]
rows = 22
max_tokens = 110
system = "Sen Jessy'sin."
[dataset.weights]
conversation = 1
[serve]
num_predict = 32
[train]
step_tokens = 512
micro_tokens = 256
evaluate_every = 100
valid_rows = 2
"""
# With few layers and tokens of its own it says what it says quickly, and ends: all suites have to be asked in CI.
RECIPE = f"""
base = "smollm2"
keep_layers = [0, 1, 2, 29]
new_tokens = 300
unused_tokens = false
{ROWS}
method = "full"
learning_rate = 1e-3
epochs = 40
"""
ADAPTER = f"""
base = "smollm2"
{ROWS}
modules = ["all"]
learning_rate = 3e-3
epochs = 2
"""
TOKENS = 16

# An engine's threads wait for each other by turning: beside another test they take minutes.
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """(recipe, runs) of the real base, trained a few steps and exported by the commands that a person runs."""
    return run_stages(RECIPE, tmp_path_factory.mktemp("candidate"), "train", "export")


def run_stages(text: str, folder: Path, *commands: str) -> tuple[Recipe, Path]:
    (folder / "jessy-ci.toml").write_text(text, encoding="utf-8")
    for command in commands:
        done = subprocess.run([sys.executable, "-m", "training", command, str(folder / "jessy-ci.toml"), "--runs", str(folder / "runs")], cwd=ROOT,
                              capture_output=True, text=True, encoding="utf-8", timeout=500, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return load_recipe(folder / "jessy-ci.toml"), folder / "runs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        assemble()
    except Unavailable as reason:
        pytest.skip(str(reason))
    with serve(tmp_path_factory.mktemp("ollama")) as host:
        yield host


@pytest.fixture
def client(server: str) -> Iterator[ollama.Client]:
    with ollama.Client(server, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def registered(candidate: tuple[Recipe, Path], server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str], Path]:
    """(places, what was told, models/) of a candidate in both engines."""
    told, models = list[str](), tmp_path_factory.mktemp("models")
    return register(*candidate, host=server, models=models, told=told.append), told, models


def test_both_engines_have_the_candidate(registered: tuple[list[str], list[str], Path], candidate: tuple[Recipe, Path], server: str,
                                         client: ollama.Client) -> None:
    places, told, models = registered
    tag = f"jessy-ci:{exported(*candidate)[1].parent.name}"
    shown, named = client.show(tag), client.show("jessy-ci")
    assert shown.template == named.template and "thinking" in (shown.capabilities or [])
    assert places == [str(models / "jessy-ci"), f"jessy-ci ({tag}) at {server}"]
    assert any("the server's prompt is that of training" in line for line in told) and f"{tag}: success" in told
    # One mapping: what the Modelfile says is what the server was sent.
    text = (models / "jessy-ci" / "Modelfile").read_text(encoding="utf-8")
    assert f'TEMPLATE """{shown.template}"""' in text and "SYSTEM \"\"\"Sen Jessy'sin.\"\"\"" in text and 'PARAMETER stop "<|im_end|>"' in text
    for line in (shown.parameters or "").splitlines():
        name, value = line.split(maxsplit=1)
        assert f"PARAMETER {name} {value}" in text


def test_the_engines_and_mlx_say_the_same(registered: tuple[list[str], list[str], Path], candidate: tuple[Recipe, Path], client: ollama.Client) -> None:
    """Greedy replies to 20 prompts that it was taught, of one F16 file and of the weights that it was made from."""
    recipe, runs = candidate
    base, folder, _ = exported(recipe, runs)
    rows = (runs / recipe.name / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(row)["messages"][-2]["content"] for row in rows[:20]]
    dialogues = [[{"role": "system", "content": recipe.dataset.system}, {"role": "user", "content": prompt}] for prompt in asked]
    words = chat(base.directory).tokenizer
    mlx = replies(base.directory, folder.parent, dialogues, max_tokens=TOKENS)
    options = {"temperature": 0, "seed": 0, "num_predict": TOKENS}
    theirs = [client.chat("jessy-ci", messages=[{"role": "user", "content": prompt}], options=options, think=False).message.content or "" for prompt in asked]
    embedded = asyncio.run(_embedded(registered[2], asked))
    for other in (theirs, embedded):
        pairs = [(words.encode(untagged(one)).ids, words.encode(untagged(said)).ids) for one, said in zip(mlx, other, strict=True)]
        same = sum(a == b for one, said in pairs for a, b in zip(one, said, strict=False))
        assert same / sum(max(len(one), len(said)) for one, said in pairs) >= 0.95


def untagged(reply: str) -> str:
    """A reply without its tags: an engine that separates the thinking leaves no trace of a tag that ends the text."""
    return " ".join(reply.replace("<think>", " ").replace("</think>", " ").split())


async def _embedded(models: Path, asked: list[str]) -> list[str]:
    engine = Embedded(models)
    try:
        card = await engine.card("jessy-ci")
        options = Options(num_predict=TOKENS, stop=("<|im_end|>",))
        said = [await engine.chat(card, [{"role": "user", "content": prompt}], options, patient=True) for prompt in asked]
    finally:
        await engine.close()
    return [one.text if not one.thinking else f"<think>\n{one.thinking}" + (f"\n</think>\n{one.text}" if one.text else "") for one in said]


def test_the_suites_measure_it(registered: tuple[list[str], list[str], Path], evals: Evals, server: str) -> None:
    done = evals("evals", "--model", "jessy-ci", "--engine", "ollama", "--host", server, "--max-cases", "5", timeout=400)
    assert done.code in (0, 1), done.output
    report = done.report("jessy-ci")
    assert report and all(row["score"] is not None for row in report["criteria"]), done.output


def test_of_many_candidates_the_newest_stay(registered: tuple[list[str], list[str], Path], candidate: tuple[Recipe, Path], server: str,
                                             client: ollama.Client) -> None:
    tag = f"jessy-ci:{exported(*candidate)[1].parent.name}"
    for number in range(4):
        client.copy(tag, f"jessy-ci:{number:012x}")
    client.copy(tag, "jessy-ci:mine")
    with Server(server) as at:
        gone = at.prune("jessy-ci", 3, tag)
    left = {str(one.model) for one in client.list().models}
    assert len(gone) == 2 and {tag, "jessy-ci:latest", "jessy-ci:mine"} <= left and not set(gone) & left


def apart(candidate: tuple[Recipe, Path], folder: Path, kind: str) -> tuple[Recipe, Path]:
    """The same candidate with another export, in a folder of its own: the trained weights are linked, not trained again."""
    recipe, runs = candidate
    shutil.copytree(runs, folder / "runs", copy_function=os.link, ignore=shutil.ignore_patterns("export", "*.lock"))
    recipe = replace(recipe, name="jessy-ci", export=Export(type="F16" if kind == "adapter" else kind))
    stage(recipe, folder / "runs", adapter=kind == "adapter", told=lambda _: None)
    return recipe, folder / "runs"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """(recipe, runs) of a LoRA on all layers of the base as it is, not exported yet."""
    return run_stages(ADAPTER, tmp_path_factory.mktemp("adapted"), "train")


@pytest.mark.skipif("JESSY_REGISTER" not in os.environ, reason="another training and three more exports, two to three minutes; JESSY_REGISTER=1 runs them")
@pytest.mark.parametrize(("source", "kind", "level", "layers"),
                         [("adapted", "F16", "F16", 30), ("candidate", "Q4_K_M", "Q4_K_M", 4), ("adapted", "adapter", "Q4_1", 30)])
def test_other_ways_to_be_a_candidate_are_registered_too(source: str, kind: str, level: str, layers: int, request: pytest.FixtureRequest,
                                                         registered: tuple[list[str], list[str], Path], server: str, client: ollama.Client, tmp_path: Path) -> None:
    """A LoRA merged into the whole base as it is, the server's own quantisation, and a LoRA beside its base."""
    recipe, runs = apart(request.getfixturevalue(source), tmp_path, kind)
    assert register(recipe, runs, engine="ollama", host=server, told=lambda _: None)
    shown = client.show("jessy-ci")
    assert shown.details and shown.details.quantization_level == level, shown.details
    assert shown.modelinfo and shown.modelinfo["llama.block_count"] == layers
    said = client.chat("jessy-ci", messages=[{"role": "user", "content": "naber"}], options={"temperature": 0, "num_predict": 8}, think=False)
    assert said.eval_count and said.message.content


def test_a_template_that_renders_otherwise_is_refused(registered: tuple[list[str], list[str], Path], candidate: tuple[Recipe, Path], server: str) -> None:
    base, folder, made = exported(*candidate)
    talk = chat(base.directory)
    ready = served(talk, "Sen Jessy'sin.", Serve())
    wrong = Served(ready.template.replace("<|im_start|>user\n", "<|im_start|>user "), ready.system, ready.parameters)
    with Server(server) as at, pytest.raises(RegisterError, match=r"the server's template is not the one of training|the server renders") as raised:
        at.create("jessy-ci:wrong", {"model.gguf": folder / made["file"]}, wrong, told=lambda _: None)
        at.template_parity("jessy-ci:wrong", talk, "Sen Jessy'sin.")
    assert "\n" not in str(raised.value)


class _Faulty(BaseHTTPRequestHandler):
    """A server that has room for no blob, or that dies while it creates."""

    fault = ""

    def do_GET(self) -> None:
        self._answer(200, {"version": "0.0.0", "models": []})

    def do_HEAD(self) -> None:
        self.send_response(404 if self.fault == "space" else 200)
        self.end_headers()

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/api/blobs"):
            return self._answer(500, {"error": "write blob: no space left on device"})
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        self.wfile.write(json.dumps({"status": "parsing GGUF"}).encode() + b"\n")
        if self.fault == "line":
            self.wfile.write(json.dumps({"error": "invalid file magic"}).encode() + b"\n")
        return None

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("fault", "says"), [
    ("space", "no space left on device"), ("death", "ended the creation of jessy:1 with 'parsing GGUF' instead of success"), ("line", "invalid file magic")])
def test_a_server_that_fails_is_one_line(fault: str, says: str, tmp_path: Path) -> None:
    handler = type("Handler", (_Faulty,), {"fault": fault})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    try:
        with Server(f"http://127.0.0.1:{server.server_port}") as at, pytest.raises(RegisterError, match=says) as raised:
            at.create("jessy:1", {"model.gguf": tmp_path / "model.gguf"}, Served("", "", {}), told=lambda _: None)
        assert "the old model stays" in str(raised.value) and "\n" not in str(raised.value)
    finally:
        server.shutdown()
        server.server_close()


def test_no_server_is_one_line(candidate: tuple[Recipe, Path]) -> None:
    with pytest.raises(RegisterError, match=r"no Ollama server answers at http://127\.0\.0\.1:1; start one with 'ollama serve'"):
        register(*candidate, engine="ollama", host="http://127.0.0.1:1")


def test_the_embedded_engine_keeps_its_old_model_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    ready = Served("", "", {"temperature": 0.3})
    (tmp_path / "new.gguf").write_bytes(b"new")
    folder = to_models("jessy", tmp_path / "new.gguf", ready, tmp_path / "models")
    assert (folder / "model.gguf").read_bytes() == b"new"
    with pytest.raises(RegisterError, match="the old model stays"):
        to_models("jessy", tmp_path / "absent.gguf", ready, tmp_path / "models")
    assert (folder / "model.gguf").read_bytes() == b"new" and not [one for one in folder.iterdir() if "tmp" in one.name]
    # A name is no way out of models/.
    assert to_models("../../out", tmp_path / "new.gguf", ready, tmp_path / "models").parent == tmp_path / "models"


LLAMA3 = ("{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>"
          "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}")
GEMMA = ("{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
         "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n{{ message.content }}<end_of_turn>\n{% endfor %}"
         "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}")
MISTRAL = ("{% for message in messages %}{% if message.role == 'user' %}[INST] {% if loop.index0 == 1 %}{{ messages[0].content }} {% endif %}{{ message.content }} [/INST]"
           "{% elif message.role == 'assistant' %}{{ message.content }}</s>{% endif %}{% endfor %}")


def test_a_template_is_taken_apart_and_renders_the_same() -> None:
    own = read_chat(fetch() / "model.gguf")
    for talk in (own, Chat(own.tokenizer, LLAMA3, "<|begin_of_text|>", "<|eot_id|>", add_bos=True)):
        turns = take_apart(talk)
        for probe in PROBES:
            messages = [{"role": role, "content": content} for role, content in probe]
            assert turns.render(messages) == talk.render(messages, generate=True).removeprefix("<|begin_of_text|>")


def test_words_are_not_penalised_as_ollama_would_by_default() -> None:
    """Its default repeat_penalty counts the prompt's words: 86 % of a trained model's greedy tokens were its own."""
    ready = served(read_chat(fetch() / "model.gguf"), "Sen Jessy'sin.", Serve())
    assert "PARAMETER repeat_penalty 1.0\n" in ready.modelfile() and ready.request()["parameters"]["repeat_penalty"] == 1.0


@pytest.mark.parametrize(("template", "says"), [(GEMMA, "refuses a dialogue that JESSY has: System role"), (MISTRAL, "does not put a fixed text|leaves a message out")])
def test_a_template_that_cannot_be_taken_apart_is_refused(template: str, says: str) -> None:
    own = read_chat(fetch() / "model.gguf")
    with pytest.raises(ServeError, match=says) as raised:
        take_apart(Chat(own.tokenizer, template, "", ""))
    assert "\n" not in str(raised.value)
