"""Bugs that random operations on the model cache have found: each of these rules was once broken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from fixtures_cache import Toy, touch

from diffusiongpt.backends import Loaded
from diffusiongpt.cache import LRU, Bring, Events, Memory, ModelCache, ModelKey
from diffusiongpt.errors import LoadError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert

DEVICE = "cpu:1"
SMALL = ModelKey(backend="toy", folder="/small", file=None, variant=None, dtype=None, device=DEVICE)
AT_ONCE = Bring(within_budget=True, patience_s=0.0)


@dataclass
class Block:
    """A part that does nothing."""

    nbytes: int

    def bring(self, device: str) -> None:
        """Nothing."""

    def leave(self, device: str) -> None:
        """Nothing."""


def on_device(cache: ModelCache, backend: Toy, who: Expert) -> None:
    """Load a model on the device, and free its host copy."""
    with cache.lease(who, backend, device=DEVICE):
        pass
    cache.clear("cpu")


def test_a_copy_that_fails_half_way_leaves_nothing_uncounted(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """After the device ran out of memory, the parts that had arrived are freed, and the next attempt works."""
    left = [1]

    def run_out(_: str, device: str) -> None:
        left[0] -= device == DEVICE
        if left[0] < 0:
            raise OutOfMemoryError("no", hint="none")

    cache = ModelCache(settings)
    backend = Toy(shared={"a": ("s",)}, before_bring=run_out)
    with pytest.raises(OutOfMemoryError), cache.lease(local("a"), backend, device=DEVICE):
        pass
    assert backend.places == {"cpu": {"a", "s"}, DEVICE: set()}
    left[0] = 9
    with cache.lease(local("a"), backend, device=DEVICE):
        assert backend.places[DEVICE] == {"a", "s"}


def test_a_load_that_fails_takes_back_what_came_to_the_host_for_it(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """Parts that were only on a device are copied to the host before a model is built from them, outside any ledger."""
    cache, backend = ModelCache(settings), Toy()
    on_device(cache, backend, local("a"))

    def fail(_: str) -> None:
        raise LoadError("no", hint="none")

    backend.before_load = fail
    with pytest.raises(LoadError), cache.lease(local("a"), backend, device=DEVICE, offload=True):
        pass
    assert backend.places == {"cpu": set(), DEVICE: {"a"}}
    assert cache.explain().ledgers[1].resident == 0


def test_what_is_copied_to_the_host_stays_on_its_device_meanwhile(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """Otherwise the only copy could be freed while it is read."""
    cache, backend = ModelCache(settings), Toy()
    on_device(cache, backend, local("a"))
    freed: list[int] = []

    def clear(_: str, device: str) -> None:
        if device == "cpu":
            freed.append(cache.clear(DEVICE))

    backend.before_bring = clear
    with cache.lease(local("a"), backend, device="cpu"):
        pass
    assert freed == [0]
    assert backend.places == {"cpu": {"a"}, DEVICE: {"a"}}


def test_what_is_leaving_its_last_place_is_loaded_again(settings: Settings, local: Callable[[str], Expert]) -> None:
    """It can no longer be copied from there; a load waits until it is freed."""
    cache, backend = ModelCache(settings), Toy()
    on_device(cache, backend, local("a"))
    leaving, go, copied = threading.Event(), threading.Event(), []

    def leave(_: str, __: str) -> None:
        leaving.set()
        assert go.wait(20)

    backend.before_leave = leave
    backend.before_bring = lambda name, device: copied.append((name, device))
    with ThreadPoolExecutor(2) as pool:
        cleared = pool.submit(cache.clear, DEVICE)
        assert leaving.wait(20)
        leased = pool.submit(touch, cache, backend, local("a"))
        with pytest.raises(TimeoutError):
            leased.result(0.2)
        go.set()
        cleared.result(20)
        leased.result(20)
    assert copied == []
    assert backend.places == {"cpu": {"a"}, DEVICE: set()}


def test_room_is_not_given_away_before_it_is_free(settings: Settings, local: Callable[[str], Expert]) -> None:
    """Cleared models count until their memory is returned: together they never take more than the machine has."""
    cache = ModelCache(settings, budget_bytes=90, memory_of=lambda _: 100)
    leaving = threading.Event()
    go, seen = threading.Event(), []

    def leave(_: str, __: str) -> None:
        leaving.set()
        assert go.wait(20)

    backend = Toy(sizes={"a": 60, "b": 60}, before_leave=leave)
    touch(cache, backend, local("a"))
    backend.before_load = lambda _: seen.append(set(backend.alive))
    with ThreadPoolExecutor(2) as pool:
        cleared = pool.submit(cache.clear)
        assert leaving.wait(20)
        leased = pool.submit(touch, cache, backend, local("b"))
        with pytest.raises(TimeoutError):
            leased.result(0.2)
        go.set()
        cleared.result(20)
        leased.result(20)
    assert seen == [set()]


def test_a_request_that_lacks_nothing_evicts_nothing() -> None:
    """This also holds when more is resident than may stay: what was taken out in vain would stay claimed."""
    memory = Memory(lambda _: (60, 1000), LRU(), Events())
    with memory.pinned("cpu", "a"):
        for key in "ab":
            memory.bring("cpu", {key: 60}, lambda missing: {one: Block(60) for one in missing})
        memory.bring("cpu", {"a": 60}, lambda _: {}, AT_ONCE)
        assert memory.holds("cpu", "ab")


def test_nothing_comes_ahead_beyond_the_machine() -> None:
    """A budget larger than the memory is limited to the memory."""
    memory = Memory(lambda _: (100, 50), LRU(), Events())
    with pytest.raises(OutOfMemoryError):
        memory.bring("cpu", {"a": 60}, lambda _: {"a": Block(60)}, AT_ONCE)
    with memory.look("cpu") as (tier,):
        assert tier.resident == 0


def test_what_is_used_on_a_device_ends_the_stay_of_what_is_too_large_for_the_host() -> None:
    """A model above the budget stays on the host until another is needed, even one that is already on its device."""
    memory = Memory(lambda device: (20 if device == "cpu" else 1000, None), LRU(), Events())
    for device in ("cpu", DEVICE):
        with memory.pinned(device, "as"):
            memory.bring(device, {"a": 20, "s": 12}, lambda missing: {one: Block(20) for one in missing})
    assert memory.holds("cpu", "as")
    memory.contents.remember(SMALL, Loaded(model="small", device=DEVICE, parts={}), "s")
    with memory.pinned(DEVICE, "s"):
        assert memory.use(DEVICE, "s", SMALL) is not None
    assert memory.present("cpu", "as") == {"s"}
