"""Models that must fail, and one that must pass: without these a green suite would prove nothing.

Each is served over the Ollama protocol and measured on the project's own cases, as any model is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.cases import KINDS, load_cases, load_gold
from tests.conftest import Evals
from tests.fake_ollama import FakeOllama, always

Policy = Callable[[list[dict[str, Any]]], str]


def echo(messages: list[dict[str, Any]]) -> str:
    """Gives the last message back."""
    return str(messages[-1]["content"])


def oracle(messages: list[dict[str, Any]]) -> str:
    """Answers with the first gold reply, thinking included; the warm-up with a greeting."""
    said = tuple(message["content"] for message in messages if message["role"] == "user")
    return GOLD.get(said, "Selam kanka, hoş geldin!")


def _gold() -> dict[tuple[str, ...], str]:
    answers: dict[tuple[str, ...], str] = {}
    for kind in KINDS:
        prompts = {case.id: case.prompts for case in load_cases(kind)}
        for gold in load_gold(kind):
            for turn, reply in enumerate(gold.replies if gold.case in prompts else (), start=1):
                answers.setdefault(prompts[gold.case][:turn], f"<think>\n{gold.thinking}\n</think>\n{reply}")
    return answers


GOLD = _gold()
# Speed is all that these have.
FAILS = {"test_turkish", "test_personality"}


@pytest.mark.parametrize("policy", [
    always("Tamam kanka."), echo, always("Sure, I would be happy to help you with that! What do you need?"), always("")],
    ids=["constant", "echo", "English", "nothing"])
def test_a_bad_model_fails_every_must_criterion_that_it_should(evals: Evals, policy: Policy) -> None:
    with FakeOllama(policy, models=["bad"]) as server:
        done = evals("evals", "--model", "bad", "--host", server.host)
    verdicts = {row["name"]: row["verdict"] for row in done.report("bad")["criteria"]}
    assert done.code == 1, done.output
    assert {name for name in FAILS if verdicts[name] == "FAIL"} == FAILS
    for name in ("test_appropriateness", "test_technical", "test_philosophy", "test_iterations", "test_emotion"):
        assert verdicts[name] == "FAIL", done.output


def test_an_oracle_passes_everything(evals: Evals) -> None:
    with FakeOllama(oracle, models=["oracle"]) as server:
        done = evals("evals", "--model", "oracle", "--host", server.host, "--strict")
    report = done.report("oracle")
    assert done.code == 0, done.output
    assert report["partial"] is None and report["status"] == "PASS"
    assert {row["verdict"] for row in report["criteria"]} == {"PASS"}
    assert all(row["errored"] == row["unscored"] == 0 for row in report["criteria"])
