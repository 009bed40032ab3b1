"""What commands are run in: a folder of their own, with the tiny zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tiny_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and work in a new folder: the tiny zoo, on the processor, with no votes and nothing downloaded."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DIFFUSIONGPT_DEVICE", "cpu")
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", "tiny")
    monkeypatch.chdir(tmp_path)
