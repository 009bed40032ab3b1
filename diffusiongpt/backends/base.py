"""What the rest of the package knows about ways to make an image: the protocols, and how they are found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from diffusiongpt.errors import LoadError, ZooError
from diffusiongpt.flow import Call, Drawing, Task, nearest_task
from diffusiongpt.plugins import Plugins

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


OnStep = Callable[[int, int], None]
"""Called with the number of steps done and of all steps."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """What is known of a part of a checkpoint before it is loaded: a text encoder, a UNet, an autoencoder.

    Attributes:
        name: The pipeline's name for it.
        kind: Name of its class.
        config: File with its configuration; `None` if it has none.
        weights: Files with its weights.
        dtype: Type that its floating-point weights will have, or compute in if they are quantised.
        quantised: Type of weights of fewer bits; empty for none.
        share: Bytes that it takes, as a share of those at `dtype`; an estimate where it is quantised.
        prefixes: Beginnings of the names of its tensors, where its files hold other components too; empty for all.
        facts: Its configuration, where no file has it.
    """

    name: str
    kind: str
    config: str | None
    weights: tuple[str, ...]
    dtype: str
    quantised: str = ""
    share: float = 1.0
    prefixes: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None


class Part(Protocol):
    """The weights of a component in memory, which several models may share.

    They are loaded into host memory (`"cpu"`), and can be copied to devices; each place is given back separately.
    """

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in each place."""
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
    """A model that is ready to draw once its parts are on the device.

    Attributes:
        model: The pipeline, opaque to all but its backend.
        device: Where it draws, such as `"cuda:0"`.
        parts: Its weights by component; for an adapter only its own, under its own name.
    """

    model: Any
    device: str
    parts: Mapping[str, Part]

    @property
    def nbytes(self) -> int:
        """Bytes that its weights take on the device."""
        return sum(part.nbytes for part in self.parts.values())


class Backend(Protocol):
    """A way to draw on this machine, registered under the entry-point group `diffusiongpt.backends`.

    Each route asks every backend of the zoo whether it is hosted, so its module imports heavy libraries inside its
    functions and not at its top.
    """

    hosted: Literal[False]

    # An attribute may be added: `index = "config.json"`, the file by which a local folder is known to be a checkpoint,
    # where that is not `model_index.json`.

    small_bytes: int
    """Parts up to this size, in bytes, stay on the device while a model draws offloaded; see `draw`."""

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """Choose the files to pull.

        Args:
            names: All files of the repository, as `folder/name` paths.
            read: Reads one of them; a small download.
            variant: Preferred file variant, such as `fp16`.
            allow_unsafe: Whether a component without safetensors weights may use others; passed only if true.

        Raises:
            UnsafeFilesError: If a component has no weights that may be used.
            PullError: If this backend cannot use the repository.
        """
        ...

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """What an expert can do, as far as is known without its files; left out, it draws from text alone."""
        ...

    def prepare(self) -> None:
        """Import what loading needs; called before each load, so that the load is timed without it."""
        ...

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """The components whose weights a checkpoint holds; those of equal content are loaded once.

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
            expert: The expert to build.
            folder: The folder of its complete files.
            files: The files in it that `files` chose, as `folder/name` paths.
            device: Where it will draw; the type of the weights depends on it.
            have: Components that are in memory already, and are used instead of being loaded again.

        Returns:
            The model with all its parts, including those it was given.

        Raises:
            OutOfMemoryError: If it does not fit.
            LoadError: If it cannot be built.
        """
        ...

    def opened(self, loaded: Loaded, *, expert: Expert | None = None) -> AbstractContextManager[Any]:
        """Reserve the device for one request, with the model ready to be called as the expert draws.

        Whatever is set on its modules is undone: hooks, tiling, adapters, other types. On a device that is also true
        of values that are written into its weights; on the host they stay until the model is loaded again.

        Args:
            loaded: The model, whose parts are on its device.
            expert: Its scheduler and the strength of its adapter count; without it, the model's own.
        """
        ...

    def draw(
        self,
        loaded: Loaded,
        resolved: Call,
        *,
        on_step: OnStep | None = None,
        offload: bool = False,
        stream: bool = False,
        tile: bool = False,
    ) -> Drawing:
        """Draw one picture for each seed; the same seed gives the same picture.

        Args:
            loaded: The model, whose parts are on its device.
            resolved: What to draw.
            on_step: Called after each step with the steps done and all steps, over all pictures of the call.
            offload: Bring each large part to the device only while it computes, which takes less memory and more
                time. All parts are then on the host, and none on the device at the beginning and at the end.
            stream: With `offload`, bring large parts by groups of layers; passed only if true.
            tile: Decode by tiles, if the model can; the picture then differs a little at their seams.

        Returns:
            One picture per seed, in their order, with the arguments that were really used.

        Raises:
            OutOfMemoryError: If memory runs out, or tiles without offloading would not save any.
            DrawError: If the pipeline fails.
            ContentPolicyError: If the pipeline's own safety checker blanks a picture.
        """
        ...


