"""Dialogues: a conversation is as good as its worst turn."""

from __future__ import annotations

from dataclasses import replace

from harness.cases import Case, Turn, compiled
from harness.engines import Reply
from harness.gates import gates, window
from harness.score import Outcome
from harness.turkish import fold, prose, words


def dialogue(case: Case, reply: Reply) -> Outcome:
    """The minimum over the turns, 1 or 0 (MT-Bench-101's rule, arXiv 2402.14762); `turns` is the share that passed.

    Each reply passes the gates of a single reply, but for the length window, and what its turn asks of it.
    """
    replies = (*reply.earlier, replace(reply, earlier=()))
    if len(replies) != len(case.turns):
        return Outcome(0.0, False, (f"{len(replies)} replies to {len(case.turns)} turns",), {"turns": 0.0})
    found = [_faults(case, turn, said) for turn, said in zip(case.turns, replies, strict=True)]
    reasons = [f"turn {number}: {fault}" for number, faults in enumerate(found, start=1) for fault in faults]
    share = sum(not faults for faults in found) / len(found)
    return Outcome(0.0 if reasons else 1.0, not reasons, tuple(reasons), {"turns": share})


def _faults(case: Case, turn: Turn, reply: Reply) -> list[str]:
    faults, text = gates(case, reply, skip=(window,)), fold(reply.text)
    forms = (text, text.replace("'", ""))  # Kerem'di is kerem\w*
    faults += [f"lacks '{pattern}'" for pattern in turn.must if not any(compiled(pattern).search(form) for form in forms)]
    faults += [f"has '{pattern}'" for pattern in turn.must_not if any(compiled(pattern).search(form) for form in forms)]
    count = len(words(prose(reply.text)))
    if turn.max_words is not None and count > turn.max_words:
        faults.append(f"{count} words; at most {turn.max_words}")
    return faults
