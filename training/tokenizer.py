"""The base's own tokenizer and chat template, read from its GGUF without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gguf
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Message = dict[str, str]

_SPECIAL, _ADDED = 3, 4  # tokenizer.ggml.token_type: control, user-defined
# What comes before the byte-level split, by tokenizer.ggml.pre.
_DIGITS = {"smollm": True, "gpt-2": False}


class TokenizerError(ValueError):
    """The file holds no tokenizer that is understood here: one line with the reason."""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template."""

    tokenizer: Tokenizer
    template: str
    bos: str
    eos: str

    def render(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        """The text that the model sees; `generate` ends it where the reply begins. Raises TemplateError."""
        return _compiled(self.template).render(
            messages=list(messages), add_generation_prompt=generate, bos_token=self.bos, eos_token=self.eos)

    def row(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """Token ids of a row, and how many of them come before the last message's content.

        The rest is what training is supervised on. Raises TokenizerError where the template rewrites what came before.
        """
        prompt, whole = self.render(messages[:-1], generate=True), self.render(messages)
        if not whole.startswith(prompt):
            raise TokenizerError("the chat template rewrites earlier turns: a prompt is no prefix of its row")
        before = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return before + self.tokenizer.encode(whole[len(prompt):], add_special_tokens=False).ids, len(before)


@cache
def _compiled(template: str) -> Template:
    # As transformers renders chat templates, and sandboxed: the template comes out of a downloaded file.
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined).from_string(template)


def read_chat(path: Path) -> Chat:
    """Tokenizer and template of a GGUF with a byte-level BPE. Raises OSError, TokenizerError."""
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError) as error:
        raise TokenizerError(f"{path}: not a GGUF file: {error}") from None

    def value(key: str) -> Any:
        found = reader.get_field(key)
        return None if found is None else found.contents()

    kind, pre, template = (value(f"tokenizer.{key}") for key in ("ggml.model", "ggml.pre", "chat_template"))
    if kind != "gpt2" or pre not in _DIGITS:
        raise TokenizerError(f"{path}: tokenizer '{kind}' with pre-tokenizer '{pre}'; known are gpt2 with {', '.join(_DIGITS)}")
    if not template:
        raise TokenizerError(f"{path}: no tokenizer.chat_template; a chat model is needed")
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
                               if _DIGITS[pre] else byte_level)
    tokenizer.decoder = decoders.ByteLevel()
    for special in (True, False):
        wanted = _SPECIAL if special else _ADDED
        added = [AddedToken(token, special=special, normalized=False)
                 for token, kind in zip(tokens, types, strict=True) if kind == wanted]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    bos, eos = (tokens[value(f"tokenizer.ggml.{name}_token_id") or 0] for name in ("bos", "eos"))
    return Chat(tokenizer, str(template), bos, eos)
