"""Drawing on a device without room for a whole pipeline: large parts are there only while they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.weights.module import Weights


@contextmanager
def offloaded(parts: Mapping[str, Weights], device: str, small_bytes: int) -> Iterator[None]:
    """Bring each large part to a device when it begins to compute, in place of the large part that was there.

    Parts of at most `small_bytes` stay for the whole block: they save little room by leaving, text encoders would
    come twice for each picture, and some pipelines read tensors of an autoencoder before they call it (`vae.bn` of
    FLUX.2 and ERNIE-Image). Diffusers' own offloading copies weights back into new memory on the host; ours stay on
    the host all the time.
    """
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Visit(ModelHook):  # type: ignore[misc]  # accelerate has no types
        # pipelines ask the hooks of their modules where to put their own tensors
        execution_device = device

        def __init__(self, part: Weights) -> None:
            self._part = part

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if device not in self._part.places:
                for other in large:
                    other.leave(device)
                _come(self._part, module, device)
            return args, kwargs

    large = [part for part in parts.values() if part.nbytes > small_bytes]
    with ExitStack() as undo:
        for part in parts.values():
            undo.callback(part.leave, device)
            if part not in large:
                part.bring(device)
            module = part.outline(device)
            add_hook_to_module(module, Visit(part))
            undo.callback(remove_hook_from_module, module)
        yield


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
