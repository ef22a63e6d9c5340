"""Trained weights as a GGUF file: merged in float32 on the dequantised base, quantised once, streamed tensor by tensor.

    python -m training export RECIPE [--type Q8_0] [--adapter]

A GGUF base keeps its key-values, tokenizer included, byte for byte, and in a quantised file every tensor that training did
not touch. Of a model directory the key-values are made from its config and tokenizer (training/keyvalues.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from harness.files import read_json, sha256, write_text
from training.base import Base, base_of
from training.gauges import resident
from training.merge import WEIGHTS, Merge
from training.parts import Model, Tensor, read
from training.recipe import Recipe

# What gguf writes by itself; the number is general.file_type (LlamaFileType of llama.cpp).
TYPES = {Kind.F32: 0, Kind.F16: 1, Kind.BF16: 32, Kind.Q8_0: 7, Kind.Q5_0: 8, Kind.Q5_1: 9, Kind.Q4_0: 2, Kind.Q4_1: 3}
# What only a server writes, from a file in F16, when it is asked to at create (facts/training.md 4.2).
SERVED = ("Q4_K_S", "Q4_K_M")
MANIFEST = "manifest.json"
OWN = ("general.name", "general.file_type")


class ExportError(ValueError):
    """Nothing can be exported: one line with the reason."""


def stage(recipe: Recipe, runs: Path, *, kind: str = "", adapter: bool = False, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Export a recipe's trained candidate, prove it, and return its manifest; what is done already is not done again.

    Leaves runs/<recipe>/<candidate>/export/{model.gguf or adapter.gguf, parity.json, manifest.json}, the manifest last,
    and the candidate's page with what was found.
    Raises ExportError, MergeError, ParityError, BaseError, ConvertError, OSError.
    """
    from training.page import candidate_page
    from training.parity import dialogues, prove
    from training.train import PAGE, REASONS, candidate, device, rows_of

    base = base_of(recipe, runs)
    rows = rows_of(recipe, base, runs)
    trained = runs / recipe.name / candidate(recipe, base, rows)
    if not (trained / "manifest.json").is_file():
        raise ExportError(f"{trained} is not trained to its end; 'python -m training train {recipe.name}' does it")
    kind = "adapter" if adapter else kind or recipe.export.type
    folder = trained / "export"
    folder.mkdir(exist_ok=True)
    file = folder / ("adapter.gguf" if adapter else "model.gguf")
    wanted = {"recipe": recipe.name, "candidate": trained.name, "type": kind, "file": file.name, "base": base.sha256, "adapter": sha256(trained / WEIGHTS)}
    known = read_json(folder / MANIFEST)
    if wanted.items() <= known.items() and file.is_file() and sha256(file) == known.get("sha256"):
        told(f"exported already: {file}")
        return known
    (folder / MANIFEST).unlink(missing_ok=True)
    start = time.perf_counter()
    # A candidate's tag is part of no file: two exports of the same weights are the same bytes.
    made = adapter_gguf(base, trained, file) if adapter else export(base, trained, file, kind=kind, name=recipe.name)
    seconds, memory = time.perf_counter() - start, resident(1)
    told(f"{file}: {made['bytes'] / 1e6:.0f} MB, {made['merged']} tensors merged, {made['copied']} copied from the base, {seconds:.1f} s, {memory:.2f} GB at most")
    parity = None
    # An adapter of a model directory has no GGUF to stand beside.
    if not adapter or base.gguf:
        parity = prove(base, trained, file, dialogues(rows), kind="F16" if kind in SERVED else kind, device=device())
        told(f"parity: {_parity_line(parity)}")
    manifest = {**wanted, **made, "sha256": sha256(file), "seconds": round(seconds, 2), "memory": round(memory, 3), "parity": parity}
    of = read_json(trained / MANIFEST)
    write_text(trained / PAGE, candidate_page(of, REASONS[of["stop"]], trained / "loss.png", manifest))
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _parity_line(parity: dict[str, Any]) -> str:
    theirs = parity["llama_cpp"]
    back = "" if parity["top1"] is None else (f"{parity['top1']:.2%} of {parity['positions']} positions the same in mlx-lm, largest difference of a logit "
                                              f"{parity['max_difference']:.3g}; ")
    return (f"{back}{theirs['top1']:.2%} of {theirs['positions']} the same in llama.cpp ({theirs['top1_or_tie']:.2%} with near-ties); "
            f"training moved a logit by up to {parity['adapter']['max_change']:.3g}")


def exported(recipe: Recipe, runs: Path) -> tuple[Base, Path, dict[str, Any]]:
    """The base, the folder and the manifest of a recipe's export. Raises ExportError where there is none, or its file changed since."""
    from training.train import candidate, rows_of

    base = base_of(recipe, runs)
    folder = runs / recipe.name / candidate(recipe, base, rows_of(recipe, base, runs)) / "export"
    made = read_json(folder / MANIFEST)
    if not made:
        raise ExportError(f"{folder} has no whole export; 'python -m training export {recipe.name}' makes it")
    file = folder / str(made["file"])
    if not file.is_file() or sha256(file) != made["sha256"]:
        raise ExportError(f"{file} is not the file that was proved; 'python -m training export {recipe.name}' makes it again")
    return base, folder, made


