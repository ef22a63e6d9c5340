"""Export: the file holds what was trained, llama.cpp reads it, and one that is not what was trained stops the pipeline."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file

from tests.conftest import ROOT
from tests.tiny_training import base, left, recipe, train
from training.__main__ import main
from training.base import Base, BaseError, prepare
from training.convert import ARCHITECTURES, mlx_name
from training.export import OWN, TYPES, ExportError, adapter_gguf, export
from training.header import ConvertError
from training.keyvalues import permuted, read_directory
from training.merge import CONFIG, WEIGHTS, Merge, MergeError
from training.parity import ParityError, key_values_changed, prove
from training.parts import read
from training.tokenizer import Message

SPOKEN: list[list[Message]] = [
    [{"role": "user", "content": said}, {"role": "assistant", "content": f"<think>\n1. Soruyor, kolay; söyle.\n</think>\n{answer}"}]
    for said, answer in (("naber", "İyiyim, sen?"), ("selam kanka", "Selam, hoş geldin!"), ("rust zor mu", "Başta zor, sonra rahat."))]
# The log-probabilities behind some prompts, for as many files as are given: llama.cpp with and without a LoRA adapter.
LLAMA = """
import json, sys
import xllamacpp
for path, adapter in json.loads(sys.argv[1]):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.verbosity = path, 256, 1, -1
    if adapter:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = adapter, 1.0
        params.lora_adapters = [info]
    server, said = xllamacpp.Server(params), []
    for start in range(20):
        found = server.handle_completions({"prompt": [70 + start, 101, 120, 28, 45], "n_predict": 1, "temperature": 0, "n_probs": 300, "ignore_eos": True})
        found = (found if isinstance(found, dict) else json.loads(found))["choices"][0]["logprobs"]
        said.append({one["id"]: one["logprob"] for one in found["content"][0]["top_logprobs"]} if found else {})
    print(json.dumps(said))
