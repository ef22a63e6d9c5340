"""A report.json as a real run would leave it, of any size: what the report's tests and screenshots are drawn from.

    python tests/sample_report.py OUT_DIR      a folder of runs, their pages and the leaderboard
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PROMPTS = {
    "opener": ("sana bisi sorucam", "kanka müsait misin", "bi dakkan var mı"),
    "greeting": ("merhaba", "selam naber", "günaydın jessy"),
    "thanks": ("çok sağ ol", "eyvallah kanka", "süpersin ya"),
    "how-are-you": ("nasılsın bugün", "keyifler nasıl", "ne var ne yok"),
    "request": ("bana bi şarkı öner", "akşama ne yesem", "kısa bi fıkra anlat"),
    "farewell": ("ben kaçtım", "iyi geceler", "görüşürüz kanka"),
}
GOOD = ("Sor kanka, dinliyorum.", "Selam! Buradayım, anlat bakalım.", "Ne demek, her zaman kanka.",
        "İyiyim, kafam biraz dolu ama keyfim yerinde. Sen nasılsın?")
BAD = (("Hello! I am an AI language model. How can I assist you today?", ("not Turkish (en .98)", "boilerplate")),
       ("Bu soruyu sormak istemen çok ilginç. İnsanın bir şey sorma isteği, bilincin kendine dönmesidir. " * 9,
        ("too long (117 words, at most 25)", "tangent")),
       ("sana bisi sorucam", ("echoes the prompt",)),
       ("", ("empty",)))
DEEP = ("bilinç bir illüzyon mu sence", "özgür irade var mı", "zaman gerçekten akıyor mu", "ölümden sonra ne var")
MIDDLE = ("python'da list ile tuple farkı ne", "rest api ne demek", "git rebase ne zaman kullanılır")


def sample(*, model: str = "jessy-v2", run: str = "20261122T203000Z-1a2b3c", cases: int = 66, skill: float = 0.4,
           seed: int = 7, **changes: Any) -> Json:
    """A report of `cases` everyday prompts, a third as many technical and as many deep ones; `skill` is the share right."""
    chance = random.Random(seed)
    replies: Json = {}
    for index in range(cases):
        category = list(PROMPTS)[index % len(PROMPTS)]
        replies[f"conv-{category}-{index}#0"] = _reply(chance, "conversation", category, "low", chance.choice(PROMPTS[category]))
    for index in range(cases // 3):
        replies[f"tech-{index}#0"] = _reply(chance, "technical", "python", "medium", chance.choice(MIDDLE))
        replies[f"phil-{index}#0"] = _reply(chance, "philosophy", "mind", "high", chance.choice(DEEP))
    turkish = [_judged(chance, key, reply, skill) for key, reply in replies.items() if reply["complexity"] == "low"]
    deep = [_judged(chance, key, reply, 0.86) for key, reply in replies.items() if reply["complexity"] == "high"]
    if len(deep) > 3:
        deep[1] |= {"score": 0.0, "passed": False, "reasons": [], "error": "stream ended without done:true (3 attempts)"}
        deep[2] |= {"score": 0.0, "passed": False, "reasons": [], "unscored": "the reply is a refusal"}
    low = [key for key, reply in replies.items() if reply["complexity"] == "low"]
    report: Json = {
        "format": 1, "model": model, "run": run, "status": "FAIL", "exit": 1, "strict": False, "partial": None,
        "interrupted": False, "started": "2026-11-22T20:30:00Z", "finished": "2026-11-22T20:31:21Z", "seconds": 81.2,
        "command": f"pytest evals --model {model}",
        "criteria": [
            _criterion("test_turkish", "Turkish conversational accuracy", "must", ">", 0.9, turkish, seen=2, mde=0.09,
                       sentence="Everyday Turkish prompts get a short Turkish answer that meets their intent."),
            _latency(low, replies, "test_simple_latency", "Simple-query response time", "must", 5.0),
            _criterion("test_personality", "Personality preserved", "must", ">", 0.8, _passing(low[:40], 36),
                       note="pass, not significant (needs n >= 239)", mde=0.12,
                       sentence="JESSY still sounds like JESSY: kanka register, opinions marked as opinions."),
            _iterated(chance, replies),
            _criterion("test_philosophy", "Philosophical depth", "should", ">", 0.8, deep, verdict="INCONCLUSIVE",
                       note="the interval spans the bar (needs n >= 140)", sentence="Deep questions get depth."),
            _criterion("test_technical", "Technical accuracy", "should", ">", 0.85, _passing(low[:22], 22)),
            _criterion("test_emotion", "Emotional intelligence", "nice", ">", 0.75, [], verdict="NOT MEASURED",
                       note="0 scored of 0"),
        ],
        "replies": replies, "comparison": None,
        "provenance": {
            "card": {"name": model, "digest": "sha256:9f2c4a1be0d77c1f", "engine": "ollama", "engine_version": "0.13.1",
                     "host": "http://127.0.0.1:11434", "size_bytes": 144810464, "quantization": "Q8_0",
                     "parameter_size": "134.52M", "family": "llama", "capabilities": ["completion", "thinking"],
                     "template": "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}",
                     "system": "Sen Jessy'sin. Kısa ve samimi konuş.", "parameters": {"stop": ["<|im_end|>"], "num_ctx": 4096}},
            "options": {"num_ctx": 4096, "num_predict": 1024, "temperature": 0.0, "seed": 42}, "think": True,
            "commit": "53fdad5", "dirty": True, "environment": {"OLLAMA_FLASH_ATTENTION": "unknown"},
            "machine": {"system": "Linux 6.1", "cpu": "AMD EPYC 9R14", "cores": 2, "memory_gib": 15.4, "python": "3.11.2"},
            "case_digests": {"conversation": "sha256:51aa90", "philosophy": "sha256:77bc01"},
            "packages": {"pytest": "9.0.1", "ollama": "0.6.1"}, "trials": 1, "in_flight": 1, "load_seconds": 0.5,
            "resumed": 0, "journal": "journal.jsonl"},
    }
    return report | changes


def with_baseline(report: Json, baseline: str = "jessy-v1") -> Json:
    """The same report, side by side with a baseline."""
    model = report["model"]
    rows = [{"criterion": row["name"], "title": row["title"],
             "scores": {baseline: {"score": None if row["score"] is None else row["score"] * 0.8, "low": None,
                                   "high": None, "verdict": "FAIL"},
                        model: {key: row[key] for key in ("score", "low", "high", "verdict")}},
             "mcnemar_p": {model: 0.0312}, "delta": {model: None if row["score"] is None else row["score"] * 0.2},
             "fixed": {model: 12}, "regressed": {model: 3}, "discordant": {model: 15}} for row in report["criteria"][:4]]
    flips = [{"criterion": "test_turkish", "case": f"conv-opener-{index}", "prompt": "sana bisi sorucam", "model": model,
              "change": "regressed" if index % 4 == 0 else "fixed", "before": BAD[index % 3][0], "after": GOOD[index % 4],
              "reasons": []} for index in range(0, 12)]
    return report | {"comparison": {"models": [baseline, model], "baseline": baseline, "rows": rows, "flips": flips}}


def _reply(chance: random.Random, kind: str, category: str, complexity: str, prompt: str) -> Json:
    thinks = {"low": chance.choice((1, 1, 2, 4, 9)), "medium": chance.choice((3, 4, 7)), "high": chance.choice((6, 8, 14))}
    steps = thinks[complexity]
    thinking, answer = steps * chance.uniform(0.2, 0.9), chance.lognormvariate(0.1, 0.5)
    thought = "\n".join(f"{step}. Kullanıcı ne demek istiyor, bunu bir de şu açıdan düşüneyim." for step in range(1, steps + 1))
    turn = {"user": prompt, "text": chance.choice(GOOD), "thinking": thought, "done_reason": "stop", "load": 0.01,
            "queue": 0.0, "prompt": 0.12, "decode": thinking + answer, "first_token": 0.2, "thinking_seconds": thinking,
            "wall": thinking + answer + 0.2, "prompt_tokens": 31, "reply_tokens": int(20 * (thinking + answer)),
            "cached_tokens": None, "live": True, "alone": True}
    return {"kind": kind, "category": category, "complexity": complexity, "turns": [turn], "steps": steps}


def _judged(chance: random.Random, key: str, reply: Json, skill: float) -> Json:
    case, passed = key.split("#")[0], chance.random() < skill
    text, reasons = (reply["turns"][0]["text"], ()) if passed else chance.choice(BAD)
    reply["turns"][0]["text"] = text
    return {"case": case, "trial": 0, "score": float(passed), "passed": passed, "reasons": list(reasons), "detail": {},
            "error": None, "unscored": None, "category": reply["category"]}


def _passing(keys: list[str], right: int) -> list[Json]:
    return [{"case": key.split("#")[0], "trial": 0, "score": 1.0 if index < right else 0.4, "passed": index < right,
             "reasons": [] if index < right else ["siz-form (2 of 3 verbs)"], "detail": {}, "error": None,
             "unscored": None} for index, key in enumerate(keys)]


def _criterion(name: str, title: str, level: str, op: str, bar: float, outcomes: list[Json], **changes: Any) -> Json:
    scored = [row for row in outcomes if not row["error"] and not row["unscored"]]
    score = sum(row["score"] for row in scored) / len(scored) if scored else None
    groups: dict[str, list[float]] = {}
    for row in scored:
        groups.setdefault(row.pop("category", "all"), []).append(row["score"])
    return {"name": name, "title": title, "sentence": "", "level": level, "bar": {"op": op, "value": bar, "unit": "%"},
            "verdict": "PASS" if score is not None and score > bar else "FAIL", "score": score,
            "low": None if score is None else max(0.0, score - 0.09), "high": None if score is None else min(1.0, score + 0.07),
            "method": "Wilson 95 %", "n": len(outcomes), "scored": len(scored),
            "errored": sum(bool(row["error"]) for row in outcomes), "unscored": sum(bool(row["unscored"]) for row in outcomes),
            "note": "", "mde": None, "seen": 0, "outcomes": outcomes, "extras": {},
            "breakdown": {key: {"score": sum(group) / len(group), "n": len(group)} for key, group in groups.items()},
            } | changes


def _latency(keys: list[str], replies: Json, name: str, title: str, level: str, bar: float) -> Json:
    walls = [replies[key]["turns"][0]["wall"] for key in keys]
    outcomes = [{"case": key.split("#")[0], "trial": 0, "score": float(wall < bar), "passed": wall < bar,
                 "reasons": [] if wall < bar else [f"slow ({wall:.1f} s)"], "detail": {"seconds": wall}, "error": None,
                 "unscored": None} for key, wall in zip(keys, walls, strict=True)]
    p95 = sorted(walls)[int(0.95 * len(walls))] if walls else None
    row = _criterion(name, title, level, "<", bar, outcomes, score=p95, low=p95 and p95 * 0.8, high=None,
                     method="order statistics 95 %", breakdown={},
                     verdict="NOT MEASURED" if p95 is None else "PASS" if p95 < bar else "FAIL",
                     sentence="95 of 100 everyday replies arrive within five seconds, warm.",
                     extras={"model load (s)": 0.5, "median (s)": 1.9})
    return row | {"bar": {"op": "<", "value": bar, "unit": "s"}}


def _iterated(chance: random.Random, replies: Json) -> Json:
    bands = {"low": (1, 2), "medium": (3, 5), "high": (6, 9)}
    outcomes = []
    for key, reply in replies.items():
        lo, hi = bands[reply["complexity"]]
        k = reply["steps"]
        score = 1.0 if lo <= k <= hi else hi / k if k > hi else k / lo
        outcomes.append({"case": key.split("#")[0], "trial": 0, "score": score, "passed": score == 1.0,
                         "reasons": [] if score == 1 else [f"{k} iterations, band {lo}-{hi}"], "error": None, "unscored": None,
                         "detail": {"iterations": k, "lo": lo, "hi": hi, "complexity": reply["complexity"]},
                         "category": reply["complexity"]})
    return _criterion("test_iterations", "Iteration efficiency", "should", ">", 0.8, outcomes, method="bootstrap 95 %",
                      sentence="A simple question gets few thinking steps, a deep one gets many.",
                      extras={"Spearman (class, iterations)": 0.7134, "distinct steps": "91 %"})


if __name__ == "__main__":
    from harness.report import write_html, write_index

    out = Path(sys.argv[1])
    for page in (with_baseline(sample()), sample(model="jessy-v3", skill=0.96, seed=3, run="20261122T220000Z-77aa01"),
                 sample(model="gemma:2b", skill=0.2, seed=5, run="20261121T100000Z-000001"),
                 sample(model="jessy-v4", cases=6, partial="--max-cases 3", interrupted=True, run="20261123T100000Z-bb0001")):
        folder = out / page["model"].replace(":", "_") / page["run"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(page), encoding="utf-8")
        print(write_html(folder))
    print(write_index(out))
