"""python -m harness COMMAND: what belongs to measuring and is not a pytest run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.fetch import FetchFailed, fetch

REPORTS = Path(__file__).resolve().parent.parent / "reports"


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
    bench = commands.add_parser("bench", help="candidates side by side; measures those without a report that is still true")
    bench.add_argument("models", nargs="+", metavar="MODEL", help="a model, or the folder or report.json of a run")
    bench.add_argument("--against", metavar="MODEL", help="the baseline, compared with every other")
    bench.add_argument("--trials", "--repeat", type=_positive, default=1, metavar="N", help="ask every case N times; 2 measure the noise floor")
    bench.add_argument("--max-cases", type=_positive, metavar="N", help="a smoke run, partial and never reused")
    bench.add_argument("--engine", choices=("auto", "ollama", "embedded"), default="auto")
    bench.add_argument("--host", action="append", default=[], metavar="URL", help="Ollama server; may be given more than once")
    diff = commands.add_parser("diff", help="two models' replies to the same prompts: fixed, broken, unchanged, with both traces")
    diff.add_argument("before", metavar="BEFORE", help="a model, or the folder or report.json of a run")
    diff.add_argument("after", metavar="AFTER")
    rescore = commands.add_parser("rescore", help="score a saved run again with today's scorers, without its model, into a new report")
    rescore.add_argument("run", metavar="RUN", help="the folder or report.json of a run, or a model for its newest")
    for one in (bench, diff, rescore):
        one.add_argument("--reports", type=_path, default=None, metavar="FOLDER", help="default: reports/, or where RUN lies")
        one.add_argument("--data", type=_path, default=None, metavar="FOLDER", help="cases other than data/")
    given = parser.parse_args(arguments)
    if given.command == "cases":
        return _cases(given.data, check=given.check)
    if given.command == "certify":
        from harness.certify_command import command

        return command(sample=given.sample, out=given.out, check=given.check, show=given.show, embed=given.embed,
                       judge=given.judge, hosts=tuple(given.host))
    if given.command == "bench":
        return _bench(given)
    if given.command == "diff":
        from harness.diff import command as diff_command

        return diff_command(given.before, given.after, reports=given.reports or REPORTS, data=given.data)
    if given.command == "rescore":
        from harness.rescore import command as rescore_command

        return rescore_command(given.run, reports=given.reports, data=given.data)
    return _fit() if given.command == "fit" else _fetch()


def _bench(given: argparse.Namespace) -> int:
    from harness.bench import Wanted, command

    return command(Wanted(models=tuple(given.models), against=given.against, reports=given.reports or REPORTS, data=given.data, trials=given.trials, max_cases=given.max_cases,
                          engine=given.engine, hosts=tuple(given.host)))


def _path(text: str) -> Path:
    return Path(text).resolve()


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


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
