"""From rows to trained weights: starts the process that trains, shows how it goes, and says how it ended.

    python -m training train RECIPE

Leaves runs/<recipe>/<candidate>/{adapters.safetensors, adapter_config.json, metrics.jsonl, loss.png, report.html, manifest.json}, the
manifest last. A candidate is named by the digest of all that makes it: recipe, base, rows. Run again, it goes on where
it was, or says that it is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.files import alone, read_json, sha256, write_text
from training import blas
from training.base import Base, base_of
from training.metrics import METRICS
from training.recipe import Recipe
from training.trainer import REQUEST, RESULT, Request

MANIFEST, PAGE = "manifest.json", "report.html"
REASONS = {"done": "every step was taken", "early": "the validation loss did not fall any more", "time": "the time was up",
           "memory": "the memory was used up", "nan": "the loss was no number any more; a lower learning rate would help"}


class TrainError(RuntimeError):
    """Training did not end with a result: one line with the reason. What was saved stays."""


def device() -> str:
    """Where mlx computes here: "gpu" on Apple silicon and with mlx's CUDA wheel, else "cpu". JESSY_DEVICE overrules."""
    from importlib import metadata

    if named := os.environ.get("JESSY_DEVICE"):
        if named not in ("cpu", "gpu"):
            raise ValueError(f"JESSY_DEVICE is '{named}'; cpu or gpu is needed")
        return named
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "gpu"
    return "gpu" if any(dist.name in ("mlx-cuda-12", "mlx-cuda-13") for dist in metadata.distributions()) else "cpu"


def rows_of(recipe: Recipe, base: Base, runs: Path) -> Path:
    """The folder of the recipe's rows, made where it is missing or of another recipe. Raises DataError, OSError."""
    from training.base import chat
    from training.dataset import build, text_digest
    from training.entries import load_entries

    folder = runs / recipe.name / "dataset"
    found = read_json(folder / MANIFEST)
    entries = load_entries(None)
    wanted = {"base": recipe.base, "vocabulary": [recipe.new_tokens, recipe.unused_tokens], "dataset": asdict(recipe.dataset), "text": text_digest(entries)}
    if any(found.get(key) != value for key, value in wanted.items()) or not _whole(folder, found):
        build(recipe, entries, chat(base.directory), runs)
    return folder


def _whole(folder: Path, manifest: dict[str, Any]) -> bool:
    try:
        return all(sha256(folder / f"{name}.jsonl") == digest for name, digest in manifest["files"].items())
    except (OSError, KeyError, AttributeError):
        return False