def export(base: Base, adapter: Path | None, out: Path, *, kind: str, name: str) -> dict[str, Any]:
    """Write the model to `out`, whole or not at all. Returns what it is: type, bytes, tensors merged and copied.

    Without an adapter it is the base itself. Raises ExportError, MergeError, ConvertError, OSError.
    """
    wanted, everything = _kind(kind)
    model, merge = read(base), Merge(adapter) if adapter else None
    if merge:
        merge.check({tensor.mlx for tensor in model.tensors})
    plans = [_plan(tensor, merge, wanted, everything=everything) for tensor in model.tensors]
    with whole(out) as temporary:
        write(temporary, model, plans, name, TYPES[wanted])
    return {"type": kind, "bytes": out.stat().st_size, "tensors": len(plans), "merged": sum(plan.merged for plan in plans),
            "copied": sum(plan.copied for plan in plans)}


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A file to write that takes the place of `out` once it is complete. Raises ExportError where it cannot be written."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise ExportError(f"{out} could not be written: {error.strerror or error}; what stood there stays") from None
    finally:
        temporary.unlink(missing_ok=True)


def _kind(name: str) -> tuple[Kind, bool]:
    """What trained matrices are written in, and whether the base's other matrices are too.

    llama.cpp rounds activations to 8 bits where a matrix is quantised, so a file that is to compute what training
    computed has none that is; and a server quantises only what is in F16 as a whole. Next to quantised trained matrices
    the base's own bytes are the nearest to what training saw.
    """
    if name in SERVED:
        return Kind.F16, True
    try:
        found = next(kind for kind in TYPES if kind.name == name)
    except StopIteration:
        known = ", ".join([*(kind.name for kind in TYPES), *SERVED])
        raise ExportError(f"type '{name}' is not known; {known} are, the last {len(SERVED)} written by the server") from None
    return found, found in (Kind.F32, Kind.F16, Kind.BF16)


@dataclass(frozen=True)
class Plan:
    """How one tensor is written: in which type, and whether it was merged or copied byte for byte."""

    tensor: Tensor
    kind: Kind
    merged: bool
    copied: bool
    data: Callable[[], NDArray[Any]]

    @property
    def bytes(self) -> int:
        rows, columns = int(np.prod(self.tensor.shape[:-1])), self.tensor.shape[-1]
        size, length = gguf.GGML_QUANT_SIZES[self.kind]
        return rows * columns // size * length


def _plan(tensor: Tensor, merge: Merge | None, wanted: Kind, *, everything: bool) -> Plan:
    merged = bool(merge and tensor.mlx and merge.touches(tensor.mlx))
    fixed = len(tensor.shape) == 1 or not tensor.mlx
    if tensor.raw and not merged and (fixed or not everything):
        return Plan(tensor, tensor.kind, False, True, tensor.raw)
    kind = Kind.F32 if fixed else wanted
    if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = Kind.F16  # as llama.cpp does where rows are no whole blocks

    def data() -> NDArray[Any]:
        values = tensor.values()
        if merged:
            assert merge is not None
            values = merge.merged(tensor.mlx, values)
        if not np.isfinite(values).all():
            raise ExportError(f"'{tensor.name}' has values that are no numbers; nothing is exported")
        return gguf.quants.quantize(np.ascontiguousarray(tensor.stored(values)), kind)

    return Plan(tensor, kind, merged, False, data)


def write(path: Path, model: Model, plans: Sequence[Plan], name: str, file_type: int) -> None:
    """Write a GGUF of the model's key-values, but for its name and the number of its file type, and of these tensors. Raises OSError."""
    writer = gguf.GGUFWriter(path, model.arch)
    for one in model.key_values:
        if one.key == "general.alignment":
            writer.add_custom_alignment(int(one.value))
        elif one.key not in OWN:
            writer.add_key_value(one.key, one.value, one.kind, one.of)
    writer.add_name(name)
    writer.add_file_type(file_type)
    for plan in plans:
        # Its own type says how many values the bytes hold.
        writer.add_tensor_info(plan.tensor.name, plan.tensor.shape, np.dtype(np.float32), plan.bytes, raw_dtype=plan.kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for plan in plans:
            writer.write_tensor_data(plan.data())
    finally:
        writer.close()


def adapter_gguf(base: Base, adapter: Path, out: Path) -> dict[str, Any]:
    """Write a LoRA adapter as a GGUF for Ollama's ADAPTER. Raises ExportError for another kind, MergeError, ConvertError.

    Tensors are A^T (r, in) and B^T (out, r) under the base's own names; llama.cpp scales by alpha / r.
    """
    model, merge = read(base), Merge(adapter)
    if merge.kind != "lora":
        raise ExportError(f"an adapter of kind '{merge.kind}' has no place in a GGUF adapter; export the merged model")
    merge.check({tensor.mlx for tensor in model.tensors})
    with whole(out) as temporary:
        writer = gguf.GGUFWriter(temporary, model.arch)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", merge.scale * merge.rank)
        adapted = [tensor for tensor in model.tensors if tensor.mlx and merge.touches(tensor.mlx)]
        for tensor in adapted:
            stem = tensor.mlx.removesuffix(".weight")
            a, b = merge.tensor(f"{stem}.lora_a").T, merge.tensor(f"{stem}.lora_b").T
            if (b.shape[0], a.shape[1]) != tensor.shape:
                raise ExportError(f"{adapter}: '{stem}' adapts {(b.shape[0], a.shape[1])}, and the base has {tensor.shape}: an adapter of another model")
            writer.add_tensor(f"{tensor.name}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{tensor.name}.lora_b", np.ascontiguousarray(tensor.stored(b)))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return {"type": "adapter", "bytes": out.stat().st_size, "tensors": 2 * len(adapted), "merged": len(adapted), "copied": 0}
