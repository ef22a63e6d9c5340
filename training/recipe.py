"""Recipes: everything that makes one candidate differ from another, in one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from training.entries import CATEGORIES

RECIPES = Path(__file__).resolve().parent / "recipes"


class RecipeError(ValueError):
    """A recipe is wrong: one line that names the file, the key, the value and what was allowed."""


@dataclass(frozen=True)
class Dataset:
    """How training entries become rows.

    `rows` is how many are asked for; `weights` is each category's share of them, as parts; `noise` is the share of
    rows whose prompt is mistyped; `max_tokens` is the longest row; `valid` is the share of entries held back;
    `system` is the system prompt of every row, none if empty.
    """

    rows: int = 14_000
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 1.0))
    noise: float = 0.6
    max_tokens: int = 512
    valid: float = 0.1
    system: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """One candidate. The name is that of the file, of runs/<name> and of the model."""

    name: str
    base: str = "smollm2"
    dataset: Dataset = Dataset()


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: a path, or the name of one in training/recipes. Raises RecipeError."""
    path = Path(path)
    if not path.is_file() and path.suffix == "" and (RECIPES / f"{path.name}.toml").is_file():
        path = RECIPES / f"{path.name}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise RecipeError(f"{path}: no such recipe; training/recipes has {known}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from None
    dataset = _section(Dataset, raw.pop("dataset", {}), path, "dataset.")
    _check(dataset, path)
    return Recipe(**_values(Recipe, {"name": path.stem, **raw}, path), dataset=dataset)


def _section(cls: type[Dataset], raw: Any, path: Path, prefix: str) -> Dataset:
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: '{prefix[:-1]}' is {raw!r}, not a table; write [{prefix[:-1]}]")
    return cls(**_values(cls, raw, path, prefix))


def _values(cls: type[Any], raw: dict[str, Any], path: Path, prefix: str = "") -> dict[str, Any]:
    hints = get_type_hints(cls)
    for key, value in raw.items():
        if key not in hints:
            raise RecipeError(f"{path}: unknown key '{prefix}{key}'; known keys: {', '.join(f.name for f in fields(cls))}")
        wanted = hints[key]
        allowed = (int, float) if wanted is float else dict if key == "weights" else wanted
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise RecipeError(f"{path}: '{prefix}{key}' is {value!r}; {getattr(wanted, '__name__', wanted)} is needed")
    return raw


def _check(dataset: Dataset, path: Path) -> None:
    weights = dataset.weights
    if unknown := [name for name in weights if name not in CATEGORIES]:
        raise RecipeError(f"{path}: unknown category 'dataset.weights.{unknown[0]}'; the categories are {', '.join(CATEGORIES)}")
    if wrong := [name for name, value in weights.items() if not isinstance(value, int | float) or value < 0]:
        raise RecipeError(f"{path}: 'dataset.weights.{wrong[0]}' is {weights[wrong[0]]!r}; a number >= 0 is needed")
    if not sum(weights.values()) > 0:
        raise RecipeError(f"{path}: 'dataset.weights' has no positive weight; nothing would be trained")
    for name, value, low, high in (("rows", dataset.rows, 1, 10**7), ("noise", dataset.noise, 0, 1),
                                   ("max_tokens", dataset.max_tokens, 32, 32_768), ("valid", dataset.valid, 0.01, 0.5)):
        if not low <= value <= high:
            raise RecipeError(f"{path}: 'dataset.{name}' is {value!r}; allowed is {low} to {high}")
