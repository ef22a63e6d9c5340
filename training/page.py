"""The pages of training: of a data set, what will be taught; of a candidate, how training went and what was exported."""

from __future__ import annotations

import base64
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
    """The data set's page, without scripts; the same input gives the same bytes."""
    return _environment().get_template("dataset.html.j2").render(
        m=manifest, examples={name: _examples(of) for name, of in _by_category(rows["train"]).items()})


def candidate_page(manifest: Mapping[str, Any], reason: str, plot: Path, exported: Mapping[str, Any] | None = None) -> str:
    """The candidate's page, from its manifest and that of its export, where there is one."""
    recipe = manifest["recipe"]
    sections = {name: {key: value for key, value in recipe[name].items() if value not in ("", [])} for name in ("dataset", "train", "export", "serve")
                if name in recipe}
    drawn = base64.b64encode(plot.read_bytes()).decode() if plot.is_file() else ""
    return _environment().get_template("candidate.html.j2").render(m=manifest, reason=reason, plot=drawn, e=exported, sections=sections)


def _environment() -> Environment:
    style = Path(harness.__file__ or "").parent / "templates"
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent / "templates"), FileSystemLoader(style)]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and type(value) is str else value)
    environment.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u00a0")
    return environment


def _by_category(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.category == name] for name in dict.fromkeys(sorted(row.category for row in rows))}


def _examples(rows: Sequence[Row]) -> list[Row]:
    return random.Random(0).sample(list(rows), min(EXAMPLES, len(rows)))
