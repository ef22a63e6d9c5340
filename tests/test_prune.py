"""A base without some of its layers: what stays is what it was, in mlx-lm and in llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from tests.tiny_models import write
from tests.tiny_training import base, recipe
from training.base import BaseError, prepare
from training.export import export
from training.parity import key_values_changed, prove
from training.prune import spelt
from training.recipe import RecipeError, load_recipe
from training.tokenizer import Message
from training.train import candidate

KEPT = [0, 2]
SPOKEN: list[list[Message]] = [[{"role": "user", "content": "naber"}, {"role": "assistant", "content": "<think>\n1. Soruyor.\n</think>\nİyiyim, sen?"}]]


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gemma", "phi3"])
def test_it_computes_what_the_base_computes_without_those_layers(arch: str, tmp_path: Path) -> None:
    source = base(tmp_path / "base", arch)
    whole, shallow = prepare(str(source), tmp_path), prepare(str(source), tmp_path, KEPT)
    assert shallow.gguf and whole.directory != shallow.directory and whole.sha256 == shallow.sha256
    wanted, found = (load_model(one.directory, lazy=False)[0] for one in (whole, shallow))
    wanted.model.layers = [wanted.model.layers[number] for number in KEPT]
    asked = mx.array([[70, 101, 120, 28, 45]])
    assert np.array_equal(np.array(wanted(asked)), np.array(found(asked)))
    assert key_values_changed(source, shallow.gguf) == sorted([f"{arch}.block_count", "general.file_type", "general.name"])
    stays = {one.name: one.data.tobytes() for one in gguf.GGUFReader(source).tensors if not one.name.startswith("blk.1.")}
    assert [one.data.tobytes() for one in gguf.GGUFReader(shallow.gguf).tensors] == list(stays.values())
    # And an export of it is what llama.cpp computes; prove raises where it is not.
    export(shallow, None, tmp_path / "model.gguf", kind="F16", name="x")
    assert prove(shallow, None, tmp_path / "model.gguf", SPOKEN, kind="F16")["key_values_changed"] == ["general.file_type", "general.name"]


@pytest.mark.parametrize("layers", [[0, 3], [2, 0], [1, 1]])
def test_layers_that_it_does_not_have_are_one_line(layers: list[int], tmp_path: Path) -> None:
    source = base(tmp_path / "base")
    with pytest.raises(BaseError, match=r"keep_layers is \[\d, \d\]; its layers are 0 to 2, and they are needed in ascending order") as raised:
        prepare(str(source), tmp_path, layers)
    assert "\n" not in str(raised.value) and not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_layers_that_differ_by_their_number_stay(arch: str, tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=f"the layers of {arch} differ by their number; none can be left out"):
        prepare(str(write(tmp_path / "tiny.gguf", arch)), tmp_path, [0])


def test_a_model_directory_has_no_layers_to_choose(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="keep_layers needs a base that is a GGUF file"):
        prepare(str(tmp_path), tmp_path, [0])


def test_the_layers_are_part_of_a_candidates_name(tmp_path: Path) -> None:
    """Their absence is not: what was trained before there were any keeps its name."""
    path = recipe(tmp_path, base(tmp_path / "base"))
    plain = load_recipe(path)
    path.write_text(f"keep_layers = {KEPT}\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    ready = prepare(plain.base, tmp_path)
    assert candidate(plain, ready, tmp_path) != candidate(load_recipe(path), ready, tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(str(KEPT), '[0, "2"]'), encoding="utf-8")
    with pytest.raises(RecipeError, match="'keep_layers' has '2'; numbers of layers are needed"):
        load_recipe(path)


def test_layers_are_spelt_in_short() -> None:
    assert spelt([0, 1, 2, 5, 28, 29]) == "0-2,5,28-29"
