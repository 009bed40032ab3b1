"""Drawing where memory is short: parts or layers visit the device in turn, decoding is by tiles, all is undone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from diffusiongpt.weights import finish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from diffusiongpt.weights import Weights


@contextmanager
def offloaded(parts: Mapping[str, Weights], device: str, small_bytes: int, *, stream: bool = False) -> Iterator[None]:
    """Bring each large part to a device when it begins to compute, in place of the large part that was there.

    With `stream`, only its layers come, one group after another while it computes.

    Parts of at most `small_bytes` stay for the whole block: they save little room by leaving, text encoders would
    come twice for each picture, and some pipelines read tensors of an autoencoder before they call it (`vae.bn` of
    FLUX.2 and ERNIE-Image). Yet when one of them decodes, the large ones leave: decoding takes more memory than any
    step before it (SDXL at 1024 pixels 5 to 9 GB in float32), and what denoised has done its work. Diffusers' own
    offloading copies weights back into new memory on the host; ours stay on the host all the time.
    """
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Visit(ModelHook):  # type: ignore[misc]  # accelerate has no types
        # pipelines ask the hooks of their modules where to put their own tensors
        execution_device = device

        def __init__(self, part: Weights) -> None:
            self._part = part

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            comes = device not in self._part.places
            if comes or hasattr(module, "decode"):
                _leave([part for part in large if part is not self._part], device)
            if comes and stream:
                self._part.stream(device)
            elif comes:
                _come(self._part, module, device)
            return args, kwargs

    large = [part for part in parts.values() if part.nbytes > small_bytes]
    if stream and large:
        # what denoises comes once for each step, and what reads the prompt once
        max(large, key=lambda part: part.nbytes).pin(device)
    with ExitStack() as undo:
        for part in parts.values():
            undo.callback(part.leave, device)
            if part not in large:
                part.bring(device)
            module = part.outline(device)
            add_hook_to_module(module, Visit(part))
            undo.callback(remove_hook_from_module, module)
        # the first to be undone
        undo.callback(finish, device)
        yield


def _leave(parts: Iterable[Weights], device: str) -> None:
    """Let parts leave once what was started with them has ended."""
    leaving = [part for part in parts if device in part.places]
    if leaving:
        finish(device)
    for part in leaving:
        part.leave(device)


def _come(part: Weights, module: Any, device: str) -> None:
    """Bring a part, in the types that its tensors were given while they were empty.

    SDXL turns its autoencoder into float32 before it decodes.
    """
    wanted = {name: tensor.dtype for name, tensor in _tensors(module)}
    part.bring(device)
    for name, tensor in _tensors(module):
        if tensor.dtype != wanted.get(name, tensor.dtype):
            tensor.data = tensor.data.to(wanted[name])


def _tensors(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


TILE = 512
"""Width and height of a tile in pixels.

The decode of SDXL at 1024 pixels takes 4.6 GB in 16 bits at once, and 1.4 GB by tiles of 512 (InvokeAI's
`vae_working_memory.py`); diffusers' own default for it, 1024, would change nothing.
"""

_WHOLE = ("AutoencoderTiny",)
"""Classes whose tiles go wrong: diffusers 0.42.1 joins those of AutoencoderTiny rightly for a factor of 8 alone."""


def decoders(pipe: Any) -> list[Any]:
    """The autoencoders of a pipeline that can work by tiles."""
    parts = [part for part in pipe.components.values() if isinstance(getattr(part, "use_tiling", None), bool)]
    return [part for part in parts if type(part).__name__ not in _WHOLE]


@contextmanager
def tiled(pipe: Any) -> Iterator[None]:
    """Let the autoencoders of a pipeline work by tiles during the block; neighbouring tiles are blended."""
    before = [(part, {name: value for name, value in vars(part).items() if "til" in name}) for part in decoders(pipe)]
    try:
        for part, settings in before:
            part.enable_tiling()
            if "tile_latent_min_size" in settings:
                factor = part.tile_sample_min_size / part.tile_latent_min_size
                part.tile_sample_min_size = min(TILE, part.tile_sample_min_size)
                part.tile_latent_min_size = int(part.tile_sample_min_size / factor)
        yield
    finally:
        for part, settings in before:
            vars(part).update(settings)


@contextmanager
def undone(roots: Iterable[Any]) -> Iterator[None]:
    """Undo whatever the block sets on modules: hooks, tiling, attention processors, adapters, even other classes.

    All of it lies in the attributes of the modules and in the tables among them, which are copied before (some
    milliseconds for a thousand modules). Values that are written into tensors stay.
    """
    saved = [(module, type(module), _copy(vars(module))) for root in roots for module in root.modules()]
    try:
        yield
    finally:
        for module, kind, attributes in saved:
            # past the module's own way to set attributes, which sorts modules and parameters into tables
            object.__setattr__(module, "__class__", kind)
            present = vars(module)
            present.clear()
            for name, (value, table) in attributes.items():
                if table is not None:
                    value.clear()
                    value.update(table)
                present[name] = value


def writes(roots: Iterable[Any]) -> int:
    """How often the tensors of modules have been written into in place; torch counts it for each of them."""
    return sum(tensor._version for root in roots for tensor in (*root.parameters(), *root.buffers()))  # noqa: SLF001  # torch has no public name


def _copy(attributes: dict[str, Any]) -> dict[str, tuple[Any, dict[Any, Any] | None]]:
    return {
        name: (value, dict(value) if type(value) in (dict, OrderedDict) else None) for name, value in attributes.items()
    }
