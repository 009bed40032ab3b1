"""What choosing a replica by its models is worth: seconds until a request draws, in simulated fleets.

    python benchmarks/fleet.py
    python benchmarks/fleet.py --costs
    python benchmarks/fleet.py --gpus 64 --displaced 0 .5 1 2

Sixty experts (36 the size of SD 1.5, 18 of SDXL, four of 16 GB, two of 33 GB), popularity by Zipf's law with exponent
1.1, which drifts; GPUs of 40 GB beside 96 GB of host memory each, 25 GB/s from host to device, 3 GB/s from disk. Random
arrivals keep the devices drawing 60 % of the time if nothing ever had to come. Each replica has the cache that ships,
and reports once a second. The baseline is Ray Serve's default, the one of two random replicas with fewer requests.
Two others are measured against: `all known` decides one request at a time as ours does, but knows the exact state of
every replica, and its caches know the future; that is the same greed with more knowledge, and bounds nothing. `nothing
to load` has every model on every device and one queue: no way to serve requests in their order makes them wait less.
"""

from __future__ import annotations

import argparse
from heapq import heappop, heappush
from itertools import product
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from model_traces import Family, make_jobs, zipf_trace
from simulated_cache import Job, Machine
from simulated_fleet import ByModel, Chooser, PowerOfTwo, SimulatedReplica, Waits, next_needs, run

from diffusiongpt.fleet import DISPLACED, Fleet, Need, Place, ReplicaState

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL = (
    Family(name="sd15", models=36, own_gb=1.72, shared_gb=0.41, draw_s=1.15),
    Family(name="sdxl", models=18, own_gb=5.14, shared_gb=1.8, draw_s=2.3),
    Family(name="16gb", models=4, own_gb=16.0, draw_s=4.6),
    Family(name="33gb", models=2, own_gb=33.0, draw_s=9.2),
)
MACHINE = Machine(device=40_000_000_000, host=96_000_000_000)
BUSY = 0.6
REQUESTS = 150
"""For each GPU."""

EXACT_UP_TO = 64
"""GPUs for which `all known` is computed: it asks every replica at every request."""

FRONT_MS = 16.0
"""Milliseconds of processors that a request takes in front, with the proxy and Ray: `benchmarks/fleet_real.py`."""

WARM_UP = 0.2
"""Share of the requests, from the first, that are not counted: all replicas begin empty."""


