"""A tier that is checked at every step against a model too simple to be wrong; any step may follow any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from random import Random

from diffusiongpt.cache import GDSF, LRU, PROTECTED, EvictionPolicy, Key, Tier

KEYS = tuple("abcdefghijkl")
LARGEST = 40
"""Bytes of the largest component."""

STEPS_OF_A_TIER = 500
POLICIES: tuple[type[EvictionPolicy], ...] = (LRU, GDSF)


class CheckedTier:
    """Does a step on a real tier and on the model, then compares; a violated invariant is an `AssertionError`.

    Args:
        policy: Eviction policy of the tier.
        budget: Budget of the tier, in bytes.
    """

    def __init__(self, policy: EvictionPolicy, budget: int) -> None:
        self.tier = Tier(name="host", budget=budget, ceiling=None, policy=policy)
        self.residents: dict[Key, int] = {}
        self.reserved: dict[Key, int] = {}
        self.in_flight: dict[Key, int] = {}
        self.pins: Counter[Key] = Counter()
        self.by_use: list[Key] = []
        self._now = 0.0
        self._floor = 0.0

    def reserve(self, key: Key, nbytes: int) -> None:
        """Reserve room for a component that has none; a second reservation is refused."""
        if key in self.residents or key in self.reserved or key in self.in_flight:
            _refuse(lambda: self.tier.reserve(key, nbytes))
        else:
            self.tier.reserve(key, nbytes)
            self.reserved[key] = nbytes
        self._check()

    def start(self, key: Key) -> None:
        """A component with room starts to arrive."""
        if key in self.reserved:
            self.tier.start(key)
            self.in_flight[key] = self.reserved.pop(key)
        self._check()

    def cancel(self, key: Key) -> None:
        """A component that was to arrive does not."""
        if key in self.reserved or key in self.in_flight:
            self.tier.cancel(key)
            self.reserved.pop(key, None)
            self.in_flight.pop(key, None)
        self._check()

    def admit(self, key: Key, nbytes: int, reload_s: float) -> None:
        """A component has arrived, with its own bytes."""
        if key in self.in_flight:
            self.tier.admit(key, nbytes, reload_s=reload_s, now=self._tick())
            del self.in_flight[key]
            self.residents[key] = nbytes
            self.by_use.append(key)
            self._check_floor(key)
        self._check()

    def use(self, key: Key) -> None:
        """A resident component is requested."""
        if key in self.residents:
            self.tier.use(key, self._tick())
            self.by_use.remove(key)
            self.by_use.append(key)
            self._check_floor(key)
        self._check()

    def pin(self, key: Key) -> None:
        """One more lease holds it, whether or not it is there."""
        self.tier.pin(key)
        self.pins[key] += 1
        self._check()

    def unpin(self, key: Key) -> None:
        """One lease less holds it; refused if none does."""
        if self.pins[key]:
            self.tier.unpin(key)
            self.pins[key] -= 1
        else:
            _refuse(lambda: self.tier.unpin(key))
        self._check()

    def remove(self, key: Key) -> None:
        """Remove it, unless it is held."""
        if key in self.residents and self.pins[key]:
            _refuse(lambda: self.tier.remove(key))
        elif key in self.residents:
            _hold(self.tier.remove(key).nbytes == self.residents.pop(key), "what left had other bytes")
            self.by_use.remove(key)
        self._check()

    def expect(self, upcoming: Mapping[Key, int]) -> None:
        """The queue now needs other components."""
        self.tier.upcoming = dict(upcoming)
        self._check_order()

    def make_room(self, needed: int, limit: int | None, spare: Collection[Key], due: int) -> None:
        """Ask what has to be evicted, and remove it."""
        going = self.tier.victims(needed, limit=limit, spare=spare, due=due)
        soon = self.tier.upcoming
        may_go = {key for key in self._idle() if key not in spare and (key not in soon or soon[key] > due)}
        excess = 0 if limit is None else self._taken() + needed - limit
        if going is None:
            _hold(self._bytes(may_go) < excess, "there was room")
            return
        self._check_going(going, may_go, excess)
        unneeded = may_go - soon.keys()
        _hold(self._bytes(unneeded) < excess or not any(key in soon for key in going), "what is needed went first")
        for key in going:
            self.remove(key)
        _hold(limit is None or self._taken() + needed <= limit, "not enough left")

    def keep_to_budget(self, spare: Collection[Key]) -> None:
        """Ask what is above the budget, and remove it."""
        may_go = {key for key in self._idle() if key not in spare}
        excess = self._taken() - self.tier.budget
        going = self.tier.surplus(spare=spare)
        if self._bytes(may_go) < excess:
            _hold(set(going) == may_go, "something stayed above the budget")
        else:
            self._check_going(going, may_go, excess)
        for key in going:
            self.remove(key)

    def _check_going(self, going: list[Key], may_go: set[Key], excess: int) -> None:
        _hold(set(going) <= may_go, "something left that may not")
        _hold(len(set(going)) == len(going), "something left twice")
        _hold(self._bytes(going) >= excess, "too few left")
        _hold(all(self._bytes(going) - self.residents[key] < excess for key in going), "something left needlessly")

    def _check_order(self) -> None:
        order = self.tier.order()
        _hold(order == self.tier.order(), "the order is not the same twice")
        _hold(sorted(order) == sorted(self._idle()), "the order is not of the idle")
        soon = self.tier.upcoming
        needed = [soon[key] for key in order if key in soon]
        _hold(all(key in soon for key in order[len(order) - len(needed) :]), "what is needed is not last")
        _hold(needed == sorted(needed, reverse=True), "what is needed last is not first")
        if isinstance(self.tier.policy, LRU):
            rest = [key for key in order if key not in soon]
            _hold(rest == [key for key in self.by_use if key in rest], "not least recently used first")

    def _check_floor(self, key: Key) -> None:
        floor = self.tier.residents[key].floor
        _hold(floor >= self._floor, "the floor fell")
        self._floor = floor

    def _check(self) -> None:
        ledger = self.tier.ledger()
        _hold(ledger.resident == self._bytes(self.residents), "resident bytes are wrong")
        _hold(ledger.reserved == sum(self.reserved.values()), "reserved bytes are wrong")
        _hold(ledger.in_flight == sum(self.in_flight.values()), "bytes in flight are wrong")
        _hold(self.tier.taken == self._taken(), "the sum is wrong")
        coming = {key for key in KEYS if self.tier.is_coming(key)}
        _hold(coming == self.reserved.keys() | self.in_flight.keys(), "something else is coming")
        _hold(self.tier.residents.keys() == self.residents.keys(), "something else is there")

    def _idle(self) -> list[Key]:
        return [key for key in self.residents if not self.pins[key]]

    def _bytes(self, keys: Collection[Key]) -> int:
        return sum(self.residents[key] for key in keys)

    def _taken(self) -> int:
        return sum(map(sum, (self.residents.values(), self.reserved.values(), self.in_flight.values())))

    def _tick(self) -> float:
        self._now += 1.0
        return self._now


def random_steps(number: int, seed: int) -> None:
    """Take random steps, on a new tier every `STEPS_OF_A_TIER`."""
    rng = Random(seed)
    for done in range(number):
        if not done % STEPS_OF_A_TIER:
            tier = CheckedTier(rng.choice(POLICIES)(), budget=rng.randint(LARGEST, 4 * LARGEST))
        _random_step(tier, rng)


def _random_step(tier: CheckedTier, rng: Random) -> None:
    """Any step, with a key for which it is valid if there is one."""
    coming = [*tier.reserved, *tier.in_flight]
    steps: tuple[tuple[Collection[Key], Callable[[Key], None]], ...] = (
        (KEYS, lambda key: tier.reserve(key, rng.randint(0, LARGEST))),
        (tier.reserved, tier.start),
        (tier.in_flight, lambda key: tier.admit(key, rng.randint(0, LARGEST), rng.random())),
        (coming if rng.random() < 0.2 else (), tier.cancel),
        (tier.residents, tier.use),
        (KEYS if sum(tier.pins.values()) < len(KEYS) // 2 else (), tier.pin),
        ([key for key in tier.pins if tier.pins[key]], tier.unpin),
        (tier.residents if rng.random() < 0.2 else (), tier.remove),
        (KEYS, lambda _: tier.expect({key: rng.randint(0, PROTECTED) for key in _some(rng)})),
        (KEYS, lambda _: tier.make_room(rng.randint(0, LARGEST), _limit(tier, rng), _some(rng), _due(rng))),
        (KEYS if rng.random() < 0.2 else (), lambda _: tier.keep_to_budget(_some(rng))),
    )
    possible = [step for step in steps if step[0]]
    keys, step = possible[int(rng.random() * len(possible))]
    step(rng.choice(list(keys)))


def _some(rng: Random) -> list[Key]:
    return rng.sample(KEYS, rng.randint(0, len(KEYS) // 2))


def _limit(tier: CheckedTier, rng: Random) -> int | None:
    return rng.choice([tier.tier.budget, tier.tier.budget + LARGEST, None])


def _due(rng: Random) -> int:
    return rng.randint(0, PROTECTED)


def _hold(invariant: bool, broken: str) -> None:
    if not invariant:
        raise AssertionError(broken)


def _refuse(step: Callable[[], object]) -> None:
    try:
        step()
    except ValueError:
        return
    raise AssertionError("it was not refused")
