"""Random operations on the cache's tiers, each checked against a simple model.

    python benchmarks/cache_invariants.py --steps 1000000

takes this many steps, on a new tier every 500, and stops at the first violated invariant: bytes resident, reserved and
in flight are those of the model; nothing in use is evicted, nor what is needed no later than the new component; what is
evicted is enough, and nothing needlessly; the order is total and repeatable; GDSF's floor never falls; LRU's order is
that of a list.
"""

from __future__ import annotations

import argparse
from time import perf_counter

from checked_tier import random_steps


def main() -> None:
    """Take the steps and print their number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = perf_counter()
    random_steps(arguments.steps, arguments.seed)
    seconds = perf_counter() - start
    print(f"{arguments.steps:,} steps in {seconds:.0f} s; no invariant was violated")


if __name__ == "__main__":
    main()
