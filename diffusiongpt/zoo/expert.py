"""An expert, one entry of the zoo: a checkpoint or adapter, what it is good at, and how to call it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from diffusiongpt.files import expand_home
from diffusiongpt.zoo.call_settings import CallSettings, Line, Name
from diffusiongpt.zoo.places import (
    GGUF,
    FileInRepo,
    Gigabytes,
    Guest,
    License,
    Said,
    Source,
    is_file,
    is_local,
    wrong_place,
)
from diffusiongpt.zoo.service import Price, Server

ROOT: Final = "root"
"""The node for "nothing in particular": generalists are here, and in the evidence it has the probability that the
prompt names no style."""

EDITING: Final = "task_edit"
"""Evidence that a picture is to be changed by an instruction: how good experts are at that is learnt separately."""

PROMPT_HERE: Final = "{prompt}"
"""Where the prompt goes in a `transparent_prompt`."""

_ENDS: Final = (".", "!", "?", "…", "。", "！", "？")
_SIZES_DIFFER: Final = 0.05
"""How far, as a share, the components may be from the size of the whole: figures on model cards are rounded."""

NodeId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=80)]
ExpertId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=80)]
ComponentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Paragraph = Annotated[str, StringConstraints(max_length=8_000)]
"""A description, or a negative prompt: image models read a few hundred words at most."""
TextSkill = Literal["none", "poor", "fair", "good", "strong"]
PromptStyle = Literal["short_keywords", "natural_language", "danbooru", "long_caption", "json_caption", "json_optional"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tags(_Entry):
    """Taxonomy nodes that the expert is on; an expert without any is a generalist and on the root.

    Attributes:
        subjects: Subjects it is good at drawing.
        styles: Styles of its pictures.
        generalist: Whether it draws anything, and the tags are only its strengths: it is on the root as well.
    """

    subjects: tuple[NodeId, ...] = Field(default=(), max_length=500)
    styles: tuple[NodeId, ...] = Field(default=(), max_length=500)
    generalist: bool = False


class Capabilities(_Entry):
    """Special skills of the expert; `None` means unknown, and of `color` that it has what all have.

    Attributes:
        color: `False` for an expert that draws in black, white and grey only.
    """

    text_rendering_en: TextSkill | None = None
    text_rendering_zh: TextSkill | None = None
    image_editing: bool | None = None
    multi_reference: bool | None = None
    img2img: bool | None = None
    inpaint: bool | None = None
    transparent_background: bool | None = None
    color: bool | None = None


_MOST_GUESTS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Component:
    """What of a checkpoint a part is that comes from elsewhere.

    Attributes:
        name: Its name in the pipeline.
        file: The one file with its weights, as a path in its repository or folder; `None` for a whole folder.
        subfolder: That folder, as a path in the repository; `None` for the usual one.
    """

    name: str
    file: str | None
    subfolder: str | None

    @property
    def is_packed(self) -> bool:
        """Whether its file has weights of few bits, which stay so in memory."""
        return self.file is not None and self.file.endswith(GGUF)


class Expert(_Entry):
    """One image model and everything known about it; unknown facts are left out, never guessed.

    Attributes:
        id: Lower-case name in routes, votes and file names.
        backend: Name of the entry point that draws with it.
        repo: Hub repository `owner/name`, or a folder or one `.safetensors` file: absolute, `~/...`, or `./...`
            relative to the zoo file; for a hosted expert `provider/model`.
        revision: Commit, tag or branch; by default the commit of the first pull.
        file: File of the repository that is the whole checkpoint, in the layout of the original code.
        architecture: Family, such as `sd15` or `sdxl`.
        kind: Whether it is a whole checkpoint, an adapter for `base`, or a ControlNet for it.
        base: Repository, folder or file of the checkpoint that an adapter or a ControlNet is for.
        adapters: Adapters that draw together with this one, on the same base.
        tags: Its nodes in the taxonomy.
        capabilities: Its special skills.
        languages: Prompt languages that it understands, BCP 47.
        license: Licence of its weights.
        price: Price of a picture, for a hosted expert.
        seconds: Seconds that a hosted expert takes for a picture, as far as its sources say.
        server: The server of a hosted expert whose backend has no address of its own.
        gated: Whether the hub requires accepting terms first.
        components: Bytes that each component takes in memory at the recommended type (`int8`, `nf4`: at 16 bits), in
            GB (1e9), under its name in the pipeline; or where its weights are, if that is elsewhere.
        size_gb: The same for all components together; of an adapter, what it adds to its base.
        settings: Recommended call arguments.
        prompt_style: Prompt wordings that suit it, best first.
        trigger_words: Words that it needs in the prompt.
        transparent_prompt: How it is asked for a transparent background: a text in which `{prompt}` is the prompt.
        negative_prompt: Negative prompt that its maker recommends.
        description: One sentence about it.
        sources: Addresses of pages that state these facts.
    """

    id: ExpertId
    backend: Name = "diffusers"
    repo: Line = Field(min_length=1)
    revision: Name | None = None
    file: FileInRepo | None = None
    architecture: Name | None = None
    kind: Literal["checkpoint", "adapter", "control"] = "checkpoint"
    base: Line | None = None
    adapters: tuple[Guest, ...] = Field(default=(), max_length=_MOST_GUESTS)
    tags: Tags = Tags()
    capabilities: Capabilities = Capabilities()
    languages: tuple[Name, ...] = Field(default=(), max_length=1_000)
    license: License | None = None
    price: Price | None = None
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    server: Server | None = None
    gated: bool | None = None
    components: dict[ComponentName, Said] = Field(default_factory=dict, max_length=50)
    size_gb: Gigabytes | None = None
    settings: CallSettings = CallSettings()
    prompt_style: tuple[PromptStyle, ...] = Field(default=(), max_length=20)
    trigger_words: tuple[Line, ...] = Field(default=(), max_length=50)
    transparent_prompt: Paragraph | None = None
    negative_prompt: Paragraph | None = None
    description: Paragraph = ""
    sources: tuple[Line, ...] = Field(default=(), max_length=100)
    _folder: Path | None = PrivateAttr(default=None)
    _base_expert: Expert | None = PrivateAttr(default=None)
    _guests: tuple[Expert, ...] = PrivateAttr(default=())
    _elsewhere: tuple[Expert, ...] = PrivateAttr(default=())
    _component: Component | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # a checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            # pydantic's own takes four times as long, and a route asks for private attributes of dozens of experts
            private = None if name == "__pydantic_private__" else self.__pydantic_private__
            return private[name] if private and name in private else super().__getattr__(name)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Expert:
        wrong = [*self._contradictions()]
        if wrong:
            raise ValueError("; ".join(wrong))
        if self.is_local:
            zoo_folder = (info.context or {}).get("folder", Path())
            place = zoo_folder / expand_home(self.repo)
            # where the file itself is a link, its name is that of the link
            self._folder = (place.parent if is_file(self.repo) else place).resolve()
        if self.components:
            self._elsewhere = tuple(self._make_component(name, one, info) for name, one in self.places.items())
        if self.base:
            self._base_expert = self._make_base(self.base, info)
            self._guests = tuple(self._make_guest(one, info) for one in self.adapters)
        return self

    def __repr__(self) -> str:
        """Id, place and family; `model_dump` has all."""
        facts = (self.repo, self.architecture, f"{self.size_gb:g} GB" if self.size_gb else None)
        return f"<Expert {self.id}: {', '.join(fact for fact in facts if fact)}>"

    __str__ = __repr__

    def _contradictions(self) -> Iterator[str]:
        """What each value allows and all together do not."""
        yield from self._wrong_as_guest() if self.is_guest else self._wrong_as_checkpoint()
        if self.file and (self.is_guest or is_file(self.repo)):
            yield "'file' names the whole checkpoint in a repository; an adapter's file is 'weight_name' under settings"
        if self.transparent_prompt is not None:
            if self.transparent_prompt.count(PROMPT_HERE) != 1:
                yield f"'transparent_prompt' needs {PROMPT_HERE} once, where the prompt goes"
            if self.capabilities.transparent_background is not True:
                yield "'transparent_prompt' is for experts whose 'capabilities' have 'transparent_background: true'"
        total = sum(self.sizes_gb.values())
        if self.is_sized and self.size_gb is not None and abs(total - self.size_gb) > _SIZES_DIFFER * self.size_gb:
            yield (
                f"the components add up to {total:.1f} GB and size_gb says {self.size_gb:g}; "
                "a component is missing, or one of the numbers is wrong"
            )
        places = [("repo", self.repo), ("base", self.base), *(("adapters", one.repo) for one in self.adapters)]
        yield from (wrong for key, place in places if place and (wrong := wrong_place(key, place)))

    def _wrong_as_guest(self) -> Iterator[str]:
        if not self.base:
            name = "an adapter" if self.kind == "adapter" else "a ControlNet"
            yield f"{name} needs 'base', the repository of its checkpoint"
        if self.components:
            yield "'components' is for a whole checkpoint; say what an adapter adds with 'size_gb'"
        if self.kind == "control" and self.settings.adapter_scale is not None:
            yield "'adapter_scale' is for 'kind: adapter'; a ControlNet has controlnet_conditioning_scale under 'extra'"
        if self.kind == "control" and is_file(self.repo):
            yield "a ControlNet needs its folder, with config.json beside the weights"

    def _wrong_as_checkpoint(self) -> Iterator[str]:
        if self.settings.weight_name or self.settings.adapter_scale is not None:
            yield "'weight_name' and 'adapter_scale' are for 'kind: adapter'"
        if self.base:
            yield "'base' is for 'kind: adapter'"
        if self.adapters:
            yield "'adapters' go with 'kind: adapter'"
        if self.single_file and self.settings.variant:
            yield "'variant' is for repositories in diffusers' layout; name the right file instead"

    def _make_base(self, base: str, info: ValidationInfo) -> Expert:
        own = self.settings
        load = {"dtype": own.dtype, "variant": own.variant, "unsafe_weights": own.unsafe_weights}
        facts = {"id": self.id, "repo": base, "backend": self.backend, "architecture": self.architecture}
        return Expert.model_validate({**facts, "settings": load}, context=info.context)

    def _make_guest(self, guest: Guest, info: ValidationInfo) -> Expert:
        facts = {"id": self.id, "backend": self.backend, "kind": "adapter", "base": self.base}
        settings = {"weight_name": guest.weight_name, "adapter_scale": guest.scale}
        own = {"repo": guest.repo, "revision": guest.revision, "license": guest.license, "settings": settings}
        return Expert.model_validate({**facts, **own}, context=info.context)

    def _make_component(self, name: str, source: Source, info: ValidationInfo) -> Expert:
        own = self.settings
        repo, file = source.place
        facts = {"id": self.id, "backend": self.backend, "architecture": self.architecture, "size_gb": source.size_gb}
        load = {"dtype": own.dtype, "variant": own.variant, "unsafe_weights": own.unsafe_weights}
        place = {"repo": repo, "revision": source.revision, "license": source.license}
        part = Expert.model_validate({**facts, **place, "settings": load}, context=info.context)
        part._component = Component(name=name, file=file, subfolder=source.subfolder)  # noqa: SLF001  # just made
        return part

    def on(self, base: Expert) -> Expert:
        """This adapter on a known checkpoint, whose facts fill in those that the adapter does not state itself."""
        own = {name: value for name, value in self.settings if value is not None}
        extra = {**base.settings.extra, **self.settings.extra}
        settings = base.settings.model_copy(update={**own, "extra": extra})
        load = {"dtype": settings.dtype, "variant": settings.variant}
        facts = {"settings": settings, "architecture": self.architecture or base.architecture}
        adapted = self.model_copy(update=facts)
        return _over(adapted, base.model_copy(update={"settings": base.settings.model_copy(update=load)}))

    def transparent_prompt_for(self, text: str) -> str:
        """The text with which this expert draws a prompt on a transparent background."""
        if self.transparent_prompt is None:
            return text
        text = text.rstrip()
        return self.transparent_prompt.replace(PROMPT_HERE, text if text.endswith(_ENDS) else f"{text}.")

    def prompt_for(self, text: str, written: Iterable[str] = ()) -> str:
        """The prompt this expert gets for a text: led by its trigger words unless the text holds them already.

        They are looked for as words: "ink" is not in "pink", nor where INK is to be written in the picture.

        Args:
            text: The text.
            written: What of it is to be written in the picture.
        """
        said = text
        for one in written:
            said = said.replace(one, " ")
        missing = [words for words in self.trigger_words if not _holds(said, words)]
        return ", ".join([*missing, text])

    def goes_by(self, name: str) -> bool:
        """Whether an adapter is known by a name in prompts: its id, or that of its repository or file."""
        if self.kind != "adapter":
            return False
        own = (
            self.id,
            (self.repo or "").rpartition("/")[2],
            (self.weight_file or "").removesuffix(".safetensors"),
        )
        return _plain_name(name) in {_plain_name(one) for one in own if one}

    @property
    def base_expert(self) -> Expert | None:
        """The checkpoint of an adapter, as the zoo has it, else with its place alone; `None` for a checkpoint."""
        return self._base_expert

    @property
    def parts(self) -> tuple[Expert, ...]:
        """The experts whose files it takes to draw, in the order of pulling; the last is itself.

        Before a checkpoint are its components from elsewhere, before an adapter its base and the adapters that draw
        together with it. Each has a repository or folder of its own.
        """
        # a route asks for those of dozens of experts, and looking up a private attribute takes longest
        if self.kind == "checkpoint" or self._base_expert is None:
            return (*self._elsewhere, self) if self.components else (self,)
        return (*self._base_expert.parts, *self._guests, self)

    @property
    def checkpoint(self) -> Expert:
        """The checkpoint that it draws with: its base, or itself."""
        return self._base_expert or self

    @property
    def guests(self) -> tuple[Expert, ...]:
        """The adapters and ControlNets that draw on its checkpoint, the last of which is itself."""
        return (*self._guests, self) if self._base_expert else ()

    @property
    def elsewhere(self) -> tuple[Expert, ...]:
        """The components of a checkpoint that come from other repositories, each as a part of its own."""
        return self._elsewhere

    @property
    def component(self) -> Component | None:
        """What of a checkpoint a part is that comes from elsewhere; `None` for an expert."""
        return self._component

    @property
    def folder(self) -> Path | None:
        """The local folder that `repo` names, relative to its zoo file; `None` for a hub repository."""
        return self._folder

    @property
    def is_guest(self) -> bool:
        """Whether it draws on a base: an adapter or a ControlNet."""
        return self.kind != "checkpoint"

    @property
    def is_local(self) -> bool:
        """Whether `repo` names a folder or a file on this machine."""
        return is_local(self.repo)

    @property
    def single_file(self) -> str | None:
        """The one file that is the whole checkpoint, as a path in its repository or folder; `None` if it is not one."""
        return self.weight_file if self.kind == "checkpoint" and self._component is None else None

    @property
    def weight_file(self) -> str | None:
        """The one file that it names, of a checkpoint, a component or an adapter; `None` if it names none."""
        if (component := self._component) is not None:
            return component.file
        own = PurePath(self.repo).name if self.is_local and is_file(self.repo) else None
        return self.file or self.settings.weight_name or own

    @property
    def is_generalist(self) -> bool:
        """Whether it is on the root, since it says so or has no tags."""
        return self.tags.generalist or not (self.tags.styles or self.tags.subjects)

    @property
    def places(self) -> dict[str, Source]:
        """The components that come from elsewhere, as the entry has them."""
        return {name: one for name, one in self.components.items() if isinstance(one, Source)}

    @property
    def sizes_gb(self) -> dict[str, float]:
        """GB of each component, as far as they are stated."""
        stated = ((name, one.size_gb if isinstance(one, Source) else one) for name, one in self.components.items())
        return {name: size for name, size in stated if size is not None}

    @property
    def is_sized(self) -> bool:
        """Whether it states the size of each of its components, and not only where some of them are."""
        is_table = False
        for one in self.components.values():  # a route asks for it of all experts
            if not isinstance(one, Source):
                is_table = True
            elif one.size_gb is None:
                return False
        return is_table

    @property
    def size_bytes(self) -> int | None:
        """Bytes of its weights in memory, those of its base and of components from elsewhere included.

        `None` if not known.
        """
        if self._base_expert is None:
            whole = sum(self.sizes_gb.values()) if self.is_sized else self.size_gb
            return None if whole is None else round(whole * 1e9)
        base = self._base_expert.size_bytes
        # next to its base an adapter is small, whether its own size is known or not
        return None if base is None else base + round((self.size_gb or 0) * 1e9)

    @property
    def own_bytes(self) -> int | None:
        """Bytes of its weights in memory without those of a base or of other repositories; `None` if not known."""
        if self._base_expert is not None:
            return None if self.size_gb is None else round(self.size_gb * 1e9)
        whole = self.size_bytes
        return None if whole is None else max(0, whole - sum(one.own_bytes or 0 for one in self._elsewhere))


def is_editing(evidence: Mapping[str, float]) -> bool:
    """Whether evidence is about changing a picture by an instruction, and not about drawing one."""
    return evidence.get(EDITING, 0.0) > _MOSTLY


_MOSTLY: Final = 0.5


def _over(adapter: Expert, base: Expert) -> Expert:
    over = adapter.model_copy()
    over._base_expert = base  # noqa: SLF001 - a copy that no one else has yet
    return over


def _plain_name(name: str) -> str:
    """A name without case and punctuation, as people retype it."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _holds(text: str, words: str) -> bool:
    """Whether a text holds these words, as words where they are written with letters that form words."""
    return (
        re.search(rf"(?<![^\W\u3040-\u9fff]){re.escape(words)}(?![^\W\u3040-\u9fff])", text, re.IGNORECASE) is not None
    )
