"""Changes to zoo files that keep comments, order and quoting, and never write an invalid file.

Every change is a `Draft` first, which has been checked and can be shown as a diff.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from diffusiongpt.curation.yaml_text import YamlEdit, YamlEditError
from diffusiongpt.errors import RequestError, ZooError, ZooFileChangedError
from diffusiongpt.files import expand_home, read_regular, replace_file
from diffusiongpt.zoo import SHIPPED, Expert, Node, Tags, Zoo, ZooFile, ZooSource, parse_zoo_text, read_zoo_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings


_NEW_FILE = """\
# Your own experts; docs/zoo.md explains each key. Leave out what you do not know.
schema_version: 1
"""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A change to a zoo file that has not been written yet.

    Attributes:
        path: The zoo file.
        before: Its present bytes; `None` if it does not exist yet.
        after: Its new text.
    """

    path: Path
    before: bytes | None
    after: str

    @property
    def is_empty(self) -> bool:
        """Whether the draft changes nothing, or would make a file that says nothing."""
        return self.after == (_NEW_FILE if self.before is None else self.before.decode())

    def diff(self) -> str:
        """The change as a unified diff, without a final newline."""
        old = "" if self.before is None else self.before.decode()
        names = ("/dev/null" if self.before is None else str(self.path), str(self.path))
        return "\n".join(unified_diff(old.splitlines(), self.after.splitlines(), *names, lineterm=""))

    def write(self, settings: Settings) -> None:
        """Replace the file atomically.

        Args:
            settings: Settings with the home folder, which holds the lock against other writers.

        Raises:
            ZooFileChangedError: If the file was changed after the draft was made.
            ZooError: If it cannot be written; it then stays as it was.
        """
        from filelock import FileLock

        with _writing(self.path):
            settings.home.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(settings.home / "zoo.lock"):
                if _bytes_of(self.path) != self.before:
                    raise ZooFileChangedError(
                        f"{self.path} was changed in the meantime, so nothing was written",
                        hint="Run the command again: it starts from the file as it is now.",
                    )
                replace_file(self.path, self.after.encode())


