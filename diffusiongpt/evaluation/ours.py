"""The method `ours`: the preference model of this package, on the prompts and experts of a file."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusiongpt.embedding import Embedder, LexicalEmbedder, SentenceEmbedder, Vectors, can_read
from diffusiongpt.evaluation.methods import best_allowed
from diffusiongpt.ranking.model import (
    RATING_SCALE,
    Fitted,
    Prompt,
    RatingRows,
    VoteRows,
    in_log_odds,
    rating_noise,
    source_weight,
)
from diffusiongpt.understanding import NeedReader, read_literals
from diffusiongpt.zoo import shipped_edits, shipped_needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.evaluation.data import Floats, Indexes, Mask, Training, Votes


def best_embedder(prompts: Sequence[str]) -> Embedder:
    """The sentence embedder if it is installed and reads at least half of the prompts, else the lexical one."""
    sentences = SentenceEmbedder.installed()
    readable = sum(map(can_read, prompts)) * 2 >= len(prompts)
    return sentences if sentences and readable else LexicalEmbedder()


class RememberingEmbedder:
    """An embedder that reads each text once.

    Args:
        embedder: Makes the vectors.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}
        self._remembers = True
        self.name = embedder.name

    @property
    def sentences(self) -> RememberingEmbedder | None:
        """Itself if it embeds sentences by meaning, `None` if only by their words."""
        return self if isinstance(self._embedder, SentenceEmbedder) else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, as the embedder makes them."""
        if not self._remembers:
            return self._embedder.embed(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        return np.array([self._vectors[text] for text in texts]) if texts else self._embedder.embed([])

    @contextmanager
    def without_memory(self) -> Iterator[None]:
        """Neither look up nor remember texts meanwhile, so that the time of a pick can be measured."""
        self._remembers = False
        try:
            yield
        finally:
            self._remembers = True


class Ours:
    """The preference model of this package, on the text of a prompt and the needs that are read in it.

    A file whose prompts are mostly instructions to change a picture is about edits, as votes on edits are in the
    product: kinds of changes are then read in them, and no needs of drawings.

    The files name experts but no zoo, so that there are no tags, no published priors, and no tree of categories.
    Sentence embeddings help where whole grids of ratings are known; with votes alone they measured no better, and a
    pick costs ten times as much.

    Args:
        training: What to learn from.
        sentences: The sentence embedder, if there is one.
    """

    def __init__(self, training: Training, sentences: Embedder | None = None) -> None:
        self._experts = len(training.experts)
        outside = training.votes is not None and bool(training.votes.both_bad.any())
        self._editing = is_about_edits(training.prompts)
        self._fitted = Fitted.fit(
            [read(prompt, editing=self._editing) for prompt in training.prompts],
            self._experts + outside,
            _vote_rows(training.votes, self._experts) if training.votes else VoteRows.none(),
            _rating_rows(training.ratings) if training.ratings is not None else RatingRows.none(),
            outside=outside,
            embedder=sentences if training.votes is None else None,
        )

    def pick(self, prompts: Sequence[str], allowed: Mask) -> Indexes:
        """The highest score among the allowed; see `Picker.pick`."""
        return best_allowed(self._scores(prompts), allowed)

    def win_probability(self, prompts: Sequence[str], left: Indexes, right: Indexes) -> Floats:
        """By the difference of scores; see `Forecaster.win_probability`."""
        scores, each = self._scores(prompts), np.arange(len(prompts))
        return 1 / (1 + np.exp(scores[each, right] - scores[each, left]))

    def _scores(self, prompts: Sequence[str]) -> Floats:
        known = [read(prompt, editing=self._editing) for prompt in prompts]
        return self._fitted.utilities(known)[:, : self._experts]


def is_about_edits(prompts: Sequence[str]) -> bool:
    """Whether most of the prompts ask to change a picture."""
    asked = sum(bool(read_literals(prompt).fields["edit"]) for prompt in prompts)
    return 2 * asked > len(prompts)


def read(text: str, *, editing: bool = False) -> Prompt:
    """A prompt and the needs, or the kinds of changes, that are read in it."""
    literal = read_literals(text)
    if editing:
        return Prompt(text, _edit_reader().kinds_of(literal.prompt))
    quotes, count = bool(literal.fields["text_to_render"]), literal.fields["object_count"]
    return Prompt(text, _reader().read(literal.prompt, quotes=quotes, count=count))


@cache
def _reader() -> NeedReader:
    return NeedReader(shipped_needs())


@cache
def _edit_reader() -> NeedReader:
    return NeedReader(shipped_edits())


def _vote_rows(votes: Votes, outside: int) -> VoteRows:
    """Votes as rows; where a voter rejected both, also comparisons with the outside option."""
    decided, bad = votes.comparisons, votes.take(votes.both_bad)
    rows: list[tuple[NDArray[Any], ...]] = [
        (decided.prompt, decided.left, decided.right, decided.share, decided.weight, decided.source)
    ]
    if len(bad):
        winner = np.where(decided.share > 0.5, decided.left, decided.right)
        won = decided.share != 0.5
        rows.append(_beaten(decided.take(won), winner[won], outside, share=1.0))
        rows += [_beaten(bad, loser, outside, share=0.0) for loser in (bad.left, bad.right)]
    prompt, left, right, share, weight, source = (np.concatenate(column) for column in zip(*rows, strict=True))
    trust = np.array([source_weight(str(one)) for one in source], dtype=np.float64)
    return VoteRows(prompt, left, right, share, weight * trust, np.zeros(len(prompt)))


def _beaten(votes: Votes, expert: Indexes, outside: int, *, share: float) -> tuple[NDArray[Any], ...]:
    """Comparisons of one expert of each vote with the outside option, at half the weight of the vote."""
    size = len(votes)
    return votes.prompt, expert, np.full(size, outside), np.full(size, share), votes.weight / 2, votes.source


def _rating_rows(ratings: Floats) -> RatingRows:
    prompt, expert = np.nonzero(np.isfinite(ratings))
    group = np.unique(prompt, return_inverse=True)[1]
    rated = ratings[prompt, expert]
    values = in_log_odds(rated, rating_noise(rated, expert, group))
    return RatingRows(prompt, expert, values, np.full(len(prompt), RATING_SCALE**2), group, np.zeros(len(prompt)))
