"""What a machine knows of the experts that would draw on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fixtures_routing import settings_in

from diffusiongpt.backends import get_backend
from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import Machine
from diffusiongpt.hub import Puller, Snapshot
from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from pathlib import Path


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