class ZooDraft:
    """The last of several zoo layers, opened for changes.

    Args:
        *sources: Layers as `Zoo.load` takes them, the file to change last; it need not exist yet.

    Attributes:
        path: The file to change.
        file: Its present content.
        zoo: All layers as they are now.

    Raises:
        RequestError: If the last layer ships with the package.
        ZooError: If a layer is invalid, or the file is not writable.
    """

    def __init__(self, *sources: ZooSource) -> None:
        *below, last = sources
        if last in SHIPPED:
            raise RequestError(
                f"the zoo {last!r} comes with the package and cannot be edited",
                hint="Name a file of your own with --zoo; it is created if it does not exist.",
            )
        self.path = expand_home(last)
        self._below = {str(source): read_zoo_file(source) for source in below}
        with _writing(self.path):
            self._before = _bytes_of(self.path)
            _check_writable(self.path)
        self._text = _NEW_FILE if self._before is None else _decode(self._before, self.path)
        self.file = parse_zoo_text(self._text, self.path)
        self.zoo = self._layered(self.file)
        self._edit = YamlEdit(self._text)

    def add(self, *entries: Mapping[str, Any]) -> None:
        """Append experts; to be called once for all.

        Args:
            *entries: Keys and values of each expert, in the order in which they are written.

        Raises:
            ZooError: If one of the layers has the id or the repository of one already.
        """
        for entry in entries:
            self._check_new(entry)
        if entries:
            self._edit.extend(["experts"], list(entries))

    def _check_new(self, entry: Mapping[str, Any]) -> None:
        where = " + ".join(self.zoo.sources)
        sources = {name: one for name, one in entry.get("components", {}).items() if isinstance(one, Mapping)}
        own = (entry.get("repo"), entry.get("file"), entry.get("settings", {}).get("weight_name"))
        weights = (*own, {(name, one.get("repo"), one.get("file")) for name, one in sources.items()})
        for known in self.zoo.values():
            elsewhere = {(name, one.repo, one.file) for name, one in known.places.items()}
            if (known.repo, known.file, known.settings.weight_name, elsewhere) == weights:
                raise ZooError(
                    f"{where} has the repository {known.repo} already, as {known.id}",
                    hint=f"Look at it with `diffusiongpt zoo show {known.id}`.",
                )
            if known.id == entry["id"]:
                raise ZooError(f"{where} has an expert called {known.id} already", hint="Choose another id with --id.")

    def pin(self, commits: Mapping[str, str], components: Mapping[tuple[str, str], str] | None = None) -> None:
        """Write the commit of some experts as their `revision`.

        Args:
            commits: Commit by expert id; ids that the file does not have are ignored.
            components: The same for components from elsewhere, by expert id and component.
        """
        for index, expert in enumerate(self.file.experts):
            for name, source in expert.places.items():
                commit = (components or {}).get((expert.id, name), source.revision)
                if commit != source.revision:
                    self._edit.put(["experts", index, "components", name, "revision"], commit, after="repo")
            if expert.id in commits and commits[expert.id] != expert.revision:
                self._edit.put(["experts", index, "revision"], commits[expert.id], after="repo")

    def add_nodes(self, nodes: Sequence[Node]) -> None:
        """Append categories to the taxonomy of the file."""
        if nodes:
            self._edit.extend(["taxonomy"], [node.model_dump(mode="json", exclude_defaults=True) for node in nodes])

    def add_tags(self, expert: Expert, tags: Tags) -> None:
        """Tag an expert of the file with more nodes; its present tags stay.

        Args:
            expert: The expert as the file has it.
            tags: Further tags; `generalist` counts only for an expert that had no tags at all.
        """
        place = ("experts", [one.id for one in self.file.experts].index(expert.id), "tags")
        if expert.tags == Tags():
            new = tags.model_dump(mode="json", exclude_defaults=True)
            if new:
                self._edit.put(place, new, after="description" if expert.description else "repo")
            return
        for kind in ("subjects", "styles"):
            more = [node for node in getattr(tags, kind) if node not in getattr(expert.tags, kind)]
            if more:
                self._edit.extend((*place, kind), more)

    def finish(self) -> Draft:
        """The change, checked as `zoo check` checks a file.

        Raises:
            ZooError: If the file would become invalid, or its formatting does not allow changes in place.
        """
        try:
            after = self._edit.text()
        except YamlEditError as error:
            raise ZooError(
                f"{self.path} cannot be edited in place: {error}",
                hint="Edit it by hand, or write its lists as plain blocks without anchors.",
            ) from error
        self._layered(parse_zoo_text(after, self.path))
        return Draft(path=self.path, before=self._before, after=after)

    def _layered(self, file: ZooFile) -> Zoo:
        return Zoo.layered({**self._below, str(self.path): file})


def editable_layers(settings: Settings, named: Sequence[str] | None = None) -> tuple[str, ...]:
    """Zoo layers whose last one can be edited.

    Args:
        settings: Settings with the default layers and the path of the user's own zoo.
        named: Layers named by the user; `None` for those of the settings, with the user's own file on top if
            their last one ships with the package.
    """
    if named:
        return tuple(named)
    layers = settings.zoo_layers
    return layers if layers and layers[-1] not in SHIPPED else (*layers, str(settings.own_zoo))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}",
            hint="Name a file in a folder that you may write to; the old file was not changed.",
        ) from error


MAX_EDITED = 1_000_000
"""Bytes of the largest zoo file that is edited in place: finding the place takes far longer than reading the file."""


def _bytes_of(path: Path) -> bytes | None:
    return read_regular(path, MAX_EDITED) if path.exists() else None


def _check_writable(path: Path) -> None:
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise ZooError(f"{path} is read-only", hint=f"Make it writable (chmod u+w {path}), or name another file.")


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ZooError(f"zoo file {path} could not be read: {error}", hint="Save it as UTF-8 YAML.") from error
