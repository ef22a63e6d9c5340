"""The check of the training text: each planted fault is caught by name, and the project's own text has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz import fuzz

from harness import contamination
from harness.cases import load_cases
from harness.jsonl import DataError
from training.__main__ import main
from training.check import problems
from training.entries import Entry, load_entries

SOUND: dict[str, Any] = {
    "id": "conversation-planted", "category": "conversation", "subcategory": "casual chat", "complexity": "low",
    "iterations": 1, "language": "tr",
    "prompts": ["çekirdek çitlerken dişim kırıldı resmen", "ayçekirdeği yüzünden diş gitti", "çekirdek yerken dişimden parça koptu",
                "dişim çat diye gitti çekirdekte", "bi avuç çekirdek bi dişe mal oldu", "kabuk sandım meğer dişimmiş",
                "çekirdek keyfim dişçide bitecek", "ön dişim çekirdeğe yenik düştü"],
    "replies": [{"thinking": "1. Dişi kırılmış, kolay; dişçiye yolla.", "text": "Geçmiş olsun kanka, bugün dişçiye uğra."},
                {"thinking": "1. Dişi kırılmış, kolay; acısını sor.", "text": "Ah be, acıyor mu? Hemen randevu al."},
                {"thinking": "1. Dişi kırılmış, kolay; parçayı sakla.", "text": "Kırılan parçayı sakla, dişçi yapıştırabiliyor."}]}


def faults(**changes: Any) -> list[str]:
    """What the check says of the sound entry with changes; counts are not its fault."""
    return [line for line in problems([Entry.model_validate(SOUND | changes)]) if "conversation-planted" in line]


def replies(*texts: str, thinking: str = "1. Dişi kırılmış, kolay; dişçiye yolla.") -> list[dict[str, str]]:
    return [{"thinking": thinking, "text": text} for text in texts]


def test_the_sound_entry_has_no_fault() -> None:
    assert faults() == []


def test_a_leaked_prompt_of_the_sealed_half_is_caught() -> None:
    leaked = next(case for case in load_cases("conversation", half="sealed") if len(case.prompts[0].split()) > 4)
    spelled = leaked.prompts[0].upper().rstrip("?.!") + "!!"
    assert any("contamination" in line and leaked.id in line for line in faults(prompts=[*SOUND["prompts"], spelled]))


def test_a_leaked_part_of_a_long_prompt_is_caught() -> None:
    leaked = next(case for case in load_cases("philosophy", half="sealed") if len(case.prompts[0].split()) > 14)
    piece = "hocam şunu okudum " + " ".join(leaked.prompts[0].split()[2:12]) + " diyor"
    assert any("the same 8 words" in line for line in faults(prompts=[*SOUND["prompts"], piece]))


def test_a_prompt_that_stands_in_another_entry_is_caught() -> None:
    other = SOUND | {"id": "conversation-other"}
    found = problems([Entry.model_validate(SOUND), Entry.model_validate(other)])
    assert sum("near-duplicate: prompt the same as in 'conversation-planted'" in line for line in found) == len(SOUND["prompts"])
    assert any("near-duplicate: reply the same" in line for line in found)


def test_a_prompt_twice_in_one_entry_is_caught_in_another_spelling() -> None:
    assert any("near-duplicate" in line for line in faults(prompts=[*SOUND["prompts"], "On disim cekirdege yenik DÜŞTÜ!!"]))


def test_iterations_outside_the_band_are_caught() -> None:
    thinking = "1. Dişi kırılmış, kolay; dişçiye yolla.\n2. Acısını sor.\n3. Geçmiş olsun de."
    three = replies(*(reply["text"] for reply in SOUND["replies"]), thinking=thinking)
    assert any("3 iterations; low is 1-2" in line for line in faults(iterations=3, replies=three))


def test_thinking_that_does_not_match_the_iterations_or_the_difficulty_is_caught() -> None:
    assert any("thinking has 1 lines, iterations is 2" in line for line in faults(iterations=2))
    wrong = replies(*(reply["text"] for reply in SOUND["replies"]), thinking="1. Dişi kırılmış, zor; dişçiye yolla.")
    assert any("does not say 'kolay'" in line for line in faults(replies=wrong))


@pytest.mark.parametrize("text, fault", [
    ("Oh no, that is terrible, go and see a dentist.", "not Turkish"),
    ("Geçmiş olsun, size nasıl yardımcı olabilirim?", "boilerplate"),
    ("Geçmiş olsun efendim, randevunuzu hemen alınız.", "formal register"),
    ("Geçmiş olsun kanka. " * 5, "words"),
    ("0532 123 45 67 numarayı ara kanka.", "personal data"),
    ("Siktir et dişi kanka.", "profanity"),
    ("<think>diş</think> Geçmiş olsun kanka.", "thinking in the visible reply")])
def test_a_reply_that_must_not_be_taught_is_caught(text: str, fault: str) -> None:
    assert any(fault in line for line in faults(replies=[*SOUND["replies"], *replies(text)]))


def test_a_reply_that_our_own_scorer_rejects_is_caught() -> None:
    assert any("intent 'joke' not met" in line for line in faults(intent="joke"))


def test_an_unknown_intent_lists_the_known_ones() -> None:
    assert any("unknown intent 'jok'" in line and "greeting" in line for line in faults(intent="jok"))


def test_too_few_prompts_and_replies_are_caught() -> None:
    found = faults(prompts=SOUND["prompts"][:3], replies=SOUND["replies"][:1])
    assert any("3 prompts; conversation needs at least 8" in line for line in found)
    assert any("1 replies; conversation needs at least 3" in line for line in found)


def test_a_missing_category_is_a_problem() -> None:
    assert any(line.startswith("philosophy, ethics: 0 entries") for line in problems([Entry.model_validate(SOUND)]))


@pytest.mark.parametrize("line, says", [
    ('{"id": "x"', "train/mine.jsonl:2: not JSON at column"),
    ('["x"]', "train/mine.jsonl:2: list, not an object"),
    (json.dumps({key: value for key, value in SOUND.items() if key != "iterations"}), "field 'iterations': Field required"),
    (json.dumps(SOUND | {"category": "chat"}), "field 'category': Input should be 'conversation', 'technical'"),
    (json.dumps(SOUND | {"subcategory": "chat"}), "subcategory 'chat' is not one of greetings and small talk"),
    (json.dumps(SOUND | {"mood": 1}), "known fields: id, category"),
    (json.dumps(SOUND | {"replies": []}), "an entry needs 'prompts' and 'replies'"),
    (json.dumps(SOUND), "field 'id': 'conversation-planted' is taken by")])
def test_a_broken_line_names_file_line_and_field(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "data" / "train" / "mine.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(SOUND) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_entries(tmp_path / "data")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_encoding_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train" / "mine.jsonl"
    path.parent.mkdir()
    path.write_bytes(json.dumps(SOUND, ensure_ascii=False).encode("cp1254"))
    assert main(["dataset", "--check", "--data", str(tmp_path)]) == 4
    assert "train/mine.jsonl:1: not UTF-8 at byte" in capsys.readouterr().err


def test_no_training_text_at_all_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "--check", "--data", str(tmp_path)]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_near_duplicates_are_found_whatever_their_lengths_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are laid by length and compared in slices of a few: against every pair, one by one."""
    monkeypatch.setattr(contamination, "SLICE", 3)
    words = ["bugun", "cok", "yoruldum", "eve", "gidip", "hemen", "uyumak", "istiyorum", "ama", "is", "bitmiyor"]
    texts = [" ".join(words[first:last]) for first in range(4) for last in range(first + 1, len(words) + 1)]
    # The longest that may stand apart: nine of ten characters, and lengths of 9 to 11.
    texts += ["abcdefghi", "abcdefghixy", "abcdefghixyz", "bugun cok yoruldum", "cok yoruldum bugun"]
    expected = [(one, other) for one in range(len(texts)) for other in range(one + 1, len(texts)) if fuzz.ratio(texts[one], texts[other]) >= 90]
    assert len(expected) > 10 and [found[:2] for found in contamination.alike(texts, 90)] == expected
