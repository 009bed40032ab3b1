"""Prefetch: while one model draws, the next ones are loaded within limits, and nothing needed sooner is evicted."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import KLEIN, SD, Counting, Toy, touch
from fixtures_routing import expert as any_expert
from fixtures_routing import tiny_zoo, zoo_of

from diffusiongpt.cache import HOST_DEPTH, Coming, ModelCache
from diffusiongpt.errors import LoadError
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Expert

DEVICE = "cpu:1"
LATE_S = 10.0


def queue(backend: Any, experts: Sequence[Expert]) -> list[Coming]:
    """The drawing in progress, and those that follow."""
    return [Coming(one, backend) for one in experts]


def test_the_next_are_staged_while_one_draws(settings: Settings, local: Callable[[str], Expert]) -> None:
    """As many as its depth to the host, one to the device; neither the one that draws nor an idle one had to go."""
    experts = [local(name) for name in "abcdefg"]
    backend, cache = Toy(), ModelCache(settings)
    touch(cache, backend, experts[-1])
    with cache.lease(experts[0], backend, device=DEVICE):
        cache.look_ahead(DEVICE, queue(backend, experts[:-1]))
        at_rest()
        assert backend.places[DEVICE] == {"a", "b"}
        assert backend.places["cpu"] == {"g", *"abcdef"[: HOST_DEPTH + 1]}
    with cache.lease(experts[1], backend, device=DEVICE):
        pass
    assert backend.loads == ["g", *"abcdef"[: HOST_DEPTH + 1]]


def test_a_drawing_keeps_the_room_that_it_works_in(settings: Settings, local: Callable[[str], Expert]) -> None:
    """What comes to the device meanwhile takes only what the drawing under way leaves."""
    a, b = local("a"), local("b")
    for work, there in ((70, {"a", "b"}), (80, {"a"})):
        backend, cache = Toy(), ModelCache(settings, budget_bytes=90, memory_of=lambda _: 100)
        with cache.lease(a, backend, device=DEVICE):
            cache.look_ahead(DEVICE, [Coming(a, backend, work_bytes=work), Coming(b, backend)])
            at_rest()
            assert backend.places[DEVICE] == there
            assert backend.places["cpu"] == {"a", "b"}
        cache.close()


def test_nothing_comes_to_a_shared_memory_beside_a_drawing(settings: Settings, local: Callable[[str], Expert]) -> None:
    """Two threads that use MPS at a time end the process; the host's copy, which is the next one's, still comes."""
    a, b = local("a"), local("b")
    backend, cache = Toy(), ModelCache(settings, memory_of=lambda _: 1000)
    with cache.lease(a, backend, device="mps"):
        cache.look_ahead("mps", queue(backend, [a, b]))
        at_rest()
        assert backend.places["mps"] == {"a"}
        assert "b" in backend.places["cpu"]
    with cache.lease(b, backend, device="mps"):
        assert "b" in backend.places["mps"]


def test_nothing_leaves_that_is_needed_sooner(settings: Settings, local: Callable[[str], Expert]) -> None:
    """With room for three: the one that draws and the next two; what no request waits for is evicted first."""
    experts = [local(name) for name in "abcdefg"]
    backend, cache = Toy(), ModelCache(settings, budget_bytes=30)
    touch(cache, backend, experts[-1])
    with cache.lease(experts[0], backend, device="cpu"):
        cache.look_ahead("cpu", queue(backend, experts[:-1]))
        at_rest()
        assert backend.alive == {"a", "b", "c"}
        cache.look_ahead("cpu", queue(backend, [experts[0], experts[4], *experts[1:4]]))
        at_rest()
        assert backend.alive == {"a", "e", "b"}


def test_what_was_not_begun_is_dropped_when_the_queue_changes(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """What is in progress is finished; of the rest, only what the new queue needs is loaded."""
    loading, changed = threading.Event(), threading.Event()

    def before_load(name: str) -> None:
        if name == "b":
            loading.set()
            assert changed.wait(LATE_S)

    backend = Toy(before_load=before_load)
    cache = ModelCache(settings)
    a, b, c, d, e = (local(name) for name in "abcde")
    cache.look_ahead("cpu", queue(backend, [a, b, c, d]))
    assert loading.wait(LATE_S)
    cache.look_ahead("cpu", queue(backend, [a, e]))
    changed.set()
    at_rest()
    assert backend.loads == ["b", "e"]


def test_one_that_cannot_be_loaded_is_passed_over(settings: Settings, local: Callable[[str], Expert]) -> None:
    """A damaged model and one that fails to load neither keep the others from loading nor hold up the queue."""

    class Broken(Toy):
        def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> Any:
            if expert.id == "damaged":
                raise LoadError("damaged", hint="")
            return super().components(expert, folder, files, device=device)

    def before_load(name: str) -> None:
        if name == "failing":
            raise LoadError("no", hint="")

    backend, cache = Broken(before_load=before_load), ModelCache(settings)
    cache.look_ahead("cpu", queue(backend, [local(name) for name in ("a", "damaged", "failing", "c", "d")]))
    at_rest()
    assert backend.loads == ["failing", "c", "d"]
    assert backend.alive == {"c", "d"}


def test_what_is_larger_than_it_said_comes_once(settings: Settings, local: Callable[[str], Expert]) -> None:
    """For want of room it evicts its own other part; the next state of the queue gives another chance."""

    class Larger(Toy):
        def load(self, *args: Any, **kwargs: Any) -> Any:
            loaded = super().load(*args, **kwargs)
            for name in {"b", "text"} & loaded.parts.keys():
                loaded.parts[name].nbytes = 11  # type: ignore[misc]  # a toy
            return loaded

    backend = Larger(shared={"b": ("text",), "c": ("text",)})
    cache = ModelCache(settings, budget_bytes=31)
    a, b, c = (local(name) for name in "abc")
    touch(cache, backend, c)
    with cache.lease(a, backend, device="cpu"):
        cache.look_ahead("cpu", queue(backend, [a, b]))
        at_rest()
    assert backend.loads == ["c", "a", "b"]


def test_the_queue_of_one_device_protects_nothing_less_for_that_of_another(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """On the host both count, and the sooner of the two needs decides."""
    backend, cache = Toy(), ModelCache(settings)
    a, b, c = (local(name) for name in "abc")
    touch(cache, backend, a, b, c)
    cache.look_ahead(DEVICE, queue(backend, [a]))
    cache.look_ahead("cpu:2", queue(backend, [b, a]))
    at_rest()
    assert [row.why.split(";")[0] for row in cache.explain().on("host") if row.experts != ("c",)] == [
        "needed now",
        "needed now",
    ]


def test_prefetch_pulls_the_chosen_experts(online: Settings, hub: LocalHub) -> None:
    """The next model in the queue is pulled and loaded on the host; a fallback only if it is named."""
    cache, backend = ModelCache(online), Counting()
    cache.fetch(SD, backend)
    cache.look_ahead("cpu", [Coming(SD, backend)])
    at_rest()
    assert set(hub.downloads) == {"t/sd"}
    cache.look_ahead("cpu", [Coming(SD, backend, others=((KLEIN, backend),))])
    at_rest()
    assert set(hub.downloads) == {"t/sd", "t/klein"}
    assert backend.loads == []
    cache.look_ahead("cpu", [Coming(SD, backend), Coming(KLEIN, backend)])
    at_rest()
    assert backend.loads == ["klein"]


@pytest.mark.parametrize("prefetch", ["off", "stage", "download"])
def test_stand_ins_are_pulled_only_where_the_settings_say_so(online: Settings, hub: LocalHub, prefetch: str) -> None:
    """`prefetch="download"` brings the second of the route, and nothing else does."""
    zoo = zoo_of(SD, KLEIN)
    chosen = online.model_copy(update={"device": "cpu", "prefetch": prefetch})
    with DiffusionGPT(zoo, settings=chosen, on_pull=lambda _: None) as studio:
        list(studio.generate_many(["a fox", "a fox"], seed=1, num_inference_steps=1))
        at_rest()
    assert len(hub.downloads) == (2 if prefetch == "download" else 1)


def test_a_stand_in_has_a_turn_too(settings: Settings, hub: LocalHub, tmp_path: Path) -> None:
    """Of many prompts: an expert that is pulled and fails to load is not tried again; the next candidate is pulled."""
    folder = tiny_zoo()["tiny-pixel"].folder
    assert folder is not None
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "config.json").write_text('{"_class_name": "Nothing"}')
    hub.add("t/broken", tmp_path / "broken")
    zoo = zoo_of(any_expert("broken", "pixel_art", repo="t/broken"), any_expert("able", repo=str(folder)))
    wanted = settings.model_copy(update={"hub_endpoint": hub.url, "device": "cpu"})
    with DiffusionGPT(zoo, settings=wanted, on_pull=lambda _: None) as studio:
        (drawn,) = studio.generate_many(["a pixel art fish"], seed=1, num_inference_steps=1)
    assert isinstance(drawn, Generation)
    assert [fallback.expert for fallback in drawn.fallbacks] == ["broken"]


def at_rest() -> None:
    """Wait until no prefetch has anything left to do."""
    for _ in range(round(LATE_S / 0.01)):
        if not any(thread.name.startswith("diffusiongpt-ahead") for thread in threading.enumerate()):
            return
        threading.Event().wait(0.01)
    pytest.fail("prefetch does not come to rest")
