"""The network of the sentence encoder, made for the few short texts of one route.

The package that carries the weights is made for long lists of texts: it takes each token of each text through the whole
network. Here a piece is taken once through what comes before its neighbours count, however often it is in a batch (the
clauses of a prompt are in the prompt as well), weights lie in memory as few rows need them, and what is linear is
multiplied out when they are read. The vectors are those of the package, to the precision of its numbers.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_SIZE, _WIDTH = 512, 256
"""Of the vector of a piece, and of a branch of convolutions."""

_BRANCHES = ((2, 0), (3, 1), (5, 2))
"""Of each branch: pieces that a window covers, and how many of them come before its own."""

_REACH = 2
"""Pieces to each side of a window's own, at most."""

_TABLES = 17
"""Tables that the vectors of the pieces are in by turns, each with a scale of its own."""

_ENOUGH = 384
"""Pieces of a batch: more would take more memory and no less time."""

_PANEL, _MOST_PRODUCTS = 32, 1_000_000
"""Columns of a panel of weights, and most multiplications of numbers at a time; see `_Weights`."""

_BEGIN, _END, _UNKNOWN = 1, 2, 0

_KEPT_WORDS, _LONGEST_WORD = 16_384, 24
"""Words whose pieces are kept, and characters of the longest of them."""


