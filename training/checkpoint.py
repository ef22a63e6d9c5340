"""Checkpoints: everything that a training needs to go on as if it had never stopped, in one folder each.

    checkpoint-000100/  adapters.safetensors  optimizer-0.safetensors ...  state.json

A folder is written under another name and then renamed: a process that is killed leaves none that is half.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import mlx.core as mx

from harness.files import write_text
from training.adapters import load, save
from training.merge import WEIGHTS
from training.team import Team

STATE = "state.json"


@dataclass
class State:
    """Where a training stands. `iteration` steps are done; the data's order and dropout follow from it and the seed.

    `unreported` are the losses of the steps since the last line of metrics, `blas` is what computed the products.
    """

    iteration: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    best_iteration: int = 0
    first_loss: float = float("nan")
    memory: float = 0.0
    unreported: list[float] = field(default_factory=list)
    blas: str = ""


def write(folder: Path, state: State, weights: Mapping[str, mx.array], optimizer: Mapping[str, mx.array], team: Team, keep: int) -> None:
    """Save a checkpoint, every worker its own part of the optimiser. Raises OSError on every worker if it failed on one."""
    final = folder / f"checkpoint-{state.iteration:06}"
    temporary = folder / f".{final.name}.tmp"
    problem = ""
    try:
        temporary.mkdir(exist_ok=True)
        save(temporary / f"optimizer-{team.rank}.safetensors", optimizer)
        if team.rank == 0:
            save(temporary / WEIGHTS, weights)
            write_text(temporary / STATE, json.dumps(asdict(state), indent=1))
    except OSError as error:
        problem = f"checkpoint {state.iteration} could not be written: {error}"
    found = [one for one in team.exchange(problem) if one]
    if team.rank == 0 and not found:
        problem = _put(temporary, final, keep)
    found = found or [one for one in team.exchange(problem) if one]
    if found:
        if team.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(found[0])


def _put(temporary: Path, final: Path, keep: int) -> str:
    """Give a complete folder its name and remove the oldest ones; returns what went wrong, "" if nothing did."""
    try:
        # One of the same number is of a training that was resumed from before it: the same bytes.
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(final.parent)
    except OSError as error:
        return f"{final.name} could not be written: {error}"
    for old in checkpoints(final.parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return ""


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{6,}", path.name))


def clear(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for left in folder.glob(".checkpoint-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def newest(folder: Path, names: set[str]) -> tuple[tuple[State, dict[str, mx.array], dict[str, mx.array]] | None, list[str]]:
    """(state, weights, optimiser) of the newest checkpoint that can be read, None without one; and a line about each unreadable one.

    `names` are the weights that are trained: a checkpoint of others is not this training's.
    """
    said = []
    for path in reversed(checkpoints(folder)):
        try:
            state = _state(path / STATE)
            weights = load(path / WEIGHTS)
            optimizer: dict[str, mx.array] = {}
            for part in sorted(path.glob("optimizer-*.safetensors")):
                optimizer |= load(part)
            if set(weights) != names or {name.rpartition(".")[0] for name in optimizer} - {""} != names:
                raise ValueError("its weights are not those that the recipe trains")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            said.append(f"{path.name} cannot be read ({(str(error).splitlines() or [''])[0]}); an older one is taken")
            continue
        return (state, weights, optimizer), said
    return None, said


def _state(path: Path) -> State:
    found = json.loads(path.read_text(encoding="utf-8"))
    return State(**{one.name: found[one.name] for one in fields(State)})
