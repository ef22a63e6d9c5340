"""The training step: the same numbers as the plain way to do it, whatever is done to make it fast."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_training import ROWS, base
from training import blas
from training.base import chat, prepare
from training.batches import read_rows
from training.recipe import Train, Weights
from training.step import learning_rate

# In a process of its own: workers are forked before mlx is imported. Prints the losses of four steps and digests of the weights.
STEPS = """
import hashlib, json, sys
from pathlib import Path
from training.team import gather
asked = json.loads(sys.argv[1])

def run(team):
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_model
    from training import kernels
    from training.adapters import make_trainable
    from training.base import chat
    from training.batches import Batches, read_rows
    from training.recipe import Train, Weights
    from training.step import Stepper
    mx.set_default_device(mx.cpu)
    mx.random.seed(0)
    train = Train(**asked["train"])
    model, _ = load_model(Path(asked["base"]), lazy=False)
    make_trainable(model, train)
    if asked["kernels"]:
        kernels.install(model)
    model.train()
    before = {name: np.array(value) for name, value in __import__("mlx.utils").utils.tree_flatten(model.parameters())}
    rows = read_rows(Path(asked["rows"]), chat(Path(asked["base"])), Weights(), 400)
    batches = Batches(rows, step_tokens=train.step_tokens, micro_tokens=train.micro_tokens, seed=0)
    stepper = Stepper(model, train, team, cpu=asked["kernels"])
    losses = [stepper.step(batches.step(n % batches.per_epoch), train.learning_rate, seed=n) for n in range(asked["steps"])]
    stepper.settle()
    after = {name: np.array(value) for name, value in __import__("mlx.utils").utils.tree_flatten(model.parameters())}
    if team.rank == 0:
        np.savez(asked["out"], **after)
        np.savez(asked["out"] + ".before.npz", **before)
        print(json.dumps({"losses": losses, "changed": sorted(name for name in after if not np.array_equal(after[name], before[name])),
                          "trained": sorted(stepper.names)}))
    return 0

gather(asked["workers"], 10**7, run)
"""
# The plain way: mlx-lm's model as it is, all logits, a mask, and mlx's AdamW, on the same rows at once.
PLAIN = """
import json, sys
from pathlib import Path
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from training.base import chat
from training.batches import read_rows
from training.recipe import Weights
asked = json.loads(sys.argv[1])
mx.set_default_device(mx.cpu)
model, _ = load_model(Path(asked["base"]), lazy=False)
model.train()
rows = read_rows(Path(asked["rows"]), chat(Path(asked["base"])), Weights(), 400)
length = max(len(row.ids) for row in rows)
ids = mx.array([[*row.ids.tolist(), *[0] * (length - len(row.ids))] for row in rows])
mask = mx.array([[*row.weights.tolist(), *[0.0] * (length - len(row.ids))] for row in rows])[:, 1:]
optimizer = optim.AdamW(learning_rate=asked["train"]["learning_rate"], betas=[0.9, 0.99],
                        weight_decay=asked["train"].get("weight_decay", 0.0), bias_correction=True)
def loss(model):
    return (nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:]) * mask).sum() / mask.sum()
losses = []
for _ in range(4):
    value, gradients = nn.value_and_grad(model, loss)(model)
    gradients, _ = optim.clip_grad_norm(gradients, asked["train"]["clip"])
    optimizer.update(model, gradients)
    mx.eval(model.parameters(), optimizer.state)
    losses.append(value.item())