def candidate(recipe: Recipe, base: Base, rows: Path) -> str:
    """The digest that names a candidate: of the recipe, the base and the rows; not of where it was trained, nor for how long."""
    values = {key: value for key, value in asdict(recipe).items() if key not in ("export", "serve")}
    for key in ("workers", "minutes", "memory", "keep"):
        values["train"].pop(key)
    # These came later, and count where they are used: what was trained before keeps its name.
    for section, name, default in ((values, "keep_layers", []), (values, "new_tokens", 0), (values, "unused_tokens", True),
                                   (values["train"], "head", True), (values["train"], "embedding_rate", 1.0), (values["train"], "bag_epochs", 0.0),
                                   (values["train"], "averaging_layers", []), (values["train"]["weights"], "prompt", 0.0)):
        if section[name] == default:
            section.pop(name)
    content = {"recipe": values, "base": base.sha256 or _weights(base.directory), "rows": read_json(rows / MANIFEST).get("digest")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _weights(directory: Path) -> str:
    """The digest of a model directory's weights, of a base that has no GGUF."""
    return hashlib.sha256("".join(sha256(path) for path in sorted(directory.glob("model*.safetensors"))).encode()).hexdigest()


def train(recipe: Recipe, runs: Path, *, report_to: str = "") -> dict[str, Any]:
    """Train a recipe, or go on with it. Returns the manifest. Raises TrainError, BaseError, DataError, OSError."""
    from training.watch import Watch

    base = base_of(recipe, runs)
    if recipe.sha256 and recipe.sha256 != base.sha256:
        raise TrainError(f"base '{recipe.base}' has sha256 {base.sha256 or 'none (no GGUF)'}, and the recipe asks for {recipe.sha256}: "
                         "another file came; fetch the right one or change 'sha256'")
    rows = rows_of(recipe, base, runs)
    folder = runs / recipe.name / candidate(recipe, base, rows)
    folder.mkdir(parents=True, exist_ok=True)
    if (manifest := read_json(folder / MANIFEST)) and not _may_go_on(manifest, recipe):
        print(f"trained already: {folder / MANIFEST}")
        return manifest
    where = device()
    # More workers than micro-batches would only wait, each with the whole model in memory.
    most = max(1, round(recipe.train.step_tokens / recipe.train.micro_tokens))
    workers = 1 if where == "gpu" or sys.platform != "linux" else min(recipe.train.workers or cores(), most)
    request = Request(asdict(recipe), str(base.directory.resolve()), str(rows.resolve()), where, workers)
    with alone(folder / ".lock", TrainError(f"{folder} is being trained by another process; wait for it or end it")):
        write_text(folder / REQUEST, json.dumps(asdict(request), indent=1))
        (folder / RESULT).unlink(missing_ok=True)
        with Watch(folder, recipe, report_to=report_to) as watch:
            _child(folder, request, recipe, watch)
        return _finish(folder, recipe, base, rows)


def _may_go_on(manifest: dict[str, Any], recipe: Recipe) -> bool:
    """Whether what ended a training is allowed more of now."""
    budget = {"time": recipe.train.minutes * 60 > manifest.get("seconds", 0), "memory": recipe.train.memory > manifest.get("memory", 0)}
    return bool(budget.get(str(manifest.get("stop")), False))


def cores() -> int:
    """Of this process: what it may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _child(folder: Path, request: Request, recipe: Recipe, watch: Any) -> None:
    """Run the trainer and hand on what it says. Raises TrainError with its own line when it ends without a result."""
    problem = ""
    with tempfile.TemporaryDirectory(prefix="jessy-blas-") as links, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as beside:
        environment = {**os.environ, **(blas.environment(Path(links), recipe.train.products) if request.device == "cpu" else {})}
        process = subprocess.Popen([sys.executable, "-m", "training.trainer", str(folder)], env=environment, stdout=subprocess.PIPE,
                                   stderr=beside, text=True, encoding="utf-8", errors="replace")
        assert process.stdout is not None
        try:
            for line in process.stdout:
                event = _event(line)
                problem = event.get("error", problem)
                watch.show(event)
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
        beside.seek(0)
        said = beside.read().strip().splitlines()
    if problem or process.returncode or not (folder / RESULT).is_file():
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        last = (said or ["it said nothing"])[-1]
        if said and problem.startswith("a worker process is gone"):
            problem = f"{last} ({problem})"
        raise TrainError(problem or f"the training process ended ({ended}): {last}; train again to resume from the last checkpoint")
    watch.show({"lines": [line for line in said if "does not load" in line]})


def _event(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"lines": [line.rstrip()]}
    return found if isinstance(found, dict) else {}


def _finish(folder: Path, recipe: Recipe, base: Base, rows: Path) -> dict[str, Any]:
    from training.page import candidate_page
    from training.watch import plot

    result = read_json(folder / RESULT)
    plot(folder / METRICS, folder / "loss.png", recipe.name)
    manifest = {"recipe": asdict(recipe), "candidate": folder.name, "base": {"name": base.name, "sha256": base.sha256},
                "dataset": read_json(rows / MANIFEST).get("digest"), "adapter": sha256(folder / "adapters.safetensors"), **result}
    write_text(folder / PAGE, candidate_page(manifest, REASONS[manifest["stop"]], folder / "loss.png"))
    write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    return manifest
