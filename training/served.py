"""How a candidate is served: one mapping that becomes a Modelfile and the request that creates the model.

Ollama renders prompts with a Go template of its own, and guesses one where none is sent. So the chat template that
training used is taken apart, what stands before and after each role's text, and put together again in Go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from training.recipe import Serve
from training.tokenizer import Chat, Message

THINK = ("<think>\n", "\n</think>\n")
_MARK = {"system": "\u2402sys\u2403", "user": "\u2402usr\u2403", "assistant": "\u2402bot\u2403"}
ROLES = ("system", "user", "assistant")
# Dialogues that a template has to render as its parts say, or it is not of this form.
PROBES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "merhaba"),), (("system", "Sen Jessy'sin."), ("user", "naber {{ x }}")), (("user", "a"), ("assistant", "b"), ("user", "c\nd")),
    (("system", "S"), ("user", "bir"), ("assistant", "iki"), ("user", "üç"), ("assistant", "dört"), ("user", "beş")))


class ServeError(ValueError):
    """A model cannot be served as it was trained: one line with the reason."""


@dataclass(frozen=True)
class Turns:
    """A chat template as parts: before and after each role's text, what stands first without a system message, what the reply follows."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    alone: str
    reply: str

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt of a dialogue."""
        said = "".join(self.before[one["role"]] + one["content"] + self.after[one["role"]] for one in messages)
        return ("" if messages[:1] and messages[0]["role"] == "system" else self.alone) + said + self.reply

    def go(self) -> str:
        """The same in the language of Ollama's templates.

        Thinking is rendered only in a last message that the model is to go on with, as training never showed it earlier ones; that
        it is named at all tells the server that the model thinks, and in which tags.
        """
        turns = "".join(
            f'{{{{ {"if" if role == "system" else "else if"} eq .Role "{role}" }}}}{_go(self.before[role])}'
            + (f'{{{{ if and .Thinking (eq (len (slice $.Messages $i)) 1) }}}}{_go(THINK[0])}{{{{ .Thinking }}}}{_go(THINK[1])}{{{{ end }}}}' if role == "assistant" else "")
            + f'{{{{ .Content }}}}{_go(self.after[role])}' for role in ROLES)
        first = f'{{{{ if and .Messages (ne (index .Messages 0).Role "system") }}}}{_go(self.alone)}{{{{ end }}}}' if self.alone else ""
        return f"{first}{{{{ range $i, $_ := .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{_go(self.reply)}"


def _go(text: str) -> str:
    """Text in a Go template: braces would be read as an action."""
    return text.replace("{{", '{{ "{{" }}')


def take_apart(talk: Chat) -> Turns:
    """The parts of a chat template. Raises ServeError for one that is not made of a fixed text around each message."""
    def rendered(*roles: str, generate: bool = False) -> str:
        text = talk.render([{"role": role, "content": _MARK[role]} for role in roles], generate=generate)
        # llama.cpp and the server put it there themselves.
        return text.removeprefix(talk.bos) if talk.add_bos else text

    try:
        whole, alone = rendered("system", "user", "assistant", "user"), rendered("user")
        pieces = _between(whole, [_MARK["system"], _MARK["user"], _MARK["assistant"], _MARK["user"]])
        reply = rendered("user", generate=True).removeprefix(alone)
        after_user = alone.partition(_MARK["user"])[2]
        before_assistant = pieces[2].removeprefix(after_user)
        ended = rendered("user", "assistant").partition(_MARK["assistant"])[2]
        before_user = pieces[3].removeprefix(ended)
        after_system = pieces[1].removesuffix(before_user)
        found = Turns({"system": pieces[0], "user": before_user, "assistant": before_assistant},
                      {"system": after_system, "user": after_user, "assistant": ended},
                      alone.partition(_MARK["user"])[0].removesuffix(before_user), reply)
        for probe in PROBES:
            messages = [{"role": role, "content": content} for role, content in probe]
            wanted = talk.render(messages, generate=True)
            if found.render(messages) != (wanted.removeprefix(talk.bos) if talk.add_bos else wanted):
                raise ServeError(f"the chat template does not put a fixed text around each message: it differs at {messages[0]['content']!r}; "
                                 "write the Go template yourself, as 'template' under [serve]")
    except TemplateError as error:
        raise ServeError(f"the chat template refuses a dialogue that JESSY has: {error}; write the Go template yourself, as 'template' under [serve]") from None
    return found


def _between(text: str, marks: Sequence[str]) -> list[str]:
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise ServeError("the chat template leaves a message out; write the Go template yourself, as 'template' under [serve]")
        pieces.append(before)
    return [*pieces, text]


@dataclass(frozen=True)
class Served:
    """What the server is told of a model: the one source of the Modelfile and of the create request."""

    template: str
    system: str
    parameters: Mapping[str, Any]
    adapter: bool = False

    def modelfile(self, source: str = "./model.gguf") -> str:
        """As `ollama create -f` reads it; `source` is the model file, or the base that an adapter is for."""
        lines = [f"FROM {source}", *(["ADAPTER ./adapter.gguf"] if self.adapter else []), f"TEMPLATE {_quoted(self.template)}"]
        lines += [f"SYSTEM {_quoted(self.system)}"] if self.system else []
        for name, value in self.parameters.items():
            lines += [f"PARAMETER {name} {_parameter(one)}" for one in (value if isinstance(value, list) else [value])]
        return "\n".join(lines) + "\n"

    def request(self) -> dict[str, Any]:
        """The same fields of a create request."""
        return {"template": self.template, "system": self.system, "parameters": dict(self.parameters)}


def served(talk: Chat, system: str, settings: Serve, *, adapter: bool = False) -> Served:
    """How a recipe's model is served. Raises ServeError."""
    turns = None if settings.template else take_apart(talk)
    stop = settings.stop or ([turns.after["assistant"].strip()] if turns and turns.after["assistant"].strip() else [talk.eos])
    # Ollama penalises repeated words by default, of the prompt too: another model than the one that was trained.
    return Served(settings.template or (turns.go() if turns else ""), system,
                  {"repeat_penalty": 1.0, "temperature": settings.temperature, "top_p": settings.top_p, "num_ctx": settings.num_ctx, "num_predict": settings.num_predict,
                   "stop": stop}, adapter)


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ServeError('a template or system prompt with """ in it cannot be written into a Modelfile')
    return f'"""{text}"""'


def _parameter(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
