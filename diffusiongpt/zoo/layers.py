"""A zoo: the experts of several layered files, adapters with their bases, and the taxonomy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from diffusiongpt.errors import UnknownExpertError, ZooError
from diffusiongpt.zoo.expert import Expert
from diffusiongpt.zoo.file import ZooFile, ZooSource, read_zoo_file
from diffusiongpt.zoo.taxonomy import Node, Taxonomy, shipped_nodes


class Zoo(Mapping[str, Expert]):
    """Experts by id, in file order, and their taxonomy.

    Attributes:
        sources: Names of the layers, first layer first.
        taxonomy: The checked taxonomy.
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
        nodes = {node.id: node for node in shipped_nodes()}
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
            UnknownExpertError: If there is none; the hint names the nearest ids, unlike that of a `KeyError`.
        """
        try:
            return self._experts[expert_id]
        except KeyError:
            near = get_close_matches(expert_id, self._experts, n=3, cutoff=0.4)
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
    checkpoints: dict[tuple[str, str], Expert] = {}
    adapters: dict[tuple[str, str], Expert] = {}
    for expert in experts.values():
        (checkpoints if expert.kind == "checkpoint" else adapters).setdefault(_place(expert), expert)
    return {name: _on_its_base(expert, checkpoints, adapters) for name, expert in experts.items()}


def _on_its_base(
    expert: Expert, checkpoints: Mapping[tuple[str, str], Expert], adapters: Mapping[tuple[str, str], Expert]
) -> Expert:
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


def _place(expert: Expert) -> tuple[str, str]:
    return expert.backend, str(expert.folder or expert.repo)
