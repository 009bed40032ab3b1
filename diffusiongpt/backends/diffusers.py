"""Draws with any text-to-image pipeline that diffusers loads from a folder of safetensors files."""

from __future__ import annotations

import inspect
import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from diffusiongpt.backends.architectures import of_pipeline
from diffusiongpt.backends.base import Drawing, Loaded, OnStep, Resolved
from diffusiongpt.backends.call import Call, Steps, plan_call
from diffusiongpt.backends.choose import INDEX, choose_files, read_components, weight_variant
from diffusiongpt.backends.lora import attach, detach, worn
from diffusiongpt.backends.quiet import quiet_construction
from diffusiongpt.errors import DiffusionGPTError, DrawError, LoadError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from diffusiongpt.expert import Expert

_T = TypeVar("_T")

_NUMBERS = count(1)
"""Of adapters: a name is used once, so that one that is leaving is never taken for one that comes."""

_OTHER_BASE = "Check 'base' and 'weight_name' in the zoo file: the adapter was made for another checkpoint."

_LONGEST = 400
"""Characters that are told of a library's error."""

_NEEDED = ("prompt", "generator")
"""Without these a pipeline cannot be asked for a picture, or not for the same one again."""


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A pipeline, the lock that lets one request at a time use it, and the name of an adapter on it.

    Pipelines keep state of the call on themselves, and some autoencoders change type while they run.
    An adapter has pipeline and lock in common with its base and with the other adapters on it.
    """

    pipe: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    adapter: str | None = None


class DiffusersBackend:
    """Text-to-image through `diffusers.DiffusionPipeline`: cpu, cuda and mps; safetensors only, no remote code."""

    hosted: Literal[False] = False

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """See `Backend.files`."""
        return choose_files(names, read, variant=variant, allow_unsafe=allow_unsafe)

    def load(self, expert: Expert, folder: Path, *, device: str) -> Loaded:
        """See `Backend.load`."""
        pipe = _guard(lambda: _build(expert, folder, device), expert, LoadError, f"could not be built from {folder}")
        return Loaded(model=_Model(pipe=pipe), device=device, nbytes=_weight_bytes(pipe))

    def attach(self, base: Loaded, expert: Expert, file: Path) -> Loaded:
        """See `AdapterBackend.attach`."""
        name = f"adapter{next(_NUMBERS)}"
        model = replace(base.model, adapter=name)
        where = f"could not be put on {expert.base}"
        with model.lock:
            nbytes = _guard(lambda: attach(model.pipe, file, name), expert, LoadError, where, hint=_OTHER_BASE)
        return Loaded(model=model, device=base.device, nbytes=nbytes)

    def draw(self, loaded: Loaded, resolved: Resolved, *, on_step: OnStep | None = None) -> Drawing:
        """See `Backend.draw`.

        Each picture is a call of its own with its own seed, not a row of a batch: so any single one can be made
        again bit for bit, whatever was drawn beside it. The noise comes from the CPU, where it is the same for
        every device.
        """
        model: _Model = loaded.model
        images: list[Image] = []
        scale = resolved.expert.settings.adapter_scale or 1.0
        with model.lock, worn(model.pipe, model.adapter, scale) if model.adapter else nullcontext():
            # in here as well: it counts tokens, and a tokenizer serves one thread at a time
            call = plan_call(model.pipe, resolved)
            for index, seed in enumerate(resolved.seeds):
                steps = Steps(on_step, call, index=index, pictures=len(resolved.seeds))
                images.append(_draw_one(model.pipe, call, seed, steps, resolved.expert))
        params = call.used(width=images[0].width, height=images[0].height) if images else {}
        if model.adapter:
            params["adapter_scale"] = scale
        return Drawing(images=tuple(images), params=params, dropped=call.dropped)

    def unload(self, loaded: Loaded) -> None:
        """See `Backend.unload`."""
        import gc

        import torch

        model: _Model = loaded.model
        if model.adapter:
            with model.lock:
                detach(model.pipe, model.adapter)
        else:
            # Emptying the pipeline frees the weights even where a caller still holds on to `loaded`.
            for name in model.pipe.components:
                model.pipe.__dict__[name] = None
        gc.collect()
        if loaded.device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif loaded.device == "mps":
            torch.mps.empty_cache()


def _build(expert: Expert, folder: Path, device: str) -> Any:
    read_components((folder / INDEX).read_bytes(), _names(folder))
    # the imports are in here too: they are what complains about torchvision
    with quiet_construction():
        import torch
        from diffusers import DiffusionPipeline

        kind = _check_class(folder)
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]  # upstream has no types here
            folder,
            dtype=getattr(torch, _dtype_name(expert, device, kind)),
            variant=weight_variant(folder, expert.settings.variant),
            use_safetensors=True,
            local_files_only=True,
        )
        pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]


def _check_class(folder: Path) -> str:
    """Name of the pipeline's class, which is one of diffusers' own that draw from text."""
    import diffusers

    name: str = json.loads((folder / INDEX).read_bytes())["_class_name"]
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise LoadError(
            f"{name} is not a pipeline of the installed diffusers {diffusers.__version__}",
            hint="Newer checkpoints need a newer diffusers: pip install -U diffusers",
        )
    taken = inspect.signature(kind.__call__).parameters
    missing = [wanted for wanted in _NEEDED if wanted not in taken]
    if missing:
        raise LoadError(
            f"{name} takes no {' and no '.join(missing)}, so it does not draw from text",
            hint="Use a text-to-image checkpoint.",
        )
    return name


def _dtype_name(expert: Expert, device: str, pipeline: str) -> str:
    import torch

    if device == "cpu":
        return "float32"
    known = of_pipeline(pipeline, expert.architecture)
    wanted = expert.settings.dtype or (known.dtype if known else None)
    if device.startswith("cuda"):
        # Emulated bfloat16 is slow and float16 overflows in models made for bfloat16, so only then float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bfloat16" and not native:
            return "float32"
        return wanted or ("bfloat16" if native else "float16")
    return wanted or "float16"


def _weight_bytes(pipe: Any) -> int:
    import torch

    tensors: dict[tuple[int, int], int] = {}
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                # Tied weights share storage and count once.
                tensors[(tensor.data_ptr(), tensor.nbytes)] = tensor.nbytes
    return sum(tensors.values())


def _draw_one(pipe: Any, call: Call, seed: int, steps: Steps, expert: Expert) -> Image:
    def draw() -> Any:
        import torch

        arguments = dict(call.arguments)
        if call.takes_callback:
            arguments["callback_on_step_end"] = steps
        with torch.inference_mode():
            return call.view(pipe)(generator=torch.Generator("cpu").manual_seed(seed), **arguments)

    output = _guard(draw, expert, DrawError, "failed while drawing", let_through=steps)
    steps.finish()
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise DrawError(
            f"the safety checker that comes with {expert.id} blacked the picture out",
            hint="Word the prompt differently, or choose another expert or seed.",
        )
    image: Image = output.images[0]
    return image


def _guard(
    work: Callable[[], _T],
    expert: Expert,
    kind: type[DiffusionGPTError],
    what: str,
    *,
    let_through: Steps | None = None,
    hint: str = "",
) -> _T:
    """Run `work`; turn what torch and diffusers raise into our errors.

    The error is raised after the `except` block: its traceback holds the tensors of the failed call, and the
    caller of an out-of-memory error wants just those back (pytorch/pytorch#18853).
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
        if let_through is not None and error is let_through.raised:
            raise
        out_of_memory = _is_out_of_memory(error)
        # one line for each of a thousand tensors helps nobody
        text = shorten(f"{type(error).__name__}: {error}", _LONGEST, placeholder=" ...")
        cause = None if out_of_memory else error
    if out_of_memory:
        raise OutOfMemoryError(
            f"{expert.id} does not fit into memory: {text}",
            hint="Choose a smaller expert or size, or close other programs that use the device.",
        )
    raise kind(f"{expert.id} {what}: {text}", hint=hint or _hint(kind)) from cause


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _hint(kind: type[DiffusionGPTError]) -> str:
    if kind is LoadError:
        return "Remove it with 'diffusiongpt cache clear' and pull it again, or choose another expert."
    return "Check the arguments against the pipeline's documentation, or choose another expert."
