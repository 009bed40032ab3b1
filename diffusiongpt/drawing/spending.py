"""What services may cost: limits for a picture, a request and a day, which hold whatever happens.

Money is set aside in the user's own record before a service is asked, and settled afterwards. What was set aside by a
process that was killed stays counted: its picture may have been billed. The record is one small SQLite file, whose
transactions threads and processes share.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.backends import never_bills
from diffusiongpt.errors import DrawError, SpendLimitError

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


FILE_NAME = "spending.db"

_WAIT_S = 10.0
"""Seconds to wait for another process that writes the record; one write takes milliseconds."""

_TABLE = """CREATE TABLE IF NOT EXISTS spending (
    id INTEGER PRIMARY KEY, day TEXT NOT NULL, expert TEXT NOT NULL, microdollars INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0
)"""


class Spending:
    """The limits of a user, and the record of what was spent.

    Args:
        settings: The limits, and the folder of the user's data.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._path = Path(settings.home) / FILE_NAME

    def run(self, max_price: float = 0.0) -> Run:
        """One request: with all its pictures and all candidates that are tried, it shares a limit.

        Args:
            max_price: US dollars that it allows for a picture.
        """
        return Run(self, max_price)

    def today(self) -> float:
        """US dollars that were spent or set aside on this day, in UTC."""
        with self._transaction() as record:
            return _sum(record) / 1e6

    def price_of(self, expert: Expert, max_price: float) -> float | None:
        """What one picture of an expert counts as, in US dollars; `None` if that is not known.

        A zoo file that says "0" may be a stranger's: such a picture counts as the highest price that the user allows,
        unless the backend itself or the user's settings say that it costs nothing.

        Args:
            expert: The hosted expert.
            max_price: What the request allows for a picture.
        """
        if is_free(expert, self.settings):
            return 0.0
        stated = expert.price.usd if expert.price else 0.0
        return stated or (max_price if 0 < max_price < inf else None)

    def set_aside(self, microdollars: int, expert: str) -> int:
        """Set money aside for today.

        Returns:
            The number of the entry.

        Raises:
            SpendLimitError: If that would cross the limit of the day, or the record cannot be written.
        """
        limit = self.settings.spend_per_day
        with self._transaction() as record:
            spent = _sum(record)
            if (spent + microdollars) / 1e6 > limit:
                raise SpendLimitError(
                    f"the spend limit of a day is ${limit:g}, and ${spent / 1e6:g} of it is spent or set aside",
                    hint="Set DIFFUSIONGPT_SPEND_PER_DAY to a higher number of US dollars, or wait for the next day.",
                )
            entry = record.execute(
                "INSERT INTO spending (day, expert, microdollars) VALUES (?, ?, ?)", (_today(), expert, microdollars)
            )
            return int(entry.lastrowid or 0)

    def settle(self, entry: int, microdollars: int) -> None:
        """Say how much of what was set aside was spent, or how much more; the rest is free again."""
        with self._transaction() as record:
            if microdollars:
                record.execute("UPDATE spending SET settled = 1, microdollars = ? WHERE id = ?", (microdollars, entry))
            else:
                record.execute("DELETE FROM spending WHERE id = ?", (entry,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Whoever is in the block is alone in the record; without it, nothing may be spent."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as record:
                record.execute("BEGIN IMMEDIATE")
                record.execute(_TABLE)
                try:
                    yield record
                except BaseException:  # also after a Ctrl-C
                    record.execute("ROLLBACK")
                    raise
                record.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise SpendLimitError(
                f"the record of spending {self._path} cannot be used: {error}",
                hint="Make it writable, or move it away if it is damaged; without it no service is asked.",
            ) from error


class Run:
    """What one request may still cost; thread-safe.

    Args:
        spending: The limits and the record.
        max_price: US dollars that it allows for a picture.
    """

    def __init__(self, spending: Spending, max_price: float) -> None:
        self._spending = spending
        self._max_price = max_price
        self._lock = threading.Lock()
        self._spent = 0

    def meter(self, expert: Expert) -> ExpertMeter:
        """The meter of one hosted expert in this request."""
        return ExpertMeter(self, expert.id, self._spending.price_of(expert, self._max_price))

    @contextmanager
    def paying(self, expert: str, price: float | None, pictures: int) -> Iterator[OneBill]:
        """See `Meter.paying`."""
        settings = self._spending.settings
        limits = (settings.spend_per_picture, settings.spend_per_run, settings.spend_per_day)
        if price is None:
            if min(limits) < inf:
                raise SpendLimitError(
                    f"what {expert} costs is not known, so no spend limit can be kept",
                    hint="Write its price into a zoo file of your own, or list it in DIFFUSIONGPT_FREE_EXPERTS if it "
                    "costs nothing.",
                )
            price = 0.0
        if price > settings.spend_per_picture:
            raise SpendLimitError(
                f"a picture of {expert} costs about ${price:g}, and the spend limit of a picture is "
                f"${settings.spend_per_picture:g}",
                hint="Set DIFFUSIONGPT_SPEND_PER_PICTURE to a higher number of US dollars.",
            )
        bill = OneBill(_microdollars(price * pictures))
        amount = bill.microdollars
        if amount == 0:
            yield bill
            return
        self._set_aside(amount, settings.spend_per_run)
        try:
            entry = self._spending.set_aside(amount, expert)
        except BaseException:  # also after a Ctrl-C
            self._give_back(amount)
            raise
        try:
            yield bill
        except DrawError as error:
            if error.unbilled:
                self._spending.settle(entry, 0)
                self._give_back(amount)
            raise
        # an entry that was not settled counts like one that was
        self._spending.settle(entry, bill.microdollars)
        self._give_back(amount - bill.microdollars)

    def _set_aside(self, amount: int, limit: float) -> None:
        with self._lock:
            if (self._spent + amount) / 1e6 > limit:
                raise SpendLimitError(
                    f"the spend limit of a request is ${limit:g}, and ${self._spent / 1e6:g} of it is spent",
                    hint="Ask for fewer pictures, or set DIFFUSIONGPT_SPEND_PER_RUN to a higher number of US dollars.",
                )
            self._spent += amount

    def _give_back(self, amount: int) -> None:
        with self._lock:
            self._spent -= amount


class OneBill:
    """What one request costs; see `Bill`.

    Args:
        microdollars: What was set aside for it.
    """

    def __init__(self, microdollars: int) -> None:
        self.microdollars = microdollars

    def amounts_to(self, usd: float) -> None:
        """See `Bill.amounts_to`; a service that says it charged nothing is not believed."""
        if 0 < usd < inf:
            self.microdollars = _microdollars(usd)


class ExpertMeter:
    """Counts what one expert costs in one request; see `Meter`.

    Args:
        run: The request.
        expert: Id of the expert.
        price: US dollars that one picture counts as; `None` if that is not known.
    """

    def __init__(self, run: Run, expert: str, price: float | None) -> None:
        self._run = run
        self._expert = expert
        self._price = price

    @contextmanager
    def paying(self, pictures: int) -> Iterator[OneBill]:
        """See `Meter.paying`."""
        with self._run.paying(self._expert, self._price, pictures) as bill:
            yield bill


def _microdollars(usd: float) -> int:
    return ceil(round(usd * 1e6, 3))


def is_free(expert: Expert, settings: Settings) -> bool:
    """Whether a hosted expert costs nothing: by its backend's own word, or by the user's settings."""
    return never_bills(expert.backend) or bool({expert.id, expert.backend} & settings.free)


def _sum(record: sqlite3.Connection) -> int:
    """Microdollars of today, and of days to come: a clock that was set back frees nothing."""
    found = record.execute("SELECT coalesce(sum(microdollars), 0) FROM spending WHERE day >= ?", (_today(),))
    return int(found.fetchone()[0])


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
