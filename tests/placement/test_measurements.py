"""What was measured on a machine corrects its plans, within bounds, and never by one odd run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusiongpt.placement import Measured, Measurement, Measurements
from diffusiongpt.placement.measurements import KEPT, LARGER, SLOWER, _factor

if TYPE_CHECKING:
    from pathlib import Path


def row(seconds: float = 2.0, work: int | None = None, **facts: object) -> Measurement:
    """A picture that was to take one second and a gigabyte."""
    known = {"hardware": "RTX", "architecture": "sdxl", "width": 1024, "height": 1024, "steps": 30, "kind": "whole"}
    return Measurement(
        **{**known, **facts},  # type: ignore[arg-type]
        seconds=seconds,
        expected_seconds=1.0,
        work_bytes=work,
        expected_work_bytes=10**9,
    )


def test_three_pictures_correct_the_next_start(tmp_path: Path) -> None:
    """Fewer change nothing, and neither does what is added while plans are made: they stay as they were."""
    file = tmp_path / "data" / "measured.jsonl"
    running = Measurements(file)
    assert running.of("sdxl", "RTX") == Measured()
    for done in range(3):
        assert Measurements(file).of("sdxl", "RTX") == Measured()
        running.add(row(2.0 + done, work=1_500_000_000))
    assert running.of("sdxl", "RTX") == Measured()
    assert Measurements(file).of("sdxl", "RTX") == Measured(seconds=3.0, activations=1.5)
    assert Measurements(file).of("sdxl", "cpu") == Measured()
    assert Measurements(file).of("flux1", "RTX") == Measured()


def test_one_odd_run_changes_little(tmp_path: Path) -> None:
    """A picture that took a thousand times as long is outvoted by two usual ones."""
    file = tmp_path / "measured.jsonl"
    for seconds in (1.1, 1000.0, 1.2):
        Measurements(file).add(row(seconds))
    assert Measurements(file).of("sdxl", "RTX").seconds == 1.2


@given(st.lists(st.floats(1e-6, 1e9), max_size=20))
def test_corrections_have_bounds(ratios: list[float]) -> None:
    """Whatever was measured."""
    for bound in (SLOWER, LARGER):
        assert 1 / bound <= _factor(((ratio, 1.0) for ratio in ratios), bound) <= bound
    assert _factor(((ratio, None) for ratio in ratios), SLOWER) == 1.0


@pytest.mark.parametrize("damage", [b"\x00\xff", b"{}\n", b'{"hardware": 1', b"[1]\n"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    """With a warning; it is neither used nor lost, and measuring goes on."""
    file = tmp_path / "measured.jsonl"
    Measurements(file).add(row())
    good = file.read_bytes()
    file.write_bytes(good + damage)
    measurements = Measurements(file)
    assert measurements.of("sdxl", "RTX") == Measured()
    assert "damaged" in caplog.text
    assert (tmp_path / "measured.jsonl.damaged").read_bytes() == good + damage
    measurements.add(row())
    assert file.read_bytes() == good


def test_a_value_that_makes_no_sense_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A zoo of numbers that no drawing takes is not used."""
    file = tmp_path / "measured.jsonl"
    for name, value in (("seconds", -1.0), ("width", 0), ("work_bytes", 0), ("seconds", float("inf"))):
        facts = json.loads(row().model_dump_json())
        file.write_text(json.dumps({**facts, name: value}) + "\n")
        assert Measurements(file).of("sdxl", "RTX") == Measured()
    assert caplog.text.count("set aside") == 4


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Drawing goes on without it."""
    (tmp_path / "taken").write_text("")
    measurements = Measurements(tmp_path / "taken" / "measured.jsonl")
    for _ in range(3):
        measurements.add(row())
    assert caplog.text.count("could not be kept") == 1


def test_a_long_file_is_shortened(tmp_path: Path) -> None:
    """The latest lines stay."""
    file = tmp_path / "measured.jsonl"
    line = row(2.0).model_dump_json() + "\n"
    file.write_text(line * (2 * KEPT) + row(3.0).model_dump_json() + "\n")
    assert Measurements(file).of("sdxl", "RTX").seconds == 2.0
    kept = file.read_text().splitlines()
    assert len(kept) == KEPT
    assert json.loads(kept[-1])["seconds"] == 3.0
