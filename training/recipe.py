"""Recipes: everything that makes one candidate differ from another, in one TOML file."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from training.entries import CATEGORIES

RECIPES = Path(__file__).resolve().parent / "recipes"
METHODS = ("lora", "dora", "full")
PRODUCTS = ("float32", "bfloat16")
Section = TypeVar("Section")


class RecipeError(ValueError):
    """A recipe is wrong: one line that names the file, the key, the value and what was allowed."""


@dataclass(frozen=True)
class Dataset:
    """How training entries become rows.

    `rows` is how many are asked for, `intent_rows` how many more that end behind the intent, the first clause of the
    thinking; `weights` is each category's share of both, as parts; `noise` is the share of rows whose prompt is mistyped;
    `max_tokens` is the longest row; `valid` is the share of each entry's prompts held back; `system` is the system prompt
    of every row, none if empty.
    """

    rows: int = 14_000
    intent_rows: int = 0
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 1.0))
    noise: float = 0.6
    max_tokens: int = 512
    valid: float = 0.1
    system: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Weights:
    """How much the loss of a token counts, by its role.

    `prompt` is what the user said last: 0, and only replies are learnt; more, and the language of those who ask is too
    (loss over instructions, Shi et al. 2024). `intent` is the first line of the thinking, `thinking` what follows of it, `opening` the first eight tokens of the
    answer, `answer` the others and the end of the turn.
    """

    prompt: float = 0.0
    intent: float = 1.0
    thinking: float = 1.0
    opening: float = 1.0
    answer: float = 1.0


@dataclass(frozen=True)
class Train:
    """How rows become trained weights.

    `method` is lora, dora or full; `modules` are the linear layers that get an adapter ("all": every one), `rank` and
    `alpha` its size and scale (alpha / rank), `dropout` its input's. `layers` is how many of the upper layers are
    trained, 0 all; `embeddings` whether full fine-tuning trains them too, and `head` whether by the gradient of the output
    as well, where it shares their weights. `embedding_rate` is the learning rate of token vectors in those of the others:
    a token learns only where it stands. For full fine-tuning, before the first step: `bag_epochs` is how often the rows are seen
    while token vectors are fitted by themselves to the intents (training/bag.py), and `averaging_layers` are layers, counted in the
    candidate, that begin by attending to every place alike. A step sees about `step_tokens` tokens in
    micro-batches of about `micro_tokens`, padding counted; `epochs` is how often it sees every row. The learning
    rate rises over the share `warmup` of the steps, then falls as a cosine to `final` of itself. `clip` is the
    largest norm of a gradient, 0 none. Every `evaluate_every` steps the loss of `valid_rows` held-back rows is
    measured; `patience` steps without a better one end the training, 0 never. `minutes` and `memory` (GB) end it too.
    `workers` is the number of processes that share a step, 0 one for each core, one on a GPU. `products` is what a CPU
    rounds the factors of large matrix products to: float32 leaves them alone, bfloat16 is as a GPU has it, where the
    CPU can (AVX512-BF16) and gcc is there; sums are float32 either way.
    """

    method: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    modules: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    dropout: float = 0.0
    layers: int = 0
    embeddings: bool = True
    head: bool = True
    embedding_rate: float = 1.0
    bag_epochs: float = 0.0
    averaging_layers: list[int] = field(default_factory=list)
    learning_rate: float = 1e-3
    warmup: float = 0.05
    final: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    clip: float = 1.0
    epochs: float = 1.0
    step_tokens: int = 2048
    micro_tokens: int = 1024
    weights: Weights = Weights()
    evaluate_every: int = 25
    valid_rows: int = 64
    patience: int = 50
    checkpoint_every: int = 100
    keep: int = 3
    minutes: float = 60.0
    memory: float = 10.0
    workers: int = 0
    products: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class Export:
    """How trained weights are written. `type`: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, or what only the server writes, Q4_K_M and Q4_K_S."""

    type: str = "F16"


@dataclass(frozen=True)
class Serve:
    """How the model is served. It changes no weight.

    `template` is a Go template for Ollama and `stop` the texts that end a reply; empty, both follow from the base's chat
    template. `num_ctx` and `num_predict` are tokens. `keep` is how many candidates of a name a server keeps.
    """

    template: str = ""
    stop: list[str] = field(default_factory=list)
    temperature: float = 0.3
    top_p: float = 0.9
    num_ctx: int = 2048
    num_predict: int = 512
    keep: int = 3


@dataclass(frozen=True)
class Recipe:
    """One candidate. The name is that of the file, of runs/<name> and of the model.

    `sha256` pins the base's GGUF: another file is refused. Empty takes any. `keep_layers` are the numbers of the base's
    layers that the candidate is made of, ascending, the first is 0; empty, all of them. `new_tokens` is how many tokens are
    learnt from the recipe's own text and follow the base's; without `unused_tokens`, those of the base that this text has no
    use for are left out.
    """

    name: str
    base: str = "smollm2"
    sha256: str = ""
    keep_layers: list[int] = field(default_factory=list)
    new_tokens: int = 0
    unused_tokens: bool = True
    dataset: Dataset = Dataset()
    train: Train = Train()
    export: Export = Export()
    serve: Serve = Serve()


def load_recipe(path: str | Path, *, name: str = "") -> Recipe:
    """Read a recipe: a path, or the name of one in training/recipes. `name` is the one that it must have. Raises RecipeError."""
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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", raw.get("name", path.stem) if isinstance(raw.get("name", ""), str) else "") or path.stem == "base":
        raise RecipeError(f"{path}: a recipe's name is that of a folder and of a model: letters, digits, '.', '_' and '-', and not 'base'")
    if name and raw.setdefault("name", name) != name:
        raise RecipeError(f"{path}: 'name' is {raw['name']!r}; {name!r} is needed here")
    dataset = _section(Dataset, raw.pop("dataset", {}), path, "dataset.")
    _check_dataset(dataset, path)
    given = raw.pop("train", {})
    weights = _section(Weights, given.pop("weights", {}) if isinstance(given, dict) else {}, path, "train.weights.")
    train = replace(_section(Train, given, path, "train."), weights=weights)
    _check_train(train, path)
    export = _section(Export, raw.pop("export", {}), path, "export.")
    serve = _section(Serve, raw.pop("serve", {}), path, "serve.")
    _within(path, "serve", serve, {"temperature": (0, 2), "top_p": (0, 1), "num_ctx": (64, 10**7), "num_predict": (1, 10**6), "keep": (1, 1000)})
    recipe = Recipe(**_values(Recipe, {"name": path.stem, **raw}, path), dataset=dataset, train=train, export=export, serve=serve)
    if wrong := [one for one in recipe.keep_layers if type(one) is not int or one < 0]:
        raise RecipeError(f"{path}: 'keep_layers' has {wrong[0]!r}; numbers of layers are needed, the first is 0")
    _within(path, "", recipe, {"new_tokens": (0, 10**6)})
    return recipe


def _section(cls: type[Section], raw: Any, path: Path, prefix: str) -> Section:
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: '{prefix[:-1]}' is {raw!r}, not a table; write [{prefix[:-1]}]")
    return cls(**_values(cls, raw, path, prefix))


def _values(cls: type[Any], raw: dict[str, Any], path: Path, prefix: str = "") -> dict[str, Any]:
    hints = get_type_hints(cls)
    for key, value in raw.items():
        if key not in hints:
            raise RecipeError(f"{path}: unknown key '{prefix}{key}'; known keys: {', '.join(f.name for f in fields(cls))}")
        wanted = hints[key]
        allowed = (int, float) if wanted is float else get_origin(wanted) or wanted
        if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
            raise RecipeError(f"{path}: '{prefix}{key}' is {value!r}; {getattr(wanted, '__name__', wanted)} is needed")
    return raw


def _check_dataset(dataset: Dataset, path: Path) -> None:
    weights = dataset.weights
    if unknown := [name for name in weights if name not in CATEGORIES]:
        raise RecipeError(f"{path}: unknown category 'dataset.weights.{unknown[0]}'; the categories are {', '.join(CATEGORIES)}")
    if wrong := [name for name, value in weights.items() if not isinstance(value, int | float) or value < 0]:
        raise RecipeError(f"{path}: 'dataset.weights.{wrong[0]}' is {weights[wrong[0]]!r}; a number >= 0 is needed")
    if not sum(weights.values()) > 0:
        raise RecipeError(f"{path}: 'dataset.weights' has no positive weight; nothing would be trained")
    _within(path, "dataset", dataset, {"rows": (1, 10**7), "intent_rows": (0, 10**7), "noise": (0, 1), "max_tokens": (32, 32_768), "valid": (0.01, 0.5)})


def _check_train(train: Train, path: Path) -> None:
    if train.method not in METHODS:
        raise RecipeError(f"{path}: 'train.method' is {train.method!r}; allowed are {', '.join(METHODS)}")
    if train.products not in PRODUCTS:
        raise RecipeError(f"{path}: 'train.products' is {train.products!r}; allowed are {', '.join(PRODUCTS)}")
    if not train.modules or not all(isinstance(name, str) and name for name in train.modules):
        raise RecipeError(f"{path}: 'train.modules' is {train.modules!r}; names of linear layers are needed, or [\"all\"]")
    for key, value in (("bag_epochs", train.bag_epochs), ("averaging_layers", train.averaging_layers)):
        if value and (train.method != "full" or train.layers or (key == "bag_epochs" and not train.embeddings)):
            raise RecipeError(f"{path}: 'train.{key}' is {value!r}, and the recipe does not train what it changes; "
                              "'method = \"full\"', 'layers = 0' and 'embeddings = true' are needed, or leave it out")
    if wrong := [one for one in train.averaging_layers if type(one) is not int or one < 0]:
        raise RecipeError(f"{path}: 'train.averaging_layers' has {wrong[0]!r}; numbers of layers are needed, the first is 0")
    if train.step_tokens < train.micro_tokens:
        raise RecipeError(f"{path}: 'train.step_tokens' is {train.step_tokens}; at least one micro-batch, {train.micro_tokens}, is needed")
    _within(path, "train", train, {
        "rank": (1, 1024), "alpha": (0, 10_000), "dropout": (0, 0.9), "layers": (0, 10_000), "learning_rate": (0, 1), "warmup": (0, 1),
        "embedding_rate": (0.01, 1000), "bag_epochs": (0, 1000), "final": (0, 1), "weight_decay": (0, 1), "beta1": (0, 0.9999), "beta2": (0, 0.99999), "clip": (0, 10**6), "epochs": (0.0001, 10_000),
        "step_tokens": (1, 10**7), "micro_tokens": (1, 10**7), "evaluate_every": (1, 10**6), "valid_rows": (1, 10**6), "patience": (0, 10**7),
        "checkpoint_every": (1, 10**6), "keep": (1, 1000), "minutes": (0.01, 10**5), "memory": (0.1, 10**4), "workers": (0, 256), "seed": (0, 2**31)})
    _within(path, "train.weights", train.weights, dict.fromkeys(("prompt", "intent", "thinking", "opening", "answer"), (0, 100)))
    if not any(value for role, value in asdict(train.weights).items() if role != "prompt"):
        raise RecipeError(f"{path}: 'train.weights' has no positive weight; nothing would be trained")


def _within(path: Path, section: str, values: object, limits: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in limits.items():
        # NaN is within no limits.
        if not low <= (value := getattr(values, name)) <= high:
            raise RecipeError(f"{path}: '{section and f'{section}.'}{name}' is {value!r}; allowed is {low} to {high}")


def from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from what dataclasses.asdict made of it."""
    train = values["train"]
    return Recipe(**{**values, "dataset": Dataset(**values["dataset"]), "train": Train(**{**train, "weights": Weights(**train["weights"])}),
                     "export": Export(**values.get("export", {})), "serve": Serve(**values.get("serve", {}))})


def to_toml(recipe: Recipe) -> str:
    """A recipe as a file that load_recipe reads; every key stands there."""
    return "\n".join(_table(asdict(recipe), "")).lstrip("\n") + "\n"


def _table(values: dict[str, Any], name: str) -> list[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    # JSON's strings, numbers, lists and booleans are TOML's.
    lines = [*(["", f"[{name}]"] if name else []), *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items())]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _table(value, f"{name}.{key}" if name else key)
    return lines
