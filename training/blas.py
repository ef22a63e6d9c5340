"""The matrix products under mlx on a Linux CPU.

mlx's CPU wheel brings the reference BLAS, one thread at a few GFLOP/s. A better one loaded into the process before the
first `import mlx.core` takes its place, 40 times as fast and more (facts/platform.md). `cmeel-openblas` is such a one on
the package index; JESSY_BLAS names another. On a CPU with AVX512-BF16 native/gemm.c stands before it and computes large
products from factors rounded to bfloat16: for a recipe that says products = "bfloat16".
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

PACKAGE = "cmeel-openblas"
NATIVE = Path(__file__).with_name("native")
GEMM_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16")
# Under it a training is not worth its hour: the reference BLAS reaches 2 to 5.
SLOW = 20.0


def library() -> str | None:
    """The BLAS to load: JESSY_BLAS, the one of the package index, or the system's; None where there is none."""
    if named := os.environ.get("JESSY_BLAS"):
        return named
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [str(file.locate()) for file in files if file.name == "libopenblas.so.0"]
    return found[0] if found else ctypes.util.find_library("openblas")


def environment(links: Path, products: str = "float32") -> dict[str, str]:
    """What a process that trains on a Linux CPU needs in its environment; empty elsewhere.

    `links` is a folder for a name that the BLAS asks for and that mlx ships under another, libgfortran, and for what is
    compiled there: the optimiser, and the products in bfloat16. Without the compiler the optimiser is mlx's, and without
    it or the CPU products stay in float32. The allocator is told to keep what is freed: mlx's CPU gives every array back
    to the system, and a fifth of a step would go into pages that are cleared again and again.
    """
    if sys.platform != "linux":
        return {}
    found = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0",
             "MALLOC_TRIM_THRESHOLD_": str(10**12), "MALLOC_TOP_PAD_": str(2**26), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    if shipped := _shipped():
        (links / "libgfortran.so.5").symlink_to(shipped)
        paths = [str(links), str(shipped.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        found["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
    if products == "bfloat16" and has_bfloat16() and (path := library()) and _loads(path, found) and (made := _compiled("gemm", links, *GEMM_FLAGS)):
        found |= {"JESSY_GEMM": str(made), "JESSY_GEMM_BLAS": path}
    if made := _compiled("adamw", links, "-march=native", "-fno-math-errno"):
        found["JESSY_ADAMW"] = str(made)
    return found


def _loads(path: str, environment: dict[str, str]) -> bool:
    """Whether a library loads with that environment and has the product; asked in a process of its own."""
    asked = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).cblas_sgemm"
    return subprocess.run([sys.executable, "-c", asked, path], env={**os.environ, **environment}, capture_output=True, check=False).returncode == 0


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 and there is a compiler for native/gemm.c."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return " avx512_bf16" in flags and shutil.which("gcc") is not None


def _compiled(name: str, folder: Path, *flags: str) -> Path | None:
    """native/<name>.c as a library in `folder`; None where it does not compile."""
    if shutil.which("gcc") is None:
        return None
    out = folder / f"libjessy{name}.so"
    command = ["gcc", "-O3", *flags, "-shared", "-fPIC", "-o", str(out), str(NATIVE / f"{name}.c"), "-ldl", "-lm"]
    return None if subprocess.run(command, capture_output=True, check=False).returncode else out


def _shipped() -> Path | None:
    """libgfortran as mlx's CPU wheel ships it; None where the system has its own, or there is no such wheel."""
    if ctypes.util.find_library("gfortran"):
        return None
    try:
        files = metadata.files("mlx-cpu") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name.startswith("libgfortran-")), None)


def preload() -> str:
    """Load the BLAS into this process; "" where there is none or it does not load. Before mlx, or it comes too late."""
    if sys.platform != "linux":
        return ""
    if "mlx.core" in sys.modules:
        raise RuntimeError("mlx was imported first: the BLAS comes too late")
    path = os.environ.get("JESSY_GEMM") or library()
    if path is None:
        return ""
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        print(f"{path} does not load ({error}); training goes on with mlx's own BLAS, many times slower", file=sys.stderr)
        return ""
    return Path(path).name


def gflops(rows: int = 512, inner: int = 576, columns: int = 1536) -> float:
    """Measured GFLOP/s of one float32 product of a training step, x @ w.T, on this process's share of the machine.

    Raises ArithmeticError where the product is wrong: a BLAS of another calling convention must not train anything.
    """
    import mlx.core as mx
    import numpy as np

    x, w = mx.random.normal((rows, inner)), mx.random.normal((columns, inner))
    exact = np.asarray(x, dtype=np.float64) @ np.asarray(w, dtype=np.float64).T
    # A bfloat16 has eight bits: products of it are off by 1/256 each, and their errors add up as the root of their number.
    allowed = 2e-2 * inner**0.5 if os.environ.get("JESSY_GEMM") else 1e-2
    if not np.abs(np.asarray(x @ w.T) - exact).max() < allowed:
        raise ArithmeticError(f"{library()} multiplies wrongly; JESSY_BLAS names another library")
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        mx.eval(x @ w.T)
        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start) / 1e9)
    return best
