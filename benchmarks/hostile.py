"""What inputs of strangers do: every kind of attack in `tests/hostile`, on loopback alone, with what each costs.

    python benchmarks/hostile.py            # 2,000 attacks, and 400 kills in each kind of vote store
    python benchmarks/hostile.py --short    # a few of each kind, for CI

An attack fails if it raises what is not a `DiffusionGPTError`, prints or keeps a secret of the environment, prints
control characters, writes outside its folder, speaks to another machine, takes more than 64 MB of memory or more than
ten seconds, or ends the process. Exits with 1 if any does. Where a kind rightly takes longer, its module says why.

Seconds are those of `hostile._clock`: what other programs keep from an attack is not counted, so the limits hold on a
busy machine, and a hang is one on any.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hostile._clock import CLOCK, EVERY_S, Clock  # noqa: E402  # lies in the tests

MEMORY_MB = 64
SECONDS = 10.0
HANGS_S = 90.0
"""After so many seconds an attack is ended with its process."""

MOST_OF_THE_MACHINE_MB = 4_000
"""More than this a process of attacks does not get, so that one that takes all memory ends alone."""

IMPORTS_S = 60.0
"""Seconds more that the first attack of a process has, for what it imports."""

CANARY = "cAnArY7"
"""Part of every secret that the attacked processes hold."""

SECRETS = {name: f"{prefix}{CANARY}{index}xQ" for index, (name, prefix) in enumerate({
    "HF_TOKEN": "hf_", "OPENAI_API_KEY": "sk-", "ANTHROPIC_API_KEY": "sk-ant-", "SOME_SERVICE_TOKEN": "t",
}.items())}  # fmt: skip
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")  # noqa: S104  # an address that is compared, not bound
_OF_PYTHON = re.compile(r"\b(?:ldconfig|uname)\b")
"""Programs by which Python itself asks what machine this is."""
_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod"}


Outcome = tuple[list[str], float, float]
"""What failed, seconds, and megabytes."""


@dataclass
class Watch:
    """What the process under attack does, seen by Python's audit events."""

    allowed: tuple[str, ...] = ()
    on: bool = False
    seen: set[str] = field(default_factory=set)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Take an event."""
        if not self.on:
            return
        if event == "open" and isinstance(args[0], str | bytes) and _is_for_writing(args):
            self._check_path(args[0])
        elif event in _WRITES:
            for one in args[:2] if event in ("os.rename", "os.link") else args[:1]:
                self._check_path(one)
        elif event == "os.symlink":
            self._check_path(args[1])
        elif event == "socket.connect":
            address = args[1]
            if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
                self.seen.add(f"spoke to {address[0]}")
        elif event in ("os.system", "os.exec", "subprocess.Popen") and not _OF_PYTHON.search(str(args)):
            self.seen.add(f"started a program: {str(args)[:80]}")

    def _check_path(self, path: Any) -> None:
        if isinstance(path, str | bytes):
            whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
            # of a link, the place where it lies; a folder itself may be made again
            place = f"{os.path.realpath(os.path.dirname(whole))}/{os.path.basename(whole)}/"  # noqa: PTH119, PTH120
            if not place.startswith(self.allowed):
                self.seen.add(f"wrote outside: {os.fsdecode(path)[:120]!r}")


def _is_for_writing(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def modules() -> list[str]:
    """Names of the modules with attacks."""
    import hostile

    return sorted(one.name for one in pkgutil.iter_modules(hostile.__path__) if not one.name.startswith("_"))


def work(name: str, box: Path, *, seed: int, count: int, start: int) -> None:
    """Run the attacks of a module in this process, one line of JSON for each on the descriptor that was stdout."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    module = importlib.import_module(f"hostile.{name}")
    longest = max(SECONDS, float(getattr(module, "LONGEST_S", 0.0)))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_OF_THE_MACHINE_MB << 20,) * 2)
    watch = Watch()
    sys.addaudithook(watch)
    CLOCK.start()
    for index, attack in enumerate(module.attacks(seed, count)):
        if index < start:
            continue
        report.write(json.dumps({"index": index, "kind": attack.kind, "name": attack.name}) + "\n")
        failures, seconds, grown = _run(attack, box / f"{name}-{index}", box, watch, longest)
        if any(one.startswith("took") for one in failures):
            # the first of its kind imports what all others share; made again, since one may keep its chances
            again = next(islice(module.attacks(seed, count), index, None))
            failures, seconds, grown = _run(again, box / f"{name}-{index}-again", box, watch, longest)
        report.write(json.dumps({"index": index, "failures": failures, "seconds": seconds, "mb": grown}) + "\n")
    report.write(json.dumps({"done": True}) + "\n")
    report.flush()
    os._exit(0)  # servers of attacks may still have threads


