"""Where votes are kept: append-only, with retractions; nothing acknowledged is ever lost."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import VoteError

if TYPE_CHECKING:
    from diffusiongpt.preferences.database import Database
    from diffusiongpt.preferences.votes import Vote

EMPTY = "0"
"""`VoteStore.version` of a store without votes."""


class VoteStore:
    """All votes, in an SQLite file or any database SQLAlchemy has a URL for.

    A store that does not exist reads as empty; the file and its folder are made by the first vote.
    Threads and processes may share one.

    Args:
        place: File of the store, or a database URL such as `postgresql+psycopg://...`; absent, it is
            `votes.db` in the user's data folder.
        make_folder: Whether the first vote makes the folder of the file, as it does for the user's own.

    Raises:
        VoteError: If the folder of the file does not exist and is not to be made.
    """

    def __init__(self, place: str | Path | None = None, *, make_folder: bool = False) -> None:
        self._own_folder = make_folder or place is None
        if isinstance(place, str) and "://" in place:
            self.place: str | Path = place
            return
        self.place = Path(place).expanduser() if place is not None else _own_place()
        if not self._own_folder and not self.place.parent.is_dir():
            raise VoteError(
                f"cannot keep votes in {self.place}: there is no folder {self.place.parent}",
                hint="Make the folder, or name another place.",
            )

    def __repr__(self) -> str:
        return f"VoteStore({self._database.name if self._is_url else str(self.place)!r})"

    def add(self, vote: Vote) -> Vote:
        """Record a vote; when this returns, it is on disk.

        Returns:
            The vote.

        Raises:
            VoteError: If the store cannot be written, or already has a vote of that id.
        """
        self._make_folder()
        self._database.insert(vote)
        return vote

    def retract(self, vote_id: str) -> Vote:
        """Take a vote back; it stays in the store but no longer counts.

        Returns:
            The vote that was retracted.

        Raises:
            VoteError: If there is no such vote, or it was retracted before.
        """
        self._check_exists(f"there is no vote {vote_id!r}")
        return self._database.retract(vote_id)

    def undo(self, voter: str = "me") -> Vote:
        """Retract the last vote of a voter that still counts.

        Returns:
            The vote that was retracted.

        Raises:
            VoteError: If the voter has none.
        """
        self._check_exists(f"{voter!r} has no vote to undo")
        return self._database.undo(voter)

    def all(self) -> list[Vote]:
        """The votes that count, in the order they were recorded."""
        return self._database.votes() if self._exists else []

    def count(self) -> int:
        """How many votes count."""
        return self._database.count() if self._exists else 0

    @property
    def version(self) -> str:
        """Changes whenever the set of votes does, also through another process; cheap to ask for."""
        return self._database.version() if self._exists else EMPTY

    def close(self) -> None:
        """Let go of database connections; the store opens new ones if it is used again."""
        if "_database" in self.__dict__:
            self._database.close()

    @cached_property
    def _database(self) -> Database:
        # SQLAlchemy takes longer to import than a route takes to make; nobody without votes pays for it.
        from diffusiongpt.preferences.database import Database

        return Database(self.place)

    @property
    def _is_url(self) -> bool:
        return isinstance(self.place, str)

    @property
    def _exists(self) -> bool:
        return not isinstance(self.place, Path) or self.place.exists()

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


def _own_place() -> Path:
    from diffusiongpt.settings import load_settings

    return load_settings().home / "votes.db"
