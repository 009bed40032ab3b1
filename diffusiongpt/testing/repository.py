"""A folder seen as a hub repository: its files, their hashes, and one commit that names them all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".onnx", ".msgpack", ".gguf", ".h5"})
"""Suffixes of the files that the real hub keeps in large-file storage, where the ETag is a sha256."""


@dataclass(frozen=True, kw_only=True)
class RepoFile:
    """One file of a repository.

    Attributes:
        name: `folder/name` inside the repository.
        path: Where its bytes are.
        size: Size in bytes.
        oid: Git blob id, 40 hex digits.
        sha256: Content hash of a large file, else `None`.
    """

    name: str
    path: Path
    size: int
    oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """The hub's ETag, which the client uses as the name of the blob."""
        return self.sha256 or self.oid

    def as_tree_entry(self) -> dict[str, Any]:
        """The file as an entry of `/tree`."""
        entry: dict[str, Any] = {"type": "file", "path": self.name, "size": self.size, "oid": self.oid}
        if self.sha256:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry

    def as_sibling(self, *, blobs: bool, lie: int = 0) -> dict[str, Any]:
        """The file as an entry of `siblings` in the model info; a large one is reported `lie` bytes too large."""
        if not blobs:
            return {"rfilename": self.name}
        size = self.size + (lie if self.sha256 else 0)
        sibling: dict[str, Any] = {"rfilename": self.name, "size": size, "blobId": self.oid}
        if self.sha256:
            sibling["lfs"] = {"sha256": self.sha256, "size": size, "pointerSize": 134}
        return sibling


class FolderRepo:
    """A folder served as a repository; a changed file makes a new commit, and the old one no longer exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._memo: dict[str, tuple[tuple[int, int], RepoFile]] = {}

    def files(self) -> dict[str, RepoFile]:
        """All files by name, sorted; hidden files are left out."""
        return {file.name: file for file in sorted(self._walk(), key=lambda file: file.name)}

    def commit(self) -> str:
        """Forty hex digits that change when any file does."""
        lines = [f"{file.name} {file.etag}\n" for file in self.files().values()]
        return hashlib.sha1("".join(lines).encode(), usedforsecurity=False).hexdigest()

    def card(self) -> dict[str, Any]:
        """The YAML front matter of the model card `README.md`; empty if there is none, or YAML cannot read it."""
        path = self.folder / "README.md"
        parts = path.read_text(encoding="utf-8").split("---\n") if path.is_file() else []
        if len(parts) < 3 or parts[0]:
            return {}
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            return dict(YAML(typ="safe", pure=True).load(parts[1]) or {})
        except (YAMLError, ValueError):
            return {}

    def facts(self) -> dict[str, Any]:
        """Card and tags in the form of `/api/models`."""
        card = self.card()
        facts: dict[str, Any] = {"tags": _tags(card)}
        if card:
            facts["cardData"] = card
        return facts | {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}

    def _walk(self) -> Iterable[RepoFile]:
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                yield self._describe(name, path)

    def _describe(self, name: str, path: Path) -> RepoFile:
        stat = path.stat()
        signature = (stat.st_mtime_ns, stat.st_size)
        known = self._memo.get(name)
        if known is None or known[0] != signature:
            known = self._memo[name] = (signature, _hash(name, path))
        return known[1]


def _tags(card: dict[str, Any]) -> list[str]:
    """A card's own tags and those that the hub derives, such as the base of an adapter."""
    tags = [*card.get("tags", ())]
    relation = "adapter" if "lora" in tags else "finetune"
    bases = card.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        tags += [f"base_model:{base}", f"base_model:{card.get('base_model_relation', relation)}:{base}"]
    return [*tags, *([f"license:{card['license']}"] if "license" in card else [])]


def _hash(name: str, path: Path) -> RepoFile:
    data = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    large = path.suffix in LFS_SUFFIXES
    sha256 = hashlib.sha256(data).hexdigest() if large else None
    return RepoFile(name=name, path=path, size=len(data), oid=oid, sha256=sha256)
