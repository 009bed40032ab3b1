"""The model-loader cache when two requests meet at a bad moment; each test holds one of them there on purpose."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import Toy, check_at_rest, touch

from diffusiongpt.cache import Bring, Coming, ModelCache, SingleFlight
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert

ONE, OTHER = "cpu:1", "cpu:2"
"""Separate devices, as far as the cache knows."""

SOON_S = 0.3
"""How long one request waits for the other to reach it; nothing is wrong if it does not."""

LATE_S = 30.0


def lease(cache: ModelCache, backend: Any, who: Expert, device: str) -> None:
    """There is one, with all its parts where they should be."""
    with cache.lease(who, backend, device=device) as loaded:
        assert all(device in part.places for part in loaded.parts.values())  # type: ignore[attr-defined]  # toys


def test_what_goes_while_it_is_asked_for_comes_again(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The last copy leaves a device; a request for it waits until it is freed, and loads it again."""
    going, asked = threading.Event(), threading.Event()

    def before_leave(_: str, device: str) -> None:
        if device == ONE:
            going.set()
            asked.wait(SOON_S)

    def before_bring(name: str, device: str) -> None:
        if device == "cpu" and going.is_set():
            asked.set()
            while name in backend.places[ONE]:
                threading.Event().wait(0.01)

    backend, who = Toy(before_leave=before_leave, before_bring=before_bring), local("a")
    cache = ModelCache(settings)
    lease(cache, backend, who, ONE)
    cache.clear("cpu")
    with ThreadPoolExecutor(2) as pool:
        gone = pool.submit(cache.clear, ONE)
        assert going.wait(LATE_S)
        pool.submit(lease, cache, backend, who, OTHER).result(LATE_S)
        assert gone.result(LATE_S) == 10
    assert backend.loads == ["a", "a"]
    assert backend.places == {"cpu": {"a"}, ONE: set(), OTHER: {"a"}}