def _run(attack: Any, folder: Path, box: Path, watch: Watch, longest: float) -> tuple[list[str], float, float]:
    from diffusiongpt.errors import DiffusionGPTError

    folder.mkdir()
    (box / "said").mkdir(exist_ok=True)  # not beside the folder, where an attack may look for what was written
    said = box / "said" / folder.name
    failures: list[str] = []
    gc.collect()
    resident = _reset_peak()
    watch.allowed = (f"{os.path.realpath(folder)}/", f"{os.path.realpath(box / 'shared')}/", "/dev/", "/proc/self/")
    watch.seen.clear()
    before, computed = CLOCK(), time.process_time()
    with _into(said):
        os.chdir(folder)
        watch.on = True
        try:
            attack.run(folder)
        except DiffusionGPTError as error:
            print(f"{type(error).__name__}: {error}\n{error.hint}")
        except BaseException as error:  # noqa: BLE001  # that is what is looked for
            failures.append(f"raised {type(error).__name__}: {str(error)[:200]} {_where(error)}")
        finally:
            watch.on = False
    seconds = max(CLOCK() - before, (time.process_time() - computed) / (os.cpu_count() or 1))
    grown = _peak_mb() - resident
    failures += sorted(watch.seen)
    if seconds > longest:
        failures.append(f"took {seconds:.0f} s")
    if grown > MEMORY_MB:
        failures.append(f"took {grown:.0f} MB")
    return failures + _traces(said, folder), round(seconds, 3), round(grown, 1)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/diffusiongpt/" in frame.filename] or frames
    return f"({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""


def _traces(said: Path, folder: Path) -> list[str]:
    """What was printed or written and must not have been."""
    data = said.read_bytes()
    found = []
    if _STEERS.search(data.decode("utf-8", errors="replace")):
        found.append("printed control characters")
    if CANARY.encode() in data:
        found.append("printed a secret")
    found += [f"wrote a secret into {file.name}" for file in folder.rglob("*") if _holds_a_secret(file)]
    return found


