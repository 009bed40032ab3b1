"""Requests for the experts that the router picks for a set of prompts, in a random order; nothing is drawn."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulated_cache import Job

from diffusiongpt.cache import Key, Wanted
from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.flow import read_options
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.votes import Shown, Vote
from diffusiongpt.zoo import Expert, Zoo

VOTES = 60
CANDIDATES = 6
"""Best experts for a prompt, of which two are voted on."""

ADAPTER_GB = 0.17
SECONDS_PER_GB = 0.29
"""Seconds of drawing for each GB of model; 16 GB draw for 4.6 s."""

SHARED_GB = {"sd15": 0.41, "sdxl": 1.8}
"""GB of text encoders and VAE that the zoo's fine-tunes of a family share."""

SHORTEST_S = 1.0
USERS: dict[str, dict[str, Any]] = {"default": {}, "exploring": {"explore": "thompson"}, "with votes": {}}
"""The three ways of asking: plainly, exploring, and after votes of a person who prefers some of the experts."""


def read_prompts(data: Path) -> list[str]:
    """The labelled prompts: those of UniGenBench in English and Chinese, and PartiPrompts."""
    with (data / "prompts" / "unigenbench_dev.csv").open(encoding="utf-8", newline="") as file:
        texts = [row[language] for row in csv.DictReader(file) for language in ("prompt", "prompt_zh")]
    with (data / "prompts" / "partiprompts.tsv").open(encoding="utf-8", newline="") as file:
        texts += [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    return [text for text in texts if text.strip()]


def parts_of(expert: Expert, bases: dict[str, Expert]) -> dict[Key, int] | None:
    """Components of an expert, with their bytes; `None` if the zoo does not know its size, or it is hosted."""
    if expert.kind == "adapter":
        base = bases.get(expert.base or "")
        below = parts_of(base, bases) if base else None
        return None if below is None else {**below, expert.repo: round(ADAPTER_GB * 1e9)}
    if expert.size_gb is None:
        return None
    shared = SHARED_GB.get(expert.architecture or "", 0.0)
    own: dict[Key, int] = {expert.repo: round((expert.size_gb - shared) * 1e9)}
    return {**own, expert.architecture: round(shared * 1e9)} if shared else own


def fitting_jobs(zoo: Zoo, device: int) -> dict[str, Job]:
    """A job for each expert of the zoo that fits on a device of this many bytes."""
    bases = {expert.repo: expert for expert in zoo.values() if expert.kind == "checkpoint"}
    jobs = {}
    for name, expert in zoo.items():
        parts = parts_of(expert, bases)
        if parts and sum(parts.values()) <= device:
            draw_s = max(SHORTEST_S, sum(parts.values()) / 1e9 * SECONDS_PER_GB)
            jobs[name] = Job(wanted=Wanted(model=name, parts=parts), draw_s=draw_s)
    return jobs


def routed_jobs(texts: Sequence[str], user: str, device: int) -> list[Job]:
    """The job of the router's pick for each prompt, among the experts that fit on the device."""
    shipped = Zoo.load("default")
    jobs = fitting_jobs(shipped, device)
    zoo = Zoo({name: shipped[name] for name in jobs}, shipped.taxonomy.nodes, shipped.sources)
    with tempfile.TemporaryDirectory() as folder:
        preferences = LiveTable(Path(folder) / "votes.db")
        thinker = LocalThinker(LexicalEmbedder())
        router = Router(zoo, thinker, preferences, embedder="lexical", readiness=lambda _: "download")
        if user == "with votes":
            _vote(router, preferences, texts)
        picks = [_pick(router, text, user, number) for number, text in enumerate(texts)]
        preferences.store.close()
    return [jobs[pick] for pick in picks]


def shuffled(jobs: Sequence[Job], seed: int) -> list[Job]:
    """In a random order."""
    return [jobs[i] for i in np.random.default_rng(seed).permutation(len(jobs))]


def _pick(router: Router, text: str, user: str, seed: int) -> str:
    options = {**USERS[user], "seed": seed, "prompt": text}
    return router.route(*read_options(options)).expert


def _vote(router: Router, preferences: LiveTable, texts: Sequence[str]) -> None:
    """Votes between two of the best experts for a prompt, by a person who likes each for some kinds of prompt."""
    rng = np.random.default_rng(0)
    liking: dict[tuple[str, str], float] = {}
    for number in rng.choice(len(texts), VOTES, replace=False):
        route = router.route(*read_options({"prompt": texts[number]}))
        able = [candidate.expert for candidate in route.candidates[:CANDIDATES]]
        pair = [able[i] for i in rng.choice(len(able), 2, replace=False)]
        for expert in pair:
            liking.setdefault((expert, route.path[-1]), float(rng.normal()))
        preferences.record(
            Vote(
                prompt=texts[number],
                evidence=route.understanding.evidence,
                shown=_shown(pair, route.ranking_version),
                outcome="win",
                winner=max(pair, key=lambda expert: liking[expert, route.path[-1]]),
            )
        )


def _shown(pair: Iterable[str], version: str) -> tuple[Shown, ...]:
    return tuple(Shown(expert=expert, propensity=1.0, ranking_version=version) for expert in pair)
