"""What different routes of training teach, against tokens and minutes: the evidence behind a recipe.

    python benchmarks/routes.py RECIPE... [--runs runs/routes] [--out reports/training]      a candidate's folder is asked as it is

Trains each recipe with the product, checkpoints kept, then asks every checkpoint the open half of the conversation
prompts, greedily, and scores the replies as `pytest evals` does. Half of a case file is open so that it may drive such
decisions; no row of the data set is near a prompt (`make data`). Leaves routes.json and routes.png. A route that is
measured already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# benchmarks/training.py has the name of the package, and this folder stands first on the path.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from harness.cases import Case, load_cases  # noqa: E402
from harness.engines import Reply, split_thinking  # noqa: E402
from harness.files import read_json, write_text  # noqa: E402
from harness.intents import conversation  # noqa: E402
from harness.iterations import steps  # noqa: E402
from training.base import base_of  # noqa: E402
from training.entries import load_entries  # noqa: E402
from training.generate import replies  # noqa: E402
from training.recipe import Recipe, from_dict, load_recipe  # noqa: E402
from training.train import device, train  # noqa: E402

LONGEST = 160


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("recipes", nargs="*", help="recipes, or folders of trained candidates; none: only draw what is measured")
    options.add_argument("--runs", type=Path, default=Path("runs/routes"))
    options.add_argument("--out", type=Path, default=Path("reports/training"))
    options.add_argument("--every", type=int, default=300, help="steps between the checkpoints that are asked; a multiple of the recipe's")
    options.add_argument("--minutes", type=float, default=60.0, help="of training, a route")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "routes.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in given.recipes:
        if made := read_json(Path(name) / "manifest.json"):
            recipe, folder = from_dict(made["recipe"]), Path(name)
        else:
            recipe = load_recipe(name)
            recipe = replace(recipe, train=replace(recipe.train, keep=1000, minutes=given.minutes, memory=16.0))
            made = train(recipe, given.runs)
            folder = given.runs / recipe.name / made["candidate"]
        route = f"{recipe.name} {made['candidate']}"
        # Whatever is trained of it, the base is asked once.
        base = [point for other in known.values() if (other["base"], other.get("keep_layers", []), other["system"]) == (recipe.base, recipe.keep_layers, recipe.dataset.system)
                for point in other["points"] if not point["iteration"]]
        for found in measured(recipe, made, folder, given.runs, given.every, known.get(route) or {"points": base[:1]}):
            known[route] = found
            write_text(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    table(known)
    draw(known, given.out / "routes.png")


def measured(recipe: Recipe, made: dict[str, Any], folder: Path, runs: Path, every: int, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracy of the base, of every checkpoint whose step `every` divides, and of what the route ended with: the route, a point longer each time.

    `before` has the points that are known already.
    """
    settings = {key: value for key, value in made["recipe"]["train"].items() if key not in ("keep", "minutes", "memory", "patience")}
    route = {"base": recipe.base, "keep_layers": recipe.keep_layers, "system": recipe.dataset.system, "train": settings, "rows": made["recipe"]["dataset"]["rows"],
             "first_loss": made["first_loss"], "best_loss": made["best"], "memory": round(made["memory"], 2)}
    points = {point["iteration"]: point for point in before["points"]}
    base: tuple[Path | None, dict[str, Any]] = (None, {"iteration": 0, "tokens": 0, "seconds": 0.0})
    kept = [(place, read_json(place / "state.json")) for place in sorted(folder.glob("checkpoint-*"))]
    for place, state in [base, *((place, state) for place, state in kept if state["iteration"] % every == 0), (folder, made)]:
        iteration = state["iteration"]
        if iteration in points:
            continue
        if place not in (None, folder):
            write_text(place / "adapter_config.json", (folder / "adapter_config.json").read_text(encoding="utf-8"))
        found = accuracy(recipe, runs, place)
        points[iteration] = {"iteration": iteration, "tokens": state["tokens"], "minutes": round(state["seconds"] / 60, 2), **found}
        print(f"{recipe.name} step {iteration}: {points[iteration]}", flush=True)
        yield {**route, "points": [points[key] for key in sorted(points)]}


def accuracy(recipe: Recipe, runs: Path, adapter: Path | None) -> dict[str, float]:
    """Macro-mean over categories of accepted replies, share with one iteration, share that names the intent; over the open conversation prompts."""
    cases = [case for case in load_cases("conversation", half="open") if case.prompt and not case.seen]
    system = [{"role": "system", "content": recipe.dataset.system}] if recipe.dataset.system else []
    said = replies(base_of(recipe, runs).directory, adapter, [[*system, {"role": "user", "content": case.prompt or ""}] for case in cases],
                   max_tokens=LONGEST, device=device())
    return scored(cases, said)


def scored(cases: Sequence[Case], said: Sequence[str]) -> dict[str, float]:
    """Of raw replies with their tags, as the Turkish criterion counts them."""
    by_category: dict[str, list[bool]] = defaultdict(list)
    means = intents()
    one = named = 0
    for case, raw in zip(cases, said, strict=True):
        text, thinking = split_thinking(raw)
        by_category[case.category].append(conversation(case, Reply(text, thinking=thinking)).passed)
        one += len(steps(thinking)) == 1
        named += case.intent in means[thinking.strip().partition(";")[0]]
    shares = [sum(found) / len(found) for found in by_category.values()]
    return {"accuracy": round(sum(shares) / len(shares), 4), "one_iteration": round(one / len(cases), 4), "named": named, "prompts": len(cases)}


def intents() -> dict[str, set[str]]:
    """The intents that a first clause of thinking ("1. Veda ediyor, kolay") stands for in the training text."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in load_entries():
        for reply in entry.replies:
            found[reply.thinking.partition(";")[0]].add(entry.intent or entry.id)
    return found


def table(known: dict[str, Any]) -> None:
    """Every route's points."""
    for name, route in known.items():
        print(f"{name}: validation loss {route['first_loss']:.3f} -> {route['best_loss']:.3f}, {route['memory']} GB")
        for point in route["points"]:
            print(f"  {point['tokens'] / 1e3:6.0f} k tokens {point['minutes']:6.1f} min  accuracy {point['accuracy']:.3f}  "
                  f"intent named {point['named']} of {point['prompts']}  one iteration {point['one_iteration']:.3f}")


def draw(known: dict[str, Any], out: Path) -> None:
    """Accuracy against tokens and against minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, key, label, scale in zip(figure.subplots(1, 2), ("tokens", "minutes"), ("thousand training tokens", "minutes on this machine"), (1e-3, 1.0),
                                       strict=True):
        for name, route in known.items():
            axes.plot([point[key] * scale for point in route["points"]], [point["accuracy"] for point in route["points"]], "o-", markersize=3,
                      label=name)
        axes.set(xlabel=label, ylabel="open conversation prompts answered", ylim=(0, 1))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
