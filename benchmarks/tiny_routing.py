"""What routing is worth on the tiny zoo, and how many votes undo wrong tags; judged by the tiny zoo's judge.

    python benchmarks/tiny_routing.py --prompts 500

draws every prompt with every expert once. It prints the share of all-correct pictures of the routed expert
between a random expert (0) and the right expert always (1); then, with the style tags dealt out wrongly, how many
votes from `compare`'s own pairs bring that share back to .95 on prompts that were never voted on.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tiny_prompts import TinyPrompt, make_prompts

from diffusiongpt.backends import get_backend
from diffusiongpt.drawing import resolve
from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.flow import Request, read_options
from diffusiongpt.hub import names_in
from diffusiongpt.ranking import LiveTable
from diffusiongpt.routing import Router, choose_ballot
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.votes import Shown, Vote
from diffusiongpt.zoo import Zoo
from diffusiongpt.zoo.tiny import TinyJudge

RIGHT = {"vector": "tiny-vector", "pixel": "tiny-pixel", "sketch": "tiny-sketch", "oil": "tiny-oil"}
SHARE_WANTED = 0.95
MOST_VOTES = 300
STRIDE = 5
"""Votes between two measurements of the share."""


def draw_all(prompts: list[TinyPrompt], zoo: Zoo) -> tuple[np.ndarray, np.ndarray]:
    """Draw each prompt with each expert and judge it.

    Returns:
        All-correct, bool, and log-probability of the four answers, float, both of shape (prompts, experts).
    """
    judge = TinyJudge.load()
    correct = np.zeros((len(prompts), len(zoo)), dtype=bool)
    likely = np.zeros((len(prompts), len(zoo)))
    for column, expert in enumerate(zoo.values()):
        backend = get_backend(expert.backend)
        loaded = backend.load(expert, expert.folder or Path(), names_in(expert.folder or Path()), device="cpu", have={})
        for row, prompt in enumerate(prompts):
            request, _ = read_options({"prompt": prompt.text, "seed": row})
            understanding = LocalThinker().think(prompt.text, (), tuple(zoo.taxonomy.nodes.values())).understanding
            image = backend.draw(loaded, resolve(request, understanding, expert)).images[0]
            reading = judge.read(image)
            correct[row, column] = all(getattr(reading, name) == answer for name, answer in prompt.answers.items())
            asked = [reading.probabilities[name][answer] for name, answer in prompt.answers.items()]
            likely[row, column] = float(np.log(np.maximum(asked, 1e-12)).sum())
    return correct, likely


def share(picks: list[str], prompts: list[TinyPrompt], correct: np.ndarray, experts: list[str]) -> float:
    """The share from random to right expert that the picks reach."""
    index = np.arange(len(prompts))
    picked = correct[index, [experts.index(pick) for pick in picks]].mean()
    right = correct[index, [experts.index(RIGHT[prompt.answers["style"]]) for prompt in prompts]].mean()
    chance = correct.mean()
    return float((picked - chance) / (right - chance))


def make_router(zoo: Zoo, folder: str) -> Router:
    """A router with an empty vote store."""
    embedder = LexicalEmbedder()
    preferences = LiveTable(Path(folder) / "votes.db")
    return Router(zoo, LocalThinker(embedder), preferences, embedder="lexical", readiness=lambda _: "on_disk")


def picks_of(router: Router, prompts: list[TinyPrompt]) -> list[str]:
    """The routed expert of each prompt."""
    return [router.route(Request(prompt=prompt.text)).expert for prompt in prompts]


def deal_wrongly(zoo: Zoo, rng: random.Random) -> Zoo:
    """The zoo with every style expert declaring the style of another."""
    styled = [expert.id for expert in zoo.values() if expert.tags.styles]
    dealt = styled[:]
    while any(a == b for a, b in zip(styled, dealt, strict=True)):
        rng.shuffle(dealt)
    tags = {expert: zoo[other].tags for expert, other in zip(styled, dealt, strict=True)}
    experts = {e.id: e.model_copy(update={"tags": tags.get(e.id, e.tags)}) for e in zoo.values()}
    return Zoo(experts, zoo.taxonomy.nodes | zoo.taxonomy.needs, zoo.sources)


def votes_until_right(zoo: Zoo, prompts: list[TinyPrompt], correct: np.ndarray, likely: np.ndarray, seed: int) -> int:
    """Votes until the share is back, at most `MOST_VOTES` + 1."""
    rng = random.Random(seed)
    experts, half = list(zoo), len(prompts) // 2
    order = rng.sample(range(len(prompts)), len(prompts))
    voted, held_out = order[:half], order[half:]
    test = [prompts[row] for row in held_out]
    with tempfile.TemporaryDirectory() as folder:
        router = make_router(deal_wrongly(zoo, rng), folder)
        for votes in range(0, MOST_VOTES + 1, STRIDE):
            if share(picks_of(router, test), test, correct[held_out], experts) >= SHARE_WANTED:
                return votes
            for number in range(votes, votes + STRIDE):
                row = rng.choice(voted)
                cast(router, prompts[row], dict(zip(experts, likely[row], strict=True)), seed=seed * 1000 + number)
    return MOST_VOTES + 1


def cast(router: Router, prompt: TinyPrompt, likely: dict[str, float], *, seed: int) -> None:
    """One comparison as `compare` makes it, won by the picture the judge considers more likely to be right."""
    route = router.route(Request(prompt=prompt.text))
    able = [candidate.expert for candidate in route.candidates]
    shown, ballot = choose_ballot(route, router.table(), 2, seed=seed, able=able)
    router.preferences.record(
        Vote(
            id=f"{seed:032x}",
            prompt=prompt.text,
            shown=tuple(Shown(expert=e, propensity=ballot.propensities[e], seed=seed) for e in shown),
            outcome="win",
            winner=max(shown, key=lambda expert: likely[expert]),
            evidence=route.understanding.evidence,
        )
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    zoo, prompts = Zoo.load("tiny"), make_prompts(arguments.prompts)
    start = perf_counter()
    correct, likely = draw_all(prompts, zoo)
    drawn = perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        picks = picks_of(make_router(zoo, folder), prompts)
    other = [row for row, prompt in enumerate(prompts) if prompt.style_by_other_words]
    other_share = share([picks[row] for row in other], [prompts[row] for row in other], correct[other], list(zoo))
    votes = [votes_until_right(zoo, prompts, correct, likely, seed) for seed in range(arguments.seeds)]
    wrong = [p.text for p, pick in zip(prompts, picks, strict=True) if pick != RIGHT[p.answers["style"]]]
    figures = {
        "prompts": len(prompts),
        "share_of_random_to_right": round(share(picks, prompts, correct, list(zoo)), 4),
        "share_where_style_is_named_by_other_words": round(other_share, 4),
        "random_all_correct": round(float(correct.mean()), 4),
        "wrong_picks": wrong,
        "votes_until_share_is_back": {"mean": float(np.mean(votes)), "each": votes},
        "seconds_per_picture": round(drawn / correct.size, 3),
    }
    print(json.dumps(figures, ensure_ascii=False, indent=2) if arguments.json else table(figures))


def table(figures: dict[str, object]) -> str:
    """The figures, one per line."""
    return "\n".join(f"{name.replace('_', ' '):<44} {value}" for name, value in figures.items())


if __name__ == "__main__":
    main()
