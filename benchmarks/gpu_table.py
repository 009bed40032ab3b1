"""The table of `gpu.py`: its rows, the time that is left for them, and how it is printed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from gpu_swap import _name, _versions

from diffusiongpt.backends.diffusers import DiffusersBackend

STEPS = 10
NEEDS_A_CARD = "needs a card"


@dataclass(frozen=True)
class Row:
    """One line of the table; the mark is empty where nothing is asked for."""

    what: str
    found: str
    asked: str = ""
    mark: str = ""


class Bench:
    """The rows, and the time that is left.

    Args:
        device: Where to draw.
        scale: Size of modules, as a share of the real ones.
        budget_s: Seconds after which no further step begins.
    """

    def __init__(self, device: str, scale: float, budget_s: float) -> None:
        self.device = device
        self.scale = scale
        self.is_cuda = device.startswith("cuda")
        self.steps, self.side = (STEPS, 1024) if self.is_cuda else (1, 128)
        self.small_bytes = round(DiffusersBackend().small_bytes * scale)
        self.rows: list[Row] = []
        self._end = monotonic() + budget_s

    def step(self, what: str, work: Callable[[], Iterator[Row]]) -> None:
        """Run a step; nothing that goes wrong in it stops the next one."""
        if monotonic() > self._end:
            self.rows.append(Row(what, "no time left", "", "not run"))
            return
        start = monotonic()
        try:
            self.rows += work()
        except Exception as error:  # noqa: BLE001  # the table is to be whole, whatever fails on an unknown machine
            self.rows.append(Row(what, f"{type(error).__name__}: {str(error)[:120]}", "", "FAIL"))
        gc.collect()
        if self.is_cuda:
            import torch

            torch.cuda.empty_cache()
        print(f"{what}: {monotonic() - start:.1f} s", file=sys.stderr)

    def judged(self, what: str, found: str, asked: str, passed: bool | None) -> Row:
        """A row with its mark; `None` for what cannot be judged without a card."""
        return Row(what, found, asked, NEEDS_A_CARD if passed is None else "pass" if passed else "FAIL")


def report(bench: Bench) -> str:
    """Markdown: the machine, and the table."""
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d}, {_name(bench.device)}",
        "",
        f"{_versions()}; `python benchmarks/gpu.py`{'' if bench.scale == 1 else f', scale {bench.scale:g}'}.",
        "",
        "| what | found | asked for | mark |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.found} | {row.asked} | {row.mark} |" for row in bench.rows),
    ]
    return "\n".join(lines)
