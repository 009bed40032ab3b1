"""Forked processes begin clean: no lock is held by a thread that only the parent has.

A fork copies one thread, and every lock as it is at that moment. One that another thread of the parent holds would stay
held in the child for good. The locks of this package that outlive a studio are made free in a child; what belongs to
a studio stays with the parent, and the child makes a studio of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar, cast
from weakref import WeakSet

Lock = TypeVar("Lock")

_LOCKS: WeakSet[object] = WeakSet()
_RENEWED: list[Callable[[], object]] = []


def free_in_child(lock: Lock) -> Lock:
    """A `threading.Lock` or `RLock` that is free in a forked child."""
    _LOCKS.add(lock)
    return lock


def call_in_child(renew: Callable[[], object]) -> None:
    """Have something called in each forked child, before anything else runs there."""
    _RENEWED.append(renew)


def _begin() -> None:
    for lock in _LOCKS:
        # the standard library does this to its own locks
        cast("threading.Lock", lock)._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001
    for renew in _RENEWED:
        renew()
    torch = sys.modules.get("torch")
    if torch is not None:
        # the threads that shared its work are the parent's: with more than one it would wait for them
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
