"""The model-loader cache keeps within its budget: idle models are evicted, none in use is freed, bytes are counted."""

from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from fixtures_cache import KLEIN, SD, Counting, Toy, draw, touch

from diffusiongpt.cache import LRU, ModelCache
from diffusiongpt.errors import LoadError
from diffusiongpt.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


def test_same_picture_after_eviction_and_reload(online: Settings) -> None:
    """A model that was evicted draws the same pixels when it comes back."""
    cache, backend = ModelCache(online, budget_bytes=400_000), Counting()
    with cache.lease(SD, backend, device="cpu") as loaded:
        before = draw(loaded, SD)
    touch(cache, backend, KLEIN)
    assert not cache.is_loaded(SD, device="cpu")
    with cache.lease(SD, backend, device="cpu") as loaded:
        assert draw(loaded, SD) == before
    assert backend.loads == ["sd", "klein", "sd"]


def test_an_evicted_model_is_really_gone(online: Settings) -> None:
    """Its tensors are freed, not merely forgotten."""
    cache, backend = ModelCache(online, budget_bytes=400_000), Counting()
    with cache.lease(SD, backend, device="cpu") as loaded:
        weight = weakref.ref(loaded.model.pipe.unet.conv_in.weight)
    touch(cache, backend, KLEIN)
    del loaded
    gc.collect()
    assert weight() is None


def test_the_least_recently_used_goes_and_only_for_bytes(settings: Settings, local: Callable[[str], Expert]) -> None:
    """A large new model evicts as many as needed, least recently used first; one that fits evicts none."""
    backend = Toy(sizes={"a": 40, "b": 30, "c": 20, "d": 10, "e": 45})
    cache = ModelCache(settings, budget_bytes=100, policy=LRU())
    a, b, c, d, e = (local(name) for name in "abcde")
    touch(cache, backend, a, b, c, d)
    assert backend.alive == {"a", "b", "c", "d"}
    touch(cache, backend, a)
    assert [row.experts for row in cache.explain().residents] == [("b",), ("c",), ("d",), ("a",)]
    touch(cache, backend, e)
    assert backend.alive == {"a", "d", "e"}
    assert sum(row.nbytes for row in cache.explain().residents) == 95


def test_a_leased_model_is_never_freed(settings: Settings, local: Callable[[str], Expert]) -> None:
    """Leases may exceed the budget; when they end, the least recently used model is evicted."""
    backend = Toy(sizes={"a": 60, "b": 60, "c": 60})
    cache = ModelCache(settings, budget_bytes=100)
    with ExitStack() as stack:
        for name in "ab":
            stack.enter_context(cache.lease(local(name), backend, device="cpu"))
        touch(cache, backend, local("c"))
        assert {"a", "b"} <= backend.alive
        assert cache.clear() == 60
        assert backend.alive == {"a", "b"}
        assert [row.leases for row in cache.explain().residents] == [1, 1]
    assert backend.alive == {"b"}


def test_a_model_above_the_budget_is_kept_while_alone(settings: Settings, local: Callable[[str], Expert]) -> None:
    """It is loaded, is not reloaded for each request, and is evicted when another model is needed."""
    backend = Toy(sizes={"big": 500})
    cache = ModelCache(settings, budget_bytes=100)
    touch(cache, backend, local("a"), local("big"), local("big"))
    assert backend.loads == ["a", "big"]
    assert backend.alive == {"big"}
    touch(cache, backend, local("a"))
    assert backend.alive == {"a"}


def test_random_use_from_many_threads_keeps_the_rules(settings: Settings, local: Callable[[str], Expert]) -> None:
    """In any order, a leased model is alive, and without leases the bytes are within the budget."""
    import random

    sizes = {name: 10 * at for at, name in enumerate("abcdef", start=1)}
    backend = Toy(sizes=sizes, before_load=lambda _: time.sleep(0.001))
    cache = ModelCache(settings, budget_bytes=100)
    experts = {name: local(name) for name in sizes}

    def work(seed: int) -> None:
        chooser = random.Random(seed)  # noqa: S311  # no secret, only a choice
        for _ in range(60):
            name = chooser.choice("abcdef")
            with cache.lease(experts[name], backend, device="cpu") as loaded:
                assert loaded.model == name
                assert name in backend.alive
                time.sleep(chooser.random() / 1000)
                assert name in backend.alive

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    rows = cache.explain().residents
    assert sum(row.nbytes for row in rows) <= 100
    assert {name for row in rows for name in row.experts} == backend.alive


def test_room_is_made_beforehand_where_both_cannot_fit(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The system kills a process that takes too much, so the old model is evicted first when both exceed the memory."""
    seen: list[set[str]] = []
    backend = Toy(sizes={"a": 60, "b": 60}, before_load=lambda _: seen.append(set(backend.alive)))
    cache = ModelCache(settings, budget_bytes=90, memory_of=lambda _: 100)
    sized = local("b").model_copy(update={"size_gb": 60e-9})
    touch(cache, backend, local("a"), sized)
    assert seen == [set(), set()]


def test_nothing_goes_for_files_that_are_not_whole(settings: Settings, local: Callable[[str], Expert]) -> None:
    """If the old model has to be evicted first, the new one is checked before: a truncated file evicts nothing."""
    backend = Toy(sizes={"a": 60, "b": 60})
    cache = ModelCache(settings, budget_bytes=90, memory_of=lambda _: 100)
    broken = local("b")
    assert broken.folder is not None
    backend.components(broken, broken.folder, (), device="cpu")
    weights = broken.folder / "b.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    touch(cache, backend, local("a"))
    with pytest.raises(LoadError, match="does not end where its safetensors header says"):
        touch(cache, backend, broken)
    assert backend.alive == {"a"}


def test_each_device_has_its_own_budget(settings: Settings, local: Callable[[str], Expert]) -> None:
    """The same model on two devices is two models with one copy on the host, and neither evicts the other."""
    backend = Toy(sizes={"a": 60})
    cache = ModelCache(settings, budget_bytes=100, memory_of=lambda _: 1000)
    for device in ("cuda:0", "cuda:1"):
        with cache.lease(local("a"), backend, device=device):
            pass
    assert backend.places == {"cpu": {"a"}, "cuda:0": {"a"}, "cuda:1": {"a"}}
    assert backend.loads == ["a", "a"]


def test_the_budget_comes_from_settings_or_half_the_machine(settings: Settings) -> None:
    """An argument takes precedence over the settings, which are a share or bytes, for the host and for devices."""
    cache = ModelCache(settings, memory_of=lambda _: 1000)
    assert (cache.budget("cpu"), cache.budget("cuda:0")) == (500, 800)
    chosen = load_settings(home=settings.home, host_budget="2GB", device_budget="25%")
    other = ModelCache(chosen, memory_of=lambda _: 1000)
    assert (other.budget("cpu"), other.budget("cuda:0")) == (2_000_000_000, 250)
    assert ModelCache(chosen, budget_bytes=7).budget("cpu") == 7
