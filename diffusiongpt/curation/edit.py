"""Zoo files changed by program: comments, order and quoting stay, and no wrong file is ever written.

Every change is a `Draft` first: it can be looked at as a diff, and was checked before anyone saw it.
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
from diffusiongpt.files import expand_home, replace_file
from diffusiongpt.zoo.expert import Expert, Tags
from diffusiongpt.zoo.file import SHIPPED, ZooFile, ZooSource, parse_zoo_text, read_zoo_file
from diffusiongpt.zoo.taxonomy import Node
from diffusiongpt.zoo.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings


_NEW_FILE = """\
# Experts of one's own; docs/zoo.md says what each key means. What is not known is left out.
schema_version: 1
"""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A change of a zoo file that nobody has agreed to yet.

    Attributes:
        path: The file.
        before: Its bytes; `None` if it is not there yet.
        after: Its text to be.
    """

    path: Path
    before: bytes | None
    after: str

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing."""
        return self.before == self.after.encode()

    def diff(self) -> str:
        """The change as a unified diff, without a newline at the end."""
        old = "" if self.before is None else self.before.decode()
        names = ("/dev/null" if self.before is None else str(self.path), str(self.path))
        return "\n".join(unified_diff(old.splitlines(), self.after.splitlines(), *names, lineterm=""))

    def write(self, settings: Settings) -> None:
        """Replace the file in one step.

        Args:
            settings: Whose folder holds the lock that keeps other writers of ours out.

        Raises:
            ZooFileChangedError: If someone changed the file after the draft was made.
            ZooError: If it cannot be written; it is then as it was.
        """
        from filelock import FileLock

        with _told(self.path):
            settings.home.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(settings.home / "zoo.lock"):
                if _bytes_of(self.path) != self.before:
                    raise ZooFileChangedError(
                        f"{self.path} was changed by someone else meanwhile, so nothing was written",
                        hint="Run the same again: it starts from the file as it is now.",
                    )
                replace_file(self.path, self.after.encode())


class ZooDraft:
    """The last of some zoo layers, opened to be changed.

    Args:
        *sources: Layers as `Zoo.load` takes them, the file to be changed last; it need not be there yet.

    Attributes:
        path: The file to be changed.
        zoo: All layers as they are.

    Raises:
        RequestError: If the last layer comes with the package.
        ZooError: If a layer is wrong, or the file must not be written.
    """

    def __init__(self, *sources: ZooSource) -> None:
        *below, last = sources
        if last in SHIPPED:
            raise RequestError(
                f"the zoo {last!r} comes with the package and is not edited",
                hint="Name a file of your own with --zoo; it is made if it is not there.",
            )
        self.path = expand_home(last)
        self._below = {str(source): read_zoo_file(source) for source in below}
        with _told(self.path):
            self._before = _bytes_of(self.path)
            _check_writable(self.path)
        self._text = _NEW_FILE if self._before is None else _decode(self._before, self.path)
        self.file = parse_zoo_text(self._text, self.path)
        self.zoo = self._layered(self.file)
        self._edit = YamlEdit(self._text)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an expert.

        Args:
            entry: Its keys and values as the file will show them.

        Raises:
            ZooError: If the expert is there already.
        """
        for known in self.zoo.values():
            same = (known.repo, known.settings.weight_name) == (
                entry.get("repo"),
                entry.get("settings", {}).get("weight_name"),
            )
            if same or known.id == entry["id"]:
                what = f"the repository {known.repo}" if same else f"an expert called {known.id}"
                raise ZooError(
                    f"{' + '.join(self.zoo.sources)} has {what} already" + (f", as {known.id}" if same else ""),
                    hint=f"`diffusiongpt zoo show {known.id}` shows it."
                    if same
                    else "Give the new one another name with --id.",
                )
        self._edit.extend(["experts"], [entry])

    def pin(self, commits: Mapping[str, str]) -> None:
        """Write the commit of some experts as their `revision`.

        Args:
            commits: Commit by expert id; ids of other layers are passed over.
        """
        for index, expert in enumerate(self.file.experts):
            if expert.id in commits and commits[expert.id] != expert.revision:
                self._edit.put(["experts", index, "revision"], commits[expert.id], after="repo")

    def add_nodes(self, nodes: Sequence[Node]) -> None:
        """Append categories to the taxonomy of the file."""
        if nodes:
            self._edit.extend(["taxonomy"], [node.model_dump(mode="json", exclude_defaults=True) for node in nodes])

    def add_tags(self, expert: Expert, tags: Tags) -> None:
        """Hang an expert of the file on more nodes; what it declares already stays.

        Args:
            expert: The expert as the file has it.
            tags: What it gets besides; `generalist` counts only for an expert that had no tags at all.
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
            ZooError: If the file would be wrong, or is written in a way that cannot be changed in place.
        """
        try:
            after = self._edit.text()
        except YamlEditError as error:
            raise ZooError(
                f"{self.path} cannot be changed by program: {error}",
                hint="Change it by hand, or write its lists as plain blocks, without anchors.",
            ) from error
        self._layered(parse_zoo_text(after, self.path))
        return Draft(path=self.path, before=self._before, after=after)

    def _layered(self, file: ZooFile) -> Zoo:
        return Zoo.layered({**self._below, str(self.path): file})


def editable_layers(settings: Settings, named: Sequence[str] | None = None) -> tuple[str, ...]:
    """Layers of which the last is a file to be edited.

    Args:
        settings: What the environment says.
        named: Layers that were named; `None` for those of the settings, with the user's own file over them if
            they name no file.
    """
    if named:
        return tuple(named)
    layers = settings.zoo_layers
    return layers if layers and layers[-1] not in SHIPPED else (*layers, str(settings.own_zoo))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}",
            hint="Name a file in a folder you may write to; the old file is as it was.",
        ) from error


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _check_writable(path: Path) -> None:
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise ZooError(f"{path} is read-only", hint=f"Allow writing (chmod u+w {path}), or name another file.")


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ZooError(f"zoo file {path} cannot be read: {error}", hint="A zoo file is UTF-8 YAML.") from error
