"""python -m training STAGE: how a candidate is made, a stage at a time."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from harness.fetch import FetchFailed
from harness.jsonl import DataError
from training.check import problems
from training.entries import CATEGORIES, Entry, load_entries
from training.recipe import Recipe, RecipeError, load_recipe

SHOWN = 40


def main(arguments: list[str] | None = None) -> int:
    """Run one stage. Returns the exit code: 0 done, 1 the data is not fit, 4 bad input."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    base = stages.add_parser("base", help="the recipe's base as a model directory of mlx-lm, made once")
    base.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    base.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    dataset = stages.add_parser("dataset", help="training entries -> rows of a recipe, with a manifest and a page")
    dataset.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    dataset.add_argument("--check", action="store_true", help="only validate the training text")
    dataset.add_argument("--data", type=Path, default=None, help="another data folder")
    dataset.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    train = stages.add_parser("train", help="rows -> trained weights, resumed where they were left")
    train.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    train.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    train.add_argument("--report-to", default="", help="wandb or swanlab, through mlx-lm's own callbacks; nothing is sent without it")
    export = stages.add_parser("export", help="trained weights -> a GGUF file, proved to be what was trained")
    export.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    export.add_argument("--type", default="", help="F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, Q4_K_M, Q4_K_S; the recipe's otherwise")
    export.add_argument("--adapter", action="store_true", help="a GGUF LoRA adapter for Ollama's ADAPTER in place of the merged model")
    export.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    register = stages.add_parser("register", help="the exported file -> a model of Ollama and of the embedded engine")
    register.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    register.add_argument("--engine", choices=("auto", "ollama", "embedded"), default="auto", help="auto: both, Ollama where a server answers")
    register.add_argument("--host", default=None, help="the Ollama server; OLLAMA_HOST otherwise")
    register.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    candidate = stages.add_parser("candidate", help="all stages and the suites, recipe after recipe, until a candidate passes")
    candidate.add_argument("recipe", nargs="?", default="jessy-v2", help="a TOML file, or the name of one in training/recipes")
    candidate.add_argument("--candidates", type=int, default=6, help="the most that are made (default: 6)")
    candidate.add_argument("--minutes", type=float, default=480.0, help="of all candidates together; none is begun after them (default: 480)")
    candidate.add_argument("--against", default="smollm2", help="the gate's baseline (default: smollm2)")
    candidate.add_argument("--engine", choices=("auto", "ollama", "embedded"), default="auto", help="auto: both are given the model, Ollama is measured where a server answers")
    candidate.add_argument("--host", default=None, help="the Ollama server; OLLAMA_HOST otherwise")
    candidate.add_argument("--max-cases", type=int, default=None, metavar="N", help="smoke run of the suites; no gate takes it")
    candidate.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    candidate.add_argument("--reports", type=Path, default=Path("reports"), help="where the suites leave their reports, and LOG.md is")
    candidate.add_argument("--dry-run", action="store_true", help="only print what would be done next")
    ask = stages.add_parser("ask", help="what a trained recipe says, before anything is exported")
    ask.add_argument("recipe", help="a TOML file, or the name of one in training/recipes")
    ask.add_argument("prompts", nargs="+", help="one user message each")
    ask.add_argument("--runs", type=Path, default=Path("runs"), help="where the stages leave what they make")
    ask.add_argument("--base", action="store_true", help="the base alone, without what was trained")
    given = parser.parse_args(arguments)
    try:
        if given.stage == "base":
            return ready(load_recipe(given.recipe), given.runs)
        if given.stage == "train":
            return trained(load_recipe(given.recipe), given.runs, given.report_to)
        if given.stage in ("export", "register"):
            return released(load_recipe(given.recipe), given)
        if given.stage == "candidate":
            return looped(load_recipe(given.recipe), given)
        if given.stage == "ask":
            return asked(load_recipe(given.recipe), given)
        entries = load_entries(given.data)
        return check(entries, given.data) if given.check else build(load_recipe(given.recipe), entries, given)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except TemplateError as error:
        print(f"the base's chat template refuses the rows: {error}; a base without such a rule, or another 'dataset.system', is needed", file=sys.stderr)
        return 4
    except (DataError, RecipeError, FetchFailed, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 4


def ready(recipe: Recipe, runs: Path) -> int:
    """Make the base of a recipe ready to train, and say where it is."""
    from training.base import base_of

    base = base_of(recipe, runs)
    print(f"{base.name}: {base.directory}" + (f" (sha256 {base.sha256[:16]} of {base.gguf})" if base.gguf else ""))
    return 0


def trained(recipe: Recipe, runs: Path, report_to: str) -> int:
    """Train a recipe and say how it ended: 0 with trained weights, 1 when it diverged or its process died."""
    from training.train import REASONS, TrainError, train

    try:
        made = train(recipe, runs, report_to=report_to)
    except TrainError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{made['stop']}: {REASONS[made['stop']]}")
    print(f"validation loss {made['first_loss']:.3f} -> {made['best']:.3f} at step {made['best_iteration']} of {made['iterations']}; "
          f"{made['tokens']} tokens in {made['seconds'] / 60:.1f} min, {made['memory']:.1f} GB at most")
    print(runs / recipe.name / made["candidate"])
    return 1 if made["stop"] == "nan" else 0


def released(recipe: Recipe, given: Any) -> int:
    """Export a recipe, or register what is exported. Returns 1 where the file is not what was trained, or a server fails."""
    from training.export import ExportError, stage
    from training.parity import ParityError
    from training.register import RegisterError, register

    try:
        if given.stage == "export":
            stage(recipe, given.runs, kind=given.type, adapter=given.adapter)
        else:
            print("\n".join(register(recipe, given.runs, engine=given.engine, host=given.host)))
    except (ExportError, ParityError, RegisterError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def looped(recipe: Recipe, given: Any) -> int:
    """Make candidates until one passes: 0 when one did, 1 when none did or a stage broke."""
    from training.candidate import Loop, LoopError, Options

    if given.candidates < 1 or not given.minutes > 0:
        raise ValueError(f"--candidates is {given.candidates} and --minutes {given.minutes:g}; both have to be over 0")
    try:
        loop = Loop(recipe, Options(given.runs, given.reports, given.candidates, given.minutes, given.against, given.engine, given.host, given.max_cases))
        if given.dry_run:
            print("\n".join(loop.plan()))
            return 0
        return loop.run()
    except LoopError as error:
        print(error, file=sys.stderr)
        return 1


def asked(recipe: Recipe, given: Any) -> int:
    """Print the greedy reply to each prompt, thinking and answer. Returns 1 where nothing is trained yet."""
    from training.base import base_of
    from training.generate import GenerateError, plain, replies
    from training.train import candidate, device, rows_of

    base = base_of(recipe, given.runs)
    folder = None if given.base else given.runs / recipe.name / candidate(recipe, base, rows_of(recipe, base, given.runs))
    if folder and not (folder / "adapters.safetensors").is_file():
        print(f"{folder} has no adapters.safetensors; 'python -m training train {recipe.name}' makes it", file=sys.stderr)
        return 1
    system = [{"role": "system", "content": recipe.dataset.system}] if recipe.dataset.system else []
    try:
        said = replies(base.directory, folder, [[*system, {"role": "user", "content": prompt}] for prompt in given.prompts], device=device())
    except GenerateError as error:
        print(error, file=sys.stderr)
        return 1
    for prompt, reply in zip(given.prompts, said, strict=True):
        print(f"> {prompt}\n{plain(reply)}\n")
    return 0


def check(entries: tuple[Entry, ...], data: Path | None) -> int:
    """Print the table and every problem."""
    found = problems(entries, data)
    print(f"{'category':14}{'entries':>8}{'prompts':>9}{'replies':>9}")
    for category in CATEGORIES:
        of = [entry for entry in entries if entry.category == category]
        print(f"{category:14}{len(of):8}{sum(len(entry.said) for entry in of):9}{sum(len(entry.answers) for entry in of):9}")
    for problem in found[:SHOWN]:
        print(problem)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    kinds = Counter("contamination" if line.startswith("contamination") else "other" for line in found)
    print(f"{len(found)} problems, {kinds['contamination']} of them contamination" if found else
          "sound: schema, counts, bands, replies, language, duplicates, personal data, profanity; contamination 0")
    return 1 if found else 0


def build(recipe: Recipe, entries: tuple[Entry, ...], given: Any) -> int:
    """Make the rows of a recipe and print what they are."""
    from training.base import base_of, chat
    from training.dataset import build as build_dataset

    made = build_dataset(recipe, entries, chat(base_of(recipe, given.runs).directory), given.runs, given.data)
    for part in ("train", "valid"):
        rows = made[part]
        print(f"{part}: {rows['distinct']} distinct rows of {made['entries'][part]} entries, {rows['tokens']} tokens "
              f"({rows['supervised_tokens']} supervised), {rows['unsupervised']} with nothing supervised")
    print(f"removed: {made['duplicates_removed']} duplicates, {made['held_back_removed']} that read like a held-back prompt, {made['contaminated_removed']} too close to an eval prompt, "
          f"{made['too_long_removed']} longer than {recipe.dataset.max_tokens} tokens")
    print(given.runs / recipe.name / "dataset" / "manifest.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
