"""Requests for models as a pool of fine-tunes sees them: popularity by Zipf's law, with drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from simulated_cache import Job

from diffusiongpt.cache import Key, Wanted

DRIFT = 50
"""Requests after which each popularity is passed on to the next model, and the least popular one becomes the first."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models of one shape.

    Attributes:
        name: Description of the shape.
        models: Number of models.
        own_gb: GB (1e9 bytes) that each has for itself.
        shared_gb: GB that are the same in all of them.
        draw_s: Seconds of drawing with one of them.
    """

    name: str
    models: int
    own_gb: float
    shared_gb: float = 0.0
    draw_s: float

    def parts(self, number: int, *, sharing: bool) -> dict[Key, int]:
        """Components of one of the models, with their bytes; a single one if nothing is shared."""
        if sharing and self.shared_gb:
            return {(self.name, number): round(self.own_gb * 1e9), self.name: round(self.shared_gb * 1e9)}
        return {(self.name, number): round((self.own_gb + self.shared_gb) * 1e9)}


POOL = (
    Family(name="sd15", models=24, own_gb=1.72, shared_gb=0.41, draw_s=1.15),
    Family(name="sdxl", models=12, own_gb=5.14, shared_gb=1.8, draw_s=2.3),
    Family(name="16gb", models=3, own_gb=16.0, draw_s=4.6),
    Family(name="33gb", models=1, own_gb=33.0, draw_s=9.2),
)
"""Forty models; sizes are at half precision, and the text encoders and the VAE are shared."""


def make_jobs(*, sharing: bool, largest: int | None = None, pool: Sequence[Family] = POOL) -> list[Job | None]:
    """A job for each model of the pool; `None` in place of a model with more than `largest` bytes."""
    jobs: list[Job | None] = []
    for family in pool:
        for number in range(family.models):
            parts = family.parts(number, sharing=sharing)
            fits = largest is None or sum(parts.values()) <= largest
            job = Job(wanted=Wanted(model=(family.name, number), parts=parts), draw_s=family.draw_s)
            jobs.append(job if fits else None)
    return jobs


def zipf_trace(jobs: list[Job | None], *, exponent: float, requests: int, seed: int, drift: int = DRIFT) -> list[Job]:
    """Requests for the existing models, the `k`-th most popular with probability in proportion to `k ** -s`."""
    return list(islice(_endless(jobs, exponent, np.random.default_rng(seed), drift), requests))


def _endless(jobs: list[Job | None], exponent: float, rng: np.random.Generator, drift: int) -> Iterator[Job]:
    popularity = np.arange(1, len(jobs) + 1) ** -exponent
    popularity /= popularity.sum()
    models = rng.permutation(len(jobs))
    while True:
        for rank in rng.choice(len(jobs), drift, p=popularity):
            job = jobs[models[rank]]
            if job is not None:
                yield job
        models = np.roll(models, 1)
