"""Cross-validation without near-duplicates across folds: does choosing by prompt beat the best single expert?"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusiongpt.embedding import CJK, normalize, words
from diffusiongpt.errors import RequestError
from diffusiongpt.ranking.model.laplace import DEFAULTS, LEVELS_ONLY, FitOptions, Scales, a_sample, fit_mean

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from diffusiongpt.ranking.model.observations import Floats, Observations


Indexes = NDArray[np.intp]

ALIKE = 0.8
"""Share of common words (Jaccard) from which two prompts count as near-duplicates: of ten words one may differ."""


def near_duplicate_groups(prompts: Sequence[str], keys: Sequence[Hashable] | None = None) -> Indexes:
    """Group prompts that are nearly the same.

    Two prompts are near-duplicates if they have the same words, or the same but for one in ten
    (Jaccard similarity of `ALIKE` or more); whatever is linked by a chain of them is one group.
    Case, punctuation, order and repetition of words do not count. Scripts without spaces are read by
    pairs of characters.

    Args:
        prompts: Prompts, in any language.
        keys: One for each prompt; prompts with the same key are together too, such as translations.

    Returns:
        A number for each prompt, shape (prompts,); groups are numbered in the order they first appear.
    """
    linked = _Linked(len(prompts))
    token_sets = [_tokens(prompt) for prompt in prompts]
    for same in (token_sets, keys or ()):
        first: dict[Hashable, int] = {}
        for index, key in enumerate(same):
            linked.join(first.setdefault(key, index), index)
    for one, other in _alike(token_sets):
        linked.join(one, other)
    roots = [linked.root(index) for index in range(len(prompts))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[root] for root in roots], dtype=np.intp)


def grouped_folds(groups: NDArray[np.integer], k: int, seed: int) -> list[tuple[Indexes, Indexes]]:
    """Split into folds of nearly equal size without splitting a group.

    Args:
        groups: Group of each item, shape (n,).
        k: Number of folds.
        seed: Decides which groups go together.

    Returns:
        For each fold, the indexes to train on and those to test on, ascending.

    Raises:
        RequestError: If there are fewer groups than folds, or fewer than two folds.
    """
    members, sizes = np.unique(groups, return_counts=True)
    if not 2 <= k <= len(members):
        raise RequestError(
            f"cannot make {k} folds of {len(members)} groups of prompts",
            hint="Ask for at least two folds, and for no more than there are groups.",
        )
    shuffled = np.random.default_rng(seed).permutation(len(members))
    filled = np.zeros(k, dtype=np.intp)
    fold_of: dict[int, int] = {}
    # large groups first, each into the emptiest fold; a stable sort keeps the shuffled order among equals
    for index in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold = int(filled.argmin())
        fold_of[int(members[index])] = fold
        filled[fold] += sizes[index]
    folds = np.array([fold_of[int(group)] for group in groups])
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(k)]


class _Linked:
    """Union-find: which items are linked, directly or by a chain."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, index: int) -> int:
        while self._parents[index] != index:
            # halving the path keeps later look-ups short
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def join(self, one: int, other: int) -> None:
        self._parents[self.root(other)] = self.root(one)


def _tokens(prompt: str) -> frozenset[str]:
    text = normalize(prompt)
    return frozenset(token for word in words(text) for token in _parts(word)) or frozenset([text])


def _parts(word: str) -> Iterable[str]:
    if re.match(f"[{CJK}]", word) and len(word) > 1:
        return (word[i : i + 2] for i in range(len(word) - 1))
    return (word,)


def _alike(token_sets: Sequence[frozenset[str]]) -> Iterable[tuple[int, int]]:
    """Pairs of similar sets, without looking at all pairs.

    Sets that share `ALIKE` of their tokens share one of the few rarest (Bayardo, Ma and Srikant 2007,
    "Scaling up all pairs similarity search"), so only those with a rare token in common are compared.
    """
    frequency = Counter(token for tokens in set(token_sets) for token in tokens)
    having: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[frozenset[str]] = set()
    for index, tokens in enumerate(token_sets):
        if tokens in seen:
            continue
        seen.add(tokens)
        rarest = sorted(tokens, key=lambda token: (frequency[token], token))
        # the least bit is taken off before rounding up: in floats .8 · 10 may be more than 8
        prefix = rarest[: len(tokens) - ceil(ALIKE * len(tokens) - 1e-9) + 1]
        for other in dict.fromkeys(other for token in prefix for other in having[token]):
            common = len(tokens & token_sets[other])
            if common >= ALIKE * (len(tokens) + len(token_sets[other]) - common) - 1e-9:
                yield other, index
        for token in prefix:
            having[token].append(index)


