"""The model-loader cache under concurrency: one download, one load, nothing freed in use, and every request ends."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import KLEIN, SD, Counting, Toy, check_at_rest, draw, touch

from diffusiongpt.cache import Coming, ModelCache
from diffusiongpt.errors import DiffusionGPTError, LoadError
from diffusiongpt.hub import Puller

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.hub import PullPlan
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Expert

DEVICE = "cpu:1"
LATE_S = 60.0
DEVICES = ("cpu", "cpu:1", "cpu:2")


def small_device(device: str) -> int:
    """Bytes of a machine with little device memory."""
    return 20 if device == DEVICE else 200


def test_a_hundred_requests_make_one_download_and_one_load(hub: LocalHub, online: Settings) -> None:
    """Many requests for one cold model: each file is requested once, and each part is loaded once in each place."""
    cache, backend = ModelCache(online), Counting()
    placed: list[tuple[str, str, str]] = []
    cache.events.add(lambda event: placed.append((event.kind, event.what, event.tier)))
    barrier = threading.Barrier(100)

    def work(_: int) -> int:
        barrier.wait(LATE_S)
        with cache.lease(SD, backend, device=DEVICE) as loaded:
            return len(loaded.parts)

    with ThreadPoolExecutor(100) as pool:
        assert set(pool.map(work, range(100))) == {3}
    assert backend.loads == ["sd"]
    assert len(placed) == len(set(placed)) == 1 + 3 + 3
    gets = [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]
    assert len(gets) == len(set(gets)) == 3


def test_different_models_are_downloaded_side_by_side(online: Settings) -> None:
    """Two downloads that wait for each other both finish."""
    meeting = threading.Barrier(2)

    class Meeting(Puller):
        def pull(self, plan: PullPlan, *arguments: Any) -> Path:
            meeting.wait(LATE_S)
            return super().pull(plan, *arguments)

    cache, backend = ModelCache(online, puller=Meeting(online)), Counting()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(cache.fetch, who, backend) for who in (SD, KLEIN)]:
            done.result(LATE_S)


def test_what_two_cold_models_share_is_loaded_once(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The second request waits only for the shared part, and loads its own."""
    second = threading.Event()

    def before_load(name: str) -> None:
        if name == "a":
            second.wait(0.3)
        else:
            second.set()

    backend = Toy(shared={"a": ("text",), "b": ("text",)}, before_load=before_load)
    cache = ModelCache(settings)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(touch, cache, backend, local(name)) for name in "ab"]:
            done.result(LATE_S)
    assert backend.alive == {"a", "b", "text"}
    assert len(cache.explain().on("host")) == 3


