"""python -m harness COMMAND: what belongs to measuring and is not a pytest run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.fetch import FetchFailed, fetch


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch the embedded default base, SmolLM2-135M-Instruct, into models/smollm2")
    cases = commands.add_parser("cases", help="the eval set: a table, and with --check whether it is sound")
    cases.add_argument("--check", action="store_true", help="list what is wrong, and exit with 1 if anything is")
    cases.add_argument("--data", type=Path, default=None, help="another data folder")
    certify = commands.add_parser("certify", help="score labelled replies and replies made to fool; write the certificate of the scorers")
    certify.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the certificate that lies there is another")
    certify.add_argument("--sample", type=int, default=None, metavar="N", help="good replies that a family's bad ones are made of (default: 60)")
    certify.add_argument("--out", type=Path, default=None, metavar="FILE", help="default: reports/certificate.json")
    certify.add_argument("--show", metavar="CRITERION[:FAMILY]", help="print what a scorer gets wrong, never of the held-out replies")
    certify.add_argument("--embed", metavar="MODEL", help="certify the scorers with this embedding model")
    certify.add_argument("--judge", metavar="MODEL", help="certify this judge instead: its rates on labelled replies, and kappa")
    certify.add_argument("--host", action="append", default=[], metavar="URL", help="Ollama server of --embed and --judge")
    commands.add_parser("fit", help="fit what the scorers learn from text, and write harness/fitted.npz")
    given = parser.parse_args(arguments)
    if given.command == "cases":
        return _cases(given.data, check=given.check)
    if given.command == "certify":
        from harness.certify_command import command

        return command(sample=given.sample, out=given.out, check=given.check, show=given.show, embed=given.embed,
                       judge=given.judge, hosts=tuple(given.host))
    return _fit() if given.command == "fit" else _fetch()


def _fit() -> int:
    from harness.fit import fit

    print(fit())
    return 0


def _fetch() -> int:
    try:
        print(fetch())
    except FetchFailed as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def _cases(data: Path | None, *, check: bool) -> int:
    from harness.jsonl import DataError
    from harness.validate import validate

    try:
        report = validate(data)
    except (DataError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 4
    head = ("kind", "cases", "open", "sealed", "categories", "groups", "gold", "held out")
    for row in (head, *report.rows):
        print(f"{row[0]:14}" + "".join(f"{value:>11}" for value in row[1:]))
    if check:
        print("\n".join(report.problems) if report.problems else
              "sound: schema, counts, split, near-duplicates, gold; contamination 0")
    return 1 if check and report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
