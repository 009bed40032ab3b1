"""Votes of several processes while their PostgreSQL is gone, and refits that are due once for all of them.

    python benchmarks/fleet_votes.py
    python benchmarks/fleet_votes.py --gone 10 --rounds 1     # shorter

A server is started here. Four processes vote, twenty times a second together, and make routes; then the server stops
answering (SIGSTOP) for a minute, or is killed with all its processes and started again after a minute; in the middle
one of the four is killed. A vote is lost if it was acknowledged and is not in the database at the end.

For refits, six processes make routes over a thousand votes, and two percent more are cast, so that all of them notice
that a refit is due.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import postgres

from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors
from diffusiongpt.votes import Shown, Vote, VoteStore

if TYPE_CHECKING:
    from collections.abc import Iterable

PRIORS = TagPriors({})
CALM_S = 8.0
"""Seconds of voting before the server is gone and after it is back."""

ROUTE_S = 0.5
"""Seconds between two routes of a process."""

NAMES = [f"e{number}" for number in range(20)]


def ballot(number: int, name: str) -> Vote:
    """A vote on a prompt of its own."""
    winner, loser = NAMES[number % 20], NAMES[(number * 7 + 3) % 20]
    shown = (Shown(expert=winner), Shown(expert=loser if loser != winner else "other"))
    return Vote(prompt=f"{name}, number {number}", shown=shown, outcome="win", winner=winner, voter=name)


class Member:
    """A process of the fleet, and what it has written down so far."""

    def __init__(self, folder: Path, name: str, task: str, url: str, *more: object) -> None:
        self.notes = folder / f"{name}.jsonl"
        command = [sys.executable, __file__, "--member", task, name, url, str(folder), *map(str, more)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def read(self) -> list[dict[str, Any]]:
        """Its notes; the last may have been cut off by a kill."""
        lines = self.notes.read_text().splitlines(keepends=True) if self.notes.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=180)


def vote_and_route(store: VoteStore, name: str, gap_s: float, note: Any, ended: Any) -> None:
    """Vote at a steady pace, and make a route now and then."""
    live = LiveTable(store)
    begun = routed = monotonic()
    number = 0
    while not ended():
        cast = ballot(number, name)
        start = monotonic()
        store.add(cast)
        note(vote=cast.id, seconds=monotonic() - start, queued=store.is_queued(cast))
        number += 1
        if monotonic() - routed > ROUTE_S:
            routed = monotonic()
            ranking = live.at_hand(PRIORS).ranking
            note(route=ranking, seconds=monotonic() - routed)
        sleep(max(0.0, begun + number * gap_s - monotonic()))


def route(store: VoteStore, note: Any, ended: Any) -> None:
    """Make routes, and write down each fit and each new version."""

    def fit(*args: Any) -> RankingTable:
        table = RankingTable.fit(*args)
        note(fit=table.version, size=table.size)
        return table

    live, known = LiveTable(store, fit=fit), ""
    while not ended():
        start = monotonic()
        version = live.at_hand(PRIORS).table.version
        note(seconds=monotonic() - start)
        if version != known:
            known = version
            note(version=version)
        sleep(0.2)
    live.wait()


def member(task: str, name: str, url: str, folder: str, gap_s: str = "0") -> None:
    """What a process of the fleet does, until its input ends."""
    logging.getLogger("diffusiongpt").setLevel(logging.ERROR)
    ended = Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    Thread(target=wait, daemon=True).start()
    store = VoteStore(url, queue_folder=Path(folder))
    with (Path(folder) / f"{name}.jsonl").open("w") as notes:

        def note(**facts: object) -> None:
            notes.write(json.dumps({"at": time(), **facts}) + "\n")
            notes.flush()

        if task == "vote":
            vote_and_route(store, name, float(gap_s), note, ended.is_set)
        else:
            route(store, note, ended.is_set)
    store.close()


def outage(server: postgres.PostgresServer, way: str, gone_s: float, rate: float, processes: int) -> str:
    """A row of the table for one way of being gone."""
    url = server.new_database()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        VoteStore(url, queue_folder=folder).add(ballot(0, "first"))
        fleet = [Member(folder, f"p{number}", "vote", url, processes / rate) for number in range(processes)]
        while not all(one.read() for one in fleet):
            sleep(0.1)
        sleep(CALM_S)
        begun = time()
        with server.stopped() if way == "stopped" else server.down():
            sleep(gone_s / 2)
            fleet[0].process.kill()
            sleep(gone_s / 2)
        back = time()
        store = VoteStore(url, queue_folder=folder)
        while store.queue().waiting:  # type: ignore[union-attr]
            store.prepare()
            sleep(0.05)
        sent_s = time() - back
        sleep(CALM_S)
        for one in fleet:
            one.end()
        while not store.flush(120):
            sleep(1)
        notes = [note for one in fleet for note in one.read()]
        recorded = Counter(one.prompt for one in store.all())
        ids = {one.id for one in store.all()}
        store.close()
    votes = [note for note in notes if "vote" in note]
    gone = [note for note in notes if begun < note["at"] < back]
    lost = sum(note["vote"] not in ids for note in votes)
    doubled = sum(count - 1 for count in recorded.values())
    waits = [note["seconds"] for note in gone if "vote" in note]
    routes = [note["seconds"] for note in gone if "route" in note]
    queued = sum(note["queued"] for note in votes)
    return (
        f"| {way} | {len(votes):,} | {queued:,} | {lost} | {doubled} | {_quantiles(waits)} | {len(routes)} | "
        f"{_quantiles(routes)} | {sent_s:.1f} |"
    )


def _quantiles(seconds: list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in np.percentile(seconds, [50, 95, 100]))


def refits(server: postgres.PostgresServer, rounds: int, processes: int) -> None:
    """Print how often a due refit is done, and when the others have its table."""
    url = server.new_database()
    counts, taken = [], []
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        store = VoteStore(url, queue_folder=folder)
        stack.callback(store.close)
        store.merge([ballot(number, "before") for number in range(1000)])
        fleet = [Member(folder, f"r{number}", "route", url) for number in range(processes)]
        size = 1000
        _settled(fleet, size)
        for turn in range(rounds):
            since = time()
            more = size // 50
            store.merge([ballot(number, f"round {turn}") for number in range(more)])
            size += more
            version = _settled(fleet, size)
            fits = [note for one in fleet for note in one.read() if "fit" in note and note["at"] > since]
            done = min(note["at"] for note in fits)
            counts.append(len(fits))
            taken += [note["at"] - done for one in fleet for note in one.read() if note.get("version") == version]
        for one in fleet:
            one.end()
        routes = [note["seconds"] for one in fleet for note in one.read()[20:] if set(note) == {"at", "seconds"}]
    print(
        f"\n{processes} processes, {rounds} due refits of 1,000 votes and more: fits for each {_all(counts)}; ", end=""
    )
    print(f"seconds from the end of a fit until a route of a process uses its table: {_quantiles(taken)}; ", end="")
    print(f"seconds of the {len(routes):,} routes meanwhile: {_quantiles(routes)} (median / 95 % / most)")


def _all(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


def _settled(fleet: list[Member], size: int) -> str:
    """The version of a fit of so many votes, once all processes route with it."""
    while True:
        notes = [one.read() for one in fleet]
        fitted = {note["fit"] for some in notes for note in some if note.get("size") == size}
        last = {next((note["version"] for note in reversed(some) if "version" in note), "") for some in notes}
        if len(last) == 1 and last <= fitted:
            return last.pop()
        sleep(0.1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gone", type=float, default=60.0, help="seconds without the server")
    parser.add_argument("--rate", type=float, default=20.0, help="votes a second")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="refits")
    arguments = parser.parse_args()
    binaries = postgres.server_folder()
    if binaries is None:
        print(postgres.MISSING)
        return
    with postgres.PostgresServer(binaries) as server:
        print("Seconds are median / 95 % / most, of what happened while the server was gone.\n")
        print(
            "| server | votes | queued | lost | doubled | s of a vote | routes | s of a route | s until all are sent |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for way in ("stopped", "killed"):
            print(outage(server, way, arguments.gone, arguments.rate, arguments.processes), flush=True)
        refits(server, arguments.rounds, 6)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--member"]:
        member(*sys.argv[2:])
    else:
        main()
