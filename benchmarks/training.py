"""A training step beside torch (+ peft) and beside mlx-lm as it is installed: same model, same batch, same work.

    python benchmarks/training.py [--rounds 3] [--rows 8] [--length 48] [--torch PYTHON] [--no-installed]

SmolLM2-135M, every position supervised, AdamW: LoRA r=16 on q, k, v, o, and full fine-tuning. Contestants take turns, each
in a process of its own on the whole machine; a ratio is of one round, and the median of the rounds is what counts.
Each is measured in float32 and with bfloat16 products (torch: autocast). torch is installed on the first run into an
environment of its own, .cache/torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# This file has the name of the package that it measures, and its own folder stands first on the path.
sys.path[0] = str(ROOT)

from training import blas  # noqa: E402
from training.base import prepare  # noqa: E402
from training.train import cores, device  # noqa: E402

TORCH, PEFT = "torch==2.13.0", "peft"
METHODS = ("lora", "full")
# What the factors of matrix products are: ours by recipe, torch's by autocast. On a GPU both compute in bfloat16.
KINDS = ("float32", "bfloat16")

OURS = """
import json, os, sys, time
from pathlib import Path
from training import blas
from training.team import gather
asked = json.loads(sys.argv[1])

def run(team):
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_model
    from training import kernels
    from training.adapters import make_trainable
    from training.batches import Tokens, micro_batch
    from training.recipe import Train
    from training.step import Stepper
    cpu = asked["device"] == "cpu"
    mx.set_default_device(mx.cpu if cpu else mx.gpu)
    mx.random.seed(0)
    speed = sum(team.exchange(blas.gflops())) if cpu else 0.0
    model, _ = load_model(Path(asked["base"]), lazy=False)
    train = Train(method=asked["method"], learning_rate=1e-4)
    make_trainable(model, train)
    if cpu:
        kernels.install(model)
    model.train()
    stepper = Stepper(model, train, team, cpu=cpu)
    rows, length = asked["rows"], asked["length"]
    ids = np.random.default_rng(0).integers(3, 49000, (rows, length + 1)).astype(np.int32)
    part = rows // team.size
    micros = [micro_batch([Tokens(one, np.ones(len(one), np.float32)) for one in ids[at:at + part]], length + 1, part) for at in range(0, rows, part)]
    # The last token of a row is a target and no input: its column is cut, so that all see rows x length.
    micros = [type(m)(np.ascontiguousarray(m.ids[:, :-1]), m.positions[:part * length] - np.repeat(np.arange(part), length).astype(np.int32),
                      m.targets[:part * length], m.weights[:part * length], part * length) for m in micros]
    for _ in range(3):
        loss = stepper.step(micros, 1e-4)
    seconds = []
    # The first worker's clock decides for all.
    while team.exchange(sum(seconds) < asked["seconds"] or len(seconds) < 3)[0]:
        start = time.perf_counter()
        stepper.step(micros, 1e-4)
        seconds.append(time.perf_counter() - start)
    if team.rank == 0:
        print(json.dumps({"seconds": sorted(seconds)[len(seconds) // 2], "loss": loss, "gflops": speed}), flush=True)
    return 0

if asked["device"] == "cpu":
    blas.preload()
gather(asked["workers"], 3 * 10**8, run)
os._exit(0)
"""

INSTALLED = """
import json, sys, time
from functools import partial
from pathlib import Path
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model
asked = json.loads(sys.argv[1])
model, _ = load_model(Path(asked["base"]), lazy=False)
if asked["method"] == "lora":
    model.freeze()
    keys = [f"self_attn.{name}_proj" for name in "qkvo"]
    linear_to_lora_layers(model, len(model.layers), {"rank": 16, "scale": 2.0, "dropout": 0.0, "keys": keys})
model.train()
optimizer = optim.AdamW(learning_rate=1e-4)
state = [model.state, optimizer.state]
gradients = nn.value_and_grad(model, default_loss)
@partial(mx.compile, inputs=state, outputs=state)
def step(batch, lengths):
    (loss, _), found = gradients(model, batch, lengths)
    optimizer.update(model, found)
    return loss
rows, length = asked["rows"], asked["length"]
batch = mx.random.randint(3, 49000, (rows, length + 1))
lengths = mx.array([[0, length]] * rows)
seconds = []
for _ in range(2):
    start = time.perf_counter()
    loss = step(batch, lengths)
    mx.eval(loss, state)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": min(seconds), "loss": loss.item()}))
"""

THEIRS = """
import json, sys, time
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
import peft
asked = json.loads(sys.argv[1])
gpu = asked["device"] == "gpu"
where = "cuda" if gpu else "cpu"
if not gpu:
    torch.set_num_threads(asked["workers"])
values = json.load(open(asked["base"] + "/config.json"))
config = LlamaConfig(**{key: values[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                     "num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings")})
model = LlamaForCausalLM(config)
model.load_state_dict(load_file(asked["base"] + "/model.safetensors"), strict=False)
model = model.to(where, torch.bfloat16 if gpu else torch.float32)
if asked["method"] == "lora":
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
model.train()
optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)
torch.manual_seed(0)
ids = torch.randint(3, 49000, (asked["rows"], asked["length"] + 1), device=where)
seconds = []
warm = 3
while len(seconds) < warm + 3 or sum(seconds[warm:]) < asked["seconds"]:
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=asked["half"] and not gpu):
        logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if gpu:
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)
steady = sorted(seconds[warm:])
print(json.dumps({"seconds": steady[len(steady) // 2], "loss": loss.item()}))
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=8)
    options.add_argument("--length", type=int, default=48)
    options.add_argument("--seconds", type=float, default=8.0, help="of measured steps, a contestant and round")
    options.add_argument("--torch", default="", help="a python that has torch and peft")
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("--no-installed", action="store_true", help="without mlx-lm as installed, whose step takes minutes on a CPU")
    given = options.parse_args()
    where = device()
    python = given.torch or torch_python()
    asked = {"base": str(prepare("smollm2", given.runs).directory.resolve()), "rows": given.rows, "length": given.length, "device": where,
             "seconds": given.seconds, "workers": min(cores(), given.rows) if where == "cpu" else 1, "half": False}
    tokens = given.rows * given.length
    print(f"SmolLM2-135M, {given.rows} x {given.length} tokens, {where}, {cores()} cores")
    kinds = KINDS if where == "cpu" else KINDS[:1]
    for method in METHODS:
        ours: dict[str, list[float]] = {kind: [] for kind in kinds}
        theirs: dict[str, list[float]] = {kind: [] for kind in kinds}
        speed = dict.fromkeys(kinds, 0.0)
        for number in range(given.rounds):
            for kind in kinds:
                mine = contest(sys.executable, OURS, {**asked, "method": method}, products=kind)
                ours[kind].append(mine["seconds"])
                speed[kind] = mine["gflops"]
                theirs[kind].append(contest(python, THEIRS, {**asked, "method": method, "half": kind == "bfloat16"})["seconds"])
            print(f"  {method} round {number + 1}: " + "; ".join(
                f"{kind} {tokens / ours[kind][-1]:.0f} tok/s, torch {tokens / theirs[kind][-1]:.0f} ({theirs[kind][-1] / ours[kind][-1]:.2f} x)"
                for kind in kinds), flush=True)
        for kind in kinds:
            ratio = statistics.median(a / b for a, b in zip(theirs[kind], ours[kind], strict=True))
            print(f"{method}, {kind}: {ratio:.2f} x torch" + (" under autocast" if kind == "bfloat16" else ""))
            if where == "cpu":
                explain(method, kind, tokens, statistics.median(ours[kind]), speed[kind])
        if not given.no_installed:
            slow = contest(sys.executable, INSTALLED, {**asked, "method": method})["seconds"]
            print(f"{method}: {slow / statistics.median(ours[kinds[0]]):.0f} x mlx-lm as installed ({tokens / slow:.1f} tok/s)")


def explain(method: str, kind: str, tokens: int, seconds: float, gflops: float) -> None:
    """How much of a step its matrix products are, at the speed measured in the same process."""
    linear, head = 106.2e6, 49152 * 576
    passes = 6 if method == "full" else 4
    work = passes * (linear + head) * tokens / 1e9
    share = work / gflops / seconds
    largest = "they are the largest part left" if share > 0.5 else "what is not a product is the larger part left"
    print(f"{method}, {kind}: a step is {seconds:.2f} s; its {work:.0f} GFLOP of matrix products take {work / gflops:.2f} s at the measured {gflops:.0f} GFLOP/s, "
          f"{share:.0%} of it: {largest}")


def contest(python: str, script: str, asked: dict[str, object], *, products: str = "") -> dict[str, float]:
    """Run one contestant; with `products`, in the environment that training gives its process."""
    with tempfile.TemporaryDirectory() as links:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(blas.environment(Path(links), products) if products and asked["device"] == "cpu" else {})}
        done = subprocess.run([python, "-c", script, json.dumps(asked)], capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"a contestant failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def torch_python() -> str:
    """The python of .cache/torch, made on the first run."""
    python = ROOT / ".cache" / "torch" / "bin" / "python"
    if not (python.parent / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        # The CPU build where the index has it: the other one is gigabytes of CUDA.
        wheels = [f"{TORCH}+cpu", TORCH] if device() == "cpu" else [TORCH]
        install = [str(python), "-m", "pip", "install", "--quiet"]
        if not any(subprocess.run([*install, wheel], check=False).returncode == 0 for wheel in wheels):
            raise SystemExit(f"{TORCH} could not be installed; --torch names a python that has it")
        subprocess.run([*install, PEFT], check=True)
        (python.parent / "ready").touch()
    return str(python)


if __name__ == "__main__":
    main()
