"""Models of a few bytes that say where they are, load slowly, and fail now and then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends import Component, Loaded
from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.files import replace_file
from diffusiongpt.flow import Call, Drawing
from diffusiongpt.zoo import Expert, License

if TYPE_CHECKING:
    from diffusiongpt.backends import Part

HOST = "cpu"


@dataclass
class ToyPart:
    """Bytes that are in some place."""

    name: str
    nbytes: int
    toy: ToyBackend
    places: set[str] = field(default_factory=set)

    def bring(self, device: str) -> None:
        """Like `Weights`: to a device from the host, to the host from any device, and a second time nothing."""
        self.toy.may_fail(device)
        with self.toy.lock:
            if device in self.places:
                return
            if not (self.places if device == HOST else HOST in self.places):
                raise LoadError(f"{self.name} is not there to be copied to {device}", hint="Load it.")
            self.come(device)

    def come(self, device: str) -> None:
        """Add a copy; a second copy of the same content would break a rule."""
        self.toy.check(device not in self.toy.where(self.name), f"{self.name} is on {device} twice")
        self.places.add(device)
        self.toy.parts.append(self)

    def leave(self, device: str) -> None:
        """Remove the copy."""
        self.toy.pause()
        with self.toy.lock:
            if device in self.places:
                self.places.remove(device)
                self.toy.parts.remove(self)


@dataclass
class ToyModel:
    """Stands for a pipeline: it draws only with the parts it was built from."""

    parts: Mapping[str, ToyPart]

    def is_on(self, device: str) -> bool:
        """Whether it could draw there."""
        return all(device in part.places for part in self.parts.values())


@dataclass
class ToyBackend:
    """A backend of toys.

    Attributes:
        sizes: Component -> bytes.
        made_of: Expert -> components.
        failures: Chance that a load, or a copy, fails.
        slow_s: The most seconds that each of them takes.
        lock: Held to change where things are.
        parts: Every part, once for each place where it is.
        broken: What should never have been seen.
        failed: How often it failed on purpose.
    """

    sizes: Mapping[str, int]
    made_of: Mapping[str, tuple[str, ...]]
    failures: float = 0.0
    slow_s: float = 0.0
    seed: int = 0
    hosted: Literal[False] = False
    small_bytes: int = 0
    parts: list[ToyPart] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._rng = Random(self.seed)

    def where(self, name: str) -> set[str]:
        """The places that have a component."""
        with self.lock:
            return {place for part in self.parts if part.name == name for place in part.places}

    def on(self, device: str) -> list[str]:
        """The components in a place, each as often as there is a copy."""
        with self.lock:
            return sorted(part.name for part in set_of(self.parts) if device in part.places)

    def check(self, holds: bool, broken: str) -> None:
        """Record a broken rule."""
        if not holds:
            self.broken.append(broken)

    def pause(self) -> None:
        """Wait a random time."""
        time.sleep(self._rng.random() * self.slow_s)

    def may_fail(self, device: str) -> None:
        """Wait a random time, then fail at random."""
        self.pause()
        if self._rng.random() < self.failures:
            self.failed += 1
            raise OutOfMemoryError(f"no room on {device}", hint="None: it is a toy.")

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """All of them."""
        del read, variant, allow_unsafe
        return tuple(names)

    def prepare(self) -> None:
        """Nothing."""

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """See `Backend.components`."""
        del folder, files, device
        return tuple(
            Component(name=name, kind="Toy", config=None, weights=(f"{name}.safetensors",), dtype="float32")
            for name in self.made_of[expert.id]
        )

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """See `Backend.load`; what fails leaves nothing behind."""
        del folder, files
        self.may_fail(HOST)
        parts: dict[str, Any] = {}
        with self.lock:
            for name in self.made_of[expert.id]:
                parts[name] = have.get(name) or ToyPart(name, self.sizes[name], self)
                if name not in have:
                    parts[name].come(HOST)
        return Loaded(model=ToyModel(parts), device=device, parts=parts)

    def opened(self, loaded: Loaded, *, expert: Expert | None = None) -> Any:
        """Not needed here."""
        raise NotImplementedError

    def draw(self, loaded: Loaded, resolved: Call, **options: Any) -> Drawing:
        """Not needed here."""
        raise NotImplementedError

    def write(self, folder: Path) -> list[Expert]:
        """The experts, with files whose headers state the sizes."""
        return [self._write(name, folder / name) for name in self.made_of]

    def _write(self, expert: str, folder: Path) -> Expert:
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text("{}", encoding="utf-8")
        for name in self.made_of[expert]:
            size = self.sizes[name]
            tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
            header = json.dumps({"__metadata__": {"name": name}, "x": tensor}).encode()
            replace_file(folder / f"{name}.safetensors", len(header).to_bytes(8, "little") + header + bytes(size))
        return Expert(id=expert, repo=str(folder), license=License(id="none"))


def set_of(parts: Sequence[ToyPart]) -> list[ToyPart]:
    """Each part once, wherever it is."""
    return list({id(part): part for part in parts}.values())
