"""Results, and the files they become."""

from __future__ import annotations

from diffusiongpt.pictures.comparison import MOST, Comparison, as_rating, as_vote
from diffusiongpt.pictures.encoded import ImageFormat, bare, encode
from diffusiongpt.pictures.generation import SMALL, Generation, enlarged
from diffusiongpt.pictures.png import (
    CHUNK,
    PARAMETERS,
    a1111_parameters,
    read_png,
    read_record,
    shareable,
    slug,
    write_png,
)
from diffusiongpt.pictures.provenance import Provenance

__all__ = [
    "CHUNK",
    "MOST",
    "PARAMETERS",
    "SMALL",
    "Comparison",
    "Generation",
    "ImageFormat",
    "Provenance",
    "a1111_parameters",
    "as_rating",
    "as_vote",
    "bare",
    "encode",
    "enlarged",
    "read_png",
    "read_record",
    "shareable",
    "slug",
    "write_png",
]
