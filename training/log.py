"""reports/LOG.md: one entry a candidate, newest last, rejected ones too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.display import amount, bar_text, interval_text
from harness.files import write_text
from training.recipe import Recipe

HEAD = "# Candidates\n\nWritten by `python -m training candidate`; one entry a candidate, rejected ones too.\n"


def write_entry(path: Path, recipe: Recipe, attempt: dict[str, Any]) -> None:
    """Add a candidate's entry, in the place of an older one of the same candidate. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else HEAD
    title = f"{recipe.name} {attempt['candidate']}"
    kept = [part for part in re.split(r"(?m)^(?=## )", text) if part.removeprefix("## ").split("\n")[0].removesuffix(" (rejected)") != title]
    write_text(path, "".join(kept).rstrip("\n") + "\n\n" + entry(title, attempt))


def entry(title: str, attempt: dict[str, Any]) -> str:
    """One candidate: why it was tried, what its training was, what it scored, and how it ended."""
    made = attempt["stages"].get("train")
    lines = [f"## {title}" + (" (rejected)" if attempt["outcome"] == "rejected" else ""), "", *(f"- {words}" for words in attempt["why"]), ""]
    if made:
        lines += [f"Training: {made['stop']} after {made['iteration']} of {made['iterations']} steps, {made['tokens']:,} tokens, {made['seconds'] / 60:.1f} min, "
                  f"{made['memory']:.1f} GB; validation loss {made['first_loss']:.3f} -> {made['best']:.3f}.", ""]
    if attempt["criteria"]:
        lines += ["| criterion | level | score | 95 % interval | bar | verdict |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {row['title']} | {row['level']} | {amount(row['score'], row['bar']['unit'], row['bar']['value'])} | {interval_text(row, row['bar']['unit'])} | "
                  f"{bar_text(row['bar'])} | {row['verdict']} |" for row in attempt["criteria"]] + [""]
    if where := attempt["stages"].get("open", {}).get("report"):
        lines += [f"Report: {'/'.join(Path(where).parts[-3:])}", ""]
    return "\n".join([*lines, f"{attempt['outcome'].capitalize()}: {attempt['reason']}.", ""])
