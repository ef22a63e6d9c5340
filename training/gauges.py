"""What a training reads off while it runs: its loss and speed, its memory, the GPU's use."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class Window:
    """Loss and speed since the last report."""

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self.losses = list(losses)
        self._tokens = self._seconds = 0.0

    def add(self, loss: float, tokens: int, seconds: float) -> None:
        """One step's."""
        self.losses.append(loss)
        self._tokens += tokens
        self._seconds += seconds

    @property
    def loss(self) -> float:
        """Mean of the steps."""
        return sum(self.losses) / max(1, len(self.losses))

    @property
    def speed(self) -> float:
        """Tokens a second, without padding and without what is no step."""
        return self._tokens / max(1e-9, self._seconds)


def resident(workers: int) -> float:
    """Peak memory of this process in GB, with its share of what the team shares."""
    try:
        # Not getrusage: a child begins there with its parent's peak.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak, shared = (1024 * int(status.partition(f"{name}:")[2].split()[0]) for name in ("VmHWM", "RssShmem"))
    except (OSError, IndexError, ValueError):
        peak, shared = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024), 0
    return (peak - shared * (workers - 1) / workers) / 1e9


def gpu_use() -> float | None:
    """Utilisation of the first NVIDIA GPU in percent, where its tool is there."""
    try:
        said = subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=5, check=True).stdout
        return float(said.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
