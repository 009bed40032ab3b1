"""Many threads use a model cache at random, and what it reports is compared with the truth."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from toy_backend import HOST, ToyBackend, ToyModel

from diffusiongpt.cache import GDSF, LRU, SAFE_SHARE, Coming, Key, ModelCache
from diffusiongpt.errors import DiffusionGPTError, OutOfMemoryError
from diffusiongpt.settings import load_settings
from diffusiongpt.zoo import Expert

DEVICES = (HOST, "cpu:1", "cpu:2")
THREADS = 6
BURST = 200
"""Operations between two moments of rest."""

_REST_S = 20.0
_SIZES = {"shared": 12, "pair": 7, **{name: size for size, name in enumerate("abcdefgh", start=5)}}
_MADE_OF = {
    "one": ("a", "shared"),
    "two": ("b", "shared"),
    "three": ("c", "shared", "pair"),
    "four": ("d", "pair"),
    "five": ("e",),
    "six": ("f", "g"),
    "seven": ("h", "shared"),
}


class WatchedCache(ModelCache):
    """The cache as shipped, with small devices, and access to its internal records.

    Args:
        home: A separate folder for its files.
        toy: The backend that knows the truth.
        budget: Bytes that idle models may keep on each device.
        ceiling: Bytes of each device.
        policy: Decides what is evicted first.
    """

    def __init__(self, home: Path, toy: ToyBackend, *, budget: int, ceiling: int, policy: LRU | GDSF) -> None:
        self._ceiling = ceiling
        self._idle = budget
        self._toy = toy
        self._names: dict[Key, str] = {}
        settings, memory = load_settings(home=home, hub_cache=home), round(ceiling / SAFE_SHARE)
        super().__init__(settings, budget_bytes=budget, policy=policy, memory_of=lambda _: memory)

    def look(self) -> None:
        """Compare at any moment: what is listed is there, what is there is listed or in progress, and it all fits."""
        memory, toy = self.memory, self._toy
        with memory.look(*DEVICES) as tiers, toy.lock:
            for device, tier in zip(DEVICES, tiers, strict=True):
                ledger = tier.ledger()
                taken = ledger.resident + ledger.reserved + ledger.in_flight
                toy.check(taken <= self._ceiling, f"{taken} bytes are promised on {device}")
                there = toy.on(device)
                held = sum(toy.sizes[name] for name in there)
                toy.check(held <= self._ceiling, f"{held} bytes are on {device}")
                toy.check(len(set(there)) == len(there), f"a second copy on {device}: {there}")
                listed = {self._name(key) for key in tier.residents}
                moving = {self._name(key) for key in memory.moving(device)}
                toy.check(listed <= set(there), f"not on {device}: {listed - set(there)}")
                toy.check(set(there) <= listed | moving, f"unlisted on {device}: {set(there) - listed - moving}")

    def look_at_rest(self) -> None:
        """Compare at rest: ledger and truth are equal, and nothing is held or in progress."""
        self.look()
        memory, toy = self.memory, self._toy
        with memory.look(*DEVICES) as tiers:
            for device, tier in zip(DEVICES, tiers, strict=True):
                toy.check(not memory.moving(device), f"moving at rest on {device}: {memory.moving(device)}")
                ledger = tier.ledger()
                toy.check(not tier.pins, f"held at rest on {device}: {tier.pins}")
                toy.check(not ledger.reserved + ledger.in_flight, f"coming at rest to {device}: {ledger}")
                held = sum(toy.sizes[name] for name in toy.on(device))
                toy.check(held == ledger.resident, f"{held} bytes on {device}, {ledger.resident} in the ledger")
                newest = max((usage.last_used for usage in tier.residents.values()), default=0.0)
                old = any(usage.last_used != newest for usage in tier.residents.values())
                toy.check(held <= self._idle or not old, f"{held} idle bytes on {device}, {self._idle} may stay")

    def is_busy(self) -> bool:
        """Whether anything is being loaded or freed."""
        moving = any(self.memory.moving(device) for device in DEVICES)
        return moving or any("diffusiongpt-" in one.name for one in threading.enumerate())

    def _name(self, key: Key) -> str:
        """The toy's name for it: the one component whose file has that content."""
        if key not in self._names:
            for _, model in tuple(self._identities._models.values()):  # noqa: SLF001
                self._names.update({one: name for name, one in model.parts.items()})
        return self._names.get(key, str(key))


