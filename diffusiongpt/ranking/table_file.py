"""A fitted table as a file: arrays and JSON in a zip archive (numpy's `.npz`); reading it runs no code."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking.model import BUCKETS, Fitted, Posterior, Prompt, PromptSpace, RatingNoise, Scales, SpaceState

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


FORMAT = "diffusiongpt ranking"
SCHEMA_VERSION = 1

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


@dataclass(frozen=True)
class _Header:
    """The JSON of a snapshot."""

    format: str
    schema_version: int
    about: About
    nodes: tuple[str, ...]
    landmarks: tuple[tuple[str, Mapping[str, float]], ...]
    scales: Scales


def as_bytes(fitted: Fitted, about: About) -> bytes:
    """The contents of a file.

    Raises:
        VoteError: If the table compares sentences by an embedder, which no file can hold.
    """
    from pydantic_core import to_json

    state = fitted.space.state()
    landmarks = tuple((one.text, one.evidence) for one in state.landmarks)
    header = _Header(FORMAT, SCHEMA_VERSION, about, state.nodes, landmarks, fitted.scales)
    arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(to_json(header), np.uint8), "idf": state.idf}
    for view, posterior in zip(_VIEWS, (fitted.wordless, fitted.worded), strict=True):
        arrays[f"{view}_root"] = state.roots[view == "wordless"]
        arrays |= {f"{view}_mean": posterior.mean, f"{view}_variances": posterior.variances}
        if posterior.full is not None:
            arrays[f"{view}_full"] = posterior.full
        else:
            arrays[f"{view}_blocks"] = np.stack(posterior.blocks)
    file = BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def read(path: Path) -> tuple[Fitted, About]:
    """The model of a file, and what the file says about it.

    Raises:
        VoteError: If it cannot be read, is damaged, is not such a file, or was written by a newer version.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = _header_of(bytes(arrays["header"]), path)
            return _fitted_of(arrays, header), header.about
    except OSError as error:
        raise VoteError(
            f"could not read the table {path}: {error.strerror or error}", hint="Check the path of the file."
        ) from error
    except (BadZipFile, EOFError, KeyError, ValueError, TypeError, AttributeError, zlib.error) as error:
        raise VoteError(
            f"{path} is damaged, or is not a ranking table",
            hint="Export the table again with `diffusiongpt ranking --export FILE`.",
        ) from error


def _header_of(data: bytes, path: Path) -> _Header:
    from pydantic import TypeAdapter
    from pydantic_core import from_json

    found = from_json(data)
    if found.get("format") == FORMAT and found.get("schema_version", 0) > SCHEMA_VERSION:
        raise VoteError(
            f"{path} has schema version {found['schema_version']}, but this program only knows {SCHEMA_VERSION}",
            hint="Use the version of diffusiongpt that wrote it, or a newer one.",
        )
    header = TypeAdapter(_Header).validate_json(data)
    if header.format != FORMAT:
        raise ValueError(f"its format is {header.format!r}")
    int(header.about.digest, 16)
    return header


def _fitted_of(arrays: Mapping[str, NDArray[Any]], header: _Header) -> Fitted:
    landmarks = tuple(Prompt(text, evidence) for text, evidence in header.landmarks)
    roots = {view == "wordless": arrays[f"{view}_root"] for view in _VIEWS}
    if arrays["idf"].shape != (BUCKETS,) or any(len(root) != len(landmarks) for root in roots.values()):
        raise ValueError("words or landmarks have the wrong shape")
    space = PromptSpace.restored(SpaceState(header.nodes, arrays["idf"], landmarks, roots))
    wordless, worded = (_posterior_of(arrays, view, space, header) for view in _VIEWS)
    return Fitted(space, worded, wordless)


def _posterior_of(arrays: Mapping[str, NDArray[Any]], view: str, space: PromptSpace, header: _Header) -> Posterior:
    mean, width = arrays[f"{view}_mean"], space.width(wordless=view == "wordless")
    rows = len(mean)
    if rows not in (len(header.about.experts), len(header.about.experts) + 1):
        raise ValueError(f"{rows} rows for {len(header.about.experts)} experts")
    shapes: dict[str, tuple[int, ...]] = {"mean": (rows, width), "variances": (rows, width), "full": (rows, width) * 2}
    shapes |= {"blocks": (rows, width, width), "base": (rows, width), "directions": (rows,)}
    found = {name: arrays[f"{view}_{name}"] for name in (*shapes, "factors") if f"{view}_{name}" in arrays}
    if "factors" in found:
        shapes["factors"] = (width, int(found["directions"].sum()))
    for name, array in found.items():
        kind = "i" if name == "directions" else "f"
        if array.shape != shapes[name] or array.dtype.kind != kind or not np.isfinite(array).all():
            raise ValueError(f"{view} {name} has the wrong shape, or is not finite")
    return Posterior(found["mean"], _blocks_of(found), found["variances"], found.get("full"), header.scales)


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
    return tuple(one.copy() for one in blocks)
