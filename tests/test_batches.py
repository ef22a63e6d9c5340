"""Rows and micro-batches: every row once an epoch, the same order every time, and only replies supervised."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_training import CHATML, ROWS, base
from training.base import chat, prepare
from training.batches import Batches, RowError, Tokens, bucket, every, micro_batch, read_rows
from training.recipe import Weights
from training.tokenizer import Chat


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    folder = tmp_path_factory.mktemp("base")
    return chat(prepare(str(base(folder)), folder).directory)


def rows(count: int = 200, longest: int = 300) -> list[Tokens]:
    """Row number n is made of the token n alone."""
    lengths = np.random.default_rng(0).integers(3, longest, count)
    return [Tokens(np.full(length, number, np.int32), np.r_[0.0, np.ones(length - 1)].astype(np.float32)) for number, length in enumerate(lengths)]



def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def row(user: str, reply: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]})


def test_an_epoch_sees_every_row_once_but_for_what_fills_no_step() -> None:
    batches = Batches(rows(), step_tokens=1200, micro_tokens=600, seed=3)
    numbers = [int(micro.ids[line, 0]) for step in range(batches.per_epoch) for micro in batches.step(step)
               for line in range(len(micro.ids)) if (micro.positions[micro.weights > 0] // micro.ids.shape[1] == line).any()]
    assert len(numbers) == len(set(numbers))
    # An epoch has a whole number of steps of two micro-batches; at most one micro-batch stays out.
    assert len(numbers) >= 200 - 600 // 8


def test_the_order_follows_from_the_seed_and_the_step_alone() -> None:
    one, other = (Batches(rows(), step_tokens=1200, micro_tokens=600, seed=3) for _ in range(2))
    far = one.per_epoch + 2
    for step in range(far):
        one.step(step)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one.step(far), other.step(far), strict=True))
    epochs = [[micro.ids.tobytes() for micro in one.step(step)] for step in (0, one.per_epoch)]
    assert epochs[0] != epochs[1]
    another = Batches(rows(), step_tokens=1200, micro_tokens=600, seed=4)
    assert [micro.ids.tobytes() for micro in another.step(0)] != epochs[0]


def test_micro_batches_hold_to_their_size_and_waste_little() -> None:
    batches = Batches(rows(600), step_tokens=1024, micro_tokens=512, seed=0)
    micros = [micro for step in range(batches.per_epoch) for micro in batches.step(step)]
    assert max(micro.ids.size for micro in micros) <= 4 / 3 * 512
    assert sum(micro.tokens for micro in micros) / sum(micro.ids.size for micro in micros) > 0.85
    assert len({micro.ids.shape for micro in micros}) <= len({bucket(length) for length in range(1, 301)})


def test_a_row_longer_than_a_micro_batch_is_one_by_itself() -> None:
    micros = Batches([Tokens(np.arange(700, dtype=np.int32), np.ones(700, np.float32))], step_tokens=100, micro_tokens=100, seed=0).step(0)
    assert [micro.ids.shape for micro in micros] == [(1, bucket(700))] and micros[0].tokens == 700


def test_only_the_reply_is_supervised_and_every_token_of_it(tiny: Chat, tmp_path: Path) -> None:
    found = read_rows(written(tmp_path / "train.jsonl", [row(*one) for one in ROWS]), tiny, Weights(), 400)
    micro = micro_batch(found, 256, len(found))
    supervised = micro.weights > 0
    for number, (_, reply) in enumerate(ROWS):
        here = supervised & (micro.positions // 256 == number)
        assert tiny.tokenizer.decode(micro.targets[here].tolist(), skip_special_tokens=False) == f"{reply}<s2>\n"
        # The hidden state at a position sees what stands before its target, and no more.
        assert all(micro.ids.reshape(-1)[place + 1] == target for place, target in zip(micro.positions[here], micro.targets[here], strict=True))


def test_a_system_prompt_and_earlier_turns_are_context(tiny: Chat, tmp_path: Path) -> None:
    messages = [("system", "Sen Jessy'sin."), ("user", "adım Ali"), ("assistant", "Selam Ali!"), ("user", "adım ne"), ("assistant", "Ali!")]
    line = json.dumps({"messages": [{"role": role, "content": content} for role, content in messages]})
    found = read_rows(written(tmp_path / "train.jsonl", [line]), tiny, Weights(), 400)[0]
    assert tiny.tokenizer.decode(found.ids[found.weights > 0].tolist(), skip_special_tokens=False) == "Ali!<s2>\n"


def test_tokens_weigh_by_their_role(tiny: Chat, tmp_path: Path) -> None:
    reply = "<think>\n1. Soruyor, orta.\n2. Anlat.\n</think>\nBaşta zor, sonra rahat gelir."
    found = read_rows(written(tmp_path / "train.jsonl", [row("rust zor mu", reply)]), tiny, Weights(intent=2, thinking=3, opening=5, answer=7), 400)[0]

    def of(weight: float) -> str:
        return tiny.tokenizer.decode(found.ids[found.weights == weight].tolist(), skip_special_tokens=False)

    assert (of(2), of(3)) == ("<think>\n1. Soruyor, orta.", "\n2. Anlat.\n</think>\n")
    assert (of(5), of(7)) == ("Başta z", "or, sonra rahat gelir.<s2>\n")  # eight tokens: ş is two bytes


def test_what_the_user_says_last_can_be_learnt_too(tiny: Chat, tmp_path: Path) -> None:
    messages = [("system", "Sen Jessy'sin."), ("user", "adım Ali"), ("assistant", "Selam Ali!"), ("user", "Ali, nasılsın?"), ("assistant", "İyiyim Ali!")]
    line = json.dumps({"messages": [{"role": role, "content": content} for role, content in messages]})
    found = read_rows(written(tmp_path / "train.jsonl", [line]), tiny, Weights(prompt=0.5), 400)[0]

    def of(weight: float) -> str:
        return tiny.tokenizer.decode(found.ids[found.weights == weight].tolist(), skip_special_tokens=False)

    assert (of(0.5), of(1)) == ("Ali, nasılsın?", "İyiyim Ali!<s2>\n")


def test_of_a_row_to_the_intent_nothing_is_seen_behind_it(tiny: Chat, tmp_path: Path) -> None:
    reply = "<think>\n1. Soruyor, orta; anlat.\n2. Bitir.\n</think>\nBaşta zor."
    line = json.dumps({**json.loads(row("rust zor mu", reply)), "to_intent": True})
    found = read_rows(written(tmp_path / "train.jsonl", [line]), tiny, Weights(), 400)[0]
    assert tiny.tokenizer.decode(found.ids[found.weights > 0].tolist(), skip_special_tokens=False) == "<think>\n1. Soruyor, orta;"
    assert found.weights[-1] > 0
    # A first line of one clause is the intent as a whole.
    line = json.dumps({**json.loads(row("rust zor mu", reply.replace(";", ","))), "to_intent": True})
    found = read_rows(written(tmp_path / "train.jsonl", [line]), tiny, Weights(), 400)[0]
    assert tiny.tokenizer.decode(found.ids[found.weights > 0].tolist(), skip_special_tokens=False) == "<think>\n1. Soruyor, orta, anlat."


def test_what_is_asked_and_the_words_of_its_intent_are_told_apart(tiny: Chat, tmp_path: Path) -> None:
    reply = "<think>\n1. Soruyor, orta; anlat.\n2. Bitir.\n</think>\nBaşta zor; sonra kolay."
    lines = [row("rust zor mu", reply), json.dumps({**json.loads(row("rust zor mu", reply)), "to_intent": True}),
             row("rust zor mu", reply.replace("orta; anlat.", "orta.")), row("rust zor mu", "Başta zor; sonra kolay.")]
    found = read_rows(written(tmp_path / "train.jsonl", lines), tiny, Weights(), 400, intents=True)
    assert {tiny.tokenizer.decode(one.asked.tolist()) for one in found} == {"rust zor mu"}
    assert [tiny.tokenizer.decode(one.intent.tolist()) for one in found] == [" Soruyor, orta", " Soruyor, orta", " Soruyor, orta.", ""]
    # What is learnt of a row is the same, asked for or not.
    for one, other in zip(found, read_rows(tmp_path / "train.jsonl", tiny, Weights(), 400), strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.weights, other.weights) and not len(other.asked)


def test_measuring_sees_every_row_once() -> None:
    micros = list(every(rows(), 900))
    assert sum(micro.tokens for micro in micros) == sum(len(one.ids) for one in rows())
    assert sum(int((micro.weights > 0).sum()) for micro in micros) == sum(len(one.ids) - 1 for one in rows())


@pytest.mark.parametrize(("line", "says"), [
    ('{"messages": NaN}', "train.jsonl:2: not a row: ValueError: NaN is no value"),
    ('{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "x"}]}', "a content is 3; text is needed"),
    (row("selam", "  "), "train.jsonl:2: the completion is empty"),
    (row("selam", "çok " * 200), r"train.jsonl:2: \d+ tokens; 'dataset.max_tokens' allows 400"),
    ('{"messages": [{"role": "user", "content": "selam"}]}', "the last message is of"),
    ('{"to_intent": true,' + row("selam", "Selam!")[1:], "'to_intent' needs a reply with thinking"),
    ("{", "train.jsonl:2: not a row"), ('{"message": []}', "KeyError"), ('{"messages": []}', "nobody"),
])
def test_a_bad_row_is_one_line_that_names_it(line: str, says: str, tiny: Chat, tmp_path: Path) -> None:
    path = written(tmp_path / "train.jsonl", [row("selam", "Selam!"), line])
    with pytest.raises(RowError, match=says) as raised:
        read_rows(path, tiny, Weights(), 400)
    assert "\n" not in str(raised.value)


def test_no_row_is_said(tiny: Chat, tmp_path: Path) -> None:
    with pytest.raises(RowError, match="no row; 'python -m training dataset' makes them"):
        read_rows(written(tmp_path / "train.jsonl", []), tiny, Weights(), 400)


def test_the_template_of_the_tests_is_the_bases(tiny: Chat) -> None:
    assert tiny.template == CHATML