FOLDS = 4

ENOUGH = 200
"""Votes, or prompts with ratings, from which cross-validation decides; with fewer, the shrinkage of the fit itself has
to do. After 40 to 120 rated prompts it never chose worse than the best single expert, and by .02 to .16 of the way
better on two of four sets, while cross-validation often saw no gain (`benchmarks/edits.py --few`)."""

SURE = 1.28
"""Standard errors by which choosing by prompt has to be ahead: a one-sided interval of 90 % then begins above zero.
From .7 to 1.3 all choose equally well, cross-validated on the simulated votes of `benchmarks/ranking.py`."""


def beats_best_single(
    seen: Observations,
    texts: Sequence[str],
    linear: int,
    scales: Scales,
    *,
    outside: bool = False,
    options: FitOptions = DEFAULTS,
) -> bool:
    """Whether, on held-out prompts, choosing by prompt is ahead of the best single expert by `SURE` standard errors.

    With enough ratings, the gain is the rating of the chosen expert above that of the best single one; otherwise it is
    the log-likelihood of held-out votes above that of a model with global levels only. Without this check, a pool that
    one expert dominates loses: Intel EDGeS-23, AGIQA-3K and ImagenHub in `benchmarks/ranking.py`.

    Args:
        seen: The observations to learn from.
        texts: Prompts, one for each row of the features.
        linear: Number of features in front of those of likeness.
        scales: Prior standard deviations of the model that chooses by prompt.
        outside: Whether the last expert is the outside option.
        options: Those of the fit.
    """
    by_rating = len(np.unique(seen.ratings.group)) >= ENOUGH
    if not by_rating and len(seen.votes.left) < ENOUGH:
        return True
    seen, prompts = a_sample(seen)
    groups = near_duplicate_groups([texts[prompt] for prompt in prompts])
    if len(set(groups.tolist())) < FOLDS:
        return True
    gains = []
    for train, test in grouped_folds(groups, FOLDS, seed=0):
        kept, held_out = seen.about(train), seen.about(test)
        by_prompt = fit_mean(kept, linear, scales, outside=outside, options=options)
        # levels are the weights of the first feature
        levels = replace(kept, features=kept.features[:, :1])
        single = fit_mean(levels, 1, LEVELS_ONLY, outside=outside, options=options)
        gains.append((_rating_gains if by_rating else _vote_gains)(held_out, by_prompt, single))
    gain = np.concatenate(gains)
    if len(gain) < 2:
        return False
    # the small constant keeps rounding from deciding where both models are the same
    return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)) + 1e-9)


def _vote_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """How much more likely each vote is by prompt than by level alone, in log units."""
    votes = seen.votes

    def log_likelihoods(mean: Floats) -> Floats:
        utilities = seen.features[:, : mean.shape[1]] @ mean.T
        odds = votes.offset + utilities[votes.prompt, votes.left] - utilities[votes.prompt, votes.right]
        each: Floats = votes.share * odds - np.logaddexp(0.0, odds)
        return each

    return log_likelihoods(by_prompt) - log_likelihoods(single)


def _rating_gains(seen: Observations, by_prompt: Floats, single: Floats) -> Floats:
    """Rating of the chosen expert less that of the best single one among those rated, for each group of ratings."""
    ratings = seen.ratings

    def best(mean: Floats) -> Indexes:
        values = ratings.offset + (seen.features[:, : mean.shape[1]] @ mean.T)[ratings.prompt, ratings.expert]
        order = np.lexsort((values, ratings.group))
        # the last of each group has its highest value
        return order[np.flatnonzero(np.diff(ratings.group[order], append=-1))]

    gains: Floats = ratings.value[best(by_prompt)] - ratings.value[best(single)]
    return gains
