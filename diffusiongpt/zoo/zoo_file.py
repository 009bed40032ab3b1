"""Zoo files: read, checked, laid over each other; a mistake is reported with file, line, key and the nearest key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from diffusiongpt.errors import UnknownExpertError, ZooError, brief
from diffusiongpt.files import expand_home, read_regular
from diffusiongpt.zoo.expert import Component, Expert
from diffusiongpt.zoo.places import FORMS
from diffusiongpt.zoo.taxonomy import Node, Taxonomy, shipped_nodes
from diffusiongpt.zoo.yaml_file import MAX_ENTRIES, YamlError, line_of, read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SCHEMA_VERSION = 1
SHIPPED = ("default", "tiny")
"""Names of the zoos that come with the package."""

ZooSource = str | Path

Mistake = tuple[tuple[str | int, ...], str, str]
"""Where it is in the file, what is wrong, and what to do."""

MOST_MISTAKES = 100
"""Mistakes of one file that are reported."""

MOST_READ = 5_000_000
"""Characters that are read to find the lines of mistakes: finding each reads the file again up to there."""

MAX_BYTES = 16_000_000
"""Bytes of the largest zoo file that is read: that of some ten thousand experts."""


class ZooFile(BaseModel):
    """The shape of a zoo file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    # the first bad entry ends it: an error for each of ten thousand would take more memory than the file
    taxonomy: Annotated[tuple[Node, ...], FailFast()] = Field(default=(), max_length=MAX_ENTRIES)
    experts: Annotated[tuple[Expert, ...], FailFast()] = Field(default=(), max_length=MAX_ENTRIES)


def shipped_zoo(name: str) -> Path | None:
    """Path of the shipped zoo `"default"` or `"tiny"`; `None` for any other name."""
    package = Path(str(resources.files("diffusiongpt")))
    if name == "tiny":
        return package / "zoo" / "tiny" / "zoo.yaml"
    if name != "default":
        return None
    # a wheel carries the file inside the package; an editable checkout has it one folder up
    inside = package / "model_zoo.yaml"
    return inside if inside.exists() else package.parent / "model_zoo.yaml"


def read_zoo_file(source: ZooSource) -> ZooFile:
    """Read one zoo file.

    Raises:
        ZooError: If it is missing, is not YAML, or has duplicate ids, unknown keys or invalid values.
    """
    path = (shipped_zoo(source) if isinstance(source, str) else None) or expand_home(source)
    return parse_zoo_text(_read_text(path), path)


def parse_zoo_text(text: str, path: Path) -> ZooFile:
    """Check the text of a zoo file.

    Args:
        text: The present or future content of the file.
        path: Path of the file, for messages and for folders relative to it.

    Raises:
        ZooError: If it is not YAML, or has duplicate ids, unknown keys or invalid values.
    """
    data = _parse(text, path)
    found: list[Mistake] = []
    file = ZooFile()
    try:
        file = ZooFile.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        found += _mistakes(data, error, path.parent)
    found += _duplicates(data)
    if found:
        raise ZooError.of(
            [
                (f"{_where(text, path, at, index)}: {message}", hint)
                for index, (at, message, hint) in enumerate(found[:MOST_MISTAKES])
            ]
        )
    return file


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        near = [f"Did you mean {name!r}?" for name in get_close_matches(str(path), SHIPPED, n=1)]
        hint = " ".join([*near, "Use a path, 'default' or 'tiny'; repeat --zoo to combine several."])
        raise ZooError(f"zoo file {path} does not exist", hint=hint) from None
    except (OSError, ValueError) as error:
        raise ZooError(
            f"zoo file {path} could not be read: {getattr(error, 'strerror', None) or error}",
            hint=f"Pass a file that you may read, in YAML as UTF-8, of at most {MAX_BYTES / 1e6:g} MB.",
        ) from error


