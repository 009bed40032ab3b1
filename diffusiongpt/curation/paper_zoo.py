"""From the models of DiffusionGPT's and DiffusionAgent's files to entries of a zoo, or the reason why there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from diffusiongpt.curation.files import describe_file
from diffusiongpt.curation.paper_files import PaperModel, plain
from diffusiongpt.errors import LoadError, PullError, RequestError
from diffusiongpt.zoo import Expert, NodeKind, Taxonomy, Zoo

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_ANYTHING = frozenset({"universal", "base model", "anything", "general"})
"""Words of these files for a model that draws whatever is asked."""

_ROOM = 80
"""Characters of an id."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What became of one model.

    Attributes:
        name: Its name in the file.
        expert: Id of the expert that it is now, or was before; `None` if it is not mapped.
        entry: The new entry; `None` if the zoo has it already, or it is not mapped.
        reason: Why it is not mapped, and what helps.
    """

    name: str
    expert: str | None = None
    entry: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(kw_only=True)
class PaperMapping:
    """Maps models, one after another, so that adapters find the bases that came before.

    Attributes:
        zoo: The experts that there are.
        folders: Where files of weights are looked for.
        done: What became of each model.
    """

    zoo: Zoo
    folders: tuple[Path, ...]
    done: list[Mapped] = field(default_factory=list)

    def add(self, models: Iterable[PaperModel]) -> None:
        """Map some models: whole checkpoints first, since adapters go on them."""
        known = {plain(one.name) for one in self.done}
        for model in sorted(models, key=lambda one: one.is_adapter):
            if plain(model.name) not in known:
                known.add(plain(model.name))
                self.done.append(self._mapped(model))

    @property
    def names(self) -> dict[str, str]:
        """Names of models, as `plain` has them -> ids of experts."""
        return {plain(one.name): one.expert for one in self.done if one.expert is not None}

    def expert_of(self, name: str) -> str | None:
        """The expert that a name in a file of scores means; `None` if there is none."""
        if plain(name) in self.names:
            return self.names[plain(name)]
        near = [expert for known, expert in self.names.items() if known.startswith(plain(name))]
        if len(near) == 1:
            return near[0]
        found = self._in_zoo(name, _known(name).get("same"))
        return found.id if found else None

    def _mapped(self, model: PaperModel) -> Mapped:
        known = _known(model.name)
        there = self._in_zoo(model.name, known.get("same"))
        if there is not None:
            return Mapped(name=model.name, expert=there.id)
        try:
            place = self._place(model, known)
        except (RequestError, LoadError, PullError) as error:
            return Mapped(name=model.name, reason=f"{error}. {error.hint}")
        entry = {"id": self._free_id(model.name), **place, **self._facts(model)}
        entry = {key: entry[key] for key in Expert.model_fields if entry.get(key) not in (None, "", [], {})}
        return Mapped(name=model.name, expert=entry["id"], entry=entry)

    def _in_zoo(self, name: str, repo: str | None) -> Expert | None:
        """The expert that has this model already: by its repository, its id, or its file."""
        for expert in self.zoo.values():
            files = (expert.id, expert.repo.rpartition("/")[2], expert.weight_file or "")
            if expert.repo in (name, repo) or plain(name) in map(plain, files):
                return expert
        return None

    def _place(self, model: PaperModel, known: Mapping[str, str]) -> dict[str, Any]:
        """Where a model is: a file at hand, or a repository.

        Raises:
            RequestError: If it is neither, or an adapter whose base is not known.
            LoadError, PullError: If its file cannot be used.
        """
        file = self._file(model.name)
        base = self._base(model) if model.is_adapter else None
        if file is not None:
            return dict(describe_file(file, base=base, zoo=self.zoo))
        repo = known.get("same") or (model.name if _REPOSITORY.fullmatch(model.name) else None)
        if repo is not None:
            kind = {"kind": "adapter", "base": base} if model.is_adapter else {}
            return {"repo": repo, "architecture": model.family if model.family != "sd21" else None, **kind}
        instead = known.get("instead")
        near = f", or use {instead}, which does the same work" if instead else ""
        raise RequestError(
            f"{model.name} is neither a file in {', '.join(map(str, self.folders))} nor the name of a known repository",
            hint=f"Get its .safetensors file and import again with --files FOLDER{near}",
        )

    def _file(self, name: str) -> Path | None:
        """The file of weights of that name."""
        for folder in self.folders:
            for path in sorted(folder.glob("*.safetensors")):
                if plain(path.name) == plain(name) and path.is_file():
                    return path.resolve().parent / path.name
        return None

    def _base(self, model: PaperModel) -> str:
        """The checkpoint that an adapter is for: one that its pictures were drawn with, else that of its family."""
        own = {plain(model.name)}
        for resource in model.resources:
            if plain(resource) in own:
                continue
            entry = next((one for one in self.done if one.entry and self._means(resource, one.name)), None)
            if entry is not None and entry.entry and entry.entry.get("kind") != "adapter":
                return str(entry.entry["repo"])
            there = self._in_zoo(resource, _known(resource).get("same"))
            if there is not None and there.kind == "checkpoint":
                return there.repo
        base = _bases().get(model.family or "")
        if base is None:
            raise RequestError(
                f"{model.name} is an adapter, and its base {model.base!r} is not known",
                hint="Write 'SD 1.5', 'SD 2.1' or 'SDXL 1.0' as its base_model",
            )
        return base

    @staticmethod
    def _means(resource: str, name: str) -> bool:
        """Whether a resource names a model: files say `majicmixRealistic` for one and its version for the other."""
        return len(plain(resource)) > 3 and plain(name).startswith(plain(resource))

    def _facts(self, model: PaperModel) -> dict[str, Any]:
        settings = {"adapter_scale": model.strength} if model.is_adapter and model.strength is not None else {}
        return {
            "tags": _tags(model.tags, self.zoo.taxonomy),
            "trigger_words": list(model.triggers)[:50],
            "negative_prompt": next(iter(model.negatives), None),
            "settings": settings,
            "description": f"From a file of DiffusionGPT or DiffusionAgent: {model.kind or 'a model'} for "
            f"{model.base or 'an unknown base'}.",
        }

    def _free_id(self, name: str) -> str:
        stem = re.sub(r"\.safetensors$", "", name.rpartition("/")[2], flags=re.IGNORECASE).casefold()
        slug = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:_ROOM].strip("-") or "model"
        taken = {*self.zoo, *(one.expert for one in self.done)}
        free = (slug, *(f"{slug[: _ROOM - 5]}-{number}" for number in range(2, 10_000)))
        return next(one for one in free if one not in taken)


def _tags(words: Iterable[str], taxonomy: Taxonomy) -> dict[str, Any]:
    """The nodes that the words of a file name; words that name none are left out."""
    tags: dict[str, Any] = {}
    kinds: tuple[tuple[NodeKind, str], ...] = (("subject", "subjects"), ("style", "styles"))
    for kind, key in kinds:
        nodes = {
            plain(name): node.id
            for node in taxonomy.of_kind(kind)
            for name in (*node.aliases, *node.label.values(), node.id)
        }
        # these files write "animals" for one and "animal" for the other
        said = [form for word in words for form in (plain(word), plain(word).removesuffix("s"))]
        found = dict.fromkeys(nodes[word] for word in said if word in nodes)
        if found:
            tags[key] = list(found)
    if any(word.casefold() in _ANYTHING for word in words) and tags:
        tags["generalist"] = True
    return tags


@cache
def _table() -> Any:
    text = resources.files(__package__).joinpath("paper_models.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _bases() -> Mapping[str, str]:
    bases: dict[str, str] = _table()["bases"]
    return bases


def _known(name: str) -> Mapping[str, str]:
    """What is known of a model: `same` repository, or an expert `instead`; the longest beginning counts."""
    said = plain(name)
    near = [one for one in _table()["models"] if said.startswith(plain(one["name"]))]
    exact = [one for one in near if "instead" in one or said == plain(one["name"])]
    found: Mapping[str, str] = max(exact, key=lambda one: len(one["name"]), default={})
    return found
