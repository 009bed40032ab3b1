"""What torch, diffusers and transformers raise, as errors of ours."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Protocol, TypeVar

from diffusiongpt.errors import DiffusionGPTError, DrawError, LoadError, OutOfMemoryError
from diffusiongpt.weights import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.zoo import Expert


T = TypeVar("T")

_LONGEST = 400
"""Characters of a library's message that are passed on."""

_HINTS: dict[type[DiffusionGPTError], str] = {
    LoadError: "Remove it with 'diffusiongpt cache clear' and pull it again, or choose another expert.",
    DrawError: "Check the arguments against the pipeline's documentation, or choose another expert.",
}
"""What to do about an error where nothing better is known."""


class KeepsError(Protocol):
    """Keeps what a callback of the caller raised."""

    raised: BaseException | None


def guarded(
    work: Callable[[], T],
    expert: Expert,
    kind: type[DiffusionGPTError],
    what: str,
    *,
    steps: KeepsError | None = None,
    hint: str = "",
) -> T:
    """Run `work`, and raise what torch and its libraries raise as errors of ours.

    The error is raised after the `except` block: its traceback would hold the tensors of the failed call, whose
    memory the caller of an out-of-memory error wants back (pytorch/pytorch#18853).

    Args:
        work: Loads or draws.
        expert: The expert that `work` is for.
        kind: The error for all failures but a lack of memory.
        what: What failed, after the expert's name: "could not be built".
        steps: Holds what a callback of the caller raised, which passes unchanged.
        hint: What to do; by default what fits `kind`.

    Raises:
        OutOfMemoryError: If memory runs out.
        DiffusionGPTError: Of the type `kind`, for all other failures.
    """
    from safetensors import SafetensorError

    try:
        return work()
    except DiffusionGPTError:
        raise
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        MemoryError,
        AssertionError,
        SafetensorError,
    ) as error:
        if steps is not None and error is steps.raised:
            raise
        out_of_memory = is_out_of_memory(error)
        # one line for each of a thousand tensors would bury the message
        text = shorten(f"{type(error).__name__}: {error}", _LONGEST, placeholder=" ...")
        cause = None if out_of_memory else error
    if out_of_memory:
        raise OutOfMemoryError(
            f"{expert.id} does not fit into memory: {text}",
            hint="Choose a smaller expert or size, or close other programs that use the device.",
        )
    raise kind(f"{expert.id} {what}: {text}", hint=hint or _HINTS[kind]) from cause
