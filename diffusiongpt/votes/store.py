"""The vote store: votes and ratings, append-only with retractions; an acknowledged vote is never lost."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffusiongpt.errors import VoteError
from diffusiongpt.files import expand_home, remove_file
from diffusiongpt.votes.vote import EMPTY, Changes, Entry, Rating, Undo, Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from diffusiongpt.settings import Settings
    from diffusiongpt.votes.database import Database
    from diffusiongpt.votes.delivery import Delivery, QueueState
    from diffusiongpt.votes.published import Published


FILE_URL = "sqlite:///"

BUSY_SECONDS = 30.0
"""How long a write waits for another process that is writing."""


class Tally(NamedTuple):
    """Numbers of votes and ratings."""

    votes: int
    ratings: int

    def __str__(self) -> str:
        """Text such as "1 vote and 3 ratings"."""
        return f"{self.votes} vote{'s' * (self.votes != 1)} and {self.ratings} rating{'s' * (self.ratings != 1)}"


class Queued(NamedTuple):
    """Votes and ratings that wait for a server.

    Attributes:
        entries: In the order in which they were said.
        last: Number of the last of them.
        retractions: How many retractions wait.
    """

    entries: tuple[Vote | Rating, ...] = ()
    last: int = 0
    retractions: int = 0


class VoteStore:
    """All votes and ratings, in an SQLite file or a PostgreSQL database.

    A store that does not exist reads as empty; the first vote makes the file and its folder. A store of an older
    version is read as it is, and migrated by the next vote. Threads and processes may share a store, also across a
    fork.

    What a database server cannot take now waits in a file of this machine, and is recorded when it can; see `Delivery`.

    Args:
        place: File of the store, or a database URL such as `postgresql+psycopg://user@host/name`. `None` uses the one
            in `DIFFUSIONGPT_VOTES`, else `votes.db` in the user's data folder.
        make_folder: Whether the first vote makes the folder of the file, as it does for the user's own store.
        busy_seconds: How long to wait for another process that is writing.
        queue_folder: Where votes wait for a server; `None` for the user's data folder.

    Raises:
        VoteError: If the folder of the file does not exist and is not to be made.
    """

    def __init__(
        self,
        place: str | Path | None = None,
        *,
        make_folder: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        queue_folder: Path | None = None,
    ) -> None:
        self._busy_seconds = busy_seconds
        self._queue_folder = queue_folder
        own_folder = make_folder or place is None
        place = place if place is not None else _own_place()
        if isinstance(place, str) and place.startswith(FILE_URL) and "?" not in place:
            place = place.removeprefix(FILE_URL)
        if isinstance(place, str) and "://" in place:
            self.place: str | Path = place
            return
        self.place = expand_home(place)
        if not own_folder and not self.place.parent.is_dir():
            raise VoteError(
                f"cannot keep votes in {self.place}: the folder {self.place.parent} does not exist",
                hint="Make the folder, or name another file.",
            )

    @classmethod
    def own(cls, settings: Settings) -> VoteStore:
        """The store that the settings name, or the user's own, whose folder is made by the first vote.

        Raises:
            VoteError: If the folder of the file that the settings name does not exist.
        """
        return cls.at(None, settings)

    @classmethod
    def at(cls, place: str | Path | None, settings: Settings) -> VoteStore:
        """The store at a place, with the other settings of the user; their own for `None`.

        Raises:
            VoteError: If the folder of the file does not exist.
        """
        own = place is None and settings.votes is None
        return cls(settings.votes_place if place is None else place, make_folder=own, queue_folder=settings.home)

    def __repr__(self) -> str:
        return f"VoteStore({self._database.name if self._is_url else str(self.place)!r})"

    def add(self, entry: Entry) -> Entry:
        """Record a vote or a rating; when this returns, it is on disk, be it in the queue; see `is_queued`.

        Returns:
            The vote or rating.

        Raises:
            VoteError: If the store cannot be written, or already has an entry with that id.
        """
        self._make_folder()
        self._recorder.insert(entry)
        return entry

    def merge(
        self, entries: Sequence[Vote | Rating], name: Callable[[Vote | Rating], str] = lambda entry: entry.id
    ) -> Tally:
        """Record the votes and ratings that the store does not have yet: all of them, or none.

        An entry whose id is recorded stays as it is, also if it was retracted since.

        Args:
            entries: Votes and ratings, in the order to record them.
            name: Names an entry in errors, for example by its line in a file.

        Returns:
            How many were new.

        Raises:
            VoteError: If the store cannot be written, or has a different entry with the same id.
        """
        if not entries:
            return Tally(0, 0)
        self._make_folder()
        new = self._database.merge(entries, name)
        votes = sum(isinstance(entry, Vote) for entry in new)
        return Tally(votes, len(new) - votes)

    def retract(self, entry_id: str) -> Vote | Rating | Undo:
        """Retract a vote or a rating; it stays in the store but no longer counts.

        Returns:
            The vote or rating that was retracted; an `Undo` if that waits for the server, and which it is is not known
            here.

        Raises:
            VoteError: If there is no such vote, or it was retracted before.
        """
        self._check_exists(f"the vote {entry_id!r} does not exist")
        return self._recorder.retract(entry_id)

    def undo(self, voter: str = "me") -> Vote | Rating | Undo:
        """Retract the last vote or rating of a voter that still counts.

        Returns:
            The vote or rating that was retracted; an `Undo` if that waits for the server, and which it is is not known
            here.

        Raises:
            VoteError: If the voter has none.
        """
        self._check_exists(f"{voter!r} has no vote to undo")
        return self._recorder.undo(voter)

    def counts(self, entry_id: str) -> bool:
        """Whether a vote or a rating counts, or will when it has been sent.

        Raises:
            VoteError: If the store cannot be read, and the queue does not know.
        """
        if self._delivery is not None:
            if self._delivery.outbox.retracts(entry_id):
                return False
            if self._delivery.outbox.holds(entry_id):
                return True
        return self._exists and self._database.holds(entry_id)

    def is_queued(self, said: Vote | Rating | Undo) -> bool:
        """Whether a vote or a rating, or what takes it back, waits for the server of the store."""
        return isinstance(said, Undo) or (self._delivery is not None and self._delivery.keeps(said.id))

    def queued(self, after: int, most: int) -> Queued:
        """Votes and ratings that wait for the server and are not retracted, in their order.

        Args:
            after: The number after which to begin, at least 0.
            most: How many at most.

        Raises:
            VoteError: If the queue cannot be read.
        """
        if self._delivery is None:
            return Queued()
        from diffusiongpt.votes.outbox import sound

        outbox = self._delivery.outbox
        messages = outbox.entries(after, most)
        return Queued(tuple(sound(messages)), messages[-1].number if messages else after, outbox.retractions())

    def queue(self) -> QueueState | None:
        """What waits on this machine for the server of the store; `None` for a file, for which nothing has to wait.

        Raises:
            VoteError: If the queue cannot be read.
        """
        return self._delivery.state() if self._delivery is not None else None

    def flush(self, seconds: float) -> bool:
        """Wait until what waits for the server was sent, a try has failed, or the time is over; whether all was."""
        return self._delivery.flush(seconds) if self._delivery is not None else True

    def erase(self, voter: str) -> Tally:
        """Delete all votes and ratings of a voter, retracted or not, and their traces in the files of the store.

        Earlier copies are out of reach: exports, backups, and the log of a PostgreSQL server until it is recycled.

        Returns:
            How many votes and ratings were deleted.

        Raises:
            VoteError: If the store cannot be written, or another process reads it for too long.
        """
        if not self._exists:
            return Tally(0, 0)
        # Before the votes, because what waits must not arrive afterwards, and to free the space on a full disk that
        # deleting needs.
        if self._delivery is not None:
            self._delivery.outbox.erase(voter)
        self._remove_snapshot()
        try:
            return Tally(*self._database.erase(voter))
        finally:
            # After the votes: a process that writes a snapshot now checks afterwards that they are still there.
            self._remove_snapshot()

    def tally(self, voter: str) -> Tally:
        """Numbers of votes and ratings of a voter, including retracted ones and those that wait for the server."""
        if not self._exists:
            return Tally(0, 0)
        waiting = self._delivery.outbox.tally(voter) if self._delivery is not None else (0, 0)
        there = self._database.tally(voter)
        return Tally(there[0] + waiting[0], there[1] + waiting[1])

    def all(self) -> list[Vote]:
        """The votes that count, in the order they were recorded."""
        if not self._exists:
            return []
        from diffusiongpt.votes.journal import VOTES

        return self._database.counting(VOTES)

    def ratings(self) -> list[Rating]:
        """The ratings that count, in the order they were recorded."""
        if not self._exists:
            return []
        from diffusiongpt.votes.journal import RATINGS

        return self._database.counting(RATINGS)

    def shares(self) -> list[tuple[str, str, float]]:
        """Voter, source, and the weight of their votes and ratings that count."""
        return self._database.shares() if self._exists else []

    def latest(self, voter: str, most: int) -> tuple[list[Vote], list[Rating]]:
        """The latest votes and ratings of a voter that count, at most `most` of each."""
        return self._database.latest(voter, most) if self._exists else ([], [])

    def count(self) -> int:
        """Number of votes that count."""
        return self._database.count() if self._exists else 0

    @property
    def is_begun(self) -> bool:
        """Whether there is a file of votes, or a server that may have some.

        Raises:
            VoteError: If the folder of the file may not be entered.
        """
        return self._exists

    @property
    def version(self) -> str:
        """A text that changes with the votes and ratings that count, also through another process; cheap to read."""
        return self._database.version() if self._exists else EMPTY

    def since(self, version: str) -> Changes:
        """The changes since a `version` of this store; reads no more than was added.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._database.since(version) if self._exists else Changes(intact=version == EMPTY)

    @property
    def imported(self) -> Path | None:
        """File next to the store with an imported ranking table; `None` for a database server."""
        return self.place.with_name(f"{self.place.name}.imported.npz") if isinstance(self.place, Path) else None

    @property
    def snapshot(self) -> Path | None:
        """File next to the store with the ranking table learnt from it; `None` for a database server.

        It contains prompts, so `erase` removes it.
        """
        return self.place.with_name(f"{self.place.name}.ranking.npz") if isinstance(self.place, Path) else None

    @property
    def is_shared(self) -> bool:
        """Whether it is in PostgreSQL, where one process learns a table for all; else it is next to the file."""
        return isinstance(self.place, str) and self._database.is_shared

    def published(self, name: str) -> Published | None:
        """What is known of the table that a process has published under a name.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._database.published(name)

    def published_table(self, name: str, most_bytes: int, into: IO[bytes]) -> int | None:
        """Write that table into a file.

        Returns:
            Its bytes, of which nothing is written if they are more than `most_bytes`; `None` without a table.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._database.published_table(name, most_bytes, into)

    def publish(self, name: str, seen: str, size: int, data: bytes) -> bool:
        """Publish a table that was learnt from the store; `erase` removes it, because it contains prompts.

        Args:
            name: Under which others find it.
            seen: Version of the store that it was learnt from.
            size: Votes and ratings that it has learnt from.
            data: The table.

        Returns:
            Whether it was published: not if a voter was erased in the meantime.

        Raises:
            VoteError: If the store cannot be written.
        """
        return self._database.publish(name, seen, size, data)

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """Take the turn at learning the table of a name, until the end of the block or of this process.

        Returns:
            A context that gives whether it is this process's turn; it does not wait for that of another.

        Raises:
            VoteError: If the store cannot be reached.
        """
        return self._database.turn(name)

    @property
    def name(self) -> str:
        """Where the votes are, for messages; without a password."""
        if isinstance(self.place, Path):
            return str(self.place)
        return self._database.name

    def prepare(self) -> None:
        """Load what it takes to read the store, without reading it, and have sent what waits for its server.

        Raises:
            SettingsError: If the URL is not valid.
            NeedsExtraError: If its driver is not installed.
        """
        with suppress(VoteError):  # reading reports that the folder may not be entered
            if self._exists:
                _ = self._database
                if self._delivery is not None:
                    self._delivery.look()

    def close(self) -> None:
        """Close database connections; the store opens new ones if it is used again."""
        delivery = self.__dict__.get("_delivery")
        if delivery is not None:
            delivery.close()
        if "_database" in self.__dict__:
            self._database.close()

    def _remove_snapshot(self) -> None:
        if self.snapshot is not None:
            remove_file(self.snapshot)

    @cached_property
    def _database(self) -> Database:
        # SQLAlchemy takes longer to import than a route takes to make, and without votes it is not needed
        from diffusiongpt.votes.database import Database

        return Database(self.place, self._busy_seconds)

    @cached_property
    def _delivery(self) -> Delivery | None:
        """How votes reach a server; a file is written at once."""
        if not isinstance(self.place, str) or not self._database.is_server:
            return None
        from diffusiongpt.votes.delivery import Delivery
        from diffusiongpt.votes.outbox import Outbox

        folder = self._queue_folder if self._queue_folder is not None else _own_home()
        return Delivery(self._database, Outbox(folder / f"votes-{self._database.key}.outbox.db"))

    @property
    def _recorder(self) -> Delivery | Database:
        return self._delivery or self._database

    @property
    def _is_url(self) -> bool:
        return isinstance(self.place, str)

    @property
    def _exists(self) -> bool:
        try:
            return not isinstance(self.place, Path) or self.place.exists()
        except PermissionError as error:
            raise VoteError(
                f"cannot read votes at {self.place}: {error.strerror}", hint="Name a file that you may read."
            ) from error

    def _check_exists(self, problem: str) -> None:
        if not self._exists:
            raise VoteError(problem, hint=f"There are no votes at {self.place} yet.")

    def _make_folder(self) -> None:
        if not isinstance(self.place, Path):
            return
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VoteError(
                f"cannot make the folder of {self.place}: {error.strerror}",
                hint="Set DIFFUSIONGPT_HOME to a folder that you may write to.",
            ) from error


def _own_home() -> Path:
    from diffusiongpt.settings import load_settings

    return load_settings().home


def _own_place() -> str | Path:
    from diffusiongpt.settings import load_settings

    return load_settings().votes_place