def test_a_request_for_what_is_leaving_ends(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The case of ollama#17408: a victim that is requested during its eviction is loaded again; both requests end."""
    going, asked = threading.Event(), threading.Event()

    def before_leave(name: str, _: str) -> None:
        if name == "a":
            going.set()
            asked.wait(0.3)

    backend, cache = Toy(before_leave=before_leave), ModelCache(settings, budget_bytes=10)
    touch(cache, backend, local("a"))
    with ThreadPoolExecutor(2) as pool:
        newcomer = pool.submit(touch, cache, backend, local("b"))
        assert going.wait(LATE_S)
        again = pool.submit(touch, cache, backend, local("a"))
        newcomer.result(LATE_S)
        again.result(LATE_S)
    assert backend.loads == ["a", "b", "a"]
    # there is room for one; which of them stays is up to the order in which the two threads end
    assert len(backend.alive) == 1
    check_at_rest(cache, backend)


@pytest.mark.parametrize("stage", ["load", "bring"])
def test_a_load_that_fails_evicts_nothing(settings: Settings, local: Callable[[str], Expert], stage: str) -> None:
    """The old model stays until the new one is on the host, although the device has no room for both."""

    def fail(name: str, device: str = DEVICE) -> None:
        if name == "b" and device == DEVICE:
            raise LoadError("no", hint="")

    hooks = {"before_load": fail} if stage == "load" else {"before_bring": fail}
    backend = Toy(sizes={"a": 8, "b": 8}, **hooks)  # type: ignore[arg-type]
    cache = ModelCache(settings, budget_bytes=100, memory_of=small_device)
    for name in "ab":
        try:
            with cache.lease(local(name), backend, device=DEVICE):
                pass
        except LoadError:
            assert name == "b"
    assert backend.places[DEVICE] == {"a"}
    check_at_rest(cache, backend)


def test_a_request_that_joined_an_interrupted_one_gets_its_load(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """Ctrl-C ends one wait, also on a device; the load is neither stopped nor restarted."""
    left = threading.Event()
    backend, cache, who = Toy(before_load=lambda _: left.wait(LATE_S)), ModelCache(settings), local("a")

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    def follow() -> set[str]:
        with cache.lease(who, backend, device=DEVICE):
            return set(backend.places[DEVICE])

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt), cache.lease(who, backend, device=DEVICE, on_progress=leave):
            pass
        follower = pool.submit(follow)
        left.set()
        assert follower.result(LATE_S) == {"a"}
    assert backend.loads == ["a"]
    check_at_rest(cache, backend)


def test_a_load_waits_for_the_end_of_the_lease_in_its_way(settings: Settings, local: Callable[[str], Expert]) -> None:
    """If two models do not fit together, the second is loaded as soon as the lease of the first ends."""
    backend, cache = Toy(), ModelCache(settings, budget_bytes=15, memory_of=small_device)
    with ThreadPoolExecutor(1) as pool:
        with cache.lease(local("a"), backend, device=DEVICE):
            other = pool.submit(lambda: _leased_once(cache, backend, local("b")))
            while backend.loads != ["a", "b"]:
                time.sleep(0.01)
            assert not other.done()
        assert other.result(LATE_S) == {"b"}


def _leased_once(cache: ModelCache, backend: Toy, who: Expert) -> set[str]:
    with cache.lease(who, backend, device=DEVICE):
        return set(backend.places[DEVICE])


def test_two_caches_in_one_process_share_nothing(settings: Settings, who: Expert) -> None:
    """Each device has its own copies; one still draws after the other frees its copies."""
    one, other = ModelCache(settings), ModelCache(settings)
    with one.lease(who, Counting(), device="cpu") as loaded, other.lease(who, Counting(), device="cpu") as mine:
        wanted = draw(loaded, who)
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(draw, (loaded, mine), (who, who))) == [wanted, wanted]
        other.close()
        assert draw(mine, who) == wanted
    assert other.explain().on("host") == ()
    with one.lease(who, Counting(), device="cpu") as loaded:
        assert draw(loaded, who) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_random_use_of_shared_parts_on_many_devices(
    settings: Settings, local: Callable[[str], Expert], seed: int
) -> None:
    """Leases, offloading, clearings, look-ahead and failing loads at once: leased models are in memory, and all end."""
    sizes = {name: 5 + at for at, name in enumerate("abcdef")}
    unlucky = Random(seed)  # noqa: S311  # no secret, only a choice

    def before(*_: str) -> None:
        time.sleep(unlucky.random() / 2000)
        if unlucky.random() < 0.05:
            raise LoadError("bad luck", hint="")

    shared = {"a": ("text",), "b": ("text", "vae"), "c": ("vae",), "d": ("text",)}
    backend = Toy(sizes=sizes, shared=shared, before_load=before, before_bring=before)
    cache = ModelCache(settings, budget_bytes=45, memory_of=lambda device: 1000 if device == "cpu" else 110)
    experts = [local(name) for name in sizes]

    def work(number: int) -> int:
        chooser, done = Random(f"{seed} {number}"), 0  # noqa: S311
        for _ in range(60):
            device = chooser.choice(DEVICES)
            if chooser.random() < 0.1:
                cache.clear(chooser.choice([None, *DEVICES]))
            if chooser.random() < 0.2:
                cache.look_ahead(device, [Coming(one, backend) for one in chooser.sample(experts, 4)])
            try:
                done += _use(cache, backend, chooser.choice(experts), device, offload=chooser.random() < 0.2)
            except DiffusionGPTError as error:
                if str(error) != "bad luck":
                    raise
        return done

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(work, number) for number in range(8)]
        assert sum(one.result(LATE_S) for one in running) > 200
    cache.close()
    wait_for_threads()
    check_at_rest(cache, backend)
    assert backend.alive == set()


def _use(cache: ModelCache, backend: Toy, who: Expert, device: str, *, offload: bool) -> bool:
    with cache.lease(who, backend, device=device, offload=offload) as loaded:
        where = "cpu" if offload else device
        for _ in range(3):
            assert all(where in part.places for part in loaded.parts.values())  # type: ignore[attr-defined]  # toys
            time.sleep(0.0005)
    return True


def wait_for_threads() -> None:
    """Wait until neither a load nor look-ahead is in progress."""
    for thread in threading.enumerate():
        if thread.name.startswith(("diffusiongpt-load", "diffusiongpt-ahead")):
            thread.join(LATE_S)
