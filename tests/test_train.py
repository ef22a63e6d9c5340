"""Training: it learns, it stops for a reason, and nothing that kills it costs more than the time since the last checkpoint."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.tiny_training import base, left, recipe, train
from training import blas
from training.__main__ import main
from training.recipe import RecipeError, load_recipe

# A trainer in which something is done to the step, for faults that no recipe brings about.
FAULTY = """
import sys
from pathlib import Path
from training import trainer
def run(folder, request, team, loaded, original=trainer._run):
    import math, os, signal, training.step as step
    plain = step.Stepper.step
    def wrapped(self, micros, rate, *, seed=0):
        value = plain(self, micros, rate, seed=seed)
        {fault}
        return value
    step.Stepper.step = wrapped
    return original(folder, request, team, loaded)
trainer._run = run
sys.exit(trainer.main(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(recipe, runs, what was printed) of a training that nothing disturbed. Its steps end with a checkpoint every five."""
    folder = tmp_path_factory.mktemp("trained")
    path = recipe(folder, gguf)
    done = train(path, folder / "runs")
    assert done.returncode == 0, done.stderr
    return path, folder / "runs", done.stdout


def again(trained: tuple[Path, Path, str], tmp_path: Path) -> tuple[Path, Path]:
    """A recipe of the same candidate in a place of its own, the base and the rows made already."""
    path, runs, _ = trained
    shutil.copy(path, tmp_path / path.name)
    for part in ("base", f"{path.stem}/dataset"):
        shutil.copytree(runs / part, tmp_path / "runs" / part)
    return tmp_path / path.name, tmp_path / "runs"


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_learns_and_says_so(trained: tuple[Path, Path, str]) -> None:
    path, runs, said = trained
    found = manifest(left(path, runs))
    assert found["stop"] == "done" and found["best"] < 0.8 * found["first_loss"]
    assert "GFLOP/s with" in said and "tok/s" in said and " GB" in said and "left" in said
    assert f"validation loss {found['first_loss']:.3f} -> {found['best']:.3f}" in said
    measured = metrics(left(path, runs))
    assert [line["iteration"] for line in measured if "loss" in line] == list(range(10, found["iterations"] + 1, 10))
    assert [line["iteration"] for line in measured if "valid_loss" in line][:3] == [0, 5, 10]
    assert min(line["valid_loss"] for line in measured if "valid_loss" in line) == pytest.approx(found["best"], abs=1e-4)
    assert (left(path, runs) / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_last_three_checkpoints_and_the_best_weights_are_kept(trained: tuple[Path, Path, str]) -> None:
    path, runs, _ = trained
    folder = left(path, runs)
    names = sorted(one.name for one in folder.glob("checkpoint-*"))
    last = manifest(folder)["iterations"]
    expected = sorted({*range(5, last + 1, 5), last})[-3:]
    assert names == [f"checkpoint-{number:06}" for number in expected]
    assert sorted(one.name for one in (folder / names[-1]).iterdir()) == ["adapters.safetensors", "optimizer-0.safetensors", "optimizer-1.safetensors", "state.json"]
    assert (folder / "best" / "adapters.safetensors").read_bytes() == (folder / "adapters.safetensors").read_bytes()
    assert not [one for one in folder.rglob("*") if ".tmp" in one.name]


def test_mlx_lm_loads_what_was_trained_and_it_changes_the_replies(trained: tuple[Path, Path, str]) -> None:
    from training.generate import replies

    path, runs, _ = trained
    found = next((runs / "base").iterdir())
    dialogue = [[{"role": "user", "content": "naber"}]]
    plain, adapted = (replies(found, adapter, dialogue, max_tokens=12) for adapter in (None, left(path, runs)))
    assert plain != adapted


def test_a_candidate_that_is_trained_is_not_trained_again(trained: tuple[Path, Path, str]) -> None:
    path, runs, _ = trained
    before = (left(path, runs) / "adapters.safetensors").stat().st_mtime_ns
    done = train(path, runs)
    assert done.returncode == 0 and "trained already" in done.stdout
    assert (left(path, runs) / "adapters.safetensors").stat().st_mtime_ns == before


def test_another_recipe_is_another_candidate_and_the_old_one_stays(trained: tuple[Path, Path, str], tmp_path: Path, gguf: Path) -> None:
    path, runs = again(trained, tmp_path)
    old = left(*trained[:2])
    shutil.copytree(old, runs / path.stem / old.name)
    kept = (old / "adapters.safetensors").read_bytes()
    recipe(tmp_path, gguf, learning_rate=1e-3, epochs=0.3)
    assert train(path, runs).returncode == 0
    assert (runs / path.stem / old.name / "adapters.safetensors").read_bytes() == kept
    assert len([one for one in (runs / path.stem).iterdir() if one.name != "dataset"]) == 2


def test_killed_at_any_step_it_ends_with_the_same_bytes(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs, _ = trained
    undisturbed = left(path, runs)
    mine, mine_runs = again(trained, tmp_path)
    last = manifest(undisturbed)["iterations"]
    for after in sorted(random.Random(5).sample(range(1, last - 4), 5)):
        kill_when(mine, mine_runs, after)
    done = train(mine, mine_runs)
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stdout
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert (left(mine, mine_runs) / name).read_bytes() == (undisturbed / name).read_bytes()
    same = ("loss", "valid_loss", "learning_rate", "tokens", "iteration")
    ours, theirs = ([{key: line[key] for key in same if key in line} for line in metrics(one)] for one in (left(mine, mine_runs), undisturbed))
    assert ours == theirs


def test_going_on_with_another_blas_is_said(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    """As on another machine: it may, and the bytes will not be those of one machine."""
    mine, mine_runs = again(trained, tmp_path)
    kill_when(mine, mine_runs, 7)
    state = max(left(mine, mine_runs).glob("checkpoint-*")) / "state.json"
    found = json.loads(state.read_text(encoding="utf-8"))
    state.write_text(json.dumps({**found, "blas": "libmkl_rt.so.2"}), encoding="utf-8")
    done = train(mine, mine_runs)
    assert done.returncode == 0 and "begun with libmkl_rt.so.2 and resumed with" in done.stdout
    assert manifest(left(mine, mine_runs))["blas"] == found["blas"]


def test_what_a_training_begins_with_is_done_once(trained: tuple[Path, Path, str], gguf: Path, tmp_path: Path) -> None:
    """Averaging layers and fitted vectors stand in the first checkpoint of a training that moves nothing itself; killed, it does not begin again."""
    from safetensors.numpy import load_file

    path, runs = again(trained, tmp_path)
    recipe(tmp_path, gguf, method="full", learning_rate=1e-12, averaging_layers=[1], bag_epochs=2)
    kill_when(path, runs, 7)
    folder = left(path, runs)
    first, plain = load_file(folder / "checkpoint-000005" / "adapters.safetensors"), load_file(next((runs / "base").iterdir()) / "model.safetensors")
    moved = {name for name, value in first.items() if np.abs(value - plain[name].astype(np.float32)).max() > 1e-6}
    assert moved == {"model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight"}
    assert np.abs(first["model.layers.1.self_attn.q_proj.weight"]).max() < 1e-6
    done = train(path, runs)
    assert done.returncode == 0 and "resumed after step 5" in done.stdout, done.stderr
    last = load_file(max(folder.glob("checkpoint-*")) / "adapters.safetensors")
    assert all(np.abs(value - first[name]).max() < 1e-6 for name, value in last.items())


def kill_when(path: Path, runs: Path, after: int) -> None:
    """Start the trainer as the stage does, and kill every process of it once step `after` is done."""
    folder = prepared(path, runs)
    with started([sys.executable, "-m", "training.trainer", str(folder)]) as process:
        try:
            assert process.stdout is not None
            assert any(json.loads(line).get("step") == after for line in process.stdout), f"the training ended before step {after}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    with tempfile.TemporaryDirectory() as links:
        environment = {**os.environ, **blas.environment(Path(links))}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True, env=environment) as process:
            yield process


def prepared(path: Path, runs: Path) -> Path:
    """The candidate's folder with its request, as the stage leaves it for the trainer."""
    from dataclasses import asdict

    from training.base import prepare
    from training.train import candidate, rows_of
    from training.trainer import REQUEST, Request

    wanted = load_recipe(path)
    found = prepare(wanted.base, runs)
    rows = rows_of(wanted, found, runs)
    folder = runs / wanted.name / candidate(wanted, found, rows)
    folder.mkdir(parents=True, exist_ok=True)
    request = Request(asdict(wanted), str(found.directory), str(rows), "cpu", wanted.train.workers)
    (folder / REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
    return folder


def test_a_checkpoint_that_cannot_be_read_is_said_and_the_one_before_is_taken(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    kill_when(path, runs, 11)
    folder = left(path, runs)
    newest = sorted(folder.glob("checkpoint-*"))[-1]
    assert newest.name == "checkpoint-000010"
    (newest / "optimizer-1.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    done = train(path, runs)
    assert done.returncode == 0, done.stderr
    assert "checkpoint-000010 cannot be read" in done.stdout and "resumed after step 5" in done.stdout
    assert (folder / "adapters.safetensors").read_bytes() == (left(*trained[:2]) / "adapters.safetensors").read_bytes()


def faulty(path: Path, runs: Path, fault: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = prepared(path, runs)
    with tempfile.TemporaryDirectory() as links:
        done = subprocess.run([sys.executable, "-c", FAULTY.replace("{fault}", fault), str(folder)], capture_output=True, text=True, timeout=120,
                              check=False, env={**os.environ, **blas.environment(Path(links))})
    return done, folder


def test_a_loss_that_is_no_number_ends_it_and_the_best_weights_stay(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    _, folder = faulty(path, runs, "value = math.nan if seed == 7 else value")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["stop"] == "nan" and result["iteration"] == 8 and result["best_iteration"] == 5
    assert (folder / "adapters.safetensors").read_bytes() == (folder / "best" / "adapters.safetensors").read_bytes()
    assert sorted(one.name for one in folder.glob("checkpoint-*")) == ["checkpoint-000005"]


def test_a_worker_that_dies_ends_all_of_them_with_one_line(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    done, folder = faulty(path, runs, "os.kill(os.getpid(), signal.SIGKILL) if seed == 7 and self.team.rank == 1 else None")
    assert done.returncode == 1
    assert "a worker process is gone" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert (folder / "checkpoint-000005" / "state.json").is_file() and not (folder / "result.json").exists()


def limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    kill_when(path, runs, 6)
    folder = left(path, runs)
    good = {one: one.read_bytes() for one in (folder / "checkpoint-000005").iterdir()}
    size = (folder / "checkpoint-000005" / "adapters.safetensors").stat().st_size
    done = train(path, runs, preexec_fn=limited(size // 2))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and ("could not be written" in done.stderr), done.stderr
    assert {one: one.read_bytes() for one in (folder / "checkpoint-000005").iterdir()} == good
    assert not [one for one in folder.rglob("*") if ".tmp" in one.name]
    assert train(path, runs).returncode == 0
    assert (folder / "adapters.safetensors").read_bytes() == (left(*trained[:2]) / "adapters.safetensors").read_bytes()


@pytest.mark.parametrize(("train_keys", "reason"), [
    ({"learning_rate": 1e-9, "patience": 10}, "early"), ({"memory": 0.1}, "memory")])
def test_it_stops_for_its_reasons(train_keys: dict[str, Any], reason: str, trained: tuple[Path, Path, str], gguf: Path, tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    recipe(tmp_path, gguf, **train_keys)
    done = train(path, runs)
    assert done.returncode == 0, done.stderr
    assert manifest(left(path, runs))["stop"] == reason and done.stdout.count(f"{reason}: ") == 1
    assert (left(path, runs) / "adapters.safetensors").is_file()
    if reason != "early":
        assert list(left(path, runs).glob("checkpoint-*"))


def test_what_its_time_ended_goes_on_when_it_is_given_more(trained: tuple[Path, Path, str], gguf: Path, tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    recipe(tmp_path, gguf, minutes=0.03, epochs=3.0)
    assert train(path, runs).returncode == 0
    first = manifest(left(path, runs))
    assert first["stop"] == "time"
    recipe(tmp_path, gguf, minutes=30.0, epochs=3.0)
    done = train(path, runs)
    found = manifest(left(path, runs))
    assert f"resumed after step {first['iteration']}" in done.stdout and found["stop"] == "done"


def test_two_trainings_of_one_candidate_do_not_write_into_each_other(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    from filelock import FileLock

    path, runs = again(trained, tmp_path)
    with FileLock(prepared(path, runs) / ".lock"):
        done = train(path, runs)
    assert done.returncode == 1 and "is being trained by another process" in done.stderr


@pytest.mark.parametrize(("lines", "says"), [
    ('sha256 = "00ff"', "the recipe asks for 00ff"), ('base = "nowhere.gguf"', "no such file"),
    ('[train]\nmodules = ["q_proj", "kproj"]', "'train.modules' has 'kproj', and a layer has down_proj"),
    ("[train]\nlayers = 40", "'train.layers' is 40, and the model has 3"),
    ("[train]\nmethod = 'full'\naveraging_layers = [3]", "'train.averaging_layers' has 3, and the candidate has no layer of that number with a q_proj"),
])
def test_what_does_not_fit_the_base_is_one_line(lines: str, says: str, trained: tuple[Path, Path, str], gguf: Path, tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    path.write_text(("" if "base" in lines else f'base = "{gguf}"\n') + lines + "\n[dataset]\nrows = 120\nmax_tokens = 420\n", encoding="utf-8")
    done = train(path, runs)
    assert done.returncode in (1, 4) and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(("lines", "says"), [
    ("[train]\nrnk = 3", "unknown key 'train.rnk'; known keys: method, rank"), ("[train]\nmethod = 'qlora'", "allowed are lora, dora, full"),
    ("[train]\nlearning_rate = 3", "'train.learning_rate' is 3; allowed is 0 to 1"), ("[train]\nlearning_rate = nan", "allowed is 0 to 1"),
    ("[train]\nmodules = []", "names of linear layers are needed"), ("[train.weights]\nintents = 1.0", "unknown key 'train.weights.intents'"),
    ("[train.weights]\nintent = 0\nthinking = 0\nopening = 0\nanswer = 0", "no positive weight"), ("[train]\nembeddings = 1", "bool is needed"),
    ("[train]\nstep_tokens = 10", "at least one micro-batch, 1024, is needed"), ("train = 3", "not a table"),
    ("[train]\nbag_epochs = 2", "'train.bag_epochs' is 2, and the recipe does not train what it changes; 'method = \"full\"'"),
    ("[train]\nmethod = 'full'\nembeddings = false\nbag_epochs = 2", "'embeddings = true' are needed"),
    ("[train]\nmethod = 'full'\nlayers = 1\naveraging_layers = [1]", "'layers = 0'"),
    ("[train]\nmethod = 'full'\naveraging_layers = [-1]", "has -1; numbers of layers are needed"),
])
def test_a_wrong_key_of_a_recipe_says_what_is_allowed(lines: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(lines + "\n", encoding="utf-8")
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert says in str(raised.value)


def test_a_slow_blas_is_said(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    done = train(path, runs, env={**os.environ, "JESSY_BLAS": str(tmp_path / "none.so")})
    assert done.returncode == 0 and "does not load" in done.stdout
    assert "warning: under 20 GFLOP/s" in done.stdout and "'pip install cmeel-openblas'" in done.stdout


@pytest.mark.parametrize(("where", "says"), [("wandb", "wandb is not installed"), ("elsewhere", "choose from wandb, swanlab")])
def test_reporting_elsewhere_needs_what_it_reports_to(where: str, says: str, trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    path, runs = again(trained, tmp_path)
    done = subprocess.run([sys.executable, "-m", "training", "train", str(path), "--runs", str(runs), "--report-to", where],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_what_a_recipe_says_can_be_heard_before_it_is_exported(trained: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, runs, _ = trained
    assert main(["ask", str(path), "naber", "selam", "--runs", str(runs)]) == 0
    said = capsys.readouterr().out
    assert said.count("> naber\n") == said.count("> selam\n") == 1
    other, other_runs = again(trained, tmp_path)
    assert main(["ask", str(other), "naber", "--runs", str(other_runs)]) == 1
    assert "python -m training train mine' makes it" in capsys.readouterr().err


def test_a_reply_cannot_move_the_cursor() -> None:
    from training.generate import plain

    assert plain("İyi\n\x1b[2J\x07\u202eters") == "İyi\n\\x1b[2J\\x07\\u202eters"


def test_rows_are_made_anew_when_the_recipe_asks_for_others(trained: tuple[Path, Path, str], tmp_path: Path, gguf: Path) -> None:
    from training.base import prepare
    from training.train import rows_of

    path, runs = again(trained, tmp_path)
    rows = runs / path.stem / "dataset" / "train.jsonl"
    wanted = load_recipe(path)
    made = rows.read_bytes()
    rows.write_bytes(made[: len(made) // 2])
    rows_of(wanted, prepare(wanted.base, runs), runs)
    assert rows.read_bytes() == made


def test_the_command_says_where_it_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.toml")]) == 4
    assert "no such recipe; training/recipes has" in capsys.readouterr().err


def test_the_recipe_of_the_project_is_read() -> None:
    assert load_recipe(ROOT / "training" / "recipes" / "jessy-v2.toml").train.minutes <= 60