@runtime_checkable
class AdapterBackend(Backend, Protocol):
    """A backend that can also attach adapters and ControlNets to its models."""

    def attach(self, base: Loaded, expert: Expert, file: Path) -> Loaded:
        """Attach an adapter to a loaded model; requests for the model itself draw as before.

        Args:
            base: The model; it outlives the result, and its parts are on its device.
            expert: The entry of the adapter.
            file: File with the adapter's weights.

        Returns:
            The model with the adapter. Its one part is the adapter's own, and is detached by leaving the device.

        Raises:
            OutOfMemoryError: If it does not fit into memory.
            LoadError: If it was not made for this model.
        """
        ...

    def check_control(self, config: bytes) -> object:
        """Refuse a ControlNet by its configuration, before its weights are pulled.

        Raises:
            PullError, LoadError: If it is damaged, unsafe, or of something else.
        """
        ...

    def together(self, guests: Sequence[Loaded]) -> Loaded:
        """A model with several adapters that are attached to the same base; they stay its guests."""
        ...


def for_adapters(backend: Backend, expert: Expert) -> AdapterBackend:
    """Return the backend if it can draw with an adapter.

    Raises:
        LoadError: If it cannot.
    """
    if isinstance(backend, AdapterBackend):
        return backend
    raise LoadError(
        f"{expert.id} is an adapter, and the backend {expert.backend!r} takes none",
        hint="Choose an expert that is a whole checkpoint.",
    )


class HostedBackend(Protocol):
    """A way to have pictures drawn by a service, registered under the same group.

    Its experts are neither pulled nor loaded and take no memory; `Expert.repo` ends in the service's name of the
    model.
    """

    hosted: Literal[True]

    # Two attributes and a method may be added. `free = True`: it never bills, so that no price has to be allowed.
    # `metered = True`: it asks for several pictures in one call and keeps to `Call.meter` at each request; others are
    # asked for one picture at a time. `check_expert(expert, settings)`: in place of `check`, where what is needed
    # depends on the entry, such as a server of one's own.

    def check(self, settings: Settings) -> None:
        """Refuse, without a request, where it is clear that nothing can be drawn.

        Args:
            settings: Keys, addresses, and whether the network may be used.

        Raises:
            NeedsKeyError: If no key is set; the hint names the variable.
            NeedsExtraError: If the client library is not installed.
            ServiceError: If the settings forbid network access.
        """
        ...

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        ...

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """Have one picture drawn for each seed.

        Pictures that were paid for are returned even if a later request fails; `Drawing.seeds` says which they are.

        Args:
            resolved: What to draw; its `arguments` have the size in pixels.
            settings: Keys, addresses, and whether the network may be used.
            on_step: Called with the pictures or steps done and all of them, where the service says how far it is.

        Raises:
            NeedsKeyError: If the service does not accept the key.
            ServiceError: If the service cannot be reached, is over its limit, or fails.
            ContentRefusedError: If the service refuses to draw the prompt.
            DrawError: If the request or the answer cannot be used.
        """
        ...


_INDEX = "model_index.json"

PEFT_CONFIG = "adapter_config.json"
"""File in which peft states what an adapter is for and how strong it was trained, next to its weights."""

BACKENDS: Plugins[Backend | HostedBackend] = Plugins(
    group="diffusiongpt.backends",
    what="backend",
    ours={
        "diffusers": "diffusiongpt.backends.diffusers:DiffusersBackend",
        "fake": "diffusiongpt.testing.fake_backend:FakeBackend",
        "hf-inference": "diffusiongpt.backends.hosted:InferenceBackend",
        "ideogram": "diffusiongpt.backends.hosted:IdeogramBackend",
        "images-api": "diffusiongpt.backends.hosted:ImagesServerBackend",
        "janus": "diffusiongpt.backends.janus:JanusBackend",
        "janusflow": "diffusiongpt.backends.janusflow:JanusFlowBackend",
        "openai": "diffusiongpt.backends.hosted:OpenAIBackend",
        "stability": "diffusiongpt.backends.hosted:StabilityBackend",
    },
    error=ZooError,
)


@cache
def get_backend(name: str) -> Backend | HostedBackend:
    """The backend that a zoo entry names; made once in a process.

    Raises:
        ZooError: If no installed package offers it, or its module cannot be loaded.
    """
    return BACKENDS.make(name)


@cache
def never_bills(name: str) -> bool:
    """Whether a hosted backend says of itself that it costs nothing; a zoo file cannot say so."""
    try:
        return getattr(get_backend(name), "free", False) is True
    except ZooError:
        return False


@cache
def is_hosted(name: str) -> bool:
    """Whether a backend draws at a service; `False` for one that is not installed."""
    try:
        return get_backend(name).hosted
    except ZooError:
        return False


def index_of(expert: Expert) -> str:
    """The file by which a local folder is known to be a checkpoint for the backend of an expert."""
    try:
        backend = get_backend(expert.backend)
    except ZooError:
        return _INDEX
    return str(getattr(backend, "index", _INDEX))


FROM_TEXT: frozenset[Task] = frozenset({"text-to-image"})


def tasks_of(expert: Expert) -> frozenset[Task]:
    """What an expert can do."""
    try:
        backend = get_backend(expert.backend)
    except ZooError:
        return FROM_TEXT
    known = getattr(backend, "tasks", None)
    return FROM_TEXT if known is None else known(expert)


def nearest_task_of(expert: Expert, wanted: Task) -> Task | None:
    """The task nearest to one that is wanted that an expert can do; `None` if it has none in its place."""
    return nearest_task(wanted, tasks_of(expert))
