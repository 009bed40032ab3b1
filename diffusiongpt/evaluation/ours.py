"""Which embedder the neighbours use, and a memory for it: all draws of a learning curve ask about the same texts."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.embedding.lexical import Embedder, LexicalEmbedder, Vectors
from diffusiongpt.embedding.sentence import SentenceEmbedder, can_read
from diffusiongpt.evaluation.methods import best_allowed
from diffusiongpt.ranking.model.fitted import Fitted
from diffusiongpt.ranking.model.observations import RATING_SCALE, RatingRows, VoteRows, in_log_odds, rating_noise
from diffusiongpt.ranking.model.rows import source_weight
from diffusiongpt.ranking.model.space import Prompt
from diffusiongpt.settings import load_settings
from diffusiongpt.understanding.literal import read_literals
from diffusiongpt.understanding.needs import NeedReader
from diffusiongpt.zoo.taxonomy import shipped_needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training, Votes


class Remembering:
    """An embedder that reads a text once.

    Args:
        embedder: Whose vectors they are.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}
        self._asleep = False
        self.name = embedder.name

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, as the embedder gives them."""
        if self._asleep:
            return self._embedder.embed(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        return np.array([self._vectors[text] for text in texts]) if texts else self._embedder.embed([])

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Remember nothing meanwhile, so that the time of a pick can be taken."""
        self._asleep = True
        try:
            yield
        finally:
            self._asleep = False


@cache
def sentence_memory() -> Remembering | None:
    """The sentence embedder with a memory, if its weights are on this machine."""
    sentences = SentenceEmbedder.on_disk(load_settings())
    return Remembering(sentences) if sentences else None


def best_embedder(prompts: Sequence[str]) -> Embedder:
    """The sentence embedder if its weights are on this machine and it reads most of the prompts, else the lexical."""
    sentences = SentenceEmbedder.on_disk(load_settings())
    readable = sum(map(can_read, prompts)) * 2 >= len(prompts)
    return sentences if sentences and readable else LexicalEmbedder()


class Ours:
    """The preference model on what a prompt says, and on the needs that are read in it.

    The files know experts and no zoo, so there are no tags, no published priors, and no tree of categories. Ratings of
    whole grids say enough for sentence embeddings to help; with votes alone they do not, and cost ten times a pick.

    Args:
        training: What to learn from.
    """

    def __init__(self, training: Training) -> None:
        self._experts = len(training.experts)
        outside = training.votes is not None and bool(training.votes.both_bad.any())
        self._fitted = Fitted.fit(
            [read(prompt) for prompt in training.prompts],
            self._experts + outside,
            _vote_rows(training.votes, self._experts) if training.votes else VoteRows.none(),
            _rating_rows(training.ratings) if training.ratings is not None else RatingRows.none(),
            outside=outside,
            embedder=sentence_memory() if training.votes is None else None,
        )

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """Who scores highest of the allowed; see `Picker.pick`."""
        return best_allowed(self._scores(prompts), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """By the difference of scores; see `Forecaster.win_probability`."""
        scores, each = self._scores(prompts), np.arange(len(prompts))
        return 1 / (1 + np.exp(scores[each, right] - scores[each, left]))

    def _scores(self, prompts: Sequence[str]) -> Floats:
        return self._fitted.utilities([read(prompt) for prompt in prompts])[:, : self._experts]


def read(text: str) -> Prompt:
    """A prompt and the needs it shows."""
    said = read_literals(text).fields
    return Prompt(text, _reader().read(text, quotes=bool(said["text_to_render"]), count=said["object_count"]))


@cache
def _reader() -> NeedReader:
    return NeedReader(shipped_needs())


def _vote_rows(votes: Votes, outside: int) -> VoteRows:
    """Votes as rows, and where somebody called both bad, the rows of the outside option."""
    said, bad = votes.comparisons, votes.take(votes.both_bad)
    rows: list[tuple[NDArray[Any], ...]] = [(said.prompt, said.left, said.right, said.share, said.weight, said.source)]
    if len(bad):
        winner = np.where(said.share > 0.5, said.left, said.right)
        won = said.share != 0.5
        rows.append(_beaten(said.take(won), winner[won], outside, share=1.0))
        rows += [_beaten(bad, loser, outside, share=0.0) for loser in (bad.left, bad.right)]
    prompt, left, right, share, weight, source = (np.concatenate(column) for column in zip(*rows, strict=True))
    trust = np.array([source_weight(str(one)) for one in source], dtype=np.float64)
    return VoteRows(prompt, left, right, share, weight * trust, np.zeros(len(prompt)))


def _beaten(votes: Votes, expert: Indexes, outside: int, *, share: float) -> tuple[NDArray[Any], ...]:
    size = len(votes)
    return votes.prompt, expert, np.full(size, outside), np.full(size, share), votes.weight / 2, votes.source


def _rating_rows(ratings: Floats) -> RatingRows:
    prompt, expert = np.nonzero(np.isfinite(ratings))
    group = np.unique(prompt, return_inverse=True)[1]
    told = ratings[prompt, expert]
    values = in_log_odds(told, rating_noise(told, expert, group))
    return RatingRows(prompt, expert, values, np.full(len(prompt), RATING_SCALE**2), group, np.zeros(len(prompt)))
