"""Progress bars on stderr, on a terminal only."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_LABELS = {"download": "pulling", "load": "loading", "draw": "drawing"}


class Progress:
    """One bar a phase; a new phase replaces the last one's bar."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
        )
        self._bars = RichProgress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._phase = ""
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bars.stop()

    def update(self, phase: str, done: int, total: int | None) -> None:
        """Show how far a phase is."""
        if phase != self._phase or self._task is None:
            self._start(phase)
        if self._task is not None:
            amount = f"{done / 1e6:.1f} MB" if phase == "download" else f"{done}/{total}" if total else ""
            self._bars.update(self._task, completed=done, total=total, amount=amount)
            if total and done >= total:
                self._bars.stop()
                self._phase = ""

    def _start(self, phase: str) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._phase = phase
        self._task = self._bars.add_task(_LABELS.get(phase, phase), amount="", total=None)
        self._bars.start()