def arrivals_of(gpus: int, seed: int) -> list[tuple[float, Job]]:
    """Requests with their times."""
    total = max(REQUESTS * gpus, 4000) if gpus < 64 else min(REQUESTS * gpus, 40_000)
    jobs = zipf_trace(make_jobs(sharing=True, pool=POOL), exponent=1.1, requests=total, seed=seed, drift=50 * gpus // 8)
    mean = sum(job.draw_s for job in jobs) / len(jobs)
    gaps = np.random.default_rng(seed + 1000).exponential(mean / (BUSY * gpus), total)
    return list(zip(np.cumsum(gaps).tolist(), jobs, strict=True))


def simulated(way: str, gpus: int, seed: int, displaced: float | None = None) -> tuple[float, float, float, float]:
    """Mean wait, mean stall and 95th percentile of waits, in seconds, and GB that came to a device for a picture."""
    arrivals = arrivals_of(gpus, seed)
    waits = Waits()
    replicas: list[SimulatedReplica] = []
    future = next_needs(arrivals, lambda: sum(one.received for one in replicas)) if way == "all known" else None
    replicas += [SimulatedReplica(f"r{number}", MACHINE, waits, future) for number in range(gpus)]
    chooser: Chooser = (
        PowerOfTwo(replicas, seed)
        if way == "power of two"
        else ByModel(replicas, exact=way == "all known", displaced=displaced)
    )
    run(replicas, chooser, arrivals, reports=way == "by model")
    skip = round(WARM_UP * len(waits.wait))
    counted = np.array(waits.wait[skip:])
    moved = sum(one.outcome.link_s for one in replicas) * MACHINE.link / len(arrivals)
    return float(counted.mean()), float(np.mean(waits.stall[skip:])), float(np.percentile(counted, 95)), moved / 1e9


def nothing_to_load(gpus: int, seed: int) -> tuple[float, float, float, float]:
    """The same where requests wait for nothing but a free device, and the first that is free takes the next."""
    free, waits = [0.0] * gpus, []
    for now, job in arrivals_of(gpus, seed):
        begins = max(now, heappop(free))
        waits.append(begins - now)
        heappush(free, begins + job.draw_s)
    counted = np.array(waits[round(WARM_UP * len(waits)) :])
    return float(counted.mean()), 0.0, float(np.percentile(counted, 95)), 0.0


def costs(front_ms: float) -> None:
    """What pictures take of each part of a fleet, and which part of those that are measured is full first."""
    draw_s = float(np.mean([job.draw_s for _, job in arrivals_of(8, 0)]))
    _, stall_s, _, moved = simulated("by model", 64, 0)
    print(
        f"A picture takes {draw_s:.2f} s of a GPU and {stall_s:.2f} s in which it waits for weights, {moved:.1f} GB\n"
        f"over its link (64 GPUs), {front_ms:g} ms of processors in front, a call of an LLM if one reads, and no\n"
        "write to the database; a vote is one.\n"
    )
    print("| GPUs | requests a minute | use of GPUs | of one front | full first | what that takes |")
    print("|---|---|---|---|---|---|")
    for gpus, rate in product((10, 100, 1000), (10, 1000, 100_000)):
        use = {"GPUs": rate / 60 * draw_s / gpus, "front": rate / 60 * front_ms / 1000}
        first = max(use, key=lambda part: use[part])
        cure = {"GPUs": f"{ceil(gpus * use['GPUs'] / BUSY):,} GPUs", "front": f"{ceil(use['front'] / BUSY):,} fronts"}
        full = [part for part in use if use[part] > BUSY]
        shown = " | ".join(f"{value:.3g}" for value in use.values())
        takes = " and ".join(cure[part] for part in full) or "nothing"
        print(f"| {gpus:,} | {rate:,} | {shown} | {first if full else 'none'} | {takes} |")


def decision_ms(replicas: int) -> float:
    """95th percentile of the milliseconds that a choice takes among replicas that hold a dozen of the models each."""
    rng = np.random.default_rng(0)
    needs = [
        Need(parts={str(key): size for key, size in job.wanted.parts.items()}, draw_s=job.draw_s)
        for job in make_jobs(sharing=True, pool=POOL)
        if job is not None
    ]
    fleet = Fleet()
    places: tuple[Place, ...] = ("device", "host", "disk")
    for number in range(replicas):
        held = {key: places[rng.integers(3)] for one in rng.choice(len(needs), 12) for key in needs[one].parts}
        fleet.report(ReplicaState(replica=f"r{number}", held=held, queue_s=float(rng.exponential(2.0))))
    taken = []
    for one in rng.choice(len(needs), 2000):
        begin = perf_counter()
        choice = fleet.choose(needs[one])
        if choice is not None:
            fleet.send(choice.replica, needs[one])
        taken.append(1000 * (perf_counter() - begin))
    return float(np.percentile(taken, 95))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 1000])
    parser.add_argument("--seeds", type=int, default=2, help="for fleets of up to 64 GPUs; larger ones have one")
    parser.add_argument("--displaced", type=float, nargs="+", default=[DISPLACED])
    parser.add_argument("--costs", action="store_true", help="what pictures take of each part of a fleet instead")
    parser.add_argument("--front-ms", type=float, default=FRONT_MS, help="processor time of a request in front")
    arguments = parser.parse_args()
    if arguments.costs:
        costs(arguments.front_ms)
        return
    print("Seconds until a request draws; stalls are those in which its device was free for it.\n")
    print("| GPUs | way | wait | of the baseline | stall | of the baseline | p95 | GB |\n" + "|---" * 8 + "|")
    for gpus in arguments.gpus:
        seeds = range(arguments.seeds if gpus <= EXACT_UP_TO else 1)
        base = np.mean([simulated("power of two", gpus, seed) for seed in seeds], axis=0)
        _row(gpus, "power of two", base, base)
        for displaced in arguments.displaced:
            found = np.mean([simulated("by model", gpus, seed, displaced) for seed in seeds], axis=0)
            _row(gpus, "by model" + (f", displaced {displaced:g}" if len(arguments.displaced) > 1 else ""), found, base)
        if gpus <= EXACT_UP_TO:
            _row(gpus, "all known", np.mean([simulated("all known", gpus, seed) for seed in seeds], axis=0), base)
        _row(gpus, "nothing to load", np.mean([nothing_to_load(gpus, seed) for seed in seeds], axis=0), base)
    print(f"\nA decision among 1,000 replicas and 60 experts: p95 {decision_ms(1000):.2f} ms.")


def _row(gpus: int, way: str, found: NDArray[np.float64], base: NDArray[np.float64]) -> None:
    wait, stall, p95, moved = found
    print(
        f"| {gpus} | {way} | {wait:.2f} | {wait / base[0]:.2f} | {stall:.2f} | {stall / base[1]:.2f} | {p95:.1f} | "
        f"{moved:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
