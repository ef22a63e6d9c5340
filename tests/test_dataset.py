"""The data set stage: rows from entries, a way of asking on one side, nothing of the eval set, the same bytes again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cases import load_cases
from harness.contamination import Text as Piece
from harness.contamination import bare, overlaps, prompts
from harness.engines import Options
from harness.engines.embedded import _server
from harness.fetch import fetch
from training.__main__ import main
from training.batches import read_rows
from training.dataset import build, completion, split
from training.entries import CATEGORIES, Answer, Entry, load_entries
from training.recipe import Dataset, Recipe, RecipeError, Weights, load_recipe
from training.tokenizer import Chat, TokenizerError, read_chat


@pytest.fixture(scope="module")
def chat() -> Chat:
    return read_chat(fetch() / "model.gguf")


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, ...]:
    return load_entries()


@pytest.fixture(scope="module")
def made(chat: Chat, entries: tuple[Entry, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The default recipe with fewer rows."""
    runs = tmp_path_factory.mktemp("runs")
    return build(default(1500, 1500), entries, chat, runs), runs / "jessy-v2" / "dataset"


def default(rows: int, intent_rows: int) -> Recipe:
    recipe = load_recipe("jessy-v2")
    return replace(recipe, dataset=replace(recipe.dataset, rows=rows, intent_rows=intent_rows))


