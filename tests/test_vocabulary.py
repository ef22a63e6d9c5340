"""A base with tokens of its training text's own: what stays is what it was, what is new begins as its parts, and llama.cpp reads it the same way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.tiny_models import Shape, write
from tests.tiny_models import Vocabulary as Spelling
from tests.tiny_training import BYTES, CHATML, base, recipe
from training.base import BaseError, chat, prepare
from training.dataset import split
from training.entries import load_entries
from training.export import export
from training.parity import key_values_changed, prove
from training.recipe import RecipeError, load_recipe
from training.tokenizer import Message
from training.train import candidate
from training.vocabulary import Vocabulary, vocabulary

TEXT = [("naber kanka, nasılsın", 5), ("iyiyim kanka, sen nasılsın", 5), ("çok şaşırdım kanka", 4), ("zz", 1)]
SPOKEN: list[list[Message]] = [[{"role": "user", "content": "naber kanka"}, {"role": "assistant", "content": "<think>\n1. Soruyor.\n</think>\nİyiyim kanka, sen nasılsın?"}]]
UNSEEN = "Ğöç 'zz' 😀\tQuux kanka"


def rows(path: Path, name: str = "token_embd.weight") -> np.ndarray:
    found = next(one for one in gguf.GGUFReader(path).tensors if one.name == name)
    return np.asarray(gguf.quants.dequantize(found.data, found.tensor_type), dtype=np.float32).reshape([int(size) for size in reversed(found.shape)])


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma"])
@pytest.mark.parametrize("unused", [True, False])
def test_it_reads_its_text_in_fewer_tokens_and_is_otherwise_the_base(arch: str, unused: bool, tmp_path: Path) -> None:
    source = base(tmp_path / "base", arch)
    plain, made = prepare(str(source), tmp_path), prepare(str(source), tmp_path, [], Vocabulary(12, unused, TEXT))
    assert made.gguf and made.directory != plain.directory and made.sha256 == plain.sha256
    before, after = chat(plain.directory).tokenizer, chat(made.directory).tokenizer
    for text in (*(text for text, _ in TEXT), UNSEEN):
        ids = after.encode(text, add_special_tokens=False).ids
        assert after.decode(ids, skip_special_tokens=False) == text
    assert len(after.encode(TEXT[0][0]).ids) < 0.7 * len(before.encode(TEXT[0][0]).ids)
    # A token's row is the base's; a new one's is the mean of the rows that spelt it.
    old, new = rows(source), rows(made.gguf)
    assert len(new) == after.get_vocab_size()
    fresh = 0
    for token, number in after.get_vocab().items():
        if (known := before.token_to_id(token)) is not None:
            expected = old[known]
        else:
            expected = old[before.encode(after.decode([number]), add_special_tokens=False).ids].mean(axis=0)
            fresh += 1
        np.testing.assert_allclose(new[number], expected, atol=2e-3)
    assert fresh == 12
    same = {one.name: one.data.tobytes() for one in gguf.GGUFReader(source).tensors if "token_embd" not in one.name and one.name != "output.weight"}
    assert same.items() <= {one.name: one.data.tobytes() for one in gguf.GGUFReader(made.gguf).tensors}.items()
    # And an export of it is what llama.cpp reads and computes; prove raises where it is not.
    export(made, None, tmp_path / "model.gguf", kind="F16", name="x")
    assert prove(made, None, tmp_path / "model.gguf", SPOKEN, kind="F16")["key_values_changed"] == ["general.file_type", "general.name"]


def test_without_the_unused_tokens_the_text_is_spelt_as_before(tmp_path: Path) -> None:
    tokens = [*BYTES[:257], "ka", "kan", "qx", *BYTES[257:]]
    words = Spelling(tokens=tokens, types=[1] * 260 + [3] * 15, merges=("z z", "q x", "k a", "ka n"), template=CHATML, bos=261, eos=262)
    source = write(tmp_path / "tiny.gguf", "llama", shape=Shape(layers=1), vocabulary=words)
    made = prepare(str(source), tmp_path, [], Vocabulary(0, False, [("naber kanka", 3)]))
    assert made.gguf
    before, after = chat(prepare(str(source), tmp_path).directory), chat(made.directory)
    assert before.tokenizer.encode("naber kanka").tokens == after.tokenizer.encode("naber kanka").tokens
    # The merges that "kan" is made by stay, so do bytes and control tokens, under new numbers; the others go.
    assert set(tokens) - {*after.tokenizer.get_vocab()} == {"zz", "qx"}
    assert (after.bos, after.eos) == (before.bos, before.eos)
    assert {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"} <= {*key_values_changed(source, made.gguf)}
    with pytest.raises(BaseError, match="no merge would be left"):
        prepare(str(source), tmp_path, [], Vocabulary(0, False, [("yo", 3)]))


def test_it_is_the_same_for_the_same_text_and_another_for_another(tmp_path: Path) -> None:
    source, wanted = base(tmp_path / "base"), Vocabulary(12, False, TEXT)
    one, again = (prepare(str(source), tmp_path / runs, [], wanted).gguf for runs in ("one", "two"))
    assert one and again and one.read_bytes() == again.read_bytes()
    assert len({wanted.name, replace(wanted, new=11).name, replace(wanted, unused=True).name, replace(wanted, text=TEXT[:2]).name}) == 4


def test_nothing_that_is_held_back_is_learnt_from(tmp_path: Path) -> None:
    path = recipe(tmp_path, base(tmp_path / "base"))
    entries = load_entries()
    assert vocabulary(load_recipe(path), entries) is None
    path.write_text("new_tokens = 100\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    wanted = load_recipe(path)
    found = vocabulary(wanted, entries)
    assert found
    _, held = split(entries, wanted.dataset.valid, wanted.dataset.seed)
    apart = {prompt for entry in held for prompt in entry.prompts}
    assert len(apart) > 1000 and not apart & {text for text, _ in found.text}


def test_a_base_that_has_no_such_vocabulary_is_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "pieces.gguf", "llama", vocabulary=replace(Spelling(template=CHATML), model="llama", merges=None))
    with pytest.raises(BaseError, match="its tokenizer is 'llama'; new_tokens and unused_tokens need a byte-level BPE"):
        prepare(str(source), tmp_path, [], Vocabulary(5, True, TEXT))
    with pytest.raises(BaseError, match="new_tokens or unused_tokens needs a base that is a GGUF file"):
        prepare(str(tmp_path), tmp_path, [], Vocabulary(5, True, TEXT))


def test_the_vocabulary_is_part_of_a_candidates_name(tmp_path: Path) -> None:
    """Its absence is not: what was trained before there was any keeps its name."""
    path = recipe(tmp_path, base(tmp_path / "base"))
    plain = load_recipe(path)
    ready = prepare(plain.base, tmp_path)
    names = {candidate(one, ready, tmp_path) for one in (plain, replace(plain, new_tokens=5), replace(plain, unused_tokens=False))}
    assert len(names) == 3
    path.write_text("new_tokens = -1\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"'new_tokens' is -1; allowed is 0 to 1000000"):
        load_recipe(path)
