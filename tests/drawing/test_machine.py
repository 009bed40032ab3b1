"""What a machine knows of the experts that would draw on it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fixtures_routing import pixel_folder, settings_in, tiny_studio

from diffusiongpt import DiffusionGPT
from diffusiongpt.backends import get_backend
from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import Machine
from diffusiongpt.flow import MachineSpec
from diffusiongpt.hub import Puller, Snapshot
from diffusiongpt.placement import Measurement, Measurements
from diffusiongpt.testing import hub_zoo, serve_tiny_zoo
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Counting(Puller):
    """Counts how often the files of an expert are looked for."""

    looks = 0

    def find(self, *arguments: Any) -> Snapshot | None:
        """Count, and look."""
        self.looks += 1
        return super().find(*arguments)


def test_a_commit_is_weighed_once(tmp_path: Path) -> None:
    """Where the zoo states no sizes, the files on disk do; those of a commit never change."""
    expert = hub_zoo()["tiny-pixel"].model_copy(update={"components": {}, "size_gb": None})
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        puller = Counting(settings)
        cache = ModelCache(settings, puller=puller)
        machine = Machine(cache, settings, "cpu")
        assert not machine.planner()(expert).sized
        cache.fetch(expert, get_backend(expert.backend))  # type: ignore[arg-type]  # not hosted
        first = machine.placements(expert)
        looks = puller.looks
        assert machine.placements(expert) == first
        assert first[0].host_bytes > 0
        assert puller.looks == looks
        cache.close()


def test_what_cannot_be_built_with_what_is_installed_is_no_choice_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route for this machine says what to install; one for another machine, or for a named expert, is as before."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    own = tmp_path / "own.yaml"
    needy = f"{{id: needy, repo: {pixel_folder()}, architecture: qwen-image-2.1, size_gb: 0.01}}"
    own.write_text(f"schema_version: 1\nexperts:\n  - {needy}\n")
    with DiffusionGPT(["tiny", own], settings=settings_in(tmp_path), votes=tmp_path / "votes.db") as studio:
        here, elsewhere = studio.route("pixel art fish"), studio.route("pixel art fish", memory="any")
        reasons = {one.expert: one.reason for one in here.rejected}
        assert reasons["needy"] == "needs torchvision, which is not installed; pip install torchvision"
        assert "needy" not in [one.expert for one in elsewhere.rejected]
        assert studio.route("pixel art fish", expert="needy").expert == "needy"


def test_what_was_drawn_here_is_kept(tmp_path: Path) -> None:
    """Each picture is a line; the process that draws them plans as before, so its routes stay the same."""
    with tiny_studio(tmp_path) as studio:
        studio.route_and_generate("pixel art fish", expert="tiny-pixel", num_inference_steps=2)
        before = studio.route("pixel art fish")
        for seed in range(3):
            studio.route_and_generate("pixel art fish", seed=seed, expert="tiny-pixel", num_inference_steps=2)
        assert studio.route("pixel art fish").placement == before.placement
    lines = (tmp_path / "home" / "measured.jsonl").read_text().splitlines()
    rows = [Measurement.model_validate_json(line) for line in lines]
    assert [(row.architecture, row.hardware, row.kind, row.width, row.steps) for row in rows] == [
        ("tiny", "cpu", "cpu", 64, 2)
    ] * 4
    assert all(row.seconds and row.expected_seconds for row in rows)


def test_what_was_measured_corrects_the_plans_of_the_next_start(tmp_path: Path) -> None:
    """Of the architecture, on the device that was measured."""
    base = Zoo.load("default")["sd15-base"]
    settings = settings_in(tmp_path)
    cache = ModelCache(settings)

    def seconds(device: str) -> float | None:
        machine = Machine(cache, settings, "cpu")
        machine.__dict__["spec"] = MachineSpec(device=device, device_bytes=64e9, host_bytes=64e9, flops=1e12)
        return machine.placements(base)[0].seconds

    before = {device: seconds(device) or 0 for device in ("cpu", "cpu:1")}
    facts = {"architecture": "sd15", "width": 512, "height": 512, "steps": 30, "kind": "cpu", "hardware": "cpu"}
    for _ in range(3):
        Measurements(settings.home / "measured.jsonl").add(Measurement(**facts, seconds=3.0, expected_seconds=1.0))  # type: ignore[arg-type]
    assert (seconds("cpu") or 0) > 2 * before["cpu"]
    assert seconds("cpu:1") == before["cpu:1"]
    cache.close()
