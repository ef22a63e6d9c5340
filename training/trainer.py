"""The process that trains. `python -m training train` starts it with the environment that mlx needs; see training/train.py.

It reads request.json in the candidate's folder, prints one JSON object a line, and leaves result.json when it stops.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import write_text
from training import blas
from training.base import chat
from training.gauges import Window, gpu_use, resident
from training.metrics import METRICS, append, truncate
from training.recipe import Recipe, from_dict
from training.team import Team, WorkerLost, end_with_parent, gather

if TYPE_CHECKING:
    from training.step import Stepper

RESULT, REQUEST = "result.json", "request.json"
REPORT_EVERY = 10
# Where a loss is so near to the best one that the difference is rounding, it is no better.
BETTER = 1e-4


@dataclass(frozen=True)
class Request:
    """What to train: plain values, as they stand in request.json."""

    recipe: dict[str, Any]
    base: str
    rows: str
    device: str
    workers: int

    def settings(self) -> Recipe:
        """The recipe again."""
        return from_dict(self.recipe)


def main(folder: Path) -> int:
    """Train what request.json asks for. Returns the exit code: 0 when a result was left, 1 otherwise."""
    end_with_parent()
    request = Request(**json.loads((folder / REQUEST).read_text(encoding="utf-8")))
    loaded = " + ".join(one for one in (blas.preload(), Path(os.environ.get("JESSY_ADAMW", "")).name) if one) if request.device == "cpu" else ""
    size = request.workers
    # As many numbers as the base has bytes, two times its weights and more: adapters of a high rank can be larger than
    # what they adapt, and pages that nobody touches cost nothing.
    numbers = sum(path.stat().st_size for path in Path(request.base).glob("model*.safetensors"))
    return gather(size, numbers, lambda team: _run(folder, request, team, loaded))


def _run(folder: Path, request: Request, team: Team, loaded: str) -> int:
    from training.adapters import AdapterError
    from training.batches import RowError

    try:
        result = Trainer(folder, request, team, loaded).run()
    except (AdapterError, RowError, MemoryError, ArithmeticError, WorkerLost, OSError, ValueError) as error:
        # The first line is for people; the rest of a library's message is not.
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        if team.rank == 0:
            _say({"error": line})
        elif not isinstance(error, WorkerLost):
            print(line, file=sys.stderr)
        return 1
    if team.rank == 0:
        _say({"result": result})
        sys.stdout.flush()
    return 0


def _say(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


class Trainer:
    """One training, from its request or from its last checkpoint to its result."""

    def __init__(self, folder: Path, request: Request, team: Team, loaded: str) -> None:
        from training import checkpoint
        from training.batches import Batches, every, read_rows

        self.folder, self.team, self.recipe, self.loaded = folder, team, request.settings(), loaded
        self.train = train = self.recipe.train
        self.cpu = request.device == "cpu"
        self.state, self.window, self.started = checkpoint.State(), Window(), time.perf_counter()
        self.config, self.stepper = self._model(Path(request.base))
        talk = chat(Path(request.base))
        # What is measured is the replies, whatever else is learnt: losses of recipes can be compared.
        rows, held = (read_rows(Path(request.rows) / f"{half}.jsonl", talk, weights, self.recipe.dataset.max_tokens, intents=intents)
                      for half, weights, intents in (("train", train.weights, train.bag_epochs > 0), ("valid", replace(train.weights, prompt=0.0), False)))
        self.batches = Batches(rows, step_tokens=train.step_tokens, micro_tokens=train.micro_tokens, seed=train.seed)
        # The first ones, as they come: the data set's order was drawn with its seed.
        self.valid = list(every(held[:train.valid_rows], train.micro_tokens))
        self.iterations = max(1, round(train.epochs * self.batches.per_epoch))
        # Together, as they will work: a core's own speed says little where another is busy.
        self.gflops = sum(team.exchange(blas.gflops() if self.cpu else 0.0))
        if team.rank == 0:
            trained = sum(weight.size for weight in self.stepper.weights.values())
            _say({"start": {"blas": loaded, "gflops": self.gflops, "device": request.device, "workers": team.size, "products": train.products,
                            "iterations": self.iterations, "trained": trained, "rows": len(rows)}})

    def _model(self, base: Path) -> tuple[dict[str, Any], Stepper]:
        """The base with what the recipe trains of it: (adapter_config.json, the step on it)."""
        import mlx.core as mx
        from mlx_lm.utils import load_model

        from training import kernels
        from training.adapters import make_trainable
        from training.step import Stepper

        if self.team.rank:
            _own_compilations(self.team.rank)
        mx.set_default_device(mx.cpu if self.cpu else mx.gpu)
        if self.cpu and platform.system() == "Linux" and shutil.which("g++") is None:
            # mlx compiles fused operations with g++ there; without it, it can only take one after the other.
            mx.disable_compile()
        mx.random.seed(self.train.seed)
        model, _ = load_model(base, lazy=False)
        # A GPU computes in bfloat16, from float32 master weights; mlx's CPU has a fast product of float32 only.
        model.set_dtype(mx.float32)
        config = make_trainable(model, self.train)
        if self.cpu:
            kernels.install(model)
        model.train()
        return config, Stepper(model, self.train, self.team, cpu=self.cpu)

    def run(self) -> dict[str, Any]:
        """Train until a reason to stop, and leave the best weights as the adapter."""
        from training.bag import begun

        if not self._resumed():
            self._evaluate()
            self.stepper.begin_with(begun(self.stepper.weights, self.train, self.batches.rows, self.team))
        reason = ""
        while not reason:
            reason = self._advance()
        return self._finish(reason)

    def _resumed(self) -> bool:
        """Go on from the newest checkpoint that can be read; False where there is none."""
        from training import checkpoint

        found, said = checkpoint.newest(self.folder, set(self.stepper.names))
        if len(set(self.team.exchange(found and found[0].iteration))) > 1:
            raise OSError("the workers did not read the same checkpoint; train again")
        if found:
            self.state, weights, optimizer = found
            self.stepper.restore(weights, optimizer)
            self.window = Window(self.state.unreported)
            if self.state.blas != self.loaded:
                said.append(f"begun with {self.state.blas or 'the BLAS of mlx'} and resumed with {self.loaded or 'the BLAS of mlx'}, which rounds otherwise: "
                            "the result will not be byte for byte that of one machine")
            self._log({"resumed": self.state.iteration, "lines": said})
        elif said:
            raise OSError(f"{self.folder}: no checkpoint can be read: {said[0]}; move the folder away to begin anew")
        if self.team.rank == 0:
            checkpoint.clear(self.folder)
        self.team.exchange(None)
        if self.team.rank == 0:
            truncate(self.folder / METRICS, self.state.iteration if found else -1)
        self.state.blas = self.loaded
        self.started = time.perf_counter() - self.state.seconds
        return found is not None

    def _advance(self) -> str:
        """One step, and what is due after it. Returns why to stop, "" to go on."""
        from training import checkpoint

        state, train = self.state, self.train
        if state.iteration >= self.iterations:
            return "done"
        rate, loss = self._step()
        last, finite = state.iteration >= self.iterations, math.isfinite(loss)
        if state.iteration % REPORT_EVERY == 0 or not finite:
            self._report(rate)
        if not finite:
            return "nan"
        if last or state.iteration % train.evaluate_every == 0:
            self._evaluate()
            if train.patience and state.iteration - state.best_iteration >= train.patience and not last:
                return "early"
        reason = self._budget()
        if reason or last or state.iteration % train.checkpoint_every == 0:
            state.unreported = self.window.losses
            checkpoint.write(self.folder, state, self.stepper.weights, self.stepper.optimizer.state, self.team, train.keep)
        return reason

    def _step(self) -> tuple[float, float]:
        """One step: (learning rate, loss before it)."""
        from training.step import learning_rate

        state = self.state
        rate = learning_rate(self.train, state.iteration, self.iterations)
        micros = self.batches.step(state.iteration)
        begun = time.perf_counter()
        loss = self.stepper.step(micros, rate, seed=self.train.seed + state.iteration)
        tokens = sum(micro.tokens for micro in micros)
        self.window.add(loss, tokens, time.perf_counter() - begun)
        state.iteration += 1
        state.tokens += tokens
        state.memory = max(state.memory, self._memory())
        state.seconds = time.perf_counter() - self.started
        if self.team.rank == 0:
            _say({"step": state.iteration})
        return rate, loss

    def _report(self, rate: float) -> None:
        state, window = self.state, self.window
        self._log({"iteration": state.iteration, "loss": window.loss, "learning_rate": rate, "tokens_per_second": window.speed,
                   "tokens": state.tokens, "memory": state.memory, "seconds": state.seconds, "gpu": None if self.cpu else gpu_use(),
                   "left": self._left()})
        self.window = Window()

    def _evaluate(self) -> None:
        """Measure the validation loss, and keep the weights if they are the best ones."""
        from training.adapters import save_adapter

        state = self.state
        loss = self.stepper.mean_loss(self.valid)
        if not state.iteration:
            state.first_loss = loss
            if not math.isfinite(loss):
                raise ArithmeticError(f"the base's own validation loss is {loss}: its weights are damaged, or it is no language model")
        state.seconds = time.perf_counter() - self.started
        problem = ""
        if better := loss < state.best - BETTER:
            state.best, state.best_iteration = loss, state.iteration
            if self.team.rank == 0:
                try:
                    save_adapter(self.folder / "best", self.stepper.weights, self.config)
                except OSError as error:
                    problem = f"the best weights could not be written: {error}"
        if found := [one for one in self.team.exchange(problem) if one]:
            raise OSError(found[0])
        self._log({"iteration": state.iteration, "valid_loss": loss, "best": better, "seconds": state.seconds})

    def _budget(self) -> str:
        """Why to stop now: "time", "memory" or "". The first worker decides for all."""
        state, train = self.state, self.train
        reason = "time" if state.seconds >= 60 * train.minutes else "memory" if state.memory > train.memory else ""
        return self.team.exchange(reason)[0]

    def _memory(self) -> float:
        """Peak memory of the whole team in GB; shared pages count once."""
        if self.cpu:
            return sum(self.team.exchange(resident(self.team.size)))
        import mlx.core as mx

        return mx.get_peak_memory() / 1e9

    def _left(self) -> float:
        """Seconds to the end, at the pace so far, or to the end of the time that is allowed."""
        state = self.state
        pace = state.seconds / max(1, state.iteration)
        return min(pace * (self.iterations - state.iteration), 60 * self.train.minutes - state.seconds)

    def _log(self, event: dict[str, Any]) -> None:
        if self.team.rank:
            return
        _say(event)
        if "iteration" in event:
            append(self.folder / METRICS, event)

    def _finish(self, reason: str) -> dict[str, Any]:
        from training.merge import CONFIG, WEIGHTS

        state = self.state
        result = {"stop": reason, **asdict(state), "iterations": self.iterations, "gflops": self.gflops, "workers": self.team.size}
        result.pop("unreported")
        if self.team.rank == 0:
            for name in (WEIGHTS, CONFIG):
                temporary = self.folder / f".{name}.tmp"
                shutil.copyfile(self.folder / "best" / name, temporary)
                temporary.replace(self.folder / name)
            write_text(self.folder / RESULT, json.dumps(result, indent=1) + "\n")
        return result


def _own_compilations(rank: int) -> None:
    """A folder of this worker's own for what mlx compiles: it writes into a common one without looking whether another does."""
    folder = Path(tempfile.gettempdir()) / f"jessy-mlx-{os.getuid()}-{rank}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        os.environ["TMPDIR"] = str(folder)


if __name__ == "__main__":
    code = 1
    try:
        code = main(Path(sys.argv[1]))
        sys.stdout.flush()
    except BaseException as failure:  # whatever it is, the process ends and its last line says why
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        # mlx's threads do not always end with the interpreter; everything is written.
        os._exit(code)
