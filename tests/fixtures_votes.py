"""Vote stores to test, in a file and in a database server, and processes that write to them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import postgres
import pytest

from diffusiongpt.votes import Rating, Shown, Vote, VoteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def database_server() -> Iterator[postgres.PostgresServer]:
    """A PostgreSQL server."""
    binaries = postgres.server_folder()
    if binaries is None:
        pytest.skip(postgres.MISSING)
    from diffusiongpt.votes import delivery

    # a busy machine must not look like a server that hangs; tests of one that does set it back
    known, delivery.PATIENCE_S = delivery.PATIENCE_S, 60.0
    with postgres.PostgresServer(binaries) as running:
        yield running
    delivery.PATIENCE_S = known


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report in one line the tests that were skipped without a server."""
    left_out = [r for r in terminalreporter.stats.get("skipped", []) if postgres.MISSING in str(r.longrepr)]
    if left_out:
        terminalreporter.write_line(f"{len(left_out)} tests left out: {postgres.MISSING}", yellow=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path | str]:
    """Creates new places for a store: files, and databases on a server."""
    if request.param == "sqlite":
        numbers = itertools.count()
        return lambda: tmp_path / f"votes{next(numbers)}.db"
    running: postgres.PostgresServer = request.getfixturevalue("database_server")
    return running.new_database


@pytest.fixture
def place(new_place: Callable[[], Path | str]) -> Path | str:
    """A place for a store."""
    return new_place()


@pytest.fixture
def open_store(place: Path | str) -> Iterator[Callable[[], VoteStore]]:
    """Opens the store at its place again, as another process would."""
    opened: list[VoteStore] = []

    def open_one() -> VoteStore:
        opened.append(VoteStore(place))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], VoteStore]) -> VoteStore:
    """An empty store."""
    return open_store()


def vote(winner: str | None = "a", *experts: str, **fields: Any) -> Vote:
    """A vote for the winner, or a tie."""
    shown = tuple(Shown(expert=expert, propensity=0.5, seed=7) for expert in experts or ("a", "b"))
    prompt = fields.pop("prompt", "a fox")
    return Vote(prompt=prompt, shown=shown, outcome="win" if winner else "tie", winner=winner, **fields)


def rating(value: float = 4, expert: str = "a", **fields: Any) -> Rating:
    """A rating."""
    return Rating(**{"prompt": "a fox", **fields}, expert=expert, rating=value)


def child(code: str, *arguments: object, stdin: bool = False) -> subprocess.Popen[str]:
    """Run code in another Python process, with `VoteStore`, `vote`, `rating` and `sys` imported."""
    prelude = (
        "import os, sys, signal, time\n"
        "import diffusiongpt.ranking.live\n"
        "import diffusiongpt.votes.delivery\n"
        "diffusiongpt.votes.delivery.PATIENCE_S = 60\n"
        "from diffusiongpt.votes.store import VoteStore\n"
        "from diffusiongpt.votes.vote import Rating, Shown, Vote\n"
        "shown = (Shown(expert='a'), Shown(expert='b'))\n"
        "def vote(**f): return Vote(prompt='a fox', shown=shown, outcome='win', winner='a', **f)\n"
        "def rating(**f): return Rating(prompt='a fox', expert='a', rating=4, **f)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )


def finish(process: subprocess.Popen[str], says: str | None = None) -> tuple[str, str]:
    """Wait for a process, after some input; return its stdout and stderr."""
    out, err = process.communicate(says, timeout=120)
    return out, err
