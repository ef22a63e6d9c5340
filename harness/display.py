"""How values are shown on a page: text without hidden characters, shares, seconds, bars, intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_NBSP = "\u00a0"
# What an honest text has no use for, and what can reorder or hide the text around it: control characters, bidi
# overrides (Trojan Source, CVE-2021-42574), zero-width and tag characters, lone surrogates, noncharacters.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]")


def visible(text: str) -> str:
    """`text` with every character that acts instead of showing replaced by its number, as ⟨U+202E⟩."""
    return _HIDDEN.sub(lambda hit: f"⟨U+{ord(hit[0]):04X}⟩", text.replace("\r\n", "\n"))


def amount(value: float | None, unit: str, bar: float | None = None) -> str:
    """A score in its unit; it gets more digits while rounding would hide on which side of `bar` it is."""
    if value is None or math.isnan(value):
        return "—"
    show, digits = (_seconds, 2) if unit == "s" else (_share, 1)
    while digits < 4 and bar not in (None, value) and show(value, digits) == show(bar or 0.0, digits):
        digits += 1
    return show(value, digits)


def seconds(value: float | None) -> str:
    """Seconds with two significant digits; minutes from 100 s on."""
    return amount(value, "s")


def bar_text(bar: Json) -> str:
    """`> 90 %`, from a criterion's bar."""
    value = f"{100 * bar['value']:g}" if bar["unit"] == "%" else f"{bar['value']:g}"
    return f"{bar['op']}{_NBSP}{value}{_NBSP}{bar['unit']}"


def interval_text(row: Json, unit: str) -> str:
    """The interval of a criterion; an end that is None is open."""
    low, high = row.get("low"), row.get("high")
    if low is None and high is None:
        return "—"
    if high is None:
        return f"{amount(low, unit)} or more"
    if low is None:
        return f"up to {amount(high, unit)}"
    first, last = amount(low, unit).split(_NBSP), amount(high, unit).split(_NBSP)
    if first[1:] == last[1:]:
        del first[1:]
    return _NBSP.join([*first, "–", *last])


def change(value: float | None, unit: str) -> str:
    """A difference of two scores, with its sign; of shares in percentage points."""
    if value is None or math.isnan(value):
        return "—"
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return sign + size(abs(value), unit)


def size(value: float, unit: str) -> str:
    """A distance between two scores, without a sign."""
    return seconds(value) if unit == "s" else f"{100 * value:.1f}{_NBSP}pts"


def plain(value: object) -> str:
    """A value of provenance or `extras` in words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "—"}[value]
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {plain(item)}" for key, item in value.items()) or "—"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "—"
    return str(value) or "—"


def _share(value: float, digits: int) -> str:
    return f"{100 * value:.{digits}f}{_NBSP}%"


def _seconds(value: float, digits: int) -> str:
    if math.isinf(value):
        return "∞"
    value, unit = (value / 60, "min") if abs(value) >= 100 else (value, "s")
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    return f"{rounded:.{decimals}f}{_NBSP}{unit}"
