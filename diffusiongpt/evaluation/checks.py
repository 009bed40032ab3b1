"""Checks beside the score: calibration of the win probabilities, and stability of the picks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.embedding.lexical import CJK
from diffusiongpt.evaluation.methods import BestSingle
from diffusiongpt.ranking.model.folds import grouped_folds, near_duplicate_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.evaluation.data import Floats, Mask, Training, Votes
    from diffusiongpt.evaluation.methods import Forecaster, Picker


BINS = 10
"""Bins of equal width, as usual for this error (Guo et al. 2017, arXiv 1706.04599)."""

FOLDS = 5
"""One in so many prompts is held out."""

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1, where one surprise would cost infinitely much."""


@dataclass(frozen=True)
class Calibration:
    """How well probabilities of winning are kept.

    Attributes:
        votes: Number of held-out votes.
        ece: Expected calibration error: mean distance between probability and outcome over bins, from 0 to 1.
        log_loss: Mean negative log-likelihood in nats; always saying .5 has .693.
    """

    votes: int
    ece: float
    log_loss: float


def calibration(p: Floats, votes: Votes, *, seed: int) -> Calibration:
    """Compare probabilities with outcomes, after shuffling the sides.

    Args:
        p: Probability that the left one of each vote is preferred, shape (votes,).
        votes: What happened; "both bad" votes must have been left out.
        seed: Decides which sides are swapped, so that no side stands for the better one.
    """
    swapped = np.random.default_rng(seed).random(len(votes)) < 0.5
    p = np.clip(np.where(swapped, 1 - p, p), LEAST, 1 - LEAST)
    share = np.where(swapped, 1 - votes.share, votes.share)
    weight = votes.weight / votes.weight.sum()
    loss = -float(weight @ (share * np.log(p) + (1 - share) * np.log1p(-p)))
    bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    ece = float(np.abs(np.bincount(bins, weights=weight * (p - share), minlength=BINS)).sum())
    return Calibration(len(votes), ece, loss)


def held_out_calibration(
    training: Training, fit: Callable[[Training], Forecaster], *, seed: int
) -> dict[str, Calibration]:
    """Learn from four fifths of the prompts with votes, and forecast the votes of the others.

    Near-duplicate prompts are held out together.

    Args:
        training: Votes.
        fit: The method to look at, `ours` in the answer.
        seed: Of the split and the sides.

    Returns:
        `ours`, and `bradley_terry`, the same strengths for every prompt; empty if fewer than `FOLDS` groups of
        prompts have votes.
    """
    voted = np.unique(training.votes.comparisons.prompt) if training.votes else np.arange(0)
    groups = near_duplicate_groups([training.prompts[index] for index in voted])
    if len(np.unique(groups)) < FOLDS:
        return {}
    train, test = grouped_folds(groups, FOLDS, seed)[0]
    taught, held = training.of_prompts(voted[train]), training.of_prompts(voted[test])
    votes = held.votes.comparisons if held.votes else None
    if votes is None:
        return {}
    asked = [held.prompts[index] for index in votes.prompt]
    forecasters = {"ours": fit(taught), "bradley_terry": BestSingle(taught)}
    return {
        name: calibration(one.win_probability(asked, votes.left, votes.right), votes, seed=seed)
        for name, one in forecasters.items()
    }


PROMPTS = 100
"""Prompts that are reworded; a share of them has a standard error of .025 at most over four wordings each."""

_CHINESE = re.compile(f"[{CJK}]")


def rewordings(prompt: str, *, seed: int) -> dict[str, str]:
    """Other ways to write the same wish: with a typing mistake, in capitals, politely, with its parts swapped.

    Args:
        prompt: Any language; a script without spaces or capitals keeps what it has no other way to write.
        seed: Decides where the mistake is.

    Returns:
        Texts by kind: `typo`, `capitals`, `polite`, `order`.
    """
    chinese = _CHINESE.search(prompt) is not None
    return {
        "typo": _typo(prompt, np.random.default_rng(seed)),
        "capitals": prompt.upper(),
        "polite": f"请画{prompt}" if chinese else f"please draw {prompt}",
        "order": _turned(prompt),
    }


def stability(picker: Picker, prompts: Sequence[str], allowed: Mask, *, seed: int) -> float | None:
    """Share of reworded prompts that get the same expert as the prompt itself; `None` if none can be reworded.

    Args:
        picker: What a method has learnt.
        prompts: Texts; `PROMPTS` of them are drawn.
        allowed: Who may be picked, shape (prompts, experts).
        seed: Of the draw and of the typing mistakes.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(prompts))[:PROMPTS]
    reworded = [
        (int(index), text)
        for index in drawn
        for text in rewordings(prompts[index], seed=int(index)).values()
        if text != prompts[index]
    ]
    if not reworded:
        return None
    rows, texts = [index for index, _ in reworded], [text for _, text in reworded]
    before = dict(zip(drawn.tolist(), picker.pick([prompts[i] for i in drawn], allowed[drawn]).tolist(), strict=True))
    after = picker.pick(texts, allowed[rows])
    return float(np.mean([before[row] == pick for row, pick in zip(rows, after.tolist(), strict=True)]))


def _typo(prompt: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters swapped inside a word of four or more."""
    places = [match.start() + 1 for match in re.finditer(r"[^\W\d_]{4,}", prompt) if not _CHINESE.search(match[0])]
    if not places:
        return prompt
    at = int(rng.choice(places))
    return prompt[:at] + prompt[at + 1] + prompt[at] + prompt[at + 2 :]


def _turned(prompt: str) -> str:
    """What stands behind the last comma comes first."""
    match = re.fullmatch(r"(.*\S)\s*([,，、])\s*([^,，、.。!?]+)([.。!?]?)", prompt, re.DOTALL)
    if not match:
        return prompt
    first, comma, last, end = match.groups()
    return f"{last.strip()}{comma}{' ' if comma == ',' else ''}{first}{end}"
