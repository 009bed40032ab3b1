"""What choosing a replica by its models is worth: seconds until a request draws, in simulated fleets.

    python benchmarks/fleet.py
    python benchmarks/fleet.py --gpus 64 --displaced 0 .5 1 2

Sixty experts (36 the size of SD 1.5, 18 of SDXL, four of 16 GB, two of 33 GB), popularity by Zipf's law with exponent
1.1, which drifts; GPUs of 40 GB beside 96 GB of host memory each, 25 GB/s from host to device, 3 GB/s from disk. Random
arrivals keep the devices drawing 60 % of the time if nothing ever had to come. Each replica has the cache that ships,
and reports once a second. The baseline is Ray Serve's default, the one of two random replicas with fewer requests;
the oracle knows the exact state of every replica at each request, and its caches know the future.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
from model_traces import Family, make_jobs, zipf_trace
from simulated_cache import Job, Machine
from simulated_fleet import ByModel, Chooser, PowerOfTwo, SimulatedReplica, Waits, next_needs, run

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

WARM_UP = 0.2
"""Share of the requests, from the first, that are not counted: all replicas begin empty."""


def arrivals_of(gpus: int, seed: int) -> list[tuple[float, Job]]:
    """Requests with their times."""
    total = max(REQUESTS * gpus, 4000) if gpus < 64 else min(REQUESTS * gpus, 40_000)
    jobs = zipf_trace(make_jobs(sharing=True, pool=POOL), exponent=1.1, requests=total, seed=seed, drift=50 * gpus // 8)
    mean = sum(job.draw_s for job in jobs) / len(jobs)
    gaps = np.random.default_rng(seed + 1000).exponential(mean / (BUSY * gpus), total)
    return list(zip(np.cumsum(gaps).tolist(), jobs, strict=True))


def simulated(way: str, gpus: int, seed: int, displaced: float | None = None) -> tuple[float, float, float]:
    """Mean wait, mean stall and 95th percentile of waits, in seconds."""
    arrivals = arrivals_of(gpus, seed)
    waits = Waits()
    replicas: list[SimulatedReplica] = []
    future = next_needs(arrivals, lambda: sum(one.received for one in replicas)) if way == "oracle" else None
    replicas += [SimulatedReplica(f"r{number}", MACHINE, waits, future) for number in range(gpus)]
    chooser: Chooser = (
        PowerOfTwo(replicas, seed)
        if way == "power of two"
        else ByModel(replicas, exact=way == "oracle", displaced=displaced)
    )
    run(replicas, chooser, arrivals, reports=way == "by model")
    skip = round(WARM_UP * len(waits.wait))
    counted = np.array(waits.wait[skip:])
    return float(counted.mean()), float(np.mean(waits.stall[skip:])), float(np.percentile(counted, 95))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 1000])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--displaced", type=float, nargs="+", default=[None])
    arguments = parser.parse_args()
    for gpus in arguments.gpus:
        seeds = range(arguments.seeds if gpus < 1000 else 1)
        base = np.mean([simulated("power of two", gpus, seed) for seed in seeds], axis=0)
        print(f"{gpus} GPUs, power of two: wait {base[0]:.2f} s, stall {base[1]:.2f}, p95 {base[2]:.1f}")
        for displaced in arguments.displaced:
            begin = perf_counter()
            ours = np.mean([simulated("by model", gpus, seed, displaced) for seed in seeds], axis=0)
            print(f"  by model {displaced or ''}: {ours} ratio {ours / base} in {perf_counter() - begin:.0f} s")
        if gpus <= 64:
            best = np.mean([simulated("oracle", gpus, seed) for seed in seeds], axis=0)
            print(f"  oracle: {best} ours/oracle {ours / best}")


if __name__ == "__main__":
    main()