def _parse(text: str, path: Path) -> Any:
    try:
        data = read_yaml(text)
    except YamlError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise ZooError(
            f"{where}: not valid YAML: {error}",
            hint="Check quotes, indentation and duplicate keys; put quotes around values that look like dates.",
        ) from error
    if not isinstance(data, dict):
        raise ZooError(f"{path}: a zoo file must be a mapping", hint="Start with 'schema_version: 1' and 'experts:'.")
    return data


def _duplicates(data: Mapping[str, Any]) -> list[Mistake]:
    """Ids that a file has twice, whether or not the rest of it is right."""
    found: list[Mistake] = []
    for kind in ("taxonomy", "experts"):
        seen: set[str] = set()
        entries = data.get(kind)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            entry_id = entry.get("id") if isinstance(entry, dict) else None
            if isinstance(entry_id, str) and entry_id in seen:
                hint = "Ids are unique in a file; to replace an entry of another file, put yours into a later layer."
                found.append(((kind, index, "id"), f"{kind} has the id {_shorten(entry_id)} twice", hint))
            elif isinstance(entry_id, str):
                seen.add(entry_id)
    return found


def _where(text: str, path: Path, location: tuple[str | int, ...], index: int) -> str:
    return f"{path}:{line_of(text, location)}" if index * len(text) < MOST_READ else str(path)


def _mistakes(data: Mapping[str, Any], error: ValidationError, folder: Path) -> list[Mistake]:
    """What the schema finds: in the file as a whole, and in one entry after the other until that is enough."""
    whole = error.errors(include_url=False)
    found = _as_mistakes([one for one in whole if len(one["loc"]) == 1])
    models: tuple[tuple[str, type[BaseModel]], ...] = (("taxonomy", Node), ("experts", Expert))
    for kind, model in models:
        entries = data.get(kind)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                model.model_validate(entry, context={"folder": folder})
            except ValidationError as wrong:
                found += _as_mistakes(wrong.errors(include_url=False), kind, index)
            if len(found) >= MOST_MISTAKES:
                return found
    return found or [_mistake(one) for one in whole]


def _as_mistakes(problems: Sequence[ErrorDetails], *within: str | int) -> list[Mistake]:
    """What the schema found, in the words of the file; a misspelt key is one mistake, and not a missing one as well."""
    unknown = [(*within, *_location(one)) for one in problems if one["type"] == "extra_forbidden"]
    misspelt = {(*location[:-1], near) for location in unknown if (near := _nearest(location))}
    return [
        _mistake(one, *within)
        for one in problems
        if one["type"] != "missing" or (*within, *_location(one)) not in misspelt
    ]


def _location(problem: ErrorDetails) -> tuple[str | int, ...]:
    """The keys that lead to a value in the file, without the name of the alternative that was tried for it."""
    return tuple(part for part in problem["loc"] if part not in FORMS)


def _nearest(location: tuple[str | int, ...]) -> str | None:
    """The known key that an unknown one is most like."""
    near = get_close_matches(str(location[-1]), _known_keys(location[:-1]), n=1, cutoff=0.5)
    return near[0] if near else None


def _mistake(problem: ErrorDetails, *within: str | int) -> Mistake:
    """One thing that the schema found, in the words of the file."""
    location = (*within, *_location(problem))
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        near = _nearest(location)
        hint = f"Did you mean {near!r}?" if near else f"Known keys here: {', '.join(_known_keys(location[:-1]))}."
        return location, f"unknown key {key!r}", hint
    message = problem["msg"].removeprefix("Value error, ")
    return location, f"{key}: {message}", f"Check the value {_shorten(problem.get('input'))}."


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = ZooFile
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model), None)


