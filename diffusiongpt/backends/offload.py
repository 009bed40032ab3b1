"""Drawing on a device that has no room for all of a pipeline: each part is there only while it works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.backends.weights import Weights


@contextmanager
def offloaded(parts: Mapping[str, Weights], device: str) -> Iterator[None]:
    """Bring each part to a device when it begins to work, in place of the one that was there.

    Diffusers' own offloading copies weights back to the host and leaves them in new memory there; ours are on the
    host all the time.
    """
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Visit(ModelHook):  # type: ignore[misc]  # accelerate has no types
        # where the pipeline puts what it makes itself; it asks the hooks of its modules
        execution_device = device

        def __init__(self, part: Weights) -> None:
            self._part = part

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            del module
            for other in parts.values():
                if other is not self._part:
                    other.leave(device)
            self._part.bring(device)
            return args, kwargs

    with ExitStack() as undo:
        for part in parts.values():
            undo.callback(part.leave, device)
            module = part.outline(device)
            add_hook_to_module(module, Visit(part))
            undo.callback(remove_hook_from_module, module)
        yield
