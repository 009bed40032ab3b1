"""Seconds of a process, without those in which it could have run and got no processor."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns, sleep

EVERY_S = 0.05
"""How often a process is looked at: of a thread that ends, what it waited since the last look is not known."""


class Clock:
    """What an attack took as if nothing else ran on the machine.

    A limit of seconds must hold on a machine that builds something at the same time, and loosening it would let real
    hangs through. Linux counts for each thread how long it could have run and got no processor; that time is taken
    off. Time asleep, as on a lock or a server that drips, and time spent computing count in full. Threads that keep
    each other from a processor are not told apart from other programs, so measure the processors' time as well. Where
    the system does not count it, this is an ordinary clock.

    Args:
        pid: Id of the process; by default this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._tasks = Path(f"/proc/{pid or os.getpid()}/task")
        self._own_threads: set[int] = set()
        self._lock = threading.Lock()
        self._last = self._counts()
        self._held_up: list[tuple[int, int]] = []
        self._held_up_ns = 0

    def start(self) -> Clock:
        """Look at the process from now on, in a thread that ends with this process."""
        threading.Thread(target=self._watch, daemon=True, name="clock of attacks").start()
        return self

    def __call__(self) -> float:
        """Seconds since some moment; only differences mean anything."""
        with self._lock:
            now, passed = self._counts(), monotonic_ns()
            waited = max((0, *(waits - self._last.get(one, 0) for one, waits in now.items())))
            self._take_off(passed - waited, passed)
            self._last = now
            return (passed - self._held_up_ns) / 1e9

    def _take_off(self, start: int, end: int) -> None:
        """Count a time in which a thread was held up: once, even if others were at the same time."""
        while self._held_up and self._held_up[-1][1] >= start:
            before, until = self._held_up.pop()
            self._held_up_ns -= until - before
            start = min(start, before)
        self._held_up.append((start, end))
        self._held_up_ns += end - start

    def _counts(self) -> dict[int, int]:
        """Nanoseconds that each thread waited for a processor."""
        found = {}
        with suppress(OSError):
            for task in self._tasks.iterdir():
                with suppress(OSError, ValueError):
                    if int(task.name) not in self._own_threads:
                        found[int(task.name)] = int((task / "schedstat").read_text().split()[1])
        return found

    def _watch(self) -> None:
        self._own_threads.add(threading.get_native_id())
        while True:
            self()
            sleep(EVERY_S)


CLOCK = Clock()
"""That of this process, for limits within attacks; `benchmarks/hostile.py` starts it."""
