"""`python -m harness certify`: make the certificate, show it, compare it, and certify a judge."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import certificate as standing
from harness import intents
from harness import judge as judging
from harness.adversarial import FAMILIES
from harness.certify import certificate, constants
from harness.display import visible
from harness.embedding import Embedding
from harness.engines import RequestFailed, UnknownModel, Unreachable
from harness.engines.ollama import address
from harness.evidence import SAMPLE, SCORERS, SEED, Evidence, examine
from harness.files import write_text
from harness.jsonl import DataError
from harness.progress import Progress
from harness.session import Settings

Json = dict[str, Any]


def command(*, sample: int | None = None, out: Path | None = None, check: bool = False, show: str | None = None,
            embed: str | None = None, judge: str | None = None, hosts: tuple[str, ...] = ()) -> int:
    """0 certified, 1 not, or with `check` another certificate than the one that lies there; 3 no server, 4 usage."""
    path, sample = out or standing.FILE, SAMPLE if sample is None else sample
    criterion, _, family = (show or "").partition(":")
    criterion = criterion if criterion in SCORERS else f"test_{criterion}"
    if show and (criterion not in SCORERS or (family and family not in FAMILIES)):
        print(f"--show {show}: criteria are {', '.join(SCORERS)}; families are {', '.join(FAMILIES)}", file=sys.stderr)
        return 4

    def tick(name: str) -> None:
        if sys.stderr.isatty():
            print(f"  {name}", file=sys.stderr)

    try:
        if embed:
            intents.use_embedding(Embedding(embed, address(next(iter(hosts), None))))
        if judge or show:
            found = examine(sample, tick, (criterion,) if show else ())
            return _judge(judge, hosts, found) if judge else _show(found, criterion, family)
        with ProcessPoolExecutor(1) as pool:
            # A quarter of the work, on another core. An embedding model is known to this process alone.
            alike = None if embed else pool.submit(constants).result
            content = certificate(examine(sample, tick), sample, tick, alike)
    except (Unreachable, RequestFailed) as error:
        print(error, file=sys.stderr)
        return 3
    except (DataError, UnknownModel, OSError) as error:
        print(error, file=sys.stderr)
        return 4
    print("\n".join(table(content)))
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if not check:
        write_text(path, text)
        print(f"certificate: {path.name} {standing.digest(content)}")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        print(f"{path.name} is not the certificate of these scorers; run: python -m harness certify", file=sys.stderr)
        return 1
    return 1 if content["problems"] else 0


def table(content: Json) -> Iterator[str]:
    """The certificate on the terminal: a line a criterion, a line a family, what stands beside them, and the problems."""
    yield f"{'criterion':<22}{'kept, held out':>22}{'kept, known':>13}{'refused':>9}{'same spelled otherwise':>24}"
    for name, row in content["criteria"].items():
        held, known = row["kept"]["held_out"], row["kept"]["known"]
        yield (f"{name:<22}{held['hits']:>9} of {held['n']:<4}{held['rate']:>6.1%}{known['rate']:>13.1%}{row['tnr']:>9.1%}"
               f"{content['invariance'][name]['rate']:>24.1%}")
    yield ""
    for family, cell in content["families"].items():
        worst = min((row["families"][family]["rate"], name) for name, row in content["criteria"].items() if family in row["families"])
        yield f"{family:<5}{FAMILIES[family]:<48}{cell['hits']:>6} of {cell['n']:<6}{cell['rate']:>6.1%}   worst {worst[0]:.1%} {worst[1]}"
    yield ""
    alike = content["constants"]
    yield (f"one answer to all: {alike['best']['share']:.1%}; two in one: {alike['best_pair']['share']:.1%}; "
           f"accepted for another intent: {alike['wrong_intent']['share']:.2%}")
    yield f"without a gate: {', '.join(f'{gate} {sum(through.values())}' for gate, through in content['deletion'].items())} get through"
    yield "rules: " + ", ".join(f"{kind} {row['patterns']} for {row['cases']} cases" for kind, row in content["rules"].items())
    yield ""
    yield from (f"weak: {line}" for line in content["weak"])
    yield from content["problems"] or ["certified"]


def _judge(name: str, hosts: tuple[str, ...], found: Evidence) -> int:
    """A judge's rates on labelled replies, criterion by criterion. It is advisory, so it passes no bar."""
    settings = Settings(models=(name,), baseline=None, engine="auto", hosts=hosts, trials=1, strict=False,
                        reports=standing.FILE.parent, max_cases=None, in_flight=None, timeout=300.0)
    target = judging.find(settings, name)
    asked = judging.of_evidence(found, {criterion: _title(criterion) for criterion in SCORERS}, SEED)
    questions = [question for of_one in asked.values() for question in of_one]
    with TemporaryDirectory() as folder, Progress(f"{name} judges", len(questions), sys.stderr if sys.stderr.isatty() else None) as bar:
        said = iter(judging.opinions(target, settings, questions, Path(folder) / "judge.jsonl", bar.advance))
    print(f"{'criterion':<22}{'replies':>8}{'unread':>8}{'keeps good':>12}{'refuses bad':>13}{'kappa with the labels':>23}")
    for criterion, of_one in asked.items():
        row = judging.rates(of_one, [next(said) for _ in of_one])
        rates = "".join(("—" if row[key] is None else f"{row[key]:.1%}").rjust(width) for key, width in (("tpr", 12), ("tnr", 13)))
        kappa = "—" if row["kappa"] is None else f"{row['kappa']:.2f}"
        print(f"{criterion:<22}{row['n']:>8}{row['unscored']:>8}{rates}{kappa:>23}")
    return 0


def _title(criterion: str) -> tuple[str, str]:
    """The title and the sentence of a file of evals/, read and not imported: the harness knows no criterion."""
    source = (standing.HOME.parent / "evals" / f"{criterion}.py").read_text(encoding="utf-8")
    title, _, sentence = source.split('"""')[1].strip().partition(": ")
    return title, sentence


def _show(found: Evidence, criterion: str, family: str) -> int:
    """What the scorer gets wrong, for who writes its rules: refused good replies, accepted bad ones. Nothing held out."""
    wrong = [(one.case, one.reply, "; ".join(reasons)) for one, held_out, kept, reasons in found.good[criterion] if not held_out and not kept]
    if family:
        wrong = [(one.bad.case, one.bad.reply, "accepted") for one in found.bad
                 if one.criterion == criterion and one.bad.family == family and one.passed and not one.bad.held_out]
    for case, reply, reason in wrong:
        print(visible(f"{case.id}: {case.prompts[-1]}\n    {reply.text}\n    {reason}"))
    print(f"{len(wrong)} {'accepted' if family else 'refused'}")
    return 0