class Pieces:
    """Cuts texts into the pieces that the encoder knows, word by word: no piece has a space inside.

    Args:
        whole: The tokenizer of the package, which is Python and cuts a text of any length.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._known = lru_cache(maxsize=_KEPT_WORDS)(self._cut)

    def of(self, text: str) -> list[int]:
        """The numbers of the pieces of a text, between those that begin and end it."""
        words = filter(None, text.split(" "))
        cut = chain.from_iterable(
            self._known(word) if len(word) <= _LONGEST_WORD else self._cut(word) for word in words
        )
        pieces = [_BEGIN, *cut, _END]
        return pieces if len(pieces) > 2 else [_BEGIN, _UNKNOWN, _END]

    def _cut(self, word: str) -> tuple[int, ...]:
        pieces = self._whole.encode(word, add_bos=False, add_eos=False)
        # alone it means that nothing is left of a word; an unknown letter comes behind the mark of a space
        return () if pieces == [_UNKNOWN] else tuple(pieces)


class Encoder:
    """Texts to unit vectors. One thread at a time, and one thread of linear algebra: more would wait for each other.

    Args:
        folder: Where the files of the model are.
        tokenizer: Makes the package's tokenizer of the file of its pieces.
    """

    def __init__(self, folder: Path, tokenizer: Callable[[str], Any]) -> None:
        self.pieces = Pieces(tokenizer(str(folder / "sp.model")))
        self._threads = ThreadpoolController().select(user_api="blas")
        with np.load(folder / "weights.npz", allow_pickle=False) as file:
            self._read(file)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Embed texts, shape (texts, 512)."""
        if not texts:
            return np.empty((0, _SIZE), dtype=np.float32)
        many = any(pool.num_threads != 1 for pool in self._threads.lib_controllers)
        # to set and to reset the number takes as long as two layers
        with self._threads.limit(limits=1) if many else nullcontext():
            return np.concatenate([self._embed(batch) for batch in _batches(map(self.pieces.of, texts))])

    def _read(self, file: Mapping[str, NDArray[Any]]) -> None:
        weights = {name: file[name].astype(np.float64) for name in file if not name.startswith("q")}
        self._table = np.empty((_TABLES * len(file["q1"]), _SIZE), dtype=np.uint8)
        for place in range(_TABLES):
            self._table[place::_TABLES] = file[f"q{place + 1}"]
        self._scale, self._lowest = file["scale"][:, None], file["lo"][:, None]
        self._eps = float(file["eps"])
        orders = [order for order, _ in _BRANCHES]
        joined = {
            name: np.concatenate([weights[f"{name}{order}"] for order in orders], axis=-1)
            for name in ("proj", "proj_b", "ln_g", "ln_b")
        }
        # the mean that a layer norm takes off is taken off the weights
        project = joined["proj"] - joined["proj"].mean(axis=1, keepdims=True)
        self._project = [_Weights(project[:_WIDTH]), _Weights(project[_WIDTH:])]
        self._project_bias = (joined["proj_b"] - joined["proj_b"].mean()).astype(np.float32)
        self._norm, self._norm_bias = (joined[name].astype(np.float32) for name in ("ln_g", "ln_b"))
        self._layers = [
            [(_giving(weights[f"w{layer}_{order}"]), file[f"b{layer}_{order}"]) for layer in (1, 2)] for order in orders
        ]
        # all is linear from the second layer norm to two layers, and these have one input
        summed, inner = weights["cnn_W"], np.hstack([weights["d0"], weights["p1"]])
        self._inner = _Weights(weights["ln_g"][:, None] * summed @ inner)
        self._inner_bias = ((weights["ln_b"] @ summed + weights["cnn_b"]) @ inner).astype(np.float32)
        self._across = _Weights(weights["d1"])
        self._outer = _Weights(np.hstack([weights["d2"], weights["p3"]]))
        self._last = _Weights(weights["d3"])

    def _embed(self, batch: Sequence[Sequence[int]]) -> Floats:
        """Embed texts, given as pieces, in one pass through the weights."""
        lengths = np.array([len(pieces) for pieces in batch])
        number = int(lengths.sum())
        places: dict[int, int] = {}
        at = np.fromiter((places.setdefault(piece, len(places)) for piece in chain(*batch)), np.intp, number)
        windows = _windows(lengths)
        near = np.append(at, len(places))[windows]
        vectors = self._vectors(np.fromiter(places, np.intp, len(places)))
        known = self._known(vectors)
        # of each token of each text: the vector of its piece, and what each branch makes of its neighbours
        features = np.empty((number, _SIZE + len(_BRANCHES) * _WIDTH), dtype=np.float32)
        features[:, :_SIZE] = vectors[at]
        hidden = np.zeros((number + 1, _WIDTH), dtype=np.float32)  # the last row is outside of every text
        inside, seen, one = hidden[:-1], *np.empty((2, number, _WIDTH), dtype=np.float32)
        for branch, (order, before) in enumerate(_BRANCHES):
            mine = np.ascontiguousarray(known[:, branch * _WIDTH : (branch + 1) * _WIDTH])
            window = slice(_REACH - before, _REACH - before + order)
            first, second = self._layers[branch]
            _convolve(mine, *first, near[:, window], inside, one)
            inside += np.take(mine, at, axis=0, out=one, mode="clip")
            _convolve(hidden, *second, windows[:, window], seen, one)
            start = _SIZE + branch * _WIDTH
            np.add(seen, inside, out=features[:, start : start + _WIDTH])
        return self._finish(self._sums(features, lengths), lengths.astype(np.float32)[:, None])

    def _vectors(self, pieces: NDArray[np.intp]) -> Floats:
        """The vectors of pieces, shape (pieces, 512)."""
        table, vectors = pieces % _TABLES, self._table[pieces].astype(np.float32)
        vectors *= self._scale[table]
        vectors += self._lowest[table]
        return vectors

    def _known(self, vectors: Floats) -> Floats:
        """What the branches start from, shape (pieces + 1, 768); the last row, of zeros, is outside of every text."""
        known = np.zeros((len(vectors) + 1, len(_BRANCHES) * _WIDTH), dtype=np.float32)
        inside = known[:-1]
        for place, weights in enumerate(self._project):
            inside += weights.of(vectors[:, place * _WIDTH : (place + 1) * _WIDTH])
        inside += self._project_bias
        inside /= np.sqrt(np.einsum("ij,ij->i", inside, inside) / inside.shape[1] + self._eps)[:, None]
        inside *= self._norm
        inside += self._norm_bias
        return known

    def _sums(self, features: Floats, lengths: NDArray[np.intp]) -> Floats:
        """The normalised features of each text, summed over its tokens, shape (texts, 1280)."""
        number, size = features.shape
        means = features @ np.full(size, 1 / size, dtype=np.float32)
        scales = 1 / np.sqrt(np.einsum("ij,ij->i", features, features) / size - means * means + self._eps)
        # as a product: each token, times its scale, in the row of its text
        into = np.zeros((len(lengths), number), dtype=np.float32)
        into[np.repeat(np.arange(len(lengths)), lengths), np.arange(number)] = scales
        return np.asarray(into @ features - (into @ means)[:, None], dtype=np.float32)

    def _finish(self, sums: Floats, lengths: Floats) -> Floats:
        """The vectors of texts, shape (texts, 512)."""
        inner = (self._inner.of(sums) + lengths * self._inner_bias) / np.sqrt(lengths)
        half = inner.shape[1] // 2
        middle = np.maximum(inner[:, half:] + self._across.of(np.maximum(inner[:, :half], 0)), 0)
        outer = self._outer.of(middle)
        vectors = np.tanh(outer[:, _SIZE:] + self._last.of(np.maximum(outer[:, :_SIZE], 0)))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


