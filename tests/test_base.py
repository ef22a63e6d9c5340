"""The base: mlx-lm computes what llama.cpp computes from the same file, for every architecture that is taken."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from harness.fetch import fetch
from tests.conftest import ROOT
from tests.tiny_models import VOCABULARY, write
from training.__main__ import main
from training.base import BaseError, base_gguf, prepare
from training.convert import ARCHITECTURES, ConvertError, Header, convert, weights

PROMPT = [70, 101, 120, 28, 45, 99, 12, 200]
QUANTISED = [gguf.GGMLQuantizationType[name] for name in ("F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1")]

# In processes of their own: mlx-lm lowers the limit of open files of the one that imports it, llama.cpp logs to stderr.
MLX = """
import json, sys
import mlx.core as mx
from pathlib import Path
from mlx_lm.utils import load_model
model, _ = load_model(Path(sys.argv[1]), lazy=False)
logits = model(mx.array([json.loads(sys.argv[2])]))[0, -1].astype(mx.float32)
print(json.dumps((logits - mx.logsumexp(logits)).tolist()))
"""
LLAMA = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = sys.argv[1], 256, 1, 2
found = xllamacpp.Server(params).handle_completions({"prompt": json.loads(sys.argv[2]), "n_predict": 1, "temperature": 0, "n_probs": int(sys.argv[3])})
found = found if isinstance(found, dict) else json.loads(found)
print(json.dumps({one["id"]: one["logprob"] for one in found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}))
"""


def run(script: str, *arguments: object) -> Any:
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def log_probabilities(path: Path, folder: Path, prompt: list[int] = PROMPT) -> tuple[np.ndarray, np.ndarray]:
    """Of the next token, by llama.cpp and by mlx-lm."""
    theirs = run(LLAMA, path, json.dumps(prompt), len(VOCABULARY))
    ours = run(MLX, folder, json.dumps(prompt))
    return np.array([theirs[str(token)] for token in range(len(VOCABULARY))]), np.array(ours)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_mlx_computes_what_llama_cpp_computes(arch: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", arch)
    convert(path, tmp_path / "mlx")
    theirs, ours = log_probabilities(path, tmp_path / "mlx")
    assert np.abs(theirs - ours).max() < 1e-2
    assert theirs.argmax() == ours.argmax()


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_quantisation_is_read(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    exact = dict(weights(Header(write(tmp_path / "f32.gguf", "llama"))))
    read = dict(weights(Header(write(tmp_path / "small.gguf", "llama", dtype=kind))))
    assert exact.keys() == read.keys()
    worst = max(float(np.abs(exact[name] - read[name]).max() / np.abs(exact[name]).max()) for name in exact)
    assert worst < {"F16": 1e-3, "BF16": 1e-2, "Q8_0": 0.01}.get(kind.name, 0.15)


def test_a_quantised_file_computes_the_same_in_both(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "qwen3", dtype=gguf.GGMLQuantizationType.F16)
    convert(path, tmp_path / "mlx")
    theirs, ours = log_probabilities(path, tmp_path / "mlx")
    assert np.abs(theirs - ours).max() < 1e-2


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "mamba")
    with pytest.raises(ConvertError, match=r"architecture 'mamba' is not supported; known are llama, qwen2"):
        convert(path, tmp_path / "mlx")
    assert not (tmp_path / "mlx" / "config.json").exists()


@pytest.mark.parametrize("keep", [0, 40, 3000])
def test_a_truncated_file_is_one_line_and_leaves_nothing(keep: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "tiny.gguf", "llama").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:keep])
    with pytest.raises(ConvertError, match=r"cut\.gguf"):
        convert(tmp_path / "cut.gguf", tmp_path / "mlx")
    assert not (tmp_path / "mlx" / "model.safetensors").exists()


