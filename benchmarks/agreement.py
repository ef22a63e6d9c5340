"""Do the two engines tell the same story? The suites on a real Ollama server and on the embedded engine, same GGUF.

    python benchmarks/agreement.py [--max-cases 3]

Prints, a criterion a line, on how many outcomes (case passed or not) the two reports agree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from harness.fetch import fetch  # noqa: E402
from tests.real_ollama import SMOLLM2_TEMPLATE, create, serve  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-cases", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        embedded = outcomes(Path(scratch) / "embedded", wanted.max_cases, "--engine", "embedded")
        with serve(Path(scratch) / "models") as host:
            create(host, "smollm2", fetch() / "model.gguf", template=SMOLLM2_TEMPLATE,
                   parameters={"stop": ["<|im_end|>"]})
            served = outcomes(Path(scratch) / "ollama", wanted.max_cases, "--engine", "ollama", "--host", host)
    same = total = 0
    for name in embedded:
        shared = embedded[name].keys() & served[name].keys()
        agree = sum(embedded[name][case] == served[name][case] for case in shared)
        print(f"{name:<24}{agree:4} of {len(shared)}")
        same, total = same + agree, total + len(shared)
    print(f"{'all':<24}{same:4} of {total}  {same / total:.1%}")


def outcomes(reports: Path, most: int, *engine: str) -> dict[str, dict[str, bool]]:
    """Which cases passed, by criterion. Exit codes 0 and 1 are measurements; anything else ends this."""
    done = subprocess.run([sys.executable, "-m", "pytest", "evals", "-q", "--model", "smollm2", *engine, "--max-cases",
                           str(most), "--reports", str(reports)], cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    report: dict[str, Any] = json.loads(next(reports.glob("*/*/report.json")).read_text(encoding="utf-8"))
    return {row["name"]: {one["case"]: one["passed"] for one in row["outcomes"]} for row in report["criteria"]}


if __name__ == "__main__":
    main()
