"""Runs every benchmark, one after the other.

python benchmarks/all.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

COMMANDS = (
    ("latency.py",),
    ("routing.py",),
    ("understanding.py",),
    ("safety.py",),
    ("first_pick.py",),
    ("simulated_votes.py",),
    ("ranking.py",),
    ("edits.py", "--few"),
    ("cache_trace.py",),
    ("cache.py",),
    ("fleet.py", "--gpus", "8", "64"),
    ("fleet_votes.py",),
    ("fleet.py", "--costs"),
    ("fleet_real.py",),
    ("families.py",),
    ("tiny_zoo.py", "--per-cell", "100"),
    ("tiny_routing.py", "--prompts", "500"),
    ("gpu_swap.py",),
    ("gpu.py",),
)

_USE_DATA = (
    "latency.py",
    "first_pick.py",
    "routing.py",
    "understanding.py",
    "safety.py",
    "ranking.py",
    "edits.py",
    "cache_trace.py",
)


def main() -> None:
    """Run all of them; the first failure stops the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with rating and prompt files")
    arguments = parser.parse_args()
    here = Path(__file__).parent
    for name, *options in COMMANDS:
        if name in _USE_DATA and arguments.data:
            options += ["--data", str(arguments.data)]
        print(f"\n$ python benchmarks/{' '.join([name, *options])}", flush=True)
        subprocess.run([sys.executable, here / name, *options], check=True)


if __name__ == "__main__":
    main()
