"""The base's own tokenizer and chat template, read from its GGUF without torch. Token ids are llama.cpp's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from gguf.constants import TokenType
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from training.header import ConvertError, Header

Message = dict[str, str]

_SPACE = "\u2581"  # how a SentencePiece vocabulary writes a space
_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_QWEN35 = (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
           + r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# llama.cpp reads these as control tokens, whatever the file says of them (src/llama-vocab.cpp, special_eog_ids).
_ENDS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<|end_of_text|>", "<eos>"}
# The special tokens of a phi-3 that do not swallow the white space after them (the same file, by the model's name).
_PHI3_KEEPS = {"<unk>", "<s>", "<|endoftext|>"}


class TokenizerError(ValueError):
    """The file holds no tokenizer that is understood here: one line with the reason."""


@dataclass(frozen=True)
class Words:
    """How text is cut before its merges, by tokenizer.ggml.pre: GPT-2's expression where none is given.

    `digits`: a digit is a word. `whole`: a word that is a token is never merged. `bos`: llama.cpp begins with bos unless told.
    """

    expression: str = ""
    digits: bool = False
    whole: bool = False
    bos: bool = False


# src/llama-vocab.cpp of llama.cpp, by the names that its converter writes.
WORDS = {"smollm": Words(digits=True), "gpt-2": Words(),
         "llama-bpe": Words(_LLAMA3, whole=True, bos=True), "llama3": Words(_LLAMA3, whole=True, bos=True),
         "llama-v3": Words(_LLAMA3, whole=True, bos=True), "dbrx": Words(_LLAMA3),
         "qwen2": Words(_QWEN2), "deepseek-r1-qwen": Words(_QWEN2), "qwen35": Words(_QWEN35)}


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template.

    `add_bos`: llama.cpp begins every text with bos, so a rendered one has it, once. `space_prefix`: a text, and what
    follows a special token, is read as if it began with a space.
    """

    tokenizer: Tokenizer
    template: str
    bos: str
    eos: str
    add_bos: bool = False
    space_prefix: bool = False

    def render(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        """The text that the model sees; `generate` ends it where the reply begins. Raises TemplateError."""
        text = _compiled(self.template).render(messages=list(messages), add_generation_prompt=generate, bos_token=self.bos,
                                               eos_token=self.eos, tools=None, documents=None)
        return self.bos + text if self.add_bos and not text.startswith(self.bos) else text

    def row(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Token ids of a row, and how many of them come before the last message's content.

        The rest is what training is supervised on. Raises TokenizerError where the template rewrites what came before.
        """
        ids, before, _, _ = self.parsed(messages)
        return ids, before

    def parsed(self, messages: Sequence[Message]) -> tuple[list[int], int, str, list[int]]:
        """As `row`, and the supervised text with the place in it where each supervised token starts."""
        prompt, whole = self.render(messages[:-1], generate=True), self.render(messages)
        if not whole.startswith(prompt):
            raise TokenizerError("the chat template rewrites earlier turns: a prompt is no prefix of its row")
        reply = whole[len(prompt):]
        (before, _), (ids, starts) = self._encoded(prompt), self._encoded(whole)
        if ids[:len(before)] == before:
            return ids, len(before), reply, [start - len(prompt) for start in starts[len(before):]]
        # A token of the whole text lies over the border, and the server stops there: the reply is a text of its own.
        following, places = self._following(reply)
        return before + following, len(before), reply, places

    def said(self, messages: Sequence[Message]) -> range:
        """Which tokens of a row's prompt are of what the user says last; none where the template writes it otherwise."""
        prompt, words = self.render(messages[:-1], generate=True), messages[-2]["content"].strip()
        first = prompt.rfind(words)
        if first < 0:
            return range(0)
        _, starts = self._encoded(prompt)
        return range(bisect_left(starts, first), bisect_left(starts, first + len(words)))

    def _encoded(self, text: str) -> tuple[list[int], list[int]]:
        found = self.tokenizer.encode(text, add_special_tokens=False)
        return list(found.ids), [start for start, _ in found.offsets]

    def _following(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and places of a text that follows other text, which is why no space is put before it."""
        if not self.space_prefix:
            return self._encoded(text)
        # A line break is bytes in these vocabularies, and merges with nothing.
        ids, starts = self._encoded("\n" + text)
        first = len(self._encoded("\n")[0])
        return ids[first:], [start - 1 for start in starts[first:]]


@cache
def _compiled(template: str) -> Template:
    # As transformers renders chat templates, and sandboxed: the template comes out of a downloaded file. There is no
    # strftime_now: templates that ask for it have a date of their own, and a row does not depend on the day.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _refused
    return environment.from_string(template)


def _refused(message: str) -> NoReturn:
    raise TemplateError(message)


class _File:
    """The tokenizer's key-values of a GGUF."""

    def __init__(self, path: Path) -> None:
        """Raises TokenizerError for a file that is none, OSError for one that cannot be read."""
        try:
            self._header = Header(path)
        except ConvertError as error:
            raise TokenizerError(str(error)) from None
        self.path = path
        self.tokens: list[str] = self.need("ggml.tokens")
        self.types: list[int] = self.find("ggml.token_type") or [TokenType.NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise TokenizerError(f"{path}: {len(self.types)} tokenizer.ggml.token_type for {len(self.tokens)} tokens")

    def find(self, key: str, space: str = "tokenizer") -> Any:
        """The value of a key; None where it has none."""
        return self._header.find(f"{space}.{key}")

    def need(self, key: str) -> Any:
        """The value of a key. Raises TokenizerError."""
        found = self.find(key)
        if not found:
            raise TokenizerError(f"{self.path}: no tokenizer.{key}; the file of a whole model is needed")
        return found

    def token(self, name: str, default: int | None) -> str:
        """The text of a token by its role ("bos"); empty where it has none."""
        found = self.find(f"ggml.{name}_token_id")
        number = default if found is None else int(found)
        return self.tokens[number] if number is not None and number < len(self.tokens) else ""

    def flag(self, key: str, default: bool) -> bool:
        found = self.find(f"ggml.{key}")
        return default if found is None else bool(found)


def read_chat(path: Path) -> Chat:
    """Tokenizer and template of a GGUF with a byte-level BPE or a SentencePiece vocabulary. Raises OSError, TokenizerError."""
    file = _File(path)
    kind, pre = file.find("ggml.model"), file.find("ggml.pre")
    if kind != "llama" and (kind != "gpt2" or pre not in WORDS):
        raise TokenizerError(f"{path}: tokenizer '{kind}' with pre-tokenizer '{pre}'; known are llama, and gpt2 with {', '.join(WORDS)}")
    template = file.find("chat_template")
    if not template:
        raise TokenizerError(f"{path}: no tokenizer.chat_template; a chat model is needed")
    pieces = kind == "llama"
    prefix = pieces and file.flag("add_space_prefix", True)
    add_bos = file.flag("add_bos_token", pieces or WORDS[pre].bos)
    bos, eos = file.token("bos", 1 if pieces else None), file.token("eos", 2 if pieces else None)
    if add_bos and not bos:
        raise TokenizerError(f"{path}: tokenizer.ggml.add_bos_token is true, and no token is tokenizer.ggml.bos_token_id")
    tokenizer = _sentencepiece(file, prefix=prefix) if pieces else _byte_level(file, WORDS[pre])
    _add_whole(tokenizer, file)
    return Chat(tokenizer, str(template), bos, eos, add_bos, prefix)


def _bpe(file: _File, vocabulary: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> Tokenizer:
    try:
        return Tokenizer(models.BPE(vocabulary, merges, **options))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{file.path}: the merges do not fit the vocabulary: {error}") from None


def _byte_level(file: _File, words: Words) -> Tokenizer:
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in file.need("ggml.merges"))]
    tokenizer = _bpe(file, {token: number for number, token in enumerate(file.tokens)}, merges, ignore_merges=words.whole)
    tokenizer.pre_tokenizer = pre_tokenizer(words)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def pre_tokenizer(words: Words) -> pre_tokenizers.PreTokenizer:
    """What cuts text before its merges."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words.expression)
    first = (pre_tokenizers.Split(Regex(words.expression), "isolated") if words.expression
             else pre_tokenizers.Digits(individual_digits=True) if words.digits else None)
    return pre_tokenizers.Sequence([first, byte_level]) if first else byte_level


def _sentencepiece(file: _File, *, prefix: bool) -> Tokenizer:
    """llama.cpp's SPM tokenizer as a BPE: neighbours that together are a token are merged, the highest score first."""
    scores = file.need("ggml.scores")
    if len(scores) != len(file.tokens):
        raise TokenizerError(f"{file.path}: {len(scores)} tokenizer.ggml.scores for {len(file.tokens)} tokens")
    vocabulary = {token: number for number, token in enumerate(file.tokens)}
    vocabulary |= dict(_bare_bytes(file, vocabulary))
    ranked = sorted(_pairs(file, scores, vocabulary), key=lambda pair: -pair[0])
    unknown = next((token for token, kind in zip(file.tokens, file.types, strict=True) if kind == TokenType.UNKNOWN), None)
    tokenizer = _bpe(file, vocabulary, [(left, right) for _, left, right in ranked], byte_fallback=True, unk_token=unknown)
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def _bare_bytes(file: _File, vocabulary: dict[str, int]) -> Iterator[tuple[str, int]]:
    """ASCII characters that are only bytes of the vocabulary, and yet parts of its tokens: gemma's tab."""
    for code in range(128):
        byte = vocabulary.get(f"<0x{code:02X}>")
        if byte is not None and chr(code) not in vocabulary:
            yield chr(code), byte


def _pairs(file: _File, scores: Sequence[float], vocabulary: dict[str, int]) -> Iterator[tuple[float, str, str]]:
    """Score, left and right part of every way to put a token together from two others, the longest left part first."""
    for token, score in zip(file.tokens, scores, strict=True):
        for cut in range(len(token) - 1, 0, -1):
            if token[:cut] in vocabulary and token[cut:] in vocabulary:
                yield score, token[:cut], token[cut:]


def _add_whole(tokenizer: Tokenizer, file: _File) -> None:
    """Tokens that text is first cut at: control, unknown, user-defined ones, and those that llama.cpp takes for ends."""
    name = str(file.find("name", "general") or "").lower()
    strips = "phi-3" in name or "phi3" in name
    special: list[AddedToken] = []
    added: list[AddedToken] = []
    for token, kind in zip(file.tokens, file.types, strict=True):
        control = kind in (TokenType.CONTROL, TokenType.UNKNOWN) or token in _ENDS
        if control or kind == TokenType.USER_DEFINED:
            (special if control else added).append(
                AddedToken(token, special=control, normalized=False, rstrip=strips and token not in _PHI3_KEEPS))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(added)
