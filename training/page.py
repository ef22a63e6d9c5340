"""The page of a data set: what a candidate will be taught, in counts, tokens and examples."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

import harness
from harness.display import visible

if TYPE_CHECKING:
    from training.dataset import Row

EXAMPLES = 3


def render(manifest: Mapping[str, Any], rows: Mapping[str, Sequence[Row]]) -> str:
    """One HTML page without scripts; the same input gives the same bytes."""
    style = Path(harness.__file__ or "").parent / "templates"
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), FileSystemLoader(style)]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and type(value) is str else value)
    environment.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u00a0")
    page = environment.get_template("dataset.html.j2")
    return page.render(m=manifest, examples={name: _examples(of) for name, of in _by_category(rows["train"]).items()})


def _by_category(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.category == name] for name in dict.fromkeys(sorted(row.category for row in rows))}


def _examples(rows: Sequence[Row]) -> list[Row]:
    return random.Random(0).sample(list(rows), min(EXAMPLES, len(rows)))