class _Weights:
    """A matrix in panels of a few columns each, one after another in memory.

    BLAS copies a whole matrix into such panels before it multiplies, which takes longer than to multiply it by the few
    rows of a prompt; a panel is small enough to be taken as it is (OpenBLAS, up to a million multiplications).
    """

    def __init__(self, matrix: NDArray[Any]) -> None:
        rows, self._columns = matrix.shape
        self._panels = np.ascontiguousarray(matrix.reshape(rows, -1, _PANEL).swapaxes(0, 1), dtype=np.float32)
        self._most = _MOST_PRODUCTS // (rows * _PANEL)

    def of(self, inputs: Floats) -> Floats:
        """Inputs times the matrix."""
        product = np.empty((len(inputs), self._columns), dtype=np.float32)
        panels = product.reshape(len(inputs), -1, _PANEL).swapaxes(0, 1)
        size = ceil(len(inputs) / ceil(len(inputs) / self._most))
        for start in range(0, len(inputs), size):
            some = slice(start, start + size)
            np.matmul(inputs[some], self._panels, out=panels[:, some])
        return product


def _giving(convolution: NDArray[Any]) -> _Weights:
    """What a row gives to each place of a window that it is in."""
    return _Weights(convolution.reshape(-1, _WIDTH, _WIDTH).swapaxes(0, 1).reshape(_WIDTH, -1))


def _convolve(
    rows: Floats, giving: _Weights, bias: Floats, windows: NDArray[np.intp], into: Floats, scratch: Floats
) -> None:
    """A convolution, and a rectifier: the sum of what the rows of a window give to their place in it."""
    given = giving.of(rows).reshape(-1, _WIDTH)
    order = windows.shape[1]
    first, *others = (windows * order + np.arange(order)).T
    np.take(given, first, axis=0, out=into, mode="clip")
    for place in others:
        into += np.take(given, place, axis=0, out=scratch, mode="clip")
    into += bias
    np.maximum(into, 0, out=into)


def _batches(texts: Iterator[list[int]]) -> Iterator[list[list[int]]]:
    """Texts, given as pieces, in batches of about `_ENOUGH` pieces."""
    batch: list[list[int]] = []
    for pieces in texts:
        if batch and sum(map(len, batch)) + len(pieces) > _ENOUGH:
            yield batch
            batch = []
        batch.append(pieces)
    yield batch


def _windows(lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """Tokens around each token of a batch, shape (tokens, 5); where its text has none, the one behind the last."""
    number = int(lengths.sum())
    tokens = np.arange(number)
    # with a gap between texts that no window crosses
    places = tokens + np.repeat(np.arange(1, len(lengths) + 1), lengths) * _REACH
    spaced = np.full(number + (len(lengths) + 1) * _REACH, number)
    spaced[places] = tokens
    around: NDArray[np.intp] = spaced[places[:, None] + np.arange(-_REACH, _REACH + 1)]
    return around