np.savez(asked["out"], **{name: np.array(value) for name, value in tree_flatten(model.parameters())})
print(json.dumps({"losses": losses}))
"""
PLAINLY: dict[str, Any] = {"method": "full", "learning_rate": 1e-3, "step_tokens": 512, "micro_tokens": 128}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready(tmp_path_factory.mktemp("step"), "llama")


def ready(folder: Path, arch: str) -> Path:
    """A tiny base of an architecture, and rows beside it."""
    found = prepare(str(base(folder, arch)), folder).directory
    (found / "rows.jsonl").write_text("".join(json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]}) + "\n"
                                              for user, reply in ROWS), encoding="utf-8")
    return found


def run(tiny: Path, out: Path, train: dict[str, Any], *, script: str = STEPS, workers: int = 1, own: bool = True,
        environment: dict[str, str] | None = None, steps: int = 4) -> tuple[dict[str, Any], dict[str, Any]]:
    import numpy as np

    asked = {"base": str(tiny), "rows": str(tiny / "rows.jsonl"), "out": str(out), "workers": workers, "kernels": own, "steps": steps,
             "train": {"clip": 1.0, **train}}
    done = subprocess.run([sys.executable, "-c", script, json.dumps(asked)], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, **(environment or {})})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), dict(np.load(out))


def furthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    import numpy as np

    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize(("workers", "micro"), [(1, 512), (1, 128), (2, 128), (3, 128), (2, 512)])
def test_a_step_is_the_plain_step(workers: int, micro: int, tiny: Path, tmp_path: Path) -> None:
    """Workers, micro-batches, buckets, kernels and the sharded optimiser change nothing but the time."""
    plain, theirs = run(tiny, tmp_path / "plain.npz", PLAINLY, script=PLAIN)
    fast, ours = run(tiny, tmp_path / "fast.npz", {**PLAINLY, "micro_tokens": micro}, workers=workers)
    assert fast["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    # Adam's first steps are of the size of the learning rate whatever the gradient; only its sign must be the same.
    assert furthest(ours, theirs) < 0.2 * 4 * PLAINLY["learning_rate"]
    assert plain["losses"][-1] < plain["losses"][0]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="it is compiled on Linux, by gcc")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_optimiser_in_place_is_mlx_s(workers: int, tiny: Path, tmp_path: Path) -> None:
    """Weights, moments, bias correction and decay: in memory of their own, and the same numbers."""
    train = {**PLAINLY, "weight_decay": 0.1, "embedding_rate": 3.0}
    environment = blas.environment(tmp_path)
    assert "JESSY_ADAMW" in environment
    mlx_s, theirs = run(tiny, tmp_path / "mlx.npz", train, workers=workers)
    in_place, ours = run(tiny, tmp_path / "ours.npz", train, workers=workers, environment={"JESSY_ADAMW": environment["JESSY_ADAMW"]})
    assert in_place["losses"] == pytest.approx(mlx_s["losses"], rel=1e-5) and in_place["changed"] == mlx_s["changed"]
    # Where a gradient is nearly zero its sign is rounding's, and Adam's first step is as long as any.
    assert furthest(ours, theirs) < 0.02 * train["learning_rate"]


def test_token_vectors_have_a_rate_of_their_own(tiny: Path, tmp_path: Path) -> None:
    import numpy as np

    moved = {}
    for rate in (1.0, 5.0):
        _, after = run(tiny, tmp_path / f"{rate}.npz", {**PLAINLY, "learning_rate": 1e-4, "embedding_rate": rate}, steps=1)
        before = np.load(tmp_path / f"{rate}.npz.before.npz")
        moved[rate] = {name: after[name] - before[name] for name in after}
    for name, change in moved[1.0].items():
        assert moved[5.0][name] == pytest.approx(change * (5 if "embed_tokens" in name else 1), abs=2e-6), name


def test_without_the_gradient_of_the_output_only_what_was_read_is_learnt(tmp_path: Path) -> None:
    import numpy as np

    tied = ready(tmp_path, "qwen2")
    # What pads a row is read as token 0 and learns nothing; a byte that stands in no row is read nowhere.
    read = {token for row in read_rows(tied / "rows.jsonl", chat(tied), Weights(), 400) for token in row.ids.tolist()}
    for through in (False, True):
        _, after = run(tied, tmp_path / f"{through}.npz", {**PLAINLY, "head": through})
        before, name = np.load(tmp_path / f"{through}.npz.before.npz"), "model.embed_tokens.weight"
        moved = set(np.nonzero((after[name] != before[name]).any(axis=1))[0].tolist())
        assert moved and (moved - read if through else moved <= read)


def test_the_same_workers_give_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    found = [run(tiny, tmp_path / f"{n}.npz", {**PLAINLY, "method": "lora", "dropout": 0.1}, workers=2) for n in range(2)]
    assert found[0][0] == found[1][0] and furthest(found[0][1], found[1][1]) == 0


@pytest.mark.parametrize(("train", "changed"), [
    ({"method": "lora"}, ["k_proj", "o_proj", "q_proj", "v_proj"]),
    ({"method": "lora", "modules": ["all"], "rank": 4}, ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]),
    ({"method": "dora", "modules": ["up_proj"]}, ["up_proj"]),
])
def test_adapters_sit_where_the_recipe_says_and_train_nothing_else(train: dict[str, Any], changed: list[str], tiny: Path, tmp_path: Path) -> None:
    found, _ = run(tiny, tmp_path / "a.npz", {**PLAINLY, **train})
    assert {name.split(".")[-2] for name in found["changed"]} == set(changed)
    assert all(name.rpartition(".")[2] in ("lora_a", "lora_b", "m") for name in found["changed"])
    assert found["losses"][-1] < found["losses"][0]


def test_upper_layers_only_leaves_the_lower_ones_alone(tiny: Path, tmp_path: Path) -> None:
    found, _ = run(tiny, tmp_path / "a.npz", {**PLAINLY, "layers": 1})
    assert found["changed"] and all(name.startswith("model.layers.2.") for name in found["changed"])


def test_embeddings_stay_when_they_are_not_to_be_trained(tiny: Path, tmp_path: Path) -> None:
    found, _ = run(tiny, tmp_path / "a.npz", {**PLAINLY, "embeddings": False})
    assert "model.norm.weight" in found["changed"] and "model.embed_tokens.weight" not in found["trained"]


def test_clipping_bounds_a_step(tiny: Path, tmp_path: Path) -> None:
    # With one micro-batch a step and SGD-like betas, a tiny clip makes Adam's second moment tiny too: look at the norm instead.
    loose, _ = run(tiny, tmp_path / "a.npz", {**PLAINLY, "clip": 0.0})
    tight, _ = run(tiny, tmp_path / "b.npz", {**PLAINLY, "clip": 1e-9})
    assert loose["losses"][0] == tight["losses"][0]
    # Gradients of 1e-9 are under Adam's epsilon of 1e-8: next to nothing is learned.
    assert tight["losses"][0] - tight["losses"][-1] < 0.5 * (loose["losses"][0] - loose["losses"][-1])


def test_the_learning_rate_rises_then_falls_as_a_cosine() -> None:
    train = Train(learning_rate=1.0, warmup=0.1, final=0.2)
    rates = [learning_rate(train, n, 100) for n in range(100)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert max(rates) == 1.0 and all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.6, abs=0.01) and rates[-1] == pytest.approx(0.2, abs=0.01)