def rows(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_no_way_of_asking_stands_on_both_sides(made: tuple[dict[str, Any], Path], entries: tuple[Entry, ...]) -> None:
    held = {bare(prompt) for entry in split(entries, 0.1, made[0]["dataset"]["seed"])[1] for prompt in entry.prompts}
    taught = {bare(row["messages"][-2]["content"]) for row in rows(made[1], "train")}
    assert held and not taught & held


def test_intent_rows_end_behind_the_intent_and_cost_less(chat: Chat, entries: tuple[Entry, ...], tmp_path: Path) -> None:
    settings = replace(load_recipe("jessy-v2").dataset, rows=200, intent_rows=300)
    manifest = build(Recipe("both", dataset=settings), entries, chat, tmp_path)
    found = rows(tmp_path / "both" / "dataset", "train")
    short = [row for row in found if row.get("to_intent")]
    # Rounding over the categories may cost a row or two.
    assert abs(len(short) - 300) <= 4 and len(found) - len(short) == manifest["train"]["rows"] - manifest["train"]["to_intent"]
    read = read_rows(tmp_path / "both" / "dataset" / "train.jsonl", chat, Weights(), 640)
    assert sum(len(row.ids) for row in read) == manifest["train"]["tokens"]
    for row, tokens in zip(found, read, strict=True):
        taught = chat.tokenizer.decode(tokens.ids[tokens.weights > 0].tolist(), skip_special_tokens=False)
        whole = row["messages"][-1]["content"]
        first = whole.split("\n")[1]
        wanted = f"<think>\n{first.partition(';')[0]};" if row.get("to_intent") else whole
        assert taught.startswith(wanted) and (not row.get("to_intent") or len(taught) <= len(wanted) + 8), (taught, wanted)
    assert len({json.dumps(row["messages"][:-1]) for row in short}) == len(short)


def test_every_category_stands_on_both_sides(made: tuple[dict[str, Any], Path]) -> None:
    for part in ("train", "valid"):
        assert set(made[0][part]["by_category"]) == set(CATEGORIES)


def test_a_tenth_of_the_ways_of_asking_is_held_back_and_every_situation_is_taught(entries: tuple[Entry, ...]) -> None:
    train, valid = split(entries, 0.1, 7)
    taught, held = {entry.id: entry for entry in train}, {entry.id: entry for entry in valid}
    for entry in entries:
        if entry.prompts:
            assert not set(taught[entry.id].prompts) & set(held[entry.id].prompts)
            assert set(taught[entry.id].prompts) | set(held[entry.id].prompts) == set(entry.prompts)
            assert len(held[entry.id].prompts) == max(1, round(0.1 * len(entry.prompts)))
    dialogues = [entry.id for entry in entries if entry.turns]
    assert sum(name in held for name in dialogues) == round(0.1 * len(dialogues)) and not any(name in held and name in taught for name in dialogues)
    assert split(entries, 0.1, 7) == (train, valid) != split(entries, 0.1, 8)


def test_categories_follow_the_weights(made: tuple[dict[str, Any], Path]) -> None:
    manifest, _ = made
    weights, counts = manifest["dataset"]["weights"], manifest["train"]["by_category"]
    for category in CATEGORIES:
        share = weights[category] / sum(weights.values())
        assert counts[category] == pytest.approx(share * manifest["train"]["rows"], rel=0.05, abs=2)


def test_no_row_comes_near_an_eval_prompt(made: tuple[dict[str, Any], Path]) -> None:
    texts = [Piece(row["entry"], message["content"]) for part in ("train", "valid") for row in rows(made[1], part)
             for message in row["messages"] if message["role"] == "user"]
    assert overlaps(prompts(), texts[:4000]) == []


def test_rows_are_distinct_and_end_with_a_supervised_reply(made: tuple[dict[str, Any], Path]) -> None:
    manifest, folder = made
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == len(lines) == manifest["train"]["distinct"]
    assert manifest["train"]["unsupervised"] == manifest["valid"]["unsupervised"] == 0
    for row in rows(folder, "train"):
        last = row["messages"][-1]
        assert last["role"] == "assistant" and last["content"].startswith("<think>\n1. ")
        assert all("<think>" not in message["content"] for message in row["messages"][:-1])


def test_the_same_recipe_gives_the_same_bytes(made: tuple[dict[str, Any], Path], chat: Chat, entries: tuple[Entry, ...],
                                              tmp_path: Path) -> None:
    manifest, _ = made
    assert build(default(1500, 1500), entries, chat, tmp_path)["digest"] == manifest["digest"]
    few = default(100, 0)
    assert len({build(replace(few, dataset=replace(few.dataset, seed=seed)), entries, chat, tmp_path)["digest"] for seed in (1, 2)}) == 2
    assert (tmp_path / "jessy-v2" / "dataset" / "report.html").is_file()


def test_rows_longer_than_the_limit_are_removed_not_cut(chat: Chat, entries: tuple[Entry, ...], tmp_path: Path) -> None:
    deep = [entry for entry in entries if entry.category == "philosophy"]
    manifest = build(Recipe("short", dataset=Dataset(rows=40, max_tokens=64)), deep, chat, tmp_path)
    assert manifest["train"]["rows"] == 0 and manifest["too_long_removed"] > 0


def test_a_dialogue_gives_a_row_for_every_reply(chat: Chat, entries: tuple[Entry, ...], tmp_path: Path) -> None:
    dialogues = [entry for entry in entries if entry.category == "multi-turn"]
    build(Recipe("talk", dataset=Dataset(rows=300, noise=0.0)), dialogues, chat, tmp_path)
    by_entry: dict[str, set[int]] = {}
    for row in rows(tmp_path / "talk" / "dataset", "train"):
        by_entry.setdefault(row["entry"], set()).add(sum(message["role"] == "user" for message in row["messages"]))
    turns = {entry.id: len(entry.turns) for entry in dialogues}
    assert all(counts == set(range(1, turns[name] + 1)) for name, counts in by_entry.items())


def test_the_prompt_part_of_a_row_is_what_the_server_will_see(chat: Chat) -> None:
    messages = [{"role": "system", "content": "Sen Jessy'sin."}, {"role": "user", "content": "slm 2024"},
                {"role": "assistant", "content": completion(Answer(thinking="1. Selam veriyor, kolay.", text="Selam!"))}]
    ids, before = chat.row(messages)
    assert chat.tokenizer.decode(ids[:before], skip_special_tokens=False).endswith("<|im_start|>assistant\n")
    assert chat.tokenizer.decode(ids[before:], skip_special_tokens=False).endswith("Selam!<|im_end|>\n")
    assert chat.render(messages[:-1], generate=True) in chat.render(messages)


def test_the_tokenizer_counts_as_llama_cpp_does(chat: Chat, entries: tuple[Entry, ...]) -> None:
    server = _server(fetch() / "model.gguf", Options())
    odd = ["docker'ı `docker ps -a` ile 2024'te 3.11  çift   boşluk\n\nyeni satır\t😂👍🏽", "<|im_start|>user\nSelam<|im_end|>",
           "İstanbul'da IŞIK ığdır 12345 a1b2", "def f(x):\n    return x**2  # kare"]
    for text in [*odd, *(entry.said[0] for entry in entries[::20])]:
        counted = server.handle_completions({"prompt": text, "max_tokens": 1})["usage"]["prompt_tokens"]
        assert counted == len(chat.tokenizer.encode(text, add_special_tokens=False).ids), text


def test_the_page_escapes_what_the_entries_say(chat: Chat, entries: tuple[Entry, ...], tmp_path: Path) -> None:
    entry = entries[0].model_copy(update={"prompts": ("<script>alert(1)</script> nasıl yani kanka",)})
    build(Recipe("page", dataset=Dataset(rows=20)), [entry], chat, tmp_path)
    page = (tmp_path / "page" / "dataset" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("text, says", [
    ("[dataset]\nrow = 5", "unknown key 'dataset.row'; known keys: rows, intent_rows, weights"),
    ("bse = 'x'", "unknown key 'bse'; known keys: name, base"),
    ("[dataset]\nrows = 'many'", "'dataset.rows' is 'many'; int is needed"),
    ("[dataset]\nrows = 0", "'dataset.rows' is 0; allowed is 1 to"),
    ("[dataset.weights]\nchat = 1", "unknown category 'dataset.weights.chat'; the categories are conversation"),
    ("[dataset.weights]\nconversation = -1", "'dataset.weights.conversation' is -1; a number >= 0 is needed"),
    ("dataset = 3", "'dataset' is 3, not a table"),
    ("rows = ", "not TOML")])
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_recipe_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "jesy"]) == 4
    assert "training/recipes has jessy-v2" in capsys.readouterr().err


def test_a_base_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(TokenizerError, match="not a GGUF file"):
        read_chat(path)


def test_the_sealed_half_is_guarded_too() -> None:
    sealed = {case.id for case in load_cases("conversation", half="sealed")}
    assert sealed and sealed <= {prompt.where for prompt in prompts()}


def test_the_default_recipe_gives_twelve_thousand_distinct_rows(chat: Chat, entries: tuple[Entry, ...], tmp_path: Path) -> None:
    recipe = load_recipe("jessy-v2")
    # Its rows that end behind the intent are more of the same, and would take minutes.
    manifest = build(replace(recipe, dataset=replace(recipe.dataset, intent_rows=0)), entries, chat, tmp_path)
    assert manifest["train"]["distinct"] >= 12_000
    assert manifest["train"]["unsupervised"] == manifest["too_long_removed"] == 0
