"""python -m harness COMMAND: what belongs to measuring and is not a pytest run."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from harness.fetch import FetchFailed, fetch


class Parser(argparse.ArgumentParser):
    """Usage is 4, as with pytest evals: argparse's own 2 would be the gate's INCONCLUSIVE."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with 4."""
        self.print_usage(sys.stderr)
        self.exit(4, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    parser = Parser(prog="python -m harness", description=__doc__)
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
    for one in (bench, rescore):
        one.add_argument("--data", type=_path, default=None, metavar="FOLDER", help="cases other than data/")
    gate = commands.add_parser("gate", help="may CANDIDATE replace BASELINE? Measures both on the sealed half; 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 no decision")
    gate.add_argument("candidate", nargs="?", metavar="CANDIDATE", help="model to release")
    gate.add_argument("--against", metavar="BASELINE", help="model that it would replace")
    gate.add_argument("--candidate-report", type=Path, metavar="FILE", help="decide on the report of a look that was had, without a new one")
    gate.add_argument("--baseline-report", type=Path, metavar="FILE", help="the same for the baseline")
    gate.add_argument("--trained-on", type=Path, action="append", default=[], metavar="FILE", help="training rows of the candidate, to look for the exam in them")
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML, a test case a rule")
    gate.add_argument("--engine", choices=("auto", "ollama", "embedded"), default="auto", help="as for pytest evals")
    gate.add_argument("--host", metavar="URL", help="Ollama server (default: OLLAMA_HOST, or this machine)")
    gate.add_argument("--trials", type=_positive, default=1, metavar="N", help="ask every case N times")
    gate.add_argument("--in-flight", type=_positive, metavar="N", help="requests at once; latency is always one at a time")
    gate.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="per request (default: 300)")
    gate.add_argument("--reports", type=_path, default=None, metavar="FOLDER", help="where reports and the ledger are (default: reports/)")
    given = parser.parse_args(arguments)
    if given.command == "gate":
        return _gate(given, gate)
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

        return diff_command(given.before, given.after, reports=_reports(given))
    if given.command == "rescore":
        from harness.rescore import command as rescore_command

        return rescore_command(given.run, reports=given.reports, data=given.data)
    return _fit() if given.command == "fit" else _fetch()


def _bench(given: argparse.Namespace) -> int:
    from harness.bench import Wanted, command

    return command(Wanted(models=tuple(given.models), against=given.against, reports=_reports(given), data=given.data, trials=given.trials,
                          max_cases=given.max_cases, engine=given.engine, hosts=tuple(given.host)))


def _path(text: str) -> Path:
    return Path(text).resolve()


def _reports(given: argparse.Namespace) -> Path:
    from harness.records import ROOT

    found: Path = given.reports or ROOT / "reports"
    return found


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def _gate(given: argparse.Namespace, parser: Parser) -> int:
    from harness.gate_command import Order, command, model_of

    names = {side: name or (model_of(file) if file else "") for side, name, file in
             (("CANDIDATE", given.candidate, given.candidate_report), ("--against BASELINE", given.against, given.baseline_report))}
    if missing := [side for side, name in names.items() if not name]:
        parser.error(f"{' and '.join(missing)}: name a model, or a report that names one")
    candidate, against = names.values()
    try:
        return command(Order(
            candidate, against, given.candidate_report, given.baseline_report, tuple(given.trained_on), given.junit, given.engine, given.host,
            given.trials, given.in_flight, given.timeout, _reports(given)))
    except Exception:  # a defect of the gate is no verdict on the model: Python's own exit code would say FAIL
        traceback.print_exc()
        return 3


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
