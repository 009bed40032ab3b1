"""The figures for the model cache, each with its floor and its goal, in one run.

    python benchmarks/cache.py
    python benchmarks/cache.py --only leases switches

It measures the cache that ships, with the real hub client against a local hub and real pipelines of small size:

trace     stall relative to LRU in simulated time, as in cache_trace.py, but with fewer seeds
sharing   resident bytes divided by unique bytes, for twelve fine-tunes shaped like SD 1.5, SDXL and FLUX.1
leases    100 requests for one cold model; the overhead of a warm lease
switches  the process's resident memory over 200 switches, each with a picture
random    random operations: on the tiers, as cache_invariants.py does, and from several threads on a whole cache,
          with loads that are slow and fail; what the ledgers say is compared with where toy models are
gpu       the measurements of gpu_swap.py, if there is a GPU

The device "cpu:1" is host memory that is treated as a separate device: the same pipelines, replicas and ledgers as
on a GPU, without its link. Checkpoints are written to a temporary folder. The run takes three minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from time import perf_counter

import cache_leases
import cache_sharing
import cache_switches
from cache_rows import Row, print_head
from cache_storm import THREADS, storm
from cache_trace import FLOOR, GOAL, MANAGERS, REFERENCE, SHIPPED, measure, zipf_settings
from checked_tier import random_steps

PARTS = ("trace", "sharing", "leases", "switches", "random", "gpu")
STEPS_FLOOR = 100_000
STEPS_GOAL = 1_000_000


def trace_rows(seeds: int, requests: int) -> Iterable[Row]:
    """The worst of the four settings, with the decisions as shipped."""
    shares = {}
    for setting in zipf_settings(requests):
        stalls = [measure(setting, MANAGERS[name], seeds).stall_s for name in (SHIPPED, REFERENCE)]
        shares[setting.name] = stalls[0] / stalls[1]
    note = f"{seeds} x {requests} requests: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    measured = "stall relative to LRU, worst of four, simulated"
    yield Row(measure=measured, figure=max(shares.values()), floor=FLOOR, goal=GOAL, digits=3, note=note)


def random_rows(steps: int, operations: int, seed: int) -> Iterable[Row]:
    """Take the steps; a violated invariant is an `AssertionError` and ends the run."""
    start = perf_counter()
    random_steps(steps, seed)
    note = f"no violation in {perf_counter() - start:.0f} s"
    measured = "random steps on tiers without a violated invariant"
    yield Row(measure=measured, figure=steps, floor=STEPS_FLOOR, goal=STEPS_GOAL, more=True, note=note)
    start = perf_counter()
    done = storm(operations, seed)
    counted = ", ".join(f"{number} {what}" for what, number in done.most_common())
    note = f"no violation in {perf_counter() - start:.0f} s: {counted}"
    yield Row(measure=f"operations of {THREADS} threads on a whole cache, the same", figure=operations, note=note)


def gpu_rows() -> Iterable[Row]:
    """Point to the benchmark that measures this on a GPU."""
    import torch

    there = torch.cuda.is_available()
    note = "run python benchmarks/gpu_swap.py" if there else "no CUDA device; run gpu_swap.py on a machine with one"
    yield Row(measure="host-to-device swap as a share of the link", figure=None, note=note)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=2, help="seeds of the trace; 8 gives the figures of cache_trace.py"
    )
    parser.add_argument("--requests", type=int, default=4000, help="requests of the trace, for each seed and setting")
    parser.add_argument("--models", type=int, default=12, help="fine-tunes in a pool")
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--steps", type=int, default=STEPS_GOAL, help="random steps on tiers")
    parser.add_argument("--operations", type=int, default=20_000, help="random operations on a whole cache")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random operations")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "trace": lambda: trace_rows(given.seeds, given.requests),
        "sharing": lambda: cache_sharing.rows(given.models),
        "leases": cache_leases.rows,
        "switches": lambda: cache_switches.rows(given.switches),
        "random": lambda: random_rows(given.steps, given.operations, given.seed),
        "gpu": gpu_rows,
    }
    print_head()
    for name in given.only:
        for row in parts[name]():
            print(row, flush=True)


if __name__ == "__main__":
    main()
