"""Checks that what a model computes is finite: NaN would otherwise be converted into a black picture."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Recovery

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert


_PROCESSORS = ("image_processor", "video_processor")
"""What pipelines call the part that turns tensors into pictures."""

_HINT = "Set 'dtype: float32' in the expert's settings, choose another expert, or check its weights."


@dataclass
class Finite:
    """Checks what one pipeline makes.

    Attributes:
        expert: The expert that draws.
        recovered: What it took, if the autoencoder overflowed.
    """

    expert: Expert
    recovered: list[Recovery] = field(default_factory=list)

    @contextmanager
    def checks(self, pipe: Any) -> Iterator[None]:
        """Check all that a pipeline decodes and turns into pictures within the block.

        A decode that is not finite is done once more in float32: the autoencoder of SDXL overflows in float16, and
        so do fine-tunes of others. Everything else that is not finite is an error.

        Args:
            pipe: A copy of the pipeline that belongs to the caller; its modules may be shared.

        Raises:
            DrawError: If the result is not finite.
        """
        with ExitStack() as undo:
            for name in _PROCESSORS:
                processor = getattr(pipe, name, None)
                if hasattr(processor, "postprocess"):
                    pipe.__dict__[name] = self._checking(processor)
            for part in {id(part): part for part in pipe.components.values() if _decodes(part)}.values():
                before = vars(part).get("decode")
                vars(part)["decode"] = self._decoding(part)
                undo.callback(_put_back, part, before)
            yield

    def _checking(self, processor: Any) -> Any:
        mine = copy.copy(processor)

        def postprocess(image: Any, *args: Any, **kwargs: Any) -> Any:
            self._require(image, "a picture")
            return processor.postprocess(image, *args, **kwargs)

        mine.postprocess = postprocess
        return mine

    def _decoding(self, part: Any) -> Any:
        decode = part.decode

        def checked(latents: Any, *args: Any, **kwargs: Any) -> Any:
            self._require(latents, "latents")
            made = decode(latents, *args, **kwargs)
            if _is_finite(made):
                return made
            self._require(made if _is_single(part) else None, "a picture")
            with _as_single(part):
                made = decode(latents.float(), *args, **kwargs)
            self._require(made, "a picture, also in float32,")
            self.recovered.append(Recovery(step="float32", error="the autoencoder overflowed in 16 bits"))
            return made

        return checked

    def _require(self, made: Any, what: str) -> None:
        if not _is_finite(made):
            raise DrawError(f"{self.expert.id} made {what} of numbers that are not finite", hint=_HINT)


def _decodes(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Module) and callable(getattr(part, "decode", None))


def _put_back(part: Any, before: Any) -> None:
    if before is None:
        vars(part).pop("decode", None)
    else:
        vars(part)["decode"] = before


def _is_finite(made: Any) -> bool:
    """Whether all numbers in the result of a model are finite; of what holds no tensor, nothing is said."""
    import torch

    if isinstance(made, torch.Tensor):
        return bool(torch.isfinite(made).all()) if made.is_floating_point() else True
    if isinstance(made, dict | list | tuple):  # results of diffusers are mappings
        return all(map(_is_finite, made.values() if isinstance(made, dict) else made))
    return True


def _is_single(part: Any) -> bool:
    import torch

    return all(tensor.dtype not in (torch.float16, torch.bfloat16) for tensor in part.parameters())


@contextmanager
def _as_single(part: Any) -> Iterator[None]:
    """The part with its weights in float32; afterwards they are the very tensors that they were."""
    tensors = [tensor for tensor in (*part.parameters(), *part.buffers()) if tensor.is_floating_point()]
    before = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