"""
Said = list[dict[str, float]]
# Half a step of each type, as a share of a tensor's largest value, and a little more.
STEPS = {"F32": 1e-7, "F16": 1e-3, "BF16": 5e-3, "Q8_0": 6e-3, "Q5_0": 0.05, "Q5_1": 0.05, "Q4_0": 0.1, "Q4_1": 0.1}


def llama(*files: tuple[Path, Path | None]) -> list[Said]:
    asked = json.dumps([(str(path), str(adapter) if adapter else "") for path, adapter in files])
    done = subprocess.run([sys.executable, "-c", LLAMA, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def apart(one: Said, other: Said) -> float:
    """The largest difference of a log-probability. A likeliest token that is half a letter has llama.cpp say nothing."""
    both = [(mine, theirs) for mine, theirs in zip(one, other, strict=True) if mine and theirs]
    assert len(both) >= 3
    return max(abs(mine[token] - theirs[token]) for mine, theirs in both for token in mine)


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("tiny")
    return prepare(str(base(folder)), folder)


def adapter(folder: Path, tiny: Base, kind: str, *, rank: int = 4, size: float = 0.3, arch: str = "llama") -> Path:
    """A random adapter of mlx-lm for q and v of every layer, or those weights whole."""
    draw, weights = np.random.default_rng(5), dict[str, np.ndarray]()
    for one in read(tiny).tensors:
        if one.name.endswith(("attn_q.weight", "attn_v.weight")):
            stem = mlx_name(ARCHITECTURES[arch], one.name).removesuffix(".weight")
            out, into = one.shape
            if kind == "full":
                weights[f"{stem}.weight"] = one.values() + size * draw.standard_normal((out, into)).astype(np.float32) / 8
                continue
            weights[f"{stem}.lora_a"] = draw.standard_normal((into, rank)).astype(np.float32) / 8
            weights[f"{stem}.lora_b"] = size * draw.standard_normal((rank, out)).astype(np.float32) / 2
            if kind == "dora":
                weights[f"{stem}.m"] = draw.uniform(0.5, 1.5, out).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / WEIGHTS)
    parameters = {"rank": rank, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    (folder / CONFIG).write_text(json.dumps({"fine_tune_type": kind, "num_layers": 3} | ({} if kind == "full" else {"lora_parameters": parameters})))
    return folder


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_directory_becomes_the_gguf_that_it_came_from(arch: str, tmp_path: Path) -> None:
    """The way back of every architecture: values within the step of the type, and the same next token in llama.cpp."""
    source = base(tmp_path, arch)
    directory = Base(arch, prepare(str(source), tmp_path).directory, None, "")
    wanted = tensors(source)
    for kind, step in (("F32", 1e-6), ("F16", 1e-3), ("Q8_0", 1e-2)):
        export(directory, None, tmp_path / f"{kind}.gguf", kind=kind, name="again")
        found = tensors(tmp_path / f"{kind}.gguf")
        assert found.keys() == wanted.keys()
        assert max(float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted) < step
    first, again, half = llama((source, None), (tmp_path / "F32.gguf", None), (tmp_path / "F16.gguf", None))
    assert apart(first, again) < 1e-4 and apart(first, half) < 1e-2


@pytest.mark.parametrize("kind", [kind.name for kind in TYPES])
def test_every_type_is_written_and_read_by_llama_cpp(kind: str, tiny: Base, tmp_path: Path) -> None:
    made = export(tiny, adapter(tmp_path / "a", tiny, "full"), tmp_path / "model.gguf", kind=kind, name="x")
    kinds = {one.name: one.tensor_type for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    # The base is in F32. Beside quantised matrices it stays as it is; a float file has every matrix in its type.
    whole = kind in ("F32", "F16", "BF16")
    assert made["merged"] == 6 and kinds["blk.0.attn_q.weight"] == Kind[kind] and kinds["blk.0.attn_norm.weight"] == Kind.F32
    assert kinds["blk.0.attn_k.weight"] == (Kind[kind] if whole else Kind.F32) and (whole or made["copied"] == made["tensors"] - 6)
    # The rounded values again, in float32: llama.cpp reads them in the type's bytes as gguf does. It rounds activations too.
    trained = Merge(tmp_path / "a")
    rounded = {mlx_name(ARCHITECTURES["llama"], name): values for name, values in tensors(tmp_path / "model.gguf").items()}
    for name in trained.names:
        assert float(np.abs(rounded[name] - trained.tensor(name)).max() / np.abs(trained.tensor(name)).max()) < STEPS[kind]
    save_file(rounded, tmp_path / "a" / WEIGHTS)
    export(tiny, tmp_path / "a", tmp_path / "rounded.gguf", kind="F32", name="x")
    exact, found = llama((tmp_path / "rounded.gguf", None), (tmp_path / "model.gguf", None))
    assert apart(exact, found) < (0.3 if kind.startswith("Q") else 0.05)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_what_is_exported_is_what_mlx_lm_computes_with_the_adapter(kind: str, tiny: Base, tmp_path: Path) -> None:
    trained = adapter(tmp_path / "a", tiny, kind)
    export(tiny, trained, tmp_path / "model.gguf", kind="F16", name="x")
    found = prove(tiny, trained, tmp_path / "model.gguf", SPOKEN, kind="F16")
    assert found["top1"] >= 0.99 and found["max_difference"] < 0.05 and found["adapter"]["max_change"] > 0.1
    assert found["llama_cpp"]["max_logprob_difference"] < 0.05
    assert json.loads((tmp_path / "parity.json").read_text())["passed"] is True


def test_a_file_that_is_not_what_was_trained_is_refused(tiny: Base, tmp_path: Path) -> None:
    trained = adapter(tmp_path / "a", tiny, "lora")
    export(tiny, None, tmp_path / "model.gguf", kind="F16", name="x")  # the base alone, the adapter forgotten
    with pytest.raises(ParityError, match=r"read back by mlx-lm, the likeliest token is the same at .* and F16 needs 99%"):
        prove(tiny, trained, tmp_path / "model.gguf", SPOKEN, kind="F16")
    assert json.loads((tmp_path / "parity.json").read_text())["passed"] is False


def test_an_adapter_that_changes_nothing_is_refused(tiny: Base, tmp_path: Path) -> None:
    trained = adapter(tmp_path / "a", tiny, "lora", size=0.0)
    export(tiny, trained, tmp_path / "model.gguf", kind="F16", name="x")
    with pytest.raises(ParityError, match="the adapter moves no logit"):
        prove(tiny, trained, tmp_path / "model.gguf", SPOKEN, kind="F16")


def test_key_values_are_the_bases_but_for_name_and_file_type(tiny: Base, tmp_path: Path) -> None:
    assert tiny.gguf
    export(tiny, adapter(tmp_path / "a", tiny, "lora"), tmp_path / "model.gguf", kind="Q8_0", name="jessy")
    assert set(key_values_changed(tiny.gguf, tmp_path / "model.gguf")) == set(OWN)
    own, theirs = tensors(tmp_path / "model.gguf"), tensors(tiny.gguf)
    assert all(np.array_equal(own[name], theirs[name]) for name in own if not name.endswith(("attn_q.weight", "attn_v.weight")))


def test_an_adapter_gguf_does_what_the_merged_model_does(tiny: Base, tmp_path: Path) -> None:
    assert tiny.gguf
    trained = adapter(tmp_path / "a", tiny, "lora")
    export(tiny, trained, tmp_path / "model.gguf", kind="F32", name="x")
    adapter_gguf(tiny, trained, tmp_path / "adapter.gguf")
    plain, merged, beside = llama((tiny.gguf, None), (tmp_path / "model.gguf", None), (tiny.gguf, tmp_path / "adapter.gguf"))
    assert apart(merged, beside) < 1e-3 < apart(plain, merged)


def test_of_a_directory_in_hugging_faces_layout_the_rows_of_q_and_k_are_turned(tiny: Base, tmp_path: Path) -> None:
    """As transformers stores llama: each head's halves one after the other."""
    values = np.arange(16, dtype=np.float32)[:, None]
    assert permuted(values, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    folder = shutil.copytree(tiny.directory, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_traditional": False}))
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    for name, heads in ((name, 4 if "q_proj" in name else 2) for name in weights if name.endswith(("q_proj.weight", "k_proj.weight"))):
        rows = np.argsort(permuted(np.arange(len(weights[name]), dtype=np.float32)[:, None], heads)[:, 0])
        weights[name] = weights[name][rows]
    save_file(weights, folder / "model.safetensors")
    export(Base("hf", folder, None, ""), None, tmp_path / "model.gguf", kind="F32", name="x")
    assert tiny.gguf
    own, theirs = tensors(tmp_path / "model.gguf"), tensors(tiny.gguf)
    assert all(np.array_equal(own[name], theirs[name]) for name in theirs)


def test_an_unknown_pre_tokenizer_is_refused_and_not_guessed(tiny: Base, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.directory, tmp_path / "hf")
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    found["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(BaseError, match="its pre-tokenizer is none of smollm, gpt-2, llama-bpe"):
        read_directory(folder)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, runs) of a tiny base that was trained."""
    folder = tmp_path_factory.mktemp("pipeline")
    path = recipe(folder, base(folder), epochs=0.5)
    done = train(path, folder / "runs")
    assert done.returncode == 0, done.stderr
    return path, folder / "runs"


def stage(pipeline: tuple[Path, Path], *more: str, name: str = "export", **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "training", name, str(pipeline[0]), "--runs", str(pipeline[1]), *more], cwd=ROOT,
                          capture_output=True, text=True, encoding="utf-8", check=False, timeout=300, **options)


def test_the_stage_exports_once_and_proves_it(pipeline: tuple[Path, Path]) -> None:
    done = stage(pipeline)
    assert done.returncode == 0, done.stderr
    folder = left(*pipeline) / "export"
    made = json.loads((folder / "manifest.json").read_text())
    assert made["parity"]["passed"] and made["parity"]["dialogues"] == 32 and made["type"] == "F16"
    assert "parity: " in done.stdout and "positions the same in mlx-lm" in done.stdout
    before = (folder / "model.gguf").stat().st_mtime_ns
    assert "exported already" in stage(pipeline).stdout and (folder / "model.gguf").stat().st_mtime_ns == before
    assert not [one for one in folder.iterdir() if one.name.startswith(".")]


def test_a_file_that_changed_since_its_proof_is_not_registered(pipeline: tuple[Path, Path]) -> None:
    assert stage(pipeline).returncode == 0
    file = left(*pipeline) / "export" / "model.gguf"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = stage(pipeline, name="register")
    assert done.returncode == 1 and "is not the file that was proved" in done.stderr and len(done.stderr.splitlines()) == 1
    assert stage(pipeline).returncode == 0 and file.read_bytes() == whole


def test_a_full_disk_leaves_the_old_file(pipeline: tuple[Path, Path]) -> None:
    assert stage(pipeline).returncode == 0
    file = left(*pipeline) / "export" / "model.gguf"
    old = file.read_bytes()
    limit = len(old) // 2
    done = stage(pipeline, "--type", "F32", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1 and "could not be written" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert file.read_bytes() == old and not list(file.parent.glob(".*.tmp"))


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda folder: (folder / WEIGHTS).write_bytes(b"\x10" + (folder / WEIGHTS).read_bytes()[1:3000]), "no adapter: SafetensorError"),
    (lambda folder: (folder / CONFIG).unlink(), "no adapter: FileNotFoundError"),
    (lambda folder: save_file({"model.layers.0.mixer.weight": np.zeros((2, 2), np.float32)}, folder / WEIGHTS), "has no place in the base: an adapter of another architecture"),
    (lambda folder: save_file({"model.layers.0.self_attn.q_proj.weight": np.zeros((2, 2), np.float32)}, folder / WEIGHTS), "an adapter of another model"),
    (lambda folder: save_file({"model.layers.0.self_attn.q_proj.weight": np.full((64, 64), np.nan, np.float32)}, folder / WEIGHTS), "values that are no numbers"),
])
def test_a_wrong_adapter_is_one_line_and_nothing_is_written(spoil: Any, says: str, tiny: Base, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", tiny, "full")
    spoil(folder)
    with pytest.raises((MergeError, ExportError), match=says) as raised:
        export(tiny, folder, tmp_path / "model.gguf", kind="F16", name="x")
    assert "\n" not in str(raised.value) and not [one for one in tmp_path.iterdir() if one.name != "a"]


def test_a_truncated_base_is_one_line(tiny: Base, tmp_path: Path) -> None:
    assert tiny.gguf
    (tmp_path / "half.gguf").write_bytes(tiny.gguf.read_bytes()[:5000])
    with pytest.raises(ConvertError, match="not a GGUF file, or a truncated one") as raised:
        export(Base("half", tiny.directory, tmp_path / "half.gguf", ""), None, tmp_path / "model.gguf", kind="F16", name="x")
    assert "\n" not in str(raised.value)


def test_bad_requests_are_one_line(pipeline: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, runs = pipeline
    assert main(["export", str(path), "--runs", str(runs), "--type", "Q3_X"]) == 1
    assert "type 'Q3_X' is not known; F32, F16, BF16, Q8_0" in capsys.readouterr().err
    shutil.copytree(runs / "base", tmp_path / "base")
    assert main(["export", str(path), "--runs", str(tmp_path)]) == 1
    assert "is not trained to its end; 'python -m training train" in capsys.readouterr().err
    assert main(["register", str(path), "--runs", str(tmp_path)]) == 1
    assert "has no whole export; 'python -m training export" in capsys.readouterr().err
