"""What the ranking costs: a pick, a new vote, a full refit; used by `ranking.py`.

Experts, prompts and votes are made up: a hundred experts whose levels differ from style to style.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from synthetic_zoo import synthetic_votes, synthetic_zoo

from diffusiongpt.evaluation import Ours, Training, simulate_votes
from diffusiongpt.ranking import LiveTable, TagPriors
from diffusiongpt.votes import VoteStore

EXPERTS = 100
SEED = 0
TAKEN = 25
"""Votes added one by one; a disk that still writes the others delays the first few."""

STYLES = ("watercolour", "pixel art", "oil painting", "photo", "anime", "pencil sketch", "isometric", "low poly")
THINGS = ("a fox", "a lighthouse", "two children", "a red bicycle", "a bowl of soup", "a castle", "a robot", "a bus")
PLACES = ("in the snow", "at night", "on a beach", "in a crowded market", "under water", "on the moon", "in a forest")

say = partial(print, flush=True)


def made_up(votes: int) -> Training:
    """Votes among a hundred experts on 448 prompts."""
    rng = np.random.default_rng(SEED)
    prompts = tuple(f"{style} of {thing} {place}" for style in STYLES for thing in THINGS for place in PLACES)
    style = np.arange(len(prompts)) // (len(THINGS) * len(PLACES))
    skill = rng.normal(size=(1, EXPERTS)) + rng.normal(size=(len(STYLES), EXPERTS))
    known = Training(
        prompts, (None,) * len(prompts), tuple(f"expert-{i:03}" for i in range(EXPERTS)), ratings=skill[style]
    )
    return simulate_votes(known, votes, seed=SEED, scale=1.0)


def refit(votes: int) -> None:
    """Fit once in a separate process, and print seconds and the most memory the fit needed, as JSON."""
    training = made_up(votes)
    before = peak_mib()
    start = perf_counter()
    picker = Ours(training)
    seconds = perf_counter() - start
    most = peak_mib()
    allowed = np.ones((1, EXPERTS), dtype=bool)
    times = []
    for index in range(201):
        start = perf_counter()
        picker.pick([f"{training.prompts[index % len(training.prompts)]}, number {index}"], allowed)
        times.append(1000 * (perf_counter() - start))
    print(json.dumps({"seconds": seconds, "mib": most - before, "all_mib": most, "ms": times[1:]}))


def peak_mib() -> float:
    """The largest memory this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands the `ru_maxrss` of the process that started this one down to it
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024  # type: ignore[index]  # it is there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def print_costs(votes: int) -> None:
    """Print what each costs, next to its target."""
    told = subprocess.run([sys.executable, __file__, str(votes)], check=True, capture_output=True, text=True)
    cost = json.loads(told.stdout)
    say(f"\ncosts with {votes:,} votes and {EXPERTS} experts{'':<14}asked")
    say(f"one pick from text, warm            {np.median(cost['ms']):>9.2f} ms   ≤ 5 ms "
        f"(95 of 100 below {np.quantile(cost['ms'], 0.95):.2f} ms)")  # fmt: skip
    say(f"full refit                          {cost['seconds']:>9.1f} s    ≤ 60 s")
    say(f"most memory the refit takes         {cost['mib']:>9.0f} MiB  ≤ 1,024 MiB ({cost['all_mib']:.0f} with Python)")
    say(f"one vote taken in, until routable   {vote_ms(votes):>9.1f} ms   ≤ 50 ms")


def vote_ms(votes: int) -> float:
    """Median milliseconds from a vote to the table that includes it, with this many votes in the store."""
    zoo = synthetic_zoo(EXPERTS)
    made = synthetic_votes(zoo, votes + TAKEN)
    old, new = made[:votes], made[votes:]
    with tempfile.TemporaryDirectory() as folder:
        store = VoteStore(Path(folder) / "votes.db")
        store.merge(old)
        preferences, priors = LiveTable(store), TagPriors.of(zoo.values())
        preferences.table(priors)
        times = []
        for vote in new:
            start = perf_counter()
            preferences.record(vote)
            preferences.table(priors)
            times.append(1000 * (perf_counter() - start))
        preferences.wait()
        store.close()
    return float(np.median(times))


if __name__ == "__main__":
    refit(int(sys.argv[1]))
