"""How a training goes: a live bar, a line every ten steps, and the plot of its losses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.blas import PACKAGE, SLOW
from training.recipe import Recipe


class Watch:
    """Shows the events of a trainer. Used as a context: the bar ends with it."""

    def __init__(self, folder: Path, recipe: Recipe, *, report_to: str = "") -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.folder, self.recipe = folder, recipe
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                            console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task(recipe.name, total=None)
        self.callback = _callback(report_to, folder) if report_to else None

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Print what an event says, if it says something to people."""
        if "step" in event:
            self.bar.update(self.task, completed=event["step"])
        for line in self._lines(event):
            self.console.print(line, markup=False)

    def _lines(self, event: dict[str, Any]) -> list[str]:
        said = list(event.get("lines", []))
        if start := event.get("start"):
            self.bar.update(self.task, total=start["iterations"])
            said += _start(start, self.folder)
        if event.get("resumed"):
            said.append(f"resumed after step {event['resumed']}")
            self.bar.update(self.task, completed=event["resumed"])
        if "learning_rate" in event:
            said.append(_step(event))
            if self.callback:
                self.callback.on_train_loss_report({**event, "train_loss": event["loss"], "peak_memory": event["memory"], "trained_tokens": event["tokens"]})
        if "valid_loss" in event:
            said.append(f"{event['iteration']:6}  valid {event['valid_loss']:.4f}" + ("  best" if event["best"] else ""))
            if self.callback:
                self.callback.on_val_loss_report({"iteration": event["iteration"], "val_loss": event["valid_loss"]})
        return said


def _start(start: dict[str, Any], folder: Path) -> list[str]:
    said = [f"{folder}: {start['trained'] / 1e6:.2f} M trained weights, {start['rows']} rows, {start['iterations']} steps, "
            f"{start['workers']} x {start['device']}"]
    if start["device"] == "cpu":
        said.append(f"{start['gflops']:.0f} GFLOP/s with {start['blas'] or 'the BLAS of mlx'}")
        if start["products"] == "bfloat16" and "gemm" not in start["blas"]:
            said.append("products = \"bfloat16\" needs a CPU with AVX512-BF16, and gcc; they are computed in float32")
        if start["gflops"] < SLOW:
            said.append(f"warning: under {SLOW:.0f} GFLOP/s training takes days; 'pip install {PACKAGE}' brings a fast BLAS, JESSY_BLAS names one")
    return said


def _step(event: dict[str, Any]) -> str:
    gpu = f"  gpu {event['gpu']:.0f} %" if event.get("gpu") is not None else ""
    return (f"{event['iteration']:6}  loss {event['loss']:.4f}  lr {event['learning_rate']:.2e}  {event['tokens_per_second']:.0f} tok/s  "
            f"{event['memory']:.1f} GB{gpu}  left {event['left'] / 60:.0f} min")


def _callback(report_to: str, folder: Path) -> Any:
    """mlx-lm's own reporting (wandb, swanlab), which sends to where its user has set it up to send."""
    from mlx_lm.tuner.callbacks import get_reporting_callbacks

    try:
        return get_reporting_callbacks(report_to, project_name="jessy-evals", log_dir=str(folder), config=None)
    except (ImportError, ValueError) as error:
        raise ValueError(f"--report-to {report_to}: {error}") from None


def plot(metrics: Path, out: Path, title: str) -> None:
    """Training and validation loss against tokens seen, as a PNG. Raises OSError."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train = [(line["tokens"] / 1e3, line["loss"]) for line in lines if "loss" in line]
    by_iteration = {line["iteration"]: line["tokens"] / 1e3 for line in lines if "tokens" in line}
    pace = max((tokens / iteration for iteration, tokens in by_iteration.items()), default=0.0)
    valid = [(by_iteration.get(line["iteration"], line["iteration"] * pace), line["valid_loss"]) for line in lines if "valid_loss" in line]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for points, name, style in ((train, "training", "-"), (valid, "validation", "o-")):
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name, markersize=3)
    axes.set(xlabel="thousand tokens", ylabel="loss (nats a supervised token)", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    temporary = out.with_name(f".{out.name}.tmp")
    figure.savefig(temporary, format="png", dpi=120)
    temporary.replace(out)
