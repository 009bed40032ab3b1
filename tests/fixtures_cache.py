"""Backends that count, and experts to lease, for the tests of the cache and of pulls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from miniature import KLEIN_EXTRA, SIDE, expert

from diffusiongpt.backends import Component, Loaded, get_backend
from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.errors import LoadError
from diffusiongpt.files import replace_file
from diffusiongpt.flow import Call, Drawing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.backends import Part
    from diffusiongpt.cache import ModelCache
    from diffusiongpt.zoo import Expert

BACKEND = get_backend("diffusers")
UNET = "unet/diffusion_pytorch_model.safetensors"

PLANNED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "vae/config.json",
}
"""What is read of the miniature to plan its pull."""

SD = expert("t/sd", "sd")
KLEIN = expert("t/klein", "klein", extra=KLEIN_EXTRA)


class Counting(DiffusersBackend):
    """The real backend, which also counts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """Count and load."""
        self.loads.append(expert.id)
        return super().load(expert, folder, files, device=device, have=have)


@dataclass
class ToyPart:
    """Bytes that are in some place."""

    name: str
    nbytes: int
    toy: Toy
    places: set[str] = field(default_factory=set)

    def bring(self, device: str) -> None:
        """Record the copy; what is in no place cannot be copied."""
        self.toy.before_bring(self.name, device)
        if not self.places:
            raise LoadError(f"{self.name} is nowhere", hint="")
        self.note(device)

    def leave(self, device: str) -> None:
        """Remove the copy, if there was one."""
        if device in self.places:
            self.toy.before_leave(self.name, device)
            self.places.remove(device)
            self.toy.places[device].remove(self.name)

    def note(self, device: str) -> None:
        """Add a copy; a second one would be a duplicate, in this part or in another with its content."""
        assert self.name not in self.toy.places.setdefault(device, set())
        self.toy.places[device].add(self.name)
        self.places.add(device)


@dataclass
class Toy:
    """Models of one component, of any size, which load as long as a test likes; a folder's name is its content."""

    sizes: dict[str, int] = field(default_factory=dict)
    shared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    places: dict[str, set[str]] = field(default_factory=dict)
    before_load: Callable[[str], Any] = lambda _: None
    before_bring: Callable[[str, str], Any] = lambda _, __: None
    before_leave: Callable[[str, str], Any] = lambda _, __: None
    hosted: Literal[False] = False
    small_bytes: int = 0

    @property
    def alive(self) -> set[str]:
        """Everything that is in memory, in any place."""
        return {name for place in self.places.values() for name in place}

    def prepare(self) -> None:
        """Nothing."""

    def files(self, names: Sequence[str], read: Any, *, variant: str | None) -> tuple[str, ...]:
        """All of them, except those that another thread is writing."""
        del read, variant
        return tuple(name for name in names if not name.endswith(".tmp"))

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """Its own part, and those that it shares."""
        del files, device
        assert folder.is_dir()
        names = (expert.id, *self.shared.get(expert.id, ()))
        for name in names:
            write_size(folder / f"{name}.safetensors", name, self.sizes.get(name, 10))
        return tuple(
            Component(name=name, kind="Toy", config=None, weights=(f"{name}.safetensors",), dtype="float32")
            for name in names
        )

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """Count, do what the test wants, and return a name in place of a model."""
        del files
        assert folder.is_dir()
        self.loads.append(expert.id)
        self.before_load(expert.id)
        parts: dict[str, Part] = {}
        for name in (expert.id, *self.shared.get(expert.id, ())):
            if name in have:
                parts[name] = have[name]
            else:
                parts[name] = part = ToyPart(name, self.sizes.get(name, 10), self)
                part.note("cpu")
        return Loaded(model=expert.id, device=device, parts=parts)

    def draw(self, loaded: Loaded, resolved: Call, **options: Any) -> Drawing:
        """Nothing."""
        raise NotImplementedError


def write_size(path: Path, name: str, size: int) -> None:
    """A safetensors file with one tensor of this many bytes, in the name of its content; written once."""
    if not path.exists():
        header = {"__metadata__": {"name": name}, "x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        raw = json.dumps(header).encode()
        replace_file(path, len(raw).to_bytes(8, "little") + raw + bytes(size))


def touch(cache: ModelCache, backend: Any, *experts: Expert) -> None:
    """Lease each in turn."""
    for who in experts:
        with cache.lease(who, backend, device="cpu"):
            pass


def draw(loaded: Loaded, who: Expert) -> list[bytes]:
    """Two steps with a fixed seed."""
    arguments = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **who.settings.extra}
    resolved = Call(expert=who, prompt="a fox", negative_prompt="", seeds=(3,), arguments=arguments)
    return [image.tobytes() for image in DiffusersBackend().draw(loaded, resolved).images]


def check_at_rest(cache: ModelCache, toy: Toy) -> None:
    """At rest, the cache knows what is where, no room is promised, and models are complete."""
    memory, known = cache.memory, cache.memory.contents.parts()
    for device in memory.devices:
        assert not memory.moving(device)
        with memory.look(device) as (tier,):
            parts = [known[key] for key in tier.residents]
            assert {part.name for part in parts} == toy.places.get(device, set())  # type: ignore[attr-defined]
            assert all(device in part.places for part in parts)  # type: ignore[attr-defined]
            ledger = tier.ledger()
            assert (ledger.reserved, ledger.in_flight) == (0, 0)
            assert ledger.resident == sum(part.nbytes for part in parts)
    assert {part.name for part in known.values()} == toy.alive  # type: ignore[attr-defined]
    there = {id(part) for part in known.values()}
    assert all(id(part) in there for loaded in memory.contents.models() for part in loaded.parts.values())


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int