def _holds_a_secret(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and CANARY.encode() in file.read_bytes()


@contextlib.contextmanager
def _into(file: Path) -> Iterator[None]:
    """Send stdout and stderr of this process, and of libraries in it, into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with file.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for one in kept:
                os.close(one)


def _reset_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
    return _status_mb("VmRSS")


def _peak_mb() -> float:
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def attack_module(name: str, count: int, seed: int, until: float) -> list[dict[str, Any]]:
    """All attacks of a module in processes of their own; one that hangs or dies is a failure, and the rest go on."""
    done: list[dict[str, Any]] = []
    module = importlib.import_module(f"hostile.{name}")
    # here, since a process that is attacked may be killed at any time
    runs = module.beside() if hasattr(module, "beside") else contextlib.nullcontext({})
    with tempfile.TemporaryDirectory(prefix=f"hostile-{name}-") as place, runs as beside:
        box = Path(place) / "box"
        start = 0
        for number in range(count + 1):
            here = box / str(number)
            (here / "shared").mkdir(parents=True)
            known, finished = _watched(name, here, beside, seed=seed, count=count, start=start, until=until)
            done += known
            if finished or not known:
                break
            start = known[-1]["index"] + 1
            if start >= count or time.monotonic() > until:
                break
    return done


def _watched(
    name: str, box: Path, beside: Mapping[str, str], *, seed: int, count: int, start: int, until: float
) -> tuple[list[dict[str, Any]], bool]:
    shared = box / "shared"
    own = {
        "HOME": str(shared), "TMPDIR": str(shared), "HF_HOME": str(shared / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9",
        "DIFFUSIONGPT_HOME": str(shared / "home"), "DIFFUSIONGPT_DEVICE": "cpu", "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error", "MPLCONFIGDIR": str(shared), "XDG_CACHE_HOME": str(shared),
    }  # fmt: skip
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ}
    command = [sys.executable, str(Path(__file__)), "--work", name, str(box), str(seed), str(count), str(start)]
    worker = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**kept, **own, **beside, **SECRETS}
    )
    found: dict[int, dict[str, Any]] = {}
    finished = False
    with _Fuse(worker) as fuse:
        for line in worker.stdout or ():
            fuse.wait(HANGS_S)
            said = json.loads(line)
            if said.get("done"):
                finished = True
                break
            found.setdefault(said["index"], {}).update(said)
            if time.monotonic() > until and "failures" in said:
                break
    for one in found.values():
        one.setdefault("failures", [f"ended the process, or took more than {HANGS_S:.0f} s"])
    return list(found.values()), finished


class _Fuse:
    """Ends a process that says nothing for too long, and any when the block ends."""

    def __init__(self, worker: subprocess.Popen[bytes]) -> None:
        self._worker, self._clock = worker, Clock(worker.pid)
        self._over = threading.Event()
        self.wait(HANGS_S + IMPORTS_S)

    def wait(self, seconds: float) -> None:
        """From now on, so many seconds may pass."""
        self._until = self._clock() + seconds

    def __enter__(self) -> Self:
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while self._clock() < self._until:
            if self._over.wait(EVERY_S):
                return
        self._worker.kill()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
        self._worker.kill()
        self._worker.wait()


def _vote(prompt: str) -> Any:
    from diffusiongpt.votes import Shown, Vote

    shown = tuple(Shown(expert=expert, propensity=1.0) for expert in ("a", "b"))
    return Vote(prompt=prompt, shown=shown, outcome="win", winner="a")


def kill_voters(kills: int, seed: int, place: Path | str) -> tuple[int, int]:
    """Kill processes that vote, at random moments; votes that were acknowledged, and those of them that are lost.

    Args:
        kills: Number of processes.
        seed: Seed of the moments.
        place: A new vote store, a file or a database URL.
    """
    from diffusiongpt.votes import VoteStore

    rng = random.Random(seed)
    acknowledged: list[str] = []
    ended_alone = 0
    with contextlib.closing(VoteStore(place)) as store:  # what is imported for a vote, the children have
        first = store.add(_vote("the first")).id
    for number in range(kills):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                store = VoteStore(place)
                for count in range(10_000):
                    cast = store.add(_vote(f"p{number} {count}"))
                    os.write(writes, f"{cast.id}\n".encode())
            finally:
                os._exit(1)
        os.close(writes)
        if number % 2:  # in the middle of its votes, else perhaps before the first
            select.select([reads], [], [], 10)
        time.sleep(rng.uniform(0.001, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        ended_alone += not os.WIFSIGNALED(status)
        with os.fdopen(reads, encoding="ascii") as stream:
            acknowledged += [line.strip() for line in stream if line.endswith("\n")]
    with contextlib.closing(VoteStore(place)) as store:
        there = {vote.id for vote in store.all()}
    if ended_alone:
        sys.exit(f"{ended_alone} of {kills} voting processes ended before they were killed")
    return len(acknowledged), len({first, *acknowledged} - there)


def places() -> Iterator[tuple[str, Path | str]]:
    """New vote stores: a file, and a database where a PostgreSQL server is installed."""
    import postgres

    with tempfile.TemporaryDirectory(prefix="hostile-votes-") as folder:
        yield "SQLite", Path(folder) / "votes.db"
    binaries = postgres.server_folder()
    if binaries is None:
        print(f"PostgreSQL is left out: {postgres.MISSING}")
        return
    with postgres.PostgresServer(binaries) as server:
        yield "PostgreSQL", server.new_database()


def main() -> None:
    """Attack, and print tries and failures for each kind."""
    parser = argparse.ArgumentParser(description="Attack the product with generated inputs of strangers.")
    parser.add_argument("--short", action="store_true", help="a few attacks of each kind, for CI")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=2_000, help="attacks over all kinds")
    parser.add_argument("--kills", type=int, default=400, help="processes that are killed while they vote")
    parser.add_argument("--only", choices=[*modules(), "kills"], help="one module of tests/hostile, or the kills")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no attack begins")
    given = parser.parse_args()
    names = [one for one in modules() if given.only in (None, one)]
    tries = 12 * max(len(names), 1) if given.short else given.tries
    kills = 20 if given.short else given.kills
    until = time.monotonic() + 60 * (6 if given.short else given.minutes)
    failed = False
    print(f"{'kind':<14} {'tries':>6} {'failed':>7} {'slowest s':>10} {'most MB':>8}")
    total = 0
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        now = time.monotonic()
        # each has its share of what is left, so that none is left out on a slow machine
        results = attack_module(name, -(-tries // len(names)), given.seed, now + max(until - now, 0) / left)
        bad = [one for one in results if one["failures"]]
        total += len(results)
        slowest, most = (max((one.get(key, 0.0) for one in results), default=0.0) for key in ("seconds", "mb"))
        failed = failed or bool(bad) or not results
        print(f"{name:<14} {len(results):>6} {len(bad):>7} {slowest:>10.1f} {most:>8.1f}", flush=True)
        for reason, times in Counter(re.sub(r"\d+", "N", text) for one in bad for text in one["failures"]).most_common(
            8
        ):
            first = next(
                one["name"] for one in bad if reason in {re.sub(r"\d+", "N", text) for text in one["failures"]}
            )
            print(f"  {times} × {reason}\n      such as {first!r}", flush=True)
    print(f"{'all':<14} {total:>6}")
    if kills and given.only in (None, "kills"):
        for name, place in places():
            kept, lost = kill_voters(kills, given.seed, place)
            print(f"{kills} kills of processes that vote, {name}: {kept} votes acknowledged, {lost} lost", flush=True)
            failed = failed or bool(lost) or not kept
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], Path(sys.argv[3]), seed=int(sys.argv[4]), count=int(sys.argv[5]), start=int(sys.argv[6]))
    main()
