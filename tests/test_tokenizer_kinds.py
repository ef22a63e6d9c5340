"""The tokenizers that a GGUF may hold: every id is the one that llama.cpp gives."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from harness.fetch import fetch
from tests.conftest import ROOT
from tests.tiny_models import Extra, Vocabulary, write
from training.tokenizer import WORDS, Chat, TokenizerError, read_chat

# In a process of its own: llama.cpp logs to stderr. The server is asked over its own port; the library has no call for it.
TOKENIZE = """
import json, sys, urllib.request
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = sys.argv[1], 512, 1, 1
server = xllamacpp.Server(params)
def ask(path, body):
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
asked = json.load(sys.stdin)
ids = [ask("/tokenize", {"content": text, "add_special": asked["bos"], "parse_special": True})["tokens"] for text in asked["texts"]]
chats = [ask("/v1/chat/completions", {"messages": messages, "max_tokens": 1})["usage"]["prompt_tokens"] for messages in asked["chats"]]
print(json.dumps([ids, chats]))
"""
ENDS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
ODD = ["", " ", "Selam", " Selam veğ", "İstanbul'da IŞIK, ığdır ve ĞÜŞÖÇ; it's WE'LL they'Re I'D", "1 12 123 1234 12345 a1b2 2024'te 3.11 ½ ²",
       "çift  boşluk   üç    dört     beş          on", "satır\n\nyeni\r\nsatır\n \n  son\n", "sekme\tve\t\tiki\t\t\tüç", "😂👍🏽 👨‍👩‍👧 ❤️", "e\u0301 kombine s\u0327 e\u0301e\u0301 s\u0327e\u0301s\u0327 \u00a0 sabit\u2009ince",
       "<|im_start|>user\nNaber?<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] Selam  </s> <s> sonra <unk>.", "def f(x):\n    return x**2  # kare",
       "...!!!??? --- ▁▁ alt_çizgi __init__", "日本語 русский العربية हिन्दी", "aaaaaaaaaaaaaaaa=========\n\n\n\n"]


def lines(count: int) -> list[str]:
    """Turkish and English lines of the repository, a third from each place."""
    def some(*paths: Path) -> list[str]:
        found = [line[:400] for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return found[::max(1, len(found) // (count // 3 + 1))]

    places = (sorted((ROOT / "data" / "train").glob("*.jsonl")), [ROOT / "data" / "turkish.txt"], [ROOT / "README.md"])
    return [line for place in places for line in some(*place)][:count]


@cache
def trained(space: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Alphabet and merges of a BPE on this repository's lines.

    Text is not cut into words first, so that merges cross every border: a wrong cut shows in the ids.
    """
    tokenizer = Tokenizer(models.BPE())
    if not space:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # The trainer keeps what it was fed with apart, and a line break is a piece of text as any other.
    text = "\n".join(lines(240) + [odd for odd in ODD if "<" not in odd] * 4)
    pieces = [text[start:start + 400] for start in range(0, len(text), 400)]
    alphabet = [] if space else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([piece.replace(" ", space) if space else piece for piece in pieces], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = tuple((left, right) for left, right in model["merges"])
    made = {left + right for left, right in merges}
    return tuple(token for token in model["vocab"] if token not in made), merges


def byte_level(pre: str, **options: Any) -> Vocabulary:
    alphabet, merges = trained("")
    # No merges lead to the last one, " veğ": only a kind that looks for whole words first finds it.
    tokens = list(dict.fromkeys([*alphabet, *(left + right for left, right in merges), "\u0120ve\u00c4\u0141"]))
    return Vocabulary("gpt2", pre, [*tokens, *ENDS], [1] * len(tokens) + [3] * len(ENDS), [" ".join(merge) for merge in merges],
                      bos=len(tokens), eos=len(tokens) + 1, **{"add_bos": None, **options})


def pieces(**options: Any) -> Vocabulary:
    """A SentencePiece vocabulary: bytes, user-defined runs of spaces, pieces by falling score, and letters last."""
    alphabet, merges = trained("▁")
    letters = [letter for letter in alphabet if (letter not in "\t\n" and letter < "Ѐ") or letter == "▁"]
    known = {*letters, "\t"}
    whole = dict.fromkeys(left + right for left, right in merges if set(left + right) <= known)
    tokens = ["<unk>", *ENDS, *(f"<0x{byte:02X}>" for byte in range(256)), "   ", *whole, *([] if "\t\t" in whole else ["\t\t"]), *letters]
    types = [2, *[3] * len(ENDS), *[6] * 256, 4, *[1] * (len(tokens) - 258 - len(ENDS))]
    return Vocabulary("llama", "default", tokens, types, None, [0.0] * (257 + len(ENDS)) + [-float(rank) for rank in range(len(tokens) - 257 - len(ENDS))],
                      bos=1, eos=2, **{"add_bos": None, **options})


KINDS = {**{pre: (byte_level(pre), Extra()) for pre in WORDS},
         "pieces": (pieces(), Extra()), "pieces without a space": (pieces(add_space_prefix=False), Extra()),
         "an end that is no control token": (replace(byte_level("qwen2"), types=[1 for _ in byte_level("qwen2").types]), Extra()),
         "phi3": (replace(pieces(), types=[1 if kind == 4 else kind for kind in pieces().types]), Extra(name="Phi-3 Mini"))}


def llama_cpp(path: Path, texts: Sequence[str], *, bos: bool = False, chats: Sequence[list[dict[str, str]]] = ()) -> tuple[list[list[int]], list[int]]:
    """Ids of texts, and how many tokens the prompts of chats have."""
    done = subprocess.run([sys.executable, "-c", TOKENIZE, str(path)], input=json.dumps({"texts": list(texts), "bos": bos, "chats": list(chats)}),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ids, prompts = json.loads(done.stdout.splitlines()[-1])
    return ids, prompts


def ids(chat: Chat, text: str) -> list[int]:
    return list(chat.tokenizer.encode(text, add_special_tokens=False).ids)


def differing(chat: Chat, texts: Sequence[str], theirs: Sequence[list[int]]) -> list[tuple[str, list[int], list[int]]]:
    return [(text, ids(chat, text), found) for text, found in zip(texts, theirs, strict=True) if ids(chat, text) != found]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_llama_cpps(kind: str, tmp_path: Path) -> None:
    vocabulary, extra = KINDS[kind]
    path = write(tmp_path / "tiny.gguf", "llama", vocabulary=vocabulary, extra=extra)
    texts = [*ODD, *lines(60)]
    theirs, _ = llama_cpp(path, texts)
    chat = read_chat(path)
    assert not differing(chat, texts, theirs)


def test_every_kind_cuts_differently(tmp_path: Path) -> None:
    """Or the test above would not see one that is read as another."""
    texts = [*ODD, *lines(60)]
    seen = {}
    for kind, (vocabulary, extra) in KINDS.items():
        chat = read_chat(write(tmp_path / "tiny.gguf", "llama", vocabulary=vocabulary, extra=extra))
        seen[kind] = tuple(tuple(ids(chat, text)) for text in texts)
    same = {frozenset(other for other in seen if seen[other] == found) for found in seen.values()}
    assert {group for group in same if len(group) > 1} == {frozenset({"llama-bpe", "llama3", "llama-v3"}), frozenset({"qwen2", "deepseek-r1-qwen"})}


def test_the_real_base_has_llama_cpps_ids() -> None:
    path = fetch() / "model.gguf"
    texts = [*lines(200), *ODD]
    assert len(texts) == 200 + len(ODD)
    theirs, _ = llama_cpp(path, texts)
    assert not differing(read_chat(path), texts, theirs)


# Beginning of sequence

MESSAGES = [{"role": "user", "content": "Selam, naber?"}, {"role": "assistant", "content": "İyiyim, sen?"}]
TURNS = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@pytest.mark.parametrize("template", [TURNS, "{{ bos_token }}" + TURNS], ids=["silent", "writes bos"])
@pytest.mark.parametrize("add_bos", [True, False, None])
@pytest.mark.parametrize("make, default", [(byte_level("llama-bpe"), True), (byte_level("qwen2"), False), (pieces(), True)],
                         ids=["llama-bpe", "qwen2", "pieces"])
def test_a_row_begins_as_llama_cpp_begins_it(make: Vocabulary, default: bool, add_bos: bool | None, template: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "llama", vocabulary=replace(make, add_bos=add_bos, template=template))
    chat = read_chat(path)
    row, before = chat.row(MESSAGES)
    wanted = (default if add_bos is None else add_bos) or template != TURNS
    assert (row[0] == make.bos) == wanted and sum(token == make.bos for token in row) == wanted
    _, (prompt,) = llama_cpp(path, [], chats=[MESSAGES[:1]])
    assert before == prompt
    assert chat.render(MESSAGES).count("<s>") == wanted


@pytest.mark.parametrize("make", [pieces(), pieces(add_space_prefix=False), byte_level("qwen2")], ids=["pieces", "no space", "qwen2"])
@pytest.mark.parametrize("border, reply, merges", [("\n", "İyiyim, sen?", False), ("bi", "r şey yok", True), ("<|im_start|>", "İyiyim", False)])
def test_the_reply_follows_the_prompt_that_the_server_stops_at(make: Vocabulary, border: str, reply: str, merges: bool, tmp_path: Path) -> None:
    """No space comes before a reply that follows text, and one does after a special token where the vocabulary has it so."""
    template = "{{ messages[0].content }}" + border + "{% if not add_generation_prompt %}" + reply + "<|im_end|>\n{% endif %}"
    path = write(tmp_path / "tiny.gguf", "llama", vocabulary=replace(make, template=template))
    chat = read_chat(path)
    row, before = chat.row(MESSAGES)
    (prompt, whole), _ = llama_cpp(path, [chat.render(MESSAGES[:1], generate=True), chat.render(MESSAGES)])
    assert row[:before] == prompt
    assert (row == whole) != merges
    space = " " * chat.space_prefix
    assert chat.tokenizer.decode(row, skip_special_tokens=False).endswith(border + space * (border in ENDS) + reply + "<|im_end|>" + space + "\n")


def test_templates_are_rendered_as_transformers_renders_them(tmp_path: Path) -> None:
    def rendered(template: str) -> str:
        return read_chat(write(tmp_path / "tiny.gguf", "llama", vocabulary=Vocabulary(template=template))).render(MESSAGES)

    # Qwen's and Llama's templates ask for what a plain chat has not.
    assert rendered("{% if tools %}no{% endif %}{% for m in messages %}{% if m.tool_calls %}no{% endif %}{{ m.content }}{% endfor %}"
                    "{% if tools is none and not date is defined %}!{% endif %}") == "Selam, naber?İyiyim, sen?!"
    with pytest.raises(TemplateError, match="System role not supported"):
        rendered("{{ raise_exception('System role not supported') }}")


# What is refused

@pytest.mark.parametrize("vocabulary, says", [
    (replace(byte_level("qwen2"), merges=None), r"no tokenizer\.ggml\.merges"),
    (replace(byte_level("qwen2"), merges=["zzz yyy"]), "the merges do not fit the vocabulary"),
    (replace(pieces(), scores=None), r"no tokenizer\.ggml\.scores"),
    (replace(pieces(), template=None), r"no tokenizer\.chat_template; a chat model is needed"),
    (replace(byte_level("qwen2"), add_bos=True, bos=None), r"add_bos_token is true, and no token is tokenizer\.ggml\.bos_token_id"),
    (byte_level("tekken"), "tokenizer 'gpt2' with pre-tokenizer 'tekken'; known are llama, and gpt2 with smollm, gpt-2, llama-bpe"),
    (replace(byte_level("qwen2"), model="bert"), "tokenizer 'bert' with pre-tokenizer 'qwen2'; known are llama"),
])
def test_an_odd_tokenizer_is_one_line(vocabulary: Vocabulary, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", "llama", vocabulary=vocabulary)
    with pytest.raises(TokenizerError, match=says) as error:
        read_chat(path)
    assert "tiny.gguf" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 3, 40, 3000])
def test_a_file_that_is_none_is_one_line(keep: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "tiny.gguf", "llama").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:keep])
    with pytest.raises(TokenizerError, match=r"cut\.gguf: not a GGUF file, or a truncated one") as error:
        read_chat(tmp_path / "cut.gguf")
    assert "\n" not in str(error.value)
