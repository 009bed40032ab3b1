"""Who signs a picture, and what went into it: kept in memory with a record, and never written into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffusiongpt.flow.inputs import InputImage


@dataclass(frozen=True)
class Signing:
    """A key to sign pictures with, and the ingredients of one.

    Attributes:
        certificate: PEM file with the certificate of the signer and those above it, the signer's first.
        key: PEM file with the private key.
        ingredients: The pictures that went in; the first is the one that was changed.
    """

    certificate: Path
    key: Path = field(repr=False)
    ingredients: tuple[InputImage, ...] = ()
