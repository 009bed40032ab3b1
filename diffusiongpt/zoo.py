"""`model_zoo.yaml`: read, layered, checked; every mistake is reported with file, line and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusiongpt.adapters import on_their_bases
from diffusiongpt.errors import UnknownExpertError, ZooError
from diffusiongpt.expert import Expert
from diffusiongpt.paths import expand_home
from diffusiongpt.taxonomy import Node, Taxonomy

SCHEMA_VERSION = 1
SHIPPED = ("default", "tiny")
"""Names of the zoos that come with the package."""

ZooSource = str | Path


class ZooFile(BaseModel):
    """The shape of a zoo file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    taxonomy: tuple[Node, ...] = ()
    experts: tuple[Expert, ...] = ()


class Zoo(Mapping[str, Expert]):
    """Experts by id, in file order, and the taxonomy they hang on.

    Attributes:
        sources: What it was read from, first layer first.
        taxonomy: The checked tree.
    """

    def __init__(self, experts: Mapping[str, Expert], nodes: Mapping[str, Node], sources: tuple[str, ...]) -> None:
        self._experts = on_their_bases(experts)
        self.sources = sources
        self.taxonomy = Taxonomy(nodes.values(), experts.values())

    @classmethod
    def load(cls, *sources: ZooSource) -> Zoo:
        """Read zoo files, later over earlier: an expert or node with the same id replaces the earlier one.

        Args:
            *sources: Paths of zoo files, `"default"` for the zoo that ships with the package, or `"tiny"`
                for its tiny demonstration zoo. Nothing means `"default"`.

        Raises:
            ZooError: If a file is missing or wrong; the message names file, line and key.
        """
        return cls.layered({str(source): read_zoo_file(source) for source in sources or ("default",)})

    @classmethod
    def layered(cls, files: Mapping[str, ZooFile]) -> Zoo:
        """Lay files over each other, later over earlier.

        Args:
            files: What was read, by the name people know it by.

        Raises:
            ZooError: If they make no tree, or an expert hangs on a node that is not there.
        """
        experts: dict[str, Expert] = {}
        nodes = {node.id: node for node in _base_nodes()}
        for file in files.values():
            experts |= {expert.id: expert for expert in file.experts}
            nodes |= {node.id: node for node in file.taxonomy}
        try:
            return cls(experts, nodes, tuple(files))
        except ZooError as error:
            raise ZooError(f"{' + '.join(files)}: {error}", hint=error.hint) from None

    def __getitem__(self, expert_id: str) -> Expert:
        """The expert of that id.

        Raises:
            UnknownExpertError: If there is none; a `KeyError` would not say which ids are near.
        """
        try:
            return self._experts[expert_id]
        except KeyError:
            near = get_close_matches(expert_id, self._experts, n=3, cutoff=0.4)
            hint = f"Did you mean {' or '.join(near)}?" if near else "`diffusiongpt zoo list` shows all ids."
            raise UnknownExpertError(f"the zoo has no expert {expert_id!r}", hint=hint) from None

    def __contains__(self, expert_id: object) -> bool:
        """Whether the zoo has an expert of that id."""
        return expert_id in self._experts

    def __iter__(self) -> Iterator[str]:
        """Ids in file order."""
        return iter(self._experts)

    def __len__(self) -> int:
        """Number of experts."""
        return len(self._experts)

    def __repr__(self) -> str:
        """Sources and size."""
        return f"<Zoo {' + '.join(self.sources)}: {len(self)} experts>"


def shipped_zoo(name: str) -> Path | None:
    """Path of a zoo that ships with the package: `"default"` or `"tiny"`; `None` for any other name."""
    package = Path(str(resources.files("diffusiongpt")))
    if name == "tiny":
        return package / "testing" / "tiny_zoo" / "zoo.yaml"
    if name != "default":
        return None
    # a wheel carries the file inside the package; an editable checkout has it one folder up
    inside = package / "model_zoo.yaml"
    return inside if inside.exists() else package.parent / "model_zoo.yaml"


def read_zoo_file(source: ZooSource) -> ZooFile:
    """Read one zoo file.

    Raises:
        ZooError: If it is missing, no YAML, has duplicate ids, unknown keys or values that make no sense.
    """
    path = (shipped_zoo(source) if isinstance(source, str) else None) or expand_home(source)
    return parse_zoo_text(_read_text(path), path)


def parse_zoo_text(text: str, path: Path) -> ZooFile:
    """Check the text of a zoo file.

    Args:
        text: What is, or would be, in the file.
        path: The file, for messages and for folders beside it.

    Raises:
        ZooError: If it is no YAML, has duplicate ids, unknown keys or values that make no sense.
    """
    data = _parse(text, path)
    try:
        file = ZooFile.model_validate(data, context={"beside": path.parent})
    except ValidationError as error:
        from diffusiongpt.zoo_errors import explain

        raise explain(error, text, path) from error
    _check_unique(file, text, path)
    return file


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ZooError(
            f"zoo file {path} does not exist", hint="Use a path, 'default' or 'tiny'; --zoo may be repeated."
        ) from None
    except (OSError, ValueError) as error:
        raise ZooError(f"zoo file {path} cannot be read: {error}", hint="A zoo file is UTF-8 YAML.") from error


def _parse(text: str, path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ZooError(
            f"{where}: not valid YAML: {problem}", hint="Check quotes, indentation and duplicate keys."
        ) from error
    except (ValueError, RecursionError) as error:
        # the parser lets through what a value of its own raises, such as a date in a thirteenth month
        raise ZooError(
            f"{path}: not valid YAML: {error}", hint="Put quotes around values that look like dates."
        ) from error
    if not isinstance(data, dict):
        raise ZooError(f"{path}: a zoo file is a mapping", hint="Start with 'schema_version: 1' and 'experts:'.")
    return data


def _check_unique(file: ZooFile, text: str, path: Path) -> None:
    from diffusiongpt.zoo_errors import line_of

    for kind, ids in (("experts", [e.id for e in file.experts]), ("taxonomy", [n.id for n in file.taxonomy])):
        for index, entry_id in enumerate(ids):
            if entry_id in ids[:index]:
                line = line_of(text, (kind, index, "id"))
                raise ZooError(
                    f"{path}:{line}: {kind} has the id {entry_id!r} twice",
                    hint="Ids are unique in a file; to replace an entry of another file, put yours into a layer above.",
                )


def shipped_needs() -> tuple[Node, ...]:
    """The needs that every zoo starts from."""
    return tuple(node for node in _base_nodes() if node.kind == "need")


_NODE_FILES = ("taxonomy.yaml", "needs.yaml")


@cache
def _base_nodes() -> tuple[Node, ...]:
    from ruamel.yaml import YAML

    texts = [resources.files("diffusiongpt").joinpath(name).read_text(encoding="utf-8") for name in _NODE_FILES]
    return tuple(Node.model_validate(entry) for text in texts for entry in YAML(typ="safe", pure=True).load(text))