def test_what_is_copied_from_does_not_go(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The only copy is on one device and is being copied to another: a clearing does not touch it meanwhile."""

    def before_bring(_: str, device: str) -> None:
        if device == "cpu":
            freed.append(cache.clear(ONE))

    freed: list[int] = []
    backend, who = Toy(before_bring=before_bring), local("a")
    cache = ModelCache(settings)
    lease(cache, backend, who, ONE)
    cache.clear("cpu")
    lease(cache, backend, who, OTHER)
    assert freed == [0]
    assert backend.places == {"cpu": {"a"}, ONE: {"a"}, OTHER: {"a"}}


@pytest.mark.parametrize("way", ["clear", "load", "lease"])
def test_one_that_cannot_leave_holds_up_no_others(settings: Settings, local: Callable[[str], Expert], way: str) -> None:
    """Its error is raised; the others of its round are still freed, and all of them can be requested again."""

    def before_leave(name: str, _: str) -> None:
        if name == "a" and broken[0]:
            raise LoadError("stuck", hint="")

    broken = [True]
    backend = Toy(sizes={"c": 40}, before_leave=before_leave)
    cache = ModelCache(settings, budget_bytes=40, memory_of=lambda _: 50 if way == "load" else 500)
    touch(cache, backend, local("a"), local("b"))
    act = cache.clear if way == "clear" else partial(touch, cache, backend, local("c"))
    with pytest.raises(LoadError, match="stuck"):
        act()
    assert "b" not in backend.alive
    broken[0] = False
    backend.places["cpu"].discard("a")
    for name in "ab":
        with ThreadPoolExecutor(1) as pool:
            pool.submit(touch, cache, backend, local(name)).result(LATE_S)
    assert {row.experts for row in cache.explain().residents} >= {("b",)}
    assert all(ledger.reserved == ledger.in_flight == 0 for ledger in cache.explain().ledgers)


@pytest.mark.parametrize("device", [ONE, "cpu"])
def test_a_copy_that_fails_halfway_leaves_nothing(
    settings: Settings, local: Callable[[str], Expert], device: str
) -> None:
    """What had arrived of it is freed, so that no uncounted bytes remain."""

    def before_bring(name: str, where: str) -> None:
        if where == device and broken[0] and name in backend.places.get(ONE, set()) | backend.places["cpu"]:
            failed.append(name)
            if len(failed) == 2:
                raise LoadError("halfway", hint="")

    broken, failed = [True], list[str]()
    backend, cache, who = Toy(shared={"a": ("text",)}, before_bring=before_bring), ModelCache(settings), local("a")
    if device == "cpu":
        lease(cache, backend, who, ONE)
        cache.clear("cpu")
    with pytest.raises(LoadError, match="halfway"):
        lease(cache, backend, who, ONE if device == ONE else OTHER)
    assert len(failed) == 2
    assert backend.places[device] == set()
    check_at_rest(cache, backend)
    broken[0] = False
    lease(cache, backend, who, OTHER)


def test_what_is_there_already_evicts_nothing(settings: Settings, local: Callable[[str], Expert]) -> None:
    """Leases exceed the budget and look-ahead finds its model resident: idle models are freed and can be reloaded."""
    backend, cache = Toy(sizes={"a": 30, "b": 10}), ModelCache(settings, budget_bytes=30)
    a, b = local("a"), local("b")
    with cache.lease(a, backend, device="cpu"):
        touch(cache, backend, b)
        with cache.memory.look("cpu") as (tier,):
            sizes = {key: usage.nbytes for key, usage in tier.residents.items() if tier.pins[key]}
        cache.memory.bring("cpu", sizes, lambda _: {}, Bring(within_budget=True))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(touch, cache, backend, b).result(LATE_S)
    check_at_rest(cache, backend)


def test_a_load_that_ends_after_the_cache_was_closed_leaves_nothing(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """The requester has left, so no lease ends that could clean up; the load took longer than closing waits."""
    loading, closed = threading.Event(), threading.Event()

    def before_load(_: str) -> None:
        loading.set()
        assert closed.wait(LATE_S)

    def leave(*_: Any) -> None:
        assert loading.wait(LATE_S)
        raise KeyboardInterrupt

    backend, cache, who = Toy(before_load=before_load), ModelCache(settings, close_s=0.05), local("a")
    with pytest.raises(KeyboardInterrupt), cache.lease(who, backend, device="cpu", on_progress=leave):
        pass
    cache.close()
    closed.set()
    _until(lambda: not threads("diffusiongpt-load"))
    assert backend.alive == set()


@pytest.mark.parametrize("patient", [True, False])
def test_what_was_staged_after_the_cache_was_closed_goes(
    settings: Settings, local: Callable[[str], Expert], *, patient: bool
) -> None:
    """Prefetch finishes what it began although it is no longer needed; closing waits for it, up to a limit."""
    loading, closed = threading.Event(), threading.Event()

    def before_load(_: str) -> None:
        loading.set()
        assert closed.wait(LATE_S)

    backend, cache = Toy(before_load=before_load), ModelCache(settings, close_s=LATE_S if patient else 0.05)
    cache.look_ahead("cpu", [Coming(local(name), backend) for name in "abc"])
    assert loading.wait(LATE_S)
    if patient:
        threading.Timer(0.2, closed.set).start()
    cache.close()
    assert bool(backend.alive or threads("diffusiongpt-ahead-host")) is not patient
    closed.set()
    _until(lambda: not threads("diffusiongpt-ahead"))
    assert backend.loads == ["b"]
    assert backend.alive == set()


def test_work_that_cannot_start_keeps_no_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, it is an error, and the next request tries again."""
    flights: SingleFlight[str] = SingleFlight("test")

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            flights.join("key", lambda _: "never")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(flights.join, "key", lambda _: "now").result(LATE_S) == "now"


def test_closing_while_prefetch_starts_waits_for_it(
    settings: Settings, local: Callable[[str], Expert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has not quite started cannot be joined: closing waits until it has."""
    starting, start = threading.Event(), threading.Thread.start

    def slow(thread: threading.Thread) -> None:
        if thread.name == "diffusiongpt-ahead-host":
            starting.set()
            threading.Event().wait(0.05)
        start(thread)

    backend, cache = Toy(), ModelCache(settings)
    queue = [Coming(local(name), backend) for name in "ab"]
    monkeypatch.setattr(threading.Thread, "start", slow)
    with ThreadPoolExecutor(1) as pool:
        announced = pool.submit(cache.look_ahead, "cpu", queue)
        assert starting.wait(LATE_S)
        cache.close()
        announced.result(LATE_S)
    _until(lambda: not threads("diffusiongpt-ahead"))
    assert backend.alive == set()


def threads(name: str) -> list[str]:
    """Threads of the cache that are running."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(name)]


def _until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(round(LATE_S / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    pytest.fail("it did not happen")