def storm(operations: int, seed: int = 0) -> Counter[str]:
    """Do this many operations, in bursts on a new cache each; return their counts.

    Raises:
        AssertionError: If the cache's report is wrong; it names the seed of the burst.
    """
    done: Counter[str] = Counter()
    for burst in range(-(-operations // BURST)):
        rng = Random(seed * 1_000_003 + burst)
        with TemporaryDirectory() as scratch:
            toy = ToyBackend(_SIZES, _MADE_OF, failures=0.03, slow_s=0.001, seed=rng.randrange(1 << 30))
            budget = rng.choice((20, 40, 60))
            policy = rng.choice((LRU, GDSF))()
            cache = WatchedCache(Path(scratch), toy, budget=budget, ceiling=rng.choice((60, 80)), policy=policy)
            experts = toy.write(Path(scratch, "models"))
            _burst(cache, toy, experts, rng, done)
            _wait_for_rest(cache)
            cache.look_at_rest()
            done["failed on purpose"] += toy.failed
            cache.close()
            toy.check(not toy.parts, f"left after the end: {toy.parts}")
            if toy.broken:
                raise AssertionError(f"burst {burst} of seed {seed}: {'; '.join(dict.fromkeys(toy.broken))}")
    return done


def _burst(cache: WatchedCache, toy: ToyBackend, experts: Sequence[Expert], rng: Random, done: Counter[str]) -> None:
    seeds = [rng.randrange(1 << 30) for _ in range(THREADS)]
    lock = threading.Lock()

    def work(seed: int) -> None:
        mine = Random(seed)
        for _ in range(BURST // THREADS + 1):
            what = _operate(cache, toy, experts, mine)
            cache.look()
            with lock:
                done[what] += 1

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, seeds))


def _operate(cache: WatchedCache, toy: ToyBackend, experts: Sequence[Expert], rng: Random) -> str:
    """One random operation."""
    device, dice = rng.choice(DEVICES), rng.random()
    if dice < 0.75:
        return _lease(cache, toy, rng.choice(experts), device, rng)
    if dice < 0.85:
        cache.clear(rng.choice((device, None)))
        return "clear"
    cache.look_ahead(device, [Coming(one, toy) for one in rng.choices(experts, k=rng.randint(0, 5))])
    return "look ahead"


def _lease(cache: WatchedCache, toy: ToyBackend, expert: Expert, device: str, rng: Random) -> str:
    offload = device != HOST and rng.random() < 0.15
    try:
        with cache.lease(expert, toy, device=device, offload=offload) as loaded:
            model: ToyModel = loaded.model
            where = HOST if offload else device
            for _ in range(2):
                toy.check(model.is_on(where), f"{expert.id} was leased and is not on {where}")
                cache.look()
                sleep(rng.random() * toy.slow_s)
            toy.check(model.is_on(where), f"{expert.id} went from {where} while it was leased")
    except OutOfMemoryError:
        return "lease that found no room"
    except DiffusionGPTError as error:
        toy.broken.append(f"{expert.id} on {device}: {error}")
        return "lease that failed"
    return "lease, offloaded" if offload else "lease"


def _wait_for_rest(cache: WatchedCache) -> None:
    """Wait until look-ahead has finished."""
    cache.look_ahead(HOST, [])
    for device in DEVICES:
        cache.look_ahead(device, [])
    deadline = monotonic() + _REST_S
    while cache.is_busy() and monotonic() < deadline:
        sleep(0.002)
