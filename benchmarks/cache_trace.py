"""What the cache's decisions are worth: seconds that requests of a saturated queue wait, in simulated time.

    python benchmarks/cache_trace.py
    python benchmarks/cache_trace.py --data DIR

runs the tiers, the policies and the look-ahead that ship over 8 x 4000 requests in each of four settings: 40 models
(24 the size of SD 1.5, 12 of SDXL, three of 16 GB, one of 33 GB), device and host of 22/64 and 40/96 GB, popularity by
Zipf's law with exponents .8 and 1.1; 25 GB/s from host to device, 3 GB/s from disk and .5 s more for each load. The
queue is known 8 requests ahead, of which 3 are brought to the host and 1 to the device. It prints the mean stall as a
share of what LRU in both tiers without look-ahead has, and the 95th percentile of stalls, the share of time the device
draws, and the seconds a request that bytes move. `Belady` knows the whole future; `window` draws first what is ready.

Popularity drifts by passing on to the next model every 50 requests; a picture takes 1.15, 2.3, 4.6 or 9.2 s by size
of model; and the 33 GB model is not asked for where it does not fit the device. Chosen so, LRU stalls 1.04, .71, 1.12
and .79 s, and the device draws .61 to .73 of the time. Where models share components they are those of one family.

With `--data`, the same for the experts that the router picks for the prompts in `DIR/prompts`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from model_traces import make_jobs, zipf_trace
from simulated_cache import Job, Machine, Manager, Outcome, SimulatedCache

from diffusiongpt.cache import GDSF, LRU, PROTECTED, Usage

FLOOR = 0.20
GOAL = 0.15


class LinearGDSF:
    """GDSF as published, with seconds as the cost."""

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`; in seconds per byte."""
        return usage.floor + usage.uses * usage.reload_s / max(1, usage.nbytes)


Table = dict[str, dict[str, Any]]
"""Figures by manager."""

SHIPPED = "GDSF, protect 8, look-ahead (ships)"
REFERENCE = "LRU"
MANAGERS = {
    REFERENCE: Manager(policy=LRU),
    "LRU, protect 8, look-ahead": Manager(policy=LRU, protected=PROTECTED, look_ahead=True),
    "GDSF": Manager(policy=GDSF),
    "GDSF, protect 8": Manager(policy=GDSF, protected=PROTECTED),
    SHIPPED: Manager(policy=GDSF, protected=PROTECTED, look_ahead=True),
    "  and a window of 8": Manager(policy=GDSF, protected=PROTECTED, look_ahead=True, window=8),
    "GDSF as published": Manager(policy=LinearGDSF),
    "  protect 8": Manager(policy=LinearGDSF, protected=PROTECTED),
    "  protect 8, look-ahead": Manager(policy=LinearGDSF, protected=PROTECTED, look_ahead=True),
    "Belady": Manager(policy=LRU, oracle=True),
    "Belady, look-ahead": Manager(policy=LRU, oracle=True, look_ahead=True),
}
FEW = {name: MANAGERS[name] for name in (REFERENCE, SHIPPED)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A machine, and the requests that it gets for a seed."""

    name: str
    machine: Machine
    trace: Callable[[int], Sequence[Job]]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over seeds; stalls and bytes in seconds per request."""

    stall_s: float
    p95_s: float
    busy: float
    moved_s: float


def zipf_settings(requests: int, *, sharing: bool = False, oversized: bool = False) -> list[Setting]:
    """The four settings; `oversized` also requests the 33 GB model where it passes through the device in pieces."""
    settings = []
    for device, host in ((40, 96), (22, 64)):
        machine = Machine(device=device * 10**9, host=host * 10**9)
        jobs = make_jobs(sharing=sharing, largest=None if oversized else machine.device)
        for exponent in (0.8, 1.1):

            def trace(seed: int, jobs: list[Job | None] = jobs, exponent: float = exponent) -> list[Job]:
                return zipf_trace(jobs, exponent=exponent, requests=requests, seed=seed)

            settings.append(Setting(name=f"{device}/{host} z{exponent}", machine=machine, trace=trace))
    return settings


def measure(setting: Setting, manager: Manager, seeds: int) -> Figures:
    """Run one setting with one manager for every seed."""
    outcomes = [SimulatedCache(setting.machine, manager).run(setting.trace(seed)) for seed in range(seeds)]

    def mean(figure: Callable[[Outcome], float]) -> float:
        return float(np.mean([figure(outcome) for outcome in outcomes]))

    return Figures(
        stall_s=mean(lambda outcome: float(np.mean(outcome.stalls))),
        p95_s=mean(lambda outcome: float(np.quantile(outcome.stalls, 0.95))),
        busy=mean(lambda outcome: outcome.busy),
        moved_s=mean(lambda outcome: (outcome.disk_s + outcome.link_s) / len(outcome.stalls)),
    )


def compare(title: str, settings: Sequence[Setting], managers: dict[str, Manager], seeds: int) -> Table:
    """Measure and print a table; return its figures by manager and setting, and the worst share of each manager."""
    print(f"\n{title}: stall relative to {REFERENCE} (p95 in s, share of time spent drawing, s spent moving bytes)")
    print(" " * 36 + "".join(f"{setting.name:^26}" for setting in settings) + " worst")
    table: Table = {}
    reference: list[Figures] = []
    for name, manager in managers.items():
        row = [measure(setting, manager, seeds) for setting in settings]
        reference = reference or row
        shares = [one.stall_s / base.stall_s for one, base in zip(row, reference, strict=True)]
        cells = (
            f"{share:5.3f} ({one.p95_s:4.2f} {one.busy:4.2f} {one.moved_s:4.2f})".center(26)
            for share, one in zip(shares, row, strict=True)
        )
        print(f"{name:<36}{''.join(cells)} {max(shares):5.3f}", flush=True)
        figures = {setting.name: vars(one) for setting, one in zip(settings, row, strict=True)}
        table[name] = {"settings": figures, "worst": max(shares)}
    print("seconds of stall with LRU:".ljust(36) + "".join(f"{one.stall_s:5.3f}".center(26) for one in reference))
    return table


def routed_settings(data: Path, user: str) -> list[Setting]:
    """The router's picks for the labelled prompts, on both machines."""
    from routed_traces import read_prompts, routed_jobs, shuffled

    texts = read_prompts(data)
    settings = []
    for device, host in ((40, 96), (22, 64)):
        machine = Machine(device=device * 10**9, host=host * 10**9)
        jobs = routed_jobs(texts, user, machine.device)
        models = len({job.wanted.model for job in jobs})

        def trace(seed: int, jobs: list[Job] = jobs) -> list[Job]:
            return shuffled(jobs, seed)

        settings.append(Setting(name=f"{device}/{host}, {models} models", machine=machine, trace=trace))
    return settings


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--data", type=Path, help="folder with prompt files; measures the router's own picks too")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    seeds, requests = arguments.seeds, arguments.requests
    title = "whole models"
    tables = {title: compare(title, zipf_settings(requests), MANAGERS, seeds)}
    for title, settings in (
        ("shared components", zipf_settings(requests, sharing=True)),
        ("33 GB through 22 GB", zipf_settings(requests, oversized=True)),
    ):
        tables[title] = compare(title, settings, FEW, seeds)
    if arguments.data:
        from routed_traces import USERS

        for user in USERS:
            title = f"routed, {user}"
            tables[title] = compare(title, routed_settings(arguments.data, user), MANAGERS, seeds)
    worst = tables["whole models"][SHIPPED]["worst"]
    print(f"\nworst of four, as shipped: {worst:.3f} (floor {FLOOR}, goal {GOAL})")
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
