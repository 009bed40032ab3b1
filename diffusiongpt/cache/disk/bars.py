"""Real download progress out of the hub client, which speaks of it only through tqdm bars."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from diffusiongpt.cache.flight import AbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Counter:
    """Bytes so far; the client counts those received and those written on two bars, of which some stay at zero."""

    def __init__(self, total: int, tell: Callable[[int, int], None]) -> None:
        self._total = total
        self._tell = tell
        self._best = 0
        self._lock = threading.Lock()

    def count(self, done: int) -> None:
        with self._lock:
            if done <= self._best:
                return
            self._best = done
        self._tell(min(done, self._total), self._total)


def progress_bar_class(total: int, tell: Callable[[int, int], None], stop: Callable[[], bool]) -> type[Any]:
    """A class for `tqdm_class=` that shows nothing and tells bytes.

    Args:
        total: Bytes to come.
        tell: Called with bytes done and `total`.
        stop: Asked at every update; when true the download is given up with `AbandonedError`.
    """
    from tqdm.std import tqdm

    counter = _Counter(total, tell)

    class Bar(tqdm):  # type: ignore[misc]  # tqdm is untyped
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._is_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if stop():
                raise AbandonedError
            self.n += n or 0
            if self._is_bytes:
                counter.count(int(self.n))

    return Bar