def test_a_base_is_made_once_and_made_again_when_it_is_not_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "llama")
    base = prepare(str(path), tmp_path / "runs")
    assert {one.name for one in base.directory.iterdir()} == {
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    made = (base.directory / "model.safetensors").stat().st_mtime_ns
    assert prepare(str(path), tmp_path / "runs") == base
    assert (base.directory / "model.safetensors").stat().st_mtime_ns == made
    (base.directory / "manifest.json").unlink()
    prepare(str(path), tmp_path / "runs")
    assert (base.directory / "model.safetensors").stat().st_mtime_ns > made


def ollama(home: Path, blob: bytes, name: str = "library/gemma/2b", digest: str = "sha256:" + "ab" * 32) -> Path:
    """What Ollama leaves on the disk of a model."""
    manifest = home / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64},
                                               {"mediaType": "application/vnd.ollama.image.model", "digest": digest}]}), encoding="utf-8")
    (home / "blobs").mkdir()
    (home / "blobs" / digest.replace(":", "-").replace("/", "_")).write_bytes(blob)
    return home


def test_an_ollama_model_is_found_through_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = write(tmp_path / "tiny.gguf", "gemma")
    monkeypatch.setenv("OLLAMA_MODELS", str(ollama(tmp_path / "ollama", tiny.read_bytes())))
    assert base_gguf("ollama:gemma:2b").read_bytes() == tiny.read_bytes()
    with pytest.raises(BaseError, match="'ollama pull gemma:7b' brings it"):
        base_gguf("ollama:gemma:7b")


@pytest.mark.parametrize(("name", "digest"), [("ollama:../../etc/passwd", "sha256:" + "ab" * 32), ("ollama:gemma:2b", "../../../etc/passwd"),
                                              ("ollama:gemma:2b", "sha256:" + "cd" * 31)])
def test_names_and_digests_never_lead_out_of_ollamas_folder(name: str, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(ollama(tmp_path, b"x", digest=digest)))
    with pytest.raises(BaseError):
        base_gguf(name)


def test_a_base_that_is_not_there_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no such file; 'smollm2', the path of a GGUF file, ollama:NAME"):
        prepare(str(tmp_path / "nothing.gguf"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseError, match=r"config\.json"):
        prepare(str(tmp_path / "empty"), tmp_path)


def test_a_directory_whose_rope_mlx_would_miss_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "rope_parameters": {"rope_theta": 5e5}}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BaseError, match="rope_theta stands in rope_parameters"):
        prepare(str(tmp_path), tmp_path)


def test_the_stage_says_where_the_base_is_and_what_is_wrong_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = write(tmp_path / "tiny.gguf", "qwen2")
    (tmp_path / "mine.toml").write_text(f'base = "{tiny}"\n', encoding="utf-8")
    assert main(["base", str(tmp_path / "mine.toml"), "--runs", str(tmp_path / "runs")]) == 0
    assert str(tmp_path / "runs" / "base") in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text('base = "nowhere.gguf"\n', encoding="utf-8")
    assert main(["base", str(tmp_path / "mine.toml")]) == 4
    assert "no such file" in capsys.readouterr().err


# The real base

GREEDY = """
import json, sys
import mlx.core as mx
from pathlib import Path
from mlx_lm.utils import load_model
from mlx_lm.models.cache import make_prompt_cache
model, _ = load_model(Path(sys.argv[1]), lazy=False)
out = []
for ids in json.loads(sys.argv[2]):
    cache, said, feed = make_prompt_cache(model), [], ids
    for _ in range(int(sys.argv[3])):
        token = int(mx.argmax(model(mx.array([feed]), cache=cache)[0, -1]))
        if token == 2:
            break
        said.append(token)
        feed = [token]
    out.append(said)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fetch()
    return prepare("smollm2", Path(os.environ.get("JESSY_RUNS") or ROOT / "runs"))


def test_the_real_base_knows_a_capital(real: Any) -> None:
    from training.tokenizer import read_chat

    chat = read_chat(real.gguf)
    prompt = chat.tokenizer.encode(chat.render([{"role": "user", "content": "What is the capital of France?"}], generate=True),
                                   add_special_tokens=False).ids
    said = run(GREEDY, real.directory, json.dumps([prompt]), 8)
    assert "Paris" in chat.tokenizer.decode(said[0])