def _shorten(value: object) -> str:
    text = brief(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Zoo(Mapping[str, Expert]):
    """Experts by id, in file order, and their taxonomy.

    Attributes:
        sources: Names of the layers, first layer first.
        taxonomy: The checked taxonomy.
        own: Ids of the experts from layers that do not come with the package.
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        nodes: Mapping[str, Node],
        sources: tuple[str, ...],
        own: Iterable[str] = (),
    ) -> None:
        self._experts = on_their_bases(experts)
        self._nodes = tuple(nodes.values())
        self.sources = sources
        self.own = frozenset(own)
        self.taxonomy = Taxonomy(nodes.values(), experts.values())

    @classmethod
    def load(cls, *sources: ZooSource) -> Zoo:
        """Read zoo files, later over earlier: an expert or node with the same id replaces the earlier one.

        Args:
            *sources: Paths of zoo files, `"default"` for the zoo that ships with the package, or `"tiny"`
                for its tiny demonstration zoo. Nothing means `"default"`.

        Raises:
            ZooError: If a file is missing or invalid; the message names file, line and key.
        """
        return cls.layered({str(source): read_zoo_file(source) for source in sources or ("default",)})

    @classmethod
    def layered(cls, files: Mapping[str, ZooFile]) -> Zoo:
        """Combine files as layers, later over earlier.

        Args:
            files: Checked files by name or path, first layer first.

        Raises:
            ZooError: If the taxonomy is not a tree, or a tag is not in it.
        """
        experts: dict[str, Expert] = {}
        own: dict[str, bool] = {}
        nodes = {node.id: node for node in shipped_nodes()}
        for name, file in files.items():
            experts |= {expert.id: expert for expert in file.experts}
            own |= dict.fromkeys((expert.id for expert in file.experts), name not in SHIPPED)
            nodes |= {node.id: node for node in file.taxonomy}
        try:
            return cls(experts, nodes, tuple(files), [expert for expert, mine in own.items() if mine])
        except ZooError as error:
            mistakes = error.mistakes or ((str(error), error.hint),)
            raise ZooError.of([(f"{' + '.join(files)}: {one}", hint) for one, hint in mistakes]) from None

    @cached_property
    def version(self) -> str:
        """Changes with anything that its files say, the order of the experts included."""
        said = ZooFile(taxonomy=self._nodes).model_dump_json()
        entries = (f"{expert.model_dump_json()}\n" for expert in self._experts.values())
        return sha256("".join((said, *entries)).encode()).hexdigest()[:12]

    def __getitem__(self, expert_id: str) -> Expert:
        """The expert of that id.

        Raises:
            UnknownExpertError: If there is none; the hint names the nearest ids, unlike that of a `KeyError`.
        """
        try:
            return self._experts[expert_id]
        except KeyError:
            near = get_close_matches(expert_id, self._experts, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "List all ids with `diffusiongpt zoo list`."
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


def on_their_bases(experts: Mapping[str, Expert]) -> dict[str, Expert]:
    """The experts of a zoo, each adapter with the facts of the first checkpoint in its base's repository or folder.

    An adapter whose base is not in the zoo stays as it is: its base is pulled all the same, but no more is known
    about it.

    Raises:
        ZooError: If a base is itself an adapter.
    """
    checkpoints: dict[_Place, Expert] = {}
    adapters: dict[_Place, Expert] = {}
    for expert in experts.values():
        (checkpoints if expert.kind == "checkpoint" else adapters).setdefault(_place(expert), expert)
    return {name: _on_its_base(expert, checkpoints, adapters) for name, expert in experts.items()}


def _on_its_base(expert: Expert, checkpoints: Mapping[_Place, Expert], adapters: Mapping[_Place, Expert]) -> Expert:
    base = expert.base_expert
    if base is None:
        return expert
    place = _place(base)
    if place in checkpoints:
        return expert.on(checkpoints[place])
    if place in adapters:
        other = adapters[place]
        raise ZooError(
            f"{expert.id}: base {expert.base!r} is itself an adapter, {other.id}",
            hint=f"Use a whole checkpoint as the base, such as that of {other.id}: {other.base}.",
        )
    return expert


_Place = tuple[str, str, str | None, tuple[Component | None, ...]]


def _place(expert: Expert) -> _Place:
    # an adapter names a repository, and not a checkpoint that takes some of its components from others
    elsewhere = tuple(part.component for part in expert.elsewhere)
    return expert.backend, str(expert.folder or expert.repo), expert.single_file, elsewhere
