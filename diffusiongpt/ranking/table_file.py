"""A fitted table as a file: arrays and JSON in a zip archive (numpy's `.npz`); reading it runs no code."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking.model import (
    BUCKETS,
    LANDMARKS,
    MOST_NODES,
    Fitted,
    Posterior,
    Prompt,
    PromptSpace,
    RatingNoise,
    Scales,
    SpaceState,
)
from diffusiongpt.votes import PROMPT_CHARS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


FORMAT = "diffusiongpt ranking"
SCHEMA_VERSION = 3
"""Files of version 1 know nothing of edits, and those of version 2 keep the covariances of all weights of an expert. A
file is written as the earliest version that can hold it."""

MOST_BYTES = 60 << 20
"""Largest file of a table, and with it the most that is ever decoded: nothing in it is compressed. Each of its models
has at most 28 MB (`model.mode.ROOM` and `model.laplace.FULL_PARAMETERS`), and a little for all else."""

MOST_HEADER_BYTES = 8 << 20
MOST_COUNT = 10**12
LARGEST = 1e6
"""Largest number of a table, either way: log-odds and their variances end far below it."""

_VIEWS = ("wordless", "worded")


@dataclass(frozen=True)
class About:
    """What a file says of a table apart from its arrays; the names are those in the file.

    Attributes:
        experts: Experts in the order of the weights.
        votes: Number of votes it has learnt from.
        ratings: Number of ratings it has learnt from.
        digest: Names those votes and ratings.
        counts: Ballots and wins by node and expert.
        pending: Votes and ratings added since the fit.
        priors: Fingerprint of the priors it was fitted on top of.
        seen: Version of the vote store it was learnt from; empty for an exported table.
        scatters: Noise of each rater; empty for an exported table, because raters are named by voter.
        editors: Experts in the order of the weights about edits.
        edit_scatters: Noise of each rater of edits.
    """

    experts: tuple[str, ...]
    votes: int
    ratings: int
    digest: str
    counts: Mapping[str, Mapping[str, tuple[int, float]]]
    pending: int
    priors: str
    seen: str = ""
    scatters: Mapping[str, RatingNoise] = field(default_factory=dict)
    editors: tuple[str, ...] = ()
    edit_scatters: Mapping[str, RatingNoise] = field(default_factory=dict)


@dataclass(frozen=True)
class _Space:
    """The plain values of a model: nodes, landmarks, and the scales of its fit."""

    nodes: tuple[str, ...]
    landmarks: tuple[tuple[str, Mapping[str, float]], ...]
    scales: Scales


@dataclass(frozen=True)
class _Header:
    """The JSON of a snapshot."""

    format: str
    schema_version: int
    about: About
    nodes: tuple[str, ...]
    landmarks: tuple[tuple[str, Mapping[str, float]], ...]
    scales: Scales
    edits: _Space | None = None


_EDITS = "edits_"
"""What the names of the arrays about edits begin with."""


def write(stream: IO[bytes], fitted: Fitted, about: About, editing: Fitted | None = None) -> None:
    """Write the contents of a file.

    Args:
        stream: Takes the bytes.
        fitted: The model of drawings.
        about: What the file says apart from its arrays.
        editing: The model of edits, if there were votes on any.

    Raises:
        VoteError: If the table compares sentences by an embedder, which no file can hold.
    """
    from pydantic_core import to_json

    drawn, edited = _space_of(fitted), None if editing is None else _space_of(editing)
    version = 3 if _keeps_less(fitted) or _keeps_less(editing) else 1 if edited is None else 2
    header = _Header(FORMAT, version, about, drawn.nodes, drawn.landmarks, drawn.scales, edited)
    with ZipFile(stream, "w", ZIP_STORED) as archive:
        _put(archive, "header", np.frombuffer(to_json(header), np.uint8))
        for prefix, model in (("", fitted), (_EDITS, editing)):
            for name, array in _arrays_for(model) if model is not None else ():
                _put(archive, f"{prefix}{name}", array)


def _keeps_less(model: Fitted | None) -> bool:
    """Whether some weights of a model have variances alone."""
    views = (model.worded, model.wordless) if model is not None else ()
    return any(len(block) < one.mean.shape[1] for one in views for block in one.blocks[:1])


def _put(archive: ZipFile, name: str, array: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
    """Write an array, or those that are one if they are stacked: of a large pool, a copy would be half the table."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        if isinstance(array, np.ndarray):
            np.lib.format.write_array(member, array, allow_pickle=False)
            return
        shape = (len(array), *array[0].shape)
        facts = {"descr": np.lib.format.dtype_to_descr(array[0].dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, facts)
        for one in array:
            member.write(np.ascontiguousarray(one).data)


def _space_of(fitted: Fitted) -> _Space:
    state = fitted.space.state()
    return _Space(state.nodes, tuple((one.text, one.evidence) for one in state.landmarks), fitted.scales)


def _arrays_for(fitted: Fitted) -> Iterator[tuple[str, NDArray[Any] | Sequence[NDArray[Any]]]]:
    """The arrays of a model, made one after the other: those of a large pool take as much memory as the table."""
    state = fitted.space.state()
    yield "idf", state.idf
    for view, posterior in zip(_VIEWS, (fitted.wordless, fitted.worded), strict=True):
        yield f"{view}_root", state.roots[view == "wordless"]
        yield f"{view}_mean", posterior.mean
        yield f"{view}_variances", posterior.variances
        if posterior.full is not None:
            yield f"{view}_full", posterior.full
        else:
            yield f"{view}_blocks", posterior.blocks


def read(path: Path) -> tuple[Fitted, Fitted | None, About]:
    """The models of a file, of drawings and of edits, and what the file says about them.

    Raises:
        VoteError: If it cannot be read, is damaged, is not such a file, or was written by a newer version.
    """
    try:
        size = path.stat().st_size
        # opening a pipe would wait for its other end
        if not path.is_file():
            raise _damaged(str(path))
        if size > MOST_BYTES:
            raise too_large(str(path))
        with path.open("rb") as stream:
            return read_from(stream, size, str(path))
    except OSError as error:
        raise VoteError(
            f"could not read the table {path}: {error.strerror or error}", hint="Check the path of the file."
        ) from error


def read_from(stream: IO[bytes], size: int, name: str) -> tuple[Fitted, Fitted | None, About]:
    """The same of a stream.

    Args:
        stream: The contents of a file.
        size: Their bytes.
        name: What they are called in errors.

    Raises:
        VoteError: If they are damaged, are not those of such a file, or were written by a newer version.
    """
    try:
        arrays = _arrays_of(stream, size)
        header = _header_of(bytes(arrays["header"]), name)
        drawn = _Space(header.nodes, header.landmarks, header.scales)
        fitted = _fitted_of(arrays, drawn, len(header.about.experts))
        if header.edits is None:
            return fitted, None, header.about
        edited = {name.removeprefix(_EDITS): array for name, array in arrays.items() if name.startswith(_EDITS)}
        return fitted, _fitted_of(edited, header.edits, len(header.about.editors)), header.about
    except (
        BadZipFile, EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError,
        zlib.error,
    ) as error:  # fmt: skip
        raise _damaged(name) from error


def too_large(name: str) -> VoteError:
    """The error for a file that is larger than that of a table can be."""
    return VoteError(
        f"{name} has more than {MOST_BYTES >> 20} MB, which no ranking table has",
        hint="Export the table again with `diffusiongpt ranking --export FILE`.",
    )


def _damaged(name: str) -> VoteError:
    return VoteError(
        f"{name} is damaged, or is not a ranking table",
        hint="Export the table again with `diffusiongpt ranking --export FILE`.",
    )


def _arrays_of(stream: IO[bytes], size: int) -> dict[str, NDArray[Any]]:
    """The arrays of an archive by name; none of them is larger than the archive.

    Raises:
        ValueError: If it is packed in a way that this package never writes.
    """
    with ZipFile(stream) as archive:
        members = archive.infolist()
        # what is stored as it is cannot unfold, and members that overlap add up to more than the file
        packed = any(one.compress_type != ZIP_STORED or one.flag_bits & 1 for one in members)
        if packed or sum(one.file_size for one in members) > size:
            raise ValueError("it is packed")
        return {one.filename.removesuffix(".npy"): _array_of(archive.read(one)) for one in members}


def _array_of(data: bytes) -> NDArray[Any]:
    """The array of a `.npy` file that holds numbers; its shape is believed only as far as there are bytes."""
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, by_columns, dtype = read_header(stream)
    if dtype.kind not in "uif" or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array of {dtype} and shape {shape} in {len(data)} bytes")
    # without a copy: whoever changes a posterior makes a new one
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_columns else "C")


