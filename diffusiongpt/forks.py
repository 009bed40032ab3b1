"""Forked processes begin clean, or say at once that they cannot.

A fork copies one thread, and every lock as it is at that moment. One that another thread of the parent holds would stay
held in the child for good. The locks of this package that outlive a studio are made free in a child; what belongs to
a studio stays with the parent, and the child makes a studio of its own.

The libraries below torch have locks and threads of their own, out of reach: in a child of a process that had drawn, a
multiplication by MKL was seen to spin in `mkl_serv_allocate` without end. Such a child may route, and does not draw.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast
from weakref import WeakSet

Lock = TypeVar("Lock")

_LOCKS: WeakSet[object] = WeakSet()
_RENEWED: list[Callable[[], object]] = []


@dataclass
class _Process:
    """What is known of this process.

    Attributes:
        computed: Whether torch has computed here for this package.
        after: Whether it was forked from a process in which it had.
    """

    computed: bool = False
    after: bool = False


_PROCESS = _Process()


def free_in_child(lock: Lock) -> Lock:
    """A `threading.Lock` or `RLock` that is free in a forked child."""
    _LOCKS.add(lock)
    return lock


def call_in_child(renew: Callable[[], object]) -> None:
    """Have something called in each forked child, before anything else runs there."""
    _RENEWED.append(renew)


def computes() -> None:
    """Note that torch computes in this process from now on."""
    _PROCESS.computed = True


def may_compute() -> bool:
    """Whether torch can compute here: not in a process that was forked from one in which it had."""
    return not _PROCESS.after


def _begin() -> None:
    _PROCESS.after = _PROCESS.after or _PROCESS.computed
    for lock in _LOCKS:
        # the standard library does this to its own locks
        cast("threading.Lock", lock)._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001
    for renew in _RENEWED:
        renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
