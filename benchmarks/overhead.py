"""What the harness costs beside the model: 500 prompts against a local server that answers in 20 ms.

    python benchmarks/overhead.py [--replies 500] [--large 5000]

Prints whole-process seconds, milliseconds a reply beyond the server's own 20, and the same for a bare client,
side by side in one run. The server is tests/fake_ollama.py in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DELAY = 0.02
REPLY = "Sor kanka, dinliyorum."
BARE = """
import asyncio, sys, time
import ollama
async def main(host, n, in_flight):
    client, waiting = ollama.AsyncClient(host), iter(range(n))
    async def work():
        for i in waiting:
            async for _ in await client.chat("jessy", [{"role": "user", "content": f"soru {i}"}], stream=True):
                pass
    await asyncio.gather(*(work() for _ in range(in_flight)))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=500)
    parser.add_argument("--large", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with server() as host, tempfile.TemporaryDirectory() as scratch:
        for _ in range(wanted.rounds):
            seconds, megabytes = timed([sys.executable, "-m", "pytest", "evals", "--model", "jessy", "--host", host,
                                        "--collect-only", "-q"])
            print(f"startup (collect only)      {seconds:5.2f} s  {megabytes:4.0f} MB")
            for n, in_flight in ((wanted.replies, 8), (wanted.replies, 1)):
                ours(host, Path(scratch), n, in_flight)
                seconds, _ = timed([sys.executable, "-c", BARE, host, str(n), str(in_flight)])
                print(f"  bare client               {seconds:5.2f} s")
        if wanted.large:
            small = ours(host, Path(scratch), wanted.replies, 8)
            large = ours(host, Path(scratch), wanted.large, 8)
            print(f"cost a reply, {wanted.large} prompts against {wanted.replies}: {large / small:.2f} x")


def ours(host: str, scratch: Path, n: int, in_flight: int) -> float:
    """Run the Turkish suite over n prompts. Seconds a reply between the first request and the last reply."""
    reports = scratch / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    seconds, megabytes = timed([sys.executable, "-m", "pytest", "-q", "evals/test_turkish.py", "--model", "jessy",
                                "--host", host, "--in-flight", str(in_flight), "--reports", str(reports),
                                "--data", str(data(scratch, n))])
    report = json.loads(next(reports.glob("*/*/report.json")).read_text(encoding="utf-8"))
    asking = float(report["provenance"]["asking_seconds"]) / n
    print(f"{n} prompts, {in_flight} in flight   {seconds:5.2f} s  {megabytes:4.0f} MB  "
          f"{1000 * (asking - DELAY / in_flight):.2f} ms a reply beyond the server's")
    return asking


def data(scratch: Path, n: int) -> Path:
    """A folder of n distinct conversation cases."""
    folder = scratch / f"data-{n}"
    if not folder.exists():
        (folder / "evals").mkdir(parents=True)
        shutil.copy(ROOT / "data/evals/intents.jsonl", folder / "evals")
        first = json.loads((ROOT / "data/evals/conversation.jsonl").read_text(encoding="utf-8").splitlines()[0])
        rows = [{"id": f"conv-{i}", "category": f"c{i % 12}", "prompt": f"sana {i}. sorumu sorcam", "intent": first["intent"]}
                for i in range(n)]
        (folder / "evals/conversation.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def timed(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MB of a process, from start to exit."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}: "
                         f"{process.stderr.read().decode() if process.stderr else ''}")
    return seconds, usage.ru_maxrss / 1024


@contextmanager
def server() -> Iterator[str]:
    """The fake server in a process of its own; its address."""
    process = subprocess.Popen([sys.executable, str(ROOT / "tests/fake_ollama.py"), "--port", "0", "--delay", str(DELAY),
                                "--reply", REPLY, "--model", "jessy"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
