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
from tests.dequantised import dequantised
from tests.tiny_models import BLOCKS, VOCABULARY, Extra, Shape, Vocabulary, write
from training.__main__ import main
from training.base import BaseError, base_gguf, prepare
from training.convert import ARCHITECTURES, convert, weights
from training.header import ConvertError, Header
from training.tokenizer import TokenizerError

PROMPT = [70, 101, 120, 28, 45, 99, 12, 200]
# Where positions far from each other matter.
LONG = [int(token) for token in np.random.default_rng(7).integers(0, 256, 250)]
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


# A K-quant's row is a multiple of 256 values.
WIDE = Shape(hidden=256, heads=8, kv_heads=4, head=32, feed=512)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_every_k_quant_is_read_as_llama_cpp_reads_it(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    """In the embedding, whose rows llama.cpp takes out as they are: seen were 2e-3 to 4e-3."""
    path = write(tmp_path / "tiny.gguf", "llama", dtype=kind, shape=WIDE, only="token_embd")
    convert(path, tmp_path / "mlx")
    theirs, ours = log_probabilities(path, tmp_path / "mlx")
    assert np.abs(theirs - ours).max() < 1e-2


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q8_0, *BLOCKS], ids=lambda kind: kind.name)
def test_a_model_of_quantised_layers_computes_nearly_the_same(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    """Nearly: llama.cpp rounds what it multiplies with them to 8 bits too.

    Seen were 0.05 to 0.11, and 0.08 for Q8_0, of which nothing is in doubt; weights that are 5 percent too large give 0.19
    to 0.36, a permuted block 3 to 5.
    """
    path = write(tmp_path / "tiny.gguf", "llama", dtype=kind, shape=WIDE, only="blk.")
    convert(path, tmp_path / "mlx")
    theirs, ours = log_probabilities(path, tmp_path / "mlx")
    assert np.abs(theirs - ours).max() < 0.15


# What only real models have

def linear(arch: str) -> Extra:
    return Extra({f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": 8.0})


def llama3(factor: float, low: float = 1.0, high: float = 4.0, context: int = 8192) -> Extra:
    """rope_freqs as llama.cpp's conversion writes it."""
    made = []
    for one in range(0, 16, 2):
        wave = 2 * np.pi * 500_000.0 ** (one / 16)
        smooth = (context / wave - low) / (high - low)
        made.append(1.0 if wave < context / high else factor if wave > context / low else 1 / ((1 - smooth) / factor + smooth))
    return Extra(tensors={"rope_freqs.weight": np.array(made, dtype=np.float32)})


def longrope(attention: float) -> Extra:
    return Extra({"phi3.rope.scaling.original_context_length": 256, "phi3.rope.scaling.attn_factor": attention},
                 {"rope_factors_short.weight": np.linspace(1, 3, 8), "rope_factors_long.weight": np.linspace(2, 40, 8)})


LLAMA3 = Shape(rope_base=500_000.0, context=131_072)
# Architecture, the key of config.json that makes the difference, shape, what the file has besides.
REAL = {
    "llama 3's rope_freqs": ("llama", "rope_scaling", LLAMA3, llama3(32)),
    "llama, linear": ("llama", "rope_scaling", Shape(), linear("llama")),
    "qwen2, linear": ("qwen2", "rope_scaling", Shape(), linear("qwen2")),
    "qwen3, linear": ("qwen3", "rope_scaling", Shape(), linear("qwen3")),
    "gemma 3 from 4b": ("gemma3", "rope_scaling", Shape(layers=6, rope_base=1e6, window=32), linear("gemma3")),
    "gemma 3's window": ("gemma3", "sliding_window", Shape(layers=6, rope_base=1e6, window=32), Extra()),
    "gemma 3's local rope": ("gemma3", "rope_local_base_freq", Shape(layers=6, rope_base=1e6), Extra({"gemma3.rope.freq_base_swa": 500.0})),
    "gemma 2 27b": ("gemma2", "query_pre_attn_scalar", Shape(layers=46, head=32), Extra()),
    "gemma 3 27b": ("gemma3", "query_pre_attn_scalar", Shape(layers=62, head=32, rope_base=1e6), Extra()),
    "phi 4 mini": ("phi3", "partial_rotary_factor", Shape(turned=12), Extra()),
    "phi 3.5": ("phi3", "rope_scaling", Shape(context=2048), longrope(float(np.sqrt(1 + np.log(8) / np.log(256))))),
}


@pytest.mark.parametrize("case", REAL)
def test_what_real_models_have_is_computed_too(case: str, tmp_path: Path) -> None:
    arch, key, shape, extra = REAL[case]
    path = write(tmp_path / "tiny.gguf", arch, shape=shape, extra=extra)
    config = convert(path, tmp_path / "mlx")
    prompt = LONG if shape.layers <= 6 else PROMPT
    theirs, ours = log_probabilities(path, tmp_path / "mlx", prompt)
    # 62 layers add up what rounding does in each.
    assert np.abs(theirs - ours).max() < (1e-2 if shape.layers <= 6 else 5e-2)
    # And it makes a difference: without the key mlx-lm computes something else.
    (tmp_path / "mlx" / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name != key}), encoding="utf-8")
    assert np.abs(theirs - np.array(run(MLX, tmp_path / "mlx", json.dumps(prompt)))).max() > 0.1


def test_llama_3s_rope_scaling_is_found_again(tmp_path: Path) -> None:
    for factor in (8, 32):
        config = convert(write(tmp_path / "tiny.gguf", "llama", shape=LLAMA3, extra=llama3(factor)), tmp_path / "mlx")
        assert config["rope_scaling"] == {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                          "original_max_position_embeddings": 8192}
    assert "rope_scaling" not in convert(write(tmp_path / "tiny.gguf", "llama", shape=LLAMA3, extra=llama3(1)), tmp_path / "mlx")


@pytest.mark.parametrize("arch, shape, extra, says", [
    ("llama", LLAMA3, llama3(8, context=4096), "rope_freqs is not llama3's rope scaling by 8.0 with factors 1 and 4 over 8192 positions"),
    ("llama", LLAMA3, Extra(tensors={"rope_freqs.weight": np.ones(4)}), "rope_freqs is not llama3's"),
    ("llama", LLAMA3, Extra(linear("llama").values, llama3(8).tensors), "rope_freqs is not llama3's"),
    ("qwen2", LLAMA3, llama3(8), "rope_freqs is not llama3's"),
    ("qwen2", Shape(), Extra({"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}), "rope scaling 'yarn' is not supported; known are none, linear"),
    ("gemma2", Shape(), linear("gemma2"), "linear rope scaling by 8.0 is not supported in gemma2"),
    ("phi3", Shape(context=2048), longrope(1.5), "rope_factors are not phi3's longrope from 256 to 2048 positions"),
    ("llama", Shape(), Extra(tensors={"rope_factors_short.weight": np.ones(8)}), "rope_factors are not phi3's longrope"),
    ("llama", Shape(turned=8), Extra(), "rope turns 8 of the 16 values of a head"),
    ("qwen2", Shape(head=32), Extra(), "heads of 32 where hidden size / heads is 16"),
    ("gemma3", Shape(layers=6, window=0), Extra(), "a gemma3 without its pattern of sliding windows"),
    ("gemma3", Shape(layers=6), Extra({"gemma3.final_logit_softcapping": 30.0}), "or with capped logits, is not supported"),
    ("llama", Shape(), Extra(tensors={"blk.0.attn_q.bias": np.zeros(64)}), "tensor 'blk.0.attn_q.bias' has no place in llama"),
    ("gemma", Shape(), Extra(tensors={"output.weight": np.zeros((272, 64))}), "tensor 'output.weight' has no place in gemma"),
    ("llama", Shape(), Extra(tensors={"blk.0.ffn_gate_exps.weight": np.zeros((2, 64))}), "tensor 'blk.0.ffn_gate_exps.weight' has no place in llama"),
])
def test_what_mlx_would_compute_wrong_is_refused_in_one_line(arch: str, shape: Shape, extra: Extra, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", arch, shape=shape, extra=extra)
    with pytest.raises(ConvertError) as error:
        convert(path, tmp_path / "mlx")
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "mlx" / "config.json").exists()


def test_a_base_that_is_no_chat_model_is_refused_every_time(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "llama", vocabulary=Vocabulary(template=None))
    for _ in range(2):
        with pytest.raises(TokenizerError, match=r"tiny\.gguf: no tokenizer\.chat_template; a chat model is needed"):
            prepare(str(path), tmp_path / "runs")


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


@pytest.mark.parametrize(("config", "says"), [({"model_type": "granite"}, "model_type 'granite' is not supported; known are llama, qwen2"),
                                              ({"model_type": "llama", "quantization": {"bits": 4}}, "its weights are quantised")])
def test_a_directory_that_would_train_on_a_wrong_loss_is_refused(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BaseError, match=says):
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

TEXT = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = sys.argv[1], 512, 1, 2
server, out = xllamacpp.Server(params), []
for prompt in json.loads(sys.argv[2]):
    found = server.handle_completions({"prompt": prompt, "max_tokens": int(sys.argv[3]), "temperature": 0, "repeat_penalty": 1.0})
    out.append((found if isinstance(found, dict) else json.loads(found))["choices"][0]["text"])
print(json.dumps(out))
"""
PROMPTS = ["What is the capital of France?", "Merhaba, nasılsın?", "Write a haiku about the sea.", "sana bisi sorucam", "Name three colours.",
           "Türkiye'nin başkenti neresi?", "What is 2 + 2?", "Explain recursion in one sentence.", "Bugün hava çok güzel.", "Who wrote Hamlet?",
           "Translate to French: good morning", "List the days of the week.", "Rust mı Python mı?", "What is water made of?", "Bana bir fıkra anlat.",
           "Why is the sky blue?", "Give me a recipe for tea.", "kanka naber", "What is a stack?", "Say hello in Spanish."]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fetch()
    return prepare("smollm2", Path(os.environ.get("JESSY_RUNS") or ROOT / "runs"))


@pytest.mark.alone
def test_the_real_base_says_what_llama_cpp_says(real: Any) -> None:
    """Its greedy text, on the same weights in float32: with 4 bits llama.cpp rounds the activations too, and parts at near-ties."""
    from training.base import chat
    from training.generate import replies

    talk, tokens = chat(real.directory), 20
    dialogues = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    ours = replies(real.directory, None, dialogues, max_tokens=tokens)
    exact = dequantised(real.gguf, ROOT / ".cache" / "float32" / "smollm2-f32" / "model.gguf")
    theirs = run(TEXT, exact, json.dumps([talk.render(one, generate=True) for one in dialogues]), tokens)
    assert "Paris" in ours[0]
    same = [agreement(talk.tokenizer.encode(a).ids, talk.tokenizer.encode(b).ids) for a, b in zip(ours, theirs, strict=True)]
    assert sum(same) / len(same) >= 0.95, list(zip(ours, theirs, strict=True))


def agreement(ours: list[int], theirs: list[int]) -> float:
    """Share of tokens before the first that differs."""
    length = max(len(ours), len(theirs))
    return next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), min(len(ours), len(theirs))) / length