def _header_of(data: bytes, name: str) -> _Header:
    from pydantic import TypeAdapter
    from pydantic_core import from_json

    if len(data) > MOST_HEADER_BYTES:
        raise ValueError("its header is too large")
    found = from_json(data)
    if found.get("format") == FORMAT and found.get("schema_version", 0) > SCHEMA_VERSION:
        raise VoteError(
            f"{name} has schema version {found['schema_version']}, but this program only knows {SCHEMA_VERSION}",
            hint="Use the version of diffusiongpt that wrote it, or a newer one.",
        )
    header = TypeAdapter(_Header).validate_json(data)
    if header.format != FORMAT:
        raise ValueError(f"its format is {header.format!r}")
    _check_bounds(header)
    return header


def _check_bounds(header: _Header) -> None:
    """Check that the numbers of a header can be those of a table.

    Raises:
        ValueError: If they cannot.
    """
    about = header.about
    counts = (about.votes, about.ratings, about.pending)
    digest = int(about.digest, 16)
    noises = (*about.scatters.values(), *about.edit_scatters.values())
    numbers = [*(one for noise in noises for one in noise)]
    numbers += [wins for experts in about.counts.values() for _, wins in experts.values()]
    spaces = [_Space(header.nodes, header.landmarks, header.scales), *([header.edits] if header.edits else [])]
    sound = (
        all(map(_is_sound, spaces))
        and all(0 <= count <= MOST_COUNT for count in counts)
        and 0 <= digest < 1 << 256
        and all(math.isfinite(number) and number >= 0 for number in numbers)
    )
    if not sound:
        raise ValueError("its numbers are out of range")


