"""Figures, with the values they should reach."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_VERDICTS = ("reaches the goal", "reaches the floor", "BELOW THE FLOOR")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        measure: Description of the quantity.
        figure: Its value; `None` where it could not be measured.
        unit: Unit of the value.
        floor: The value that it must reach; `None` if it is reported for information only.
        goal: The value that it should reach.
        more: Whether more is better, rather than less.
        digits: Digits after the decimal point of floor and goal; the figure is compared at this precision.
        note: A remark to print with it.
    """

    measure: str
    figure: float | None
    unit: str = ""
    floor: float | None = None
    goal: float | None = None
    more: bool = False
    digits: int = 2
    note: str = ""

    @property
    def verdict(self) -> str:
        """How it compares with floor and goal, as text."""
        if self.figure is None:
            return "not measured"
        if self.floor is None:
            return "reported"
        sign = -1 if self.more else 1
        figure, goal = round(self.figure, self.digits) * sign, (self.floor if self.goal is None else self.goal) * sign
        return _VERDICTS[0] if figure <= goal else _VERDICTS[1] if figure <= self.floor * sign else _VERDICTS[2]

    def __str__(self) -> str:
        def shown(number: float | None) -> str:
            return "-" if number is None else f"{number:,.4f}".rstrip("0").rstrip(".") + (self.unit and f" {self.unit}")

        line = (
            f"{self.measure:<58} {shown(self.figure):>14} {shown(self.floor):>9} {shown(self.goal):>9}  {self.verdict}"
        )
        return f"{line}; {self.note}" if self.note else line


def print_head() -> None:
    """The names of the columns."""
    print(f"\n{'measure':<58} {'figure':>14} {'floor':>9} {'goal':>9}  verdict")


def in_fresh_process(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run it in a separate process, whose memory holds nothing from earlier work."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()
