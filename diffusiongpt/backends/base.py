"""What the rest of the house knows about ways to make an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from diffusiongpt.errors import LoadError
from diffusiongpt.flow.call import Drawing, Resolved

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


OnStep = Callable[[int, int], None]
"""Called with steps done and steps in all."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """What is known of a part of a checkpoint before it is loaded: a text encoder, a UNet, an autoencoder.

    Attributes:
        name: What the pipeline calls it.
        kind: Name of its class.
        config: File with its configuration; `None` if it has none.
        weights: Files with its weights.
        dtype: Type that its floating-point weights will have.
    """

    name: str
    kind: str
    config: str | None
    weights: tuple[str, ...]
    dtype: str


class Part(Protocol):
    """The weights of a component in memory, which several models may share.

    They are on the host (`"cpu"`) when they come, and may be copied to devices; each place is left by itself.
    """

    @property
    def nbytes(self) -> int:
        """Bytes it takes in each place where it is."""
        ...

    def bring(self, device: str) -> None:
        """Copy it from the host to a device.

        Raises:
            OutOfMemoryError: If it does not fit.
        """
        ...

    def leave(self, device: str) -> None:
        """Give the memory of one place back, if it is there; nothing is copied."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to draw once its parts are on the device.

    Attributes:
        model: The pipeline, opaque to everyone but its backend.
        device: Where it draws.
        parts: Its weights by component; those of an adapter are under its own name alone.
    """

    model: Any
    device: str
    parts: Mapping[str, Part]

    @property
    def nbytes(self) -> int:
        """Bytes its weights take on the device."""
        return sum(part.nbytes for part in self.parts.values())


class Backend(Protocol):
    """One way to make an image here; registered under the entry-point group `diffusiongpt.backends`.

    A route asks every backend of the zoo whether it is hosted, so its module imports heavy libraries where it uses
    them and not at its top.
    """

    hosted: Literal[False]

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """Choose the files to pull.

        Args:
            names: All files of the repository, as `folder/name` paths.
            read: Reads one of them; a small download.
            variant: File variant asked for, such as `fp16`.
            allow_unsafe: Whether a component without safetensors weights may have others; passed only if true.

        Raises:
            UnsafeFilesError: If a component has no weights that may be used.
            PullError: If the repository is not one this backend can use.
        """
        ...

    def prepare(self) -> None:
        """Import what loading needs; called before each load, so that its seconds are its own."""
        ...

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """The components whose weights a checkpoint holds; those of the same content are loaded once.

        Args:
            expert: The expert to load.
            folder: The folder of its complete files.
            files: The files in it that `files` chose, as `folder/name` paths.
            device: The device that it will draw on.

        Raises:
            PullError, LoadError: If the files are not a checkpoint that this backend can use.
        """
        ...

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """Build the model on the host from complete local files.

        Args:
            expert: The expert to load.
            folder: The folder of its complete files.
            files: The files in it that `files` chose, as `folder/name` paths.
            device: Where it will draw; the type of the weights depends on it.
            have: Components that are in memory already; they are used as they are, and not loaded again.

        Returns:
            The model with all its parts, those it was given among them.

        Raises:
            OutOfMemoryError: If it does not fit.
            LoadError: If it cannot be built.
        """
        ...

    def opened(self, loaded: Loaded, *, scale: float = 1.0) -> AbstractContextManager[Any]:
        """The device for one request alone, with the model ready to be called on it; all that is set is undone.

        Args:
            loaded: The model; its parts are on its device.
            scale: How strongly an adapter is worn.
        """
        ...

    def draw(
        self, loaded: Loaded, resolved: Resolved, *, on_step: OnStep | None = None, offload: bool = False
    ) -> Drawing:
        """Draw one picture for each seed; same seed, same picture.

        Args:
            loaded: The model; its parts are on its device.
            resolved: What to draw.
            on_step: Told of each step.
            offload: Bring each part to the device only while it works, which takes less memory and more time; the
                parts are on the host then, and on the device none of them at the beginning and the end.

        Raises:
            OutOfMemoryError: If memory runs out.
            DrawError: If the pipeline fails.
        """
        ...


@runtime_checkable
class AdapterBackend(Backend, Protocol):
    """A backend that can also put adapters on its models."""

    def attach(self, base: Loaded, expert: Expert, file: Path) -> Loaded:
        """Put an adapter on a loaded model, which draws as before for whoever asks for it without.

        Args:
            base: The model; it outlives what is returned, and its parts are on its device.
            expert: The adapter.
            file: Its weights.

        Returns:
            The model with the adapter, whose one part is the adapter's own; leaving the device takes it off again.

        Raises:
            OutOfMemoryError: If it does not fit into memory.
            LoadError: If it was not made for this model.
        """
        ...


def for_adapters(backend: Backend, expert: Expert) -> AdapterBackend:
    """A backend that can draw with an adapter.

    Raises:
        LoadError: If this one cannot.
    """
    if isinstance(backend, AdapterBackend):
        return backend
    raise LoadError(
        f"{expert.id} is an adapter, and the backend {expert.backend!r} takes none",
        hint="Choose an expert that is a whole checkpoint.",
    )


class HostedBackend(Protocol):
    """One way to have an image made on somebody else's machine, registered likewise.

    Its experts are neither pulled nor loaded and weigh nothing; `Expert.repo` ends in the name of the model there.
    """

    hosted: Literal[True]

    def check(self, settings: Settings) -> None:
        """Refuse, without a request, if it is clear that nothing can be drawn.

        Raises:
            NeedsKeyError: If no key is set; the hint names the variable.
            NeedsExtraError: If the client library is not installed.
            ServiceError: If the settings forbid the network.
        """
        ...

    def draw(self, resolved: Resolved, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """Have one picture drawn for each seed.

        Raises:
            NeedsKeyError: If the provider does not accept the key.
            ServiceError: If the service cannot be reached, is over its limit, or fails.
            ContentRefusedError: If the provider does not draw what was asked for.
            DrawError: If the request or the answer cannot be used.
        """
        ...