def _is_sound(space: _Space) -> bool:
    """Whether the numbers of a space can be those of a model."""
    return (
        all(math.isfinite(number) and number >= 0 for number in space.scales)
        and space.scales.level > 0
        and max(space.scales) <= LARGEST
        and all(0 <= p <= 1 for _, evidence in space.landmarks for p in evidence.values())
        and len(space.nodes) <= MOST_NODES
        and len(space.landmarks) <= LANDMARKS
        and all(len(text) <= PROMPT_CHARS for text, _ in space.landmarks)
    )


def _fitted_of(arrays: Mapping[str, NDArray[Any]], known: _Space, experts: int) -> Fitted:
    landmarks = tuple(Prompt(text, evidence) for text, evidence in known.landmarks)
    roots = {view == "wordless": arrays[f"{view}_root"] for view in _VIEWS}
    shaped = all(root.ndim == 2 and len(root) == len(landmarks) >= root.shape[1] for root in roots.values())
    if arrays["idf"].shape != (BUCKETS,) or not shaped or not all(map(_is_bounded, (arrays["idf"], *roots.values()))):
        raise ValueError("words or landmarks have the wrong shape")
    space = PromptSpace.restored(SpaceState(known.nodes, arrays["idf"], landmarks, roots))
    wordless, worded = (_posterior_of(arrays, view, space, known.scales, experts) for view in _VIEWS)
    return Fitted(space, worded, wordless)


def _is_bounded(array: NDArray[Any]) -> bool:
    """Whether all numbers are finite and in range, without a copy of them; NaN is not in range."""
    return not array.size or bool(array.min() >= -LARGEST and array.max() <= LARGEST)


def _posterior_of(
    arrays: Mapping[str, NDArray[Any]], view: str, space: PromptSpace, scales: Scales, experts: int
) -> Posterior:
    mean, width = arrays[f"{view}_mean"], space.width(wordless=view == "wordless")
    rows = len(mean)
    if rows not in (experts, experts + 1):
        raise ValueError(f"{rows} rows for {experts} experts")
    shapes: dict[str, tuple[int, ...]] = {"mean": (rows, width), "variances": (rows, width), "full": (rows, width) * 2}
    shapes |= {"base": (rows, width), "directions": (rows,)}
    found = {name: arrays[f"{view}_{name}"] for name in (*shapes, "factors", "blocks") if f"{view}_{name}" in arrays}
    if "factors" in found:
        shapes["factors"] = (width, int(found["directions"].sum()))
    if "blocks" in found:
        shapes["blocks"] = (rows, *[min(max(found["blocks"].shape[-1], 1), width)] * 2)
    for name, array in found.items():
        kind = "i" if name == "directions" else "f"
        if array.shape != shapes[name] or array.dtype.kind != kind or not _is_bounded(array):
            raise ValueError(f"{view} {name} has the wrong shape, or is not finite")
    return Posterior(found["mean"], _blocks_of(found), found["variances"], found.get("full"), scales)


def _blocks_of(found: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    if "factors" in found:
        # earlier versions kept `diag(base) - factor @ factor.T` for each expert of a very large pool
        factors = np.split(found["factors"], np.cumsum(found["directions"])[:-1], axis=1)
        pairs = zip(found["base"].astype(np.float32), factors, strict=True)
        return tuple(np.diag(base) - factor @ factor.T for base, factor in pairs)
    blocks = np.einsum("ekel->ekl", found["full"]) if "full" in found else found.get("blocks")
    if blocks is None:
        # and before that, the variances alone
        return tuple(np.diag(variances.astype(np.float32)) for variances in found["variances"])
    return tuple(blocks)
