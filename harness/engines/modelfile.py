"""The parts of an Ollama Modelfile that measuring needs: SYSTEM and PARAMETER."""

from __future__ import annotations

import re

from harness.engines import Options

_SYSTEM = re.compile(r'^SYSTEM\s+(?:"""(?P<long>.*?)"""|(?P<short>.*?)$)', re.MULTILINE | re.DOTALL | re.IGNORECASE)
_PARAMETER = re.compile(r"^PARAMETER\s+(\S+)\s+(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


def system(modelfile: str) -> str:
    """The SYSTEM text of a Modelfile, or nothing."""
    found = _SYSTEM.search(modelfile)
    return (found["long"] or found["short"] or "").strip() if found else ""


def parameters(modelfile: str) -> str:
    """The PARAMETER lines of a Modelfile, in the form that /api/show prints: one `name value` a line."""
    return "\n".join(f"{name} {value}" for name, value in _PARAMETER.findall(modelfile))


def pinned(shown: str) -> Options:
    """Our options for a model with these parameters: everything pinned, the stop strings its own."""
    stops = [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("stop ")]
    return Options(stop=tuple(stop.strip().strip('"') for stop in stops))
