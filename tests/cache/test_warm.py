"""A lease of a loaded model costs next to nothing, and still notices changes to its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures_cache import SD, UNET, Counting, touch

from diffusiongpt.cache import ModelCache
from diffusiongpt.hub import Puller

if TYPE_CHECKING:
    from diffusiongpt.backends import Backend
    from diffusiongpt.hub import Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Expert


def test_a_warm_lease_looks_at_the_disk_once(online: Settings) -> None:
    """Each look is a system call for every file of the checkpoint: most of what a lease takes."""
    looked: list[str] = []

    class Watched(Puller):
        def find(self, expert: Expert, backend: Backend) -> Snapshot | None:
            looked.append(expert.id)
            return super().find(expert, backend)

    cache, backend = ModelCache(online, puller=Watched(online)), Counting()
    touch(cache, backend, SD)
    looked.clear()
    touch(cache, backend, SD)
    assert looked == ["sd"]
    assert backend.loads == ["sd"]


def test_a_warm_lease_notices_that_files_went_away(hub: LocalHub, online: Settings) -> None:
    """They are downloaded again, though the model is in memory; its content is the same, so it is not reloaded."""
    cache, backend = ModelCache(online), Counting()
    touch(cache, backend, SD)
    folder = cache.puller.on_disk(SD)
    assert folder is not None
    (folder / UNET).resolve().unlink()
    before = sum(path.endswith(UNET) for method, path in hub.requests if method == "GET")
    touch(cache, backend, SD)
    assert sum(path.endswith(UNET) for method, path in hub.requests if method == "GET") == before + 1
    assert (folder / UNET).is_file()
    assert backend.loads == ["sd"]
