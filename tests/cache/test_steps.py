"""The model-loader cache after any sequence of steps: its ledgers are right, and what is leased is in memory."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures_cache import Toy, check_at_rest
from hypothesis import settings as budget_of_time
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from miniature import expert

from diffusiongpt.cache import GDSF, LRU, Bring, Checkpoint, Identities, Loader, ModelCache, Wanted, needed_soon
from diffusiongpt.errors import LoadError
from diffusiongpt.settings import load_settings

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert

HOST = "cpu"
DEVICES = (HOST, "cpu:1", "cpu:2")
SIZES = {"a": 8, "b": 12, "c": 20, "d": 5, "e": 3}
SHARED = {"a": ("text",), "b": ("text", "vae"), "c": ("vae",)}
MEMORY = {HOST: 1000, "cpu:1": 70, "cpu:2": 90}
"""Bytes of each place; nine tenths of them may be taken."""

FOLDER = Path(os.environ["DIFFUSIONGPT_HOME"]) / "steps"
"""The same for all sequences: what is on disk does not change."""

NAME = st.sampled_from(sorted(SIZES))
DEVICE = st.sampled_from(DEVICES)


class _Steps(RuleBasedStateMachine):
    """One thread uses everything that a cache offers, and things fail now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = Toy(sizes=SIZES, shared=SHARED, before_load=self._fail, before_bring=self._fail)
        self.leases: list[tuple[ExitStack, Any, str, str, bool]] = []
        self.failing = 0

    @initialize(bytes_=st.integers(0, 60), policy=st.sampled_from([LRU, GDSF]))
    def begin(self, bytes_: int, policy: type[LRU | GDSF]) -> None:
        home = load_settings(home=FOLDER / "home", hub_cache=FOLDER / "hub")
        # measured seconds would make the order of eviction, and so the steps, different in each run
        clock = partial(next, count())
        self.cache = ModelCache(home, budget_bytes=bytes_, policy=policy(), memory_of=MEMORY.__getitem__, clock=clock)
        self.loader, self.identities = Loader(self.cache.memory), Identities(home.home)

    @rule(name=NAME, device=DEVICE)
    def lease(self, name: str, device: str) -> None:
        self._lease(name, device, offload=False)

    @rule(name=NAME, device=DEVICE)
    def lease_offloaded(self, name: str, device: str) -> None:
        self._lease(name, device, offload=True)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        stack, *_ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        stack.close()

    @rule(device=st.none() | DEVICE)
    def clear(self, device: str | None) -> None:
        self.cache.clear(device)

    @rule(queue=st.lists(NAME, max_size=4), device=DEVICE)
    def expect(self, queue: list[str], device: str) -> None:
        """What the queue needs, without the threads that would bring it."""
        models = [self._checkpoint(name, device).model for name in queue]
        wanted = [Wanted(model=model.key, parts=dict(model.sizes)) for model in models]
        self.cache.memory.expect(device, needed_soon(wanted))

    @rule(name=NAME, device=DEVICE, to_device=st.booleans())
    def stage(self, name: str, device: str, to_device: bool) -> None:
        """What look-ahead does in its threads."""
        if any(offload and where == device for _, _, _, where, offload in self.leases):
            return
        wanted = self._checkpoint(name, device)
        where = device if to_device and self.cache.memory.holds(HOST, wanted.model.sizes) else HOST
        with suppress(LoadError):
            self.loader.stage(wanted, where, Bring(within_budget=True, due=1, patience_s=0.0))

    @rule(after=st.integers(1, 3))
    def fail_soon(self, after: int) -> None:
        """Make something that is loaded or copied fail."""
        self.failing = after

    @invariant()
    def knows_what_is_where(self) -> None:
        if not hasattr(self, "cache"):
            return
        if not any(offload for *_, offload in self.leases):
            check_at_rest(self.cache, self.toy)
        for _, loaded, _, where, offload in self.leases:
            assert all((HOST if offload else where) in part.places for part in loaded.parts.values())
        for device in self.cache.memory.devices:
            with self.cache.memory.look(device) as (tier,):
                assert tier.taken <= MEMORY[device]

    def teardown(self) -> None:
        for stack, *_ in self.leases:
            stack.close()
        if hasattr(self, "cache"):
            self.cache.close()
            assert self.toy.alive == set()

    def _lease(self, name: str, device: str, *, offload: bool) -> None:
        if not self._fits(name, device, offload=offload):
            return
        stack = ExitStack()
        try:
            loaded = stack.enter_context(
                self.cache.lease(self._expert(name), self.toy, device=device, offload=offload)  # type: ignore[arg-type]
            )
        except LoadError as error:
            if str(error) != "bad luck":
                raise
            return
        self.leases.append((stack, loaded, name, device, offload and device != HOST))

    def _fits(self, name: str, device: str, *, offload: bool) -> bool:
        """Whether it can be leased without waiting for another lease to end, which this one thread would never see."""
        names = _parts(name)
        for _, _, other, where, visiting in self.leases:
            if where == device != HOST and (offload or visiting) and names & _parts(other):
                return False
        here = {part for _, _, other, where, visiting in self.leases if where == device for part in _parts(other)}
        return sum(SIZES.get(part, 10) for part in here | names) <= 0.9 * MEMORY[device]

    def _expert(self, name: str) -> Expert:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").touch()
        return expert(folder, name)

    def _checkpoint(self, name: str, device: str) -> Checkpoint:
        who = self._expert(name)
        found = self.cache.puller.find(who, self.toy)  # type: ignore[arg-type]  # a toy
        assert found is not None
        model = self.identities.of(who, self.toy, found, device)  # type: ignore[arg-type]
        return Checkpoint(expert=who, backend=self.toy, model=model)  # type: ignore[arg-type]

    def _fail(self, *_: str) -> None:
        if self.failing:
            self.failing -= 1
            if not self.failing:
                raise LoadError("bad luck", hint="")


def _parts(name: str) -> set[str]:
    return {name, *SHARED.get(name, ())}


class TestSteps(_Steps.TestCase):  # type: ignore[misc]  # hypothesis makes the base at run time
    """No sequence of steps breaks an invariant."""

    settings = budget_of_time(max_examples=40, stateful_step_count=40, deadline=None)
