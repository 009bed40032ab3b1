"""Where votes and ratings are kept: append-only, with retractions; nothing acknowledged is ever lost."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffusiongpt.errors import VoteError
from diffusiongpt.files import remove_file
from diffusiongpt.votes.journal import EMPTY, News
from diffusiongpt.votes.vote import Entry, Rating, Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.votes.database import Database


FILE_URL = "sqlite:///"


class Tally(NamedTuple):
    """How many votes and ratings."""

    votes: int
    ratings: int

    def __str__(self) -> str:
        """Such as "1 vote and 3 ratings"."""
        return f"{self.votes} vote{'s' * (self.votes != 1)} and {self.ratings} rating{'s' * (self.ratings != 1)}"


class VoteStore:
    """All votes and ratings, in an SQLite file or a PostgreSQL database.

    A store that does not exist reads as empty; the file and its folder are made by the first vote. A store of
    an older version is read as it is, and brought up to date by the next vote.
    Threads and processes may share one, also across a fork.

    Args:
        place: File of the store, or a database URL such as `postgresql+psycopg://user@host/name`; absent, it
            is what `DIFFUSIONGPT_VOTES` names, else `votes.db` in the user's data folder.
        make_folder: Whether the first vote makes the folder of the file, as it does for the user's own.

    Raises:
        VoteError: If the folder of the file does not exist and is not to be made.
    """

    def __init__(self, place: str | Path | None = None, *, make_folder: bool = False) -> None:
        own_folder = make_folder or place is None
        place = place if place is not None else _own_place()
        if isinstance(place, str) and place.startswith(FILE_URL) and "?" not in place:
            place = place.removeprefix(FILE_URL)
        if isinstance(place, str) and "://" in place:
            self.place: str | Path = place
            return
        self.place = Path(place).expanduser()
        if not own_folder and not self.place.parent.is_dir():
            raise VoteError(
                f"cannot keep votes in {self.place}: there is no folder {self.place.parent}",
                hint="Make the folder, or name another place.",
            )

    def __repr__(self) -> str:
        return f"VoteStore({self._database.name if self._is_url else str(self.place)!r})"

    def add(self, entry: Entry) -> Entry:
        """Record a vote or a rating; when this returns, it is on disk.

        Returns:
            The vote or rating.

        Raises:
            VoteError: If the store cannot be written, or already has one of that id.
        """
        self._make_folder()
        self._database.insert(entry)
        return entry

    def merge(
        self, entries: Sequence[Vote | Rating], name: Callable[[Vote | Rating], str] = lambda entry: entry.id
    ) -> Tally:
        """Record those that the store does not have yet, all or none.

        One whose id is recorded is known, also if it was retracted since, and stays as it is.

        Args:
            entries: Votes and ratings, in the order to record them.
            name: What to call one in an error, such as its row in a file.

        Returns:
            How many were new.

        Raises:
            VoteError: If the store cannot be written, or has one of the same id that says something else.
        """
        if not entries:
            return Tally(0, 0)
        self._make_folder()
        new = self._database.merge(entries, name)
        votes = sum(isinstance(entry, Vote) for entry in new)
        return Tally(votes, len(new) - votes)

    def retract(self, entry_id: str) -> Vote | Rating:
        """Take a vote or a rating back; it stays in the store but no longer counts.

        Returns:
            What was retracted.

        Raises:
            VoteError: If there is no such vote, or it was retracted before.
        """
        self._check_exists(f"there is no vote {entry_id!r}")
        return self._database.retract(entry_id)

    def undo(self, voter: str = "me") -> Vote | Rating:
        """Retract the last vote or rating of a voter that still counts.

        Returns:
            What was retracted.

        Raises:
            VoteError: If the voter has none.
        """
        self._check_exists(f"{voter!r} has no vote to undo")
        return self._database.undo(voter)

    def erase(self, voter: str) -> Tally:
        """Remove all that a voter ever said, retracted or not, and its traces in the files of the store.

        Out of reach are copies made before: exports, backups, and the log of a PostgreSQL server until it
        is recycled.

        Returns:
            How many votes and ratings were removed.

        Raises:
            VoteError: If the store cannot be written, or another process reads it for too long.
        """
        if not self._exists:
            return Tally(0, 0)
        try:
            return Tally(*self._database.erase(voter))
        finally:
            # After the votes: whoever writes one now looks whether they are still there, and removes it if not.
            if self.snapshot is not None:
                remove_file(self.snapshot)

    def tally(self, voter: str) -> Tally:
        """How many votes and ratings of a voter there are, retracted ones too."""
        return Tally(*self._database.tally(voter)) if self._exists else Tally(0, 0)

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
        """Voter, source, and how many votes and ratings that is; what was taken back does not count."""
        return self._database.shares() if self._exists else []

    def latest(self, voter: str, most: int) -> tuple[list[Vote], list[Rating]]:
        """The latest of a voter's votes and ratings that count, so many of each at most."""
        return self._database.latest(voter, most) if self._exists else ([], [])

    def count(self) -> int:
        """How many votes count."""
        return self._database.count() if self._exists else 0

    @property
    def version(self) -> str:
        """Changes whenever the votes or ratings that count do, also through another process; cheap to ask for."""
        return self._database.version() if self._exists else EMPTY

    def since(self, version: str) -> News:
        """What has happened since a `version` of this store; reads no more than was added.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._database.since(version) if self._exists else News(kept=version == EMPTY)

    @property
    def imported(self) -> Path | None:
        """File beside the store with the table of others that one starts from; `None` for a database server."""
        return self.place.with_name(f"{self.place.name}.imported.npz") if isinstance(self.place, Path) else None

    @property
    def snapshot(self) -> Path | None:
        """File beside the store that keeps the table learnt from it; `None` for a database server.

        It holds texts of prompts, so `erase` removes it.
        """
        return self.place.with_name(f"{self.place.name}.ranking.npz") if isinstance(self.place, Path) else None

    def close(self) -> None:
        """Let go of database connections; the store opens new ones if it is used again."""
        if "_database" in self.__dict__:
            self._database.close()

    @cached_property
    def _database(self) -> Database:
        # SQLAlchemy takes longer to import than a route takes to make; nobody without votes pays for it.
        from diffusiongpt.votes.database import Database

        return Database(self.place)

    @property
    def _is_url(self) -> bool:
        return isinstance(self.place, str)

    @property
    def _exists(self) -> bool:
        try:
            return not isinstance(self.place, Path) or self.place.exists()
        except PermissionError as error:
            raise VoteError(
                f"cannot read votes at {self.place}: {error.strerror}", hint="Name a place you may read."
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
                hint="Name a place you may write to; DIFFUSIONGPT_HOME sets the folder of your data.",
            ) from error


def _own_place() -> str | Path:
    from diffusiongpt.settings import load_settings

    return load_settings().votes_place
