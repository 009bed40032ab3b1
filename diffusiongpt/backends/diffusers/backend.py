"""Draws with any text-to-image pipeline that diffusers loads from a folder of safetensors files."""

from __future__ import annotations

import copy
import inspect
import json
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from diffusiongpt.backends.base import Component, Loaded, OnStep, Part
from diffusiongpt.backends.diffusers.architectures import of_pipeline
from diffusiongpt.backends.diffusers.call import Call, Steps, fresh, plan_call
from diffusiongpt.backends.diffusers.files import INDEX, choose_files, is_weights, read_components, weight_variant
from diffusiongpt.backends.diffusers.lora import attach, detach, worn
from diffusiongpt.backends.diffusers.offload import offloaded
from diffusiongpt.backends.diffusers.quiet import quiet_call, quiet_construction
from diffusiongpt.errors import DiffusionGPTError, DrawError, LoadError, OutOfMemoryError
from diffusiongpt.flow.call import Drawing, Resolved
from diffusiongpt.weights.devices import slot
from diffusiongpt.weights.module import HOST, Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from diffusiongpt.zoo.expert import Expert


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
    """A pipeline on the host with its weights, and the name of an adapter on it.

    An adapter has pipeline and weights in common with its base and with the other adapters on it.
    """

    pipe: Any
    weights: Mapping[str, Weights]
    adapter: str | None = None

    def view(self, device: str) -> Any:
        """A shallow copy of the pipeline whose modules are those of a device."""
        view = copy.copy(self.pipe)
        for name, weights in self.weights.items():
            # past the pipeline's own way to set an attribute, which rewrites its configuration
            view.__dict__[name] = weights.outline(device)
        return view


@dataclass(frozen=True, kw_only=True)
class _Adapter:
    """An adapter as a part: it comes by being attached, and leaves by being taken off."""

    model: _Model
    nbytes: int

    def bring(self, device: str) -> None:
        """It is where its base is."""

    def leave(self, device: str) -> None:
        """See `Part.leave`."""
        with slot(device):
            detach(self.model.view(device), self.model.adapter or "")


class DiffusersBackend:
    """Text-to-image through `diffusers.DiffusionPipeline`: cpu, cuda and mps; safetensors only, no remote code."""

    hosted: Literal[False] = False

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """See `Backend.files`."""
        return choose_files(names, read, variant=variant, allow_unsafe=allow_unsafe)

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        with quiet_construction():
            import diffusers  # noqa: F401
            import transformers  # noqa: F401

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """See `Backend.components`."""
        index = (folder / INDEX).read_bytes()
        dtype = _dtype_name(expert, device, json.loads(index)["_class_name"])
        found = []
        for name, kind in read_components(index, files).items():
            inside = [file for file in files if file.startswith(f"{name}/")]
            weights = tuple(file for file in inside if is_weights(file))
            config = f"{name}/config.json"
            if weights:
                known = config if config in inside else None
                found.append(Component(name=name, kind=kind, config=known, weights=weights, dtype=dtype))
        return tuple(found)

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """See `Backend.load`."""

        def load() -> _Model:
            known = cast("Mapping[str, Weights]", have)
            outlines = {name: part.outline(HOST) for name, part in known.items()}
            pipe = _build(expert, folder, files, device, outlines)
            modules = {name: part for name, part in pipe.components.items() if _has_weights(part)}
            return _Model(pipe=pipe, weights={n: known.get(n) or Weights.pack(part) for n, part in modules.items()})

        model = _guard(load, expert, LoadError, f"could not be built from {folder}")
        return Loaded(model=model, device=device, parts=model.weights)

    def attach(self, base: Loaded, expert: Expert, file: Path) -> Loaded:
        """See `AdapterBackend.attach`."""
        name = f"adapter{next(_NUMBERS)}"
        model = replace(base.model, adapter=name)
        where = f"could not be put on {expert.base}"
        with slot(base.device):
            pipe = model.view(base.device)
            nbytes = _guard(lambda: attach(pipe, file, name), expert, LoadError, where, hint=_OTHER_BASE)
        return Loaded(model=model, device=base.device, parts={name: _Adapter(model=model, nbytes=nbytes)})

    @contextmanager
    def opened(self, loaded: Loaded, *, scale: float = 1.0, offload: bool = False) -> Iterator[Any]:
        """The device, and the pipeline on it for one request, with a scheduler of its own and its adapter on.

        Everything that is set on modules meanwhile is undone: adapters are off, and weights that a pipeline replaced,
        as some autoencoders do that turn themselves into float32 to decode, are the shared ones again.

        Args:
            loaded: The model.
            scale: How strongly an adapter is worn.
            offload: As for `Backend.draw`.
        """
        model: _Model = loaded.model
        # what left the host would be lost
        offload = offload and loaded.device != HOST
        with slot(loaded.device):
            pipe = fresh(model.view(loaded.device))
            visits = offloaded(model.weights, loaded.device) if offload else nullcontext()
            try:
                with visits, worn(pipe, model.adapter, scale) if model.adapter else nullcontext():
                    yield pipe
            finally:
                for weights in () if offload else model.weights.values():
                    weights.restore(loaded.device)

    def draw(
        self, loaded: Loaded, resolved: Resolved, *, on_step: OnStep | None = None, offload: bool = False
    ) -> Drawing:
        """See `Backend.draw`.

        Each picture is a call of its own with its own seed, not a row of a batch: so any single one can be made
        again bit for bit, whatever was drawn beside it. The noise comes from the CPU, where it is the same for
        every device.
        """
        images: list[Image] = []
        scale = resolved.expert.settings.adapter_scale or 1.0
        with self.opened(loaded, scale=scale, offload=offload) as pipe:
            # in here as well: it counts tokens, and a tokenizer serves one thread at a time
            call = plan_call(pipe, resolved)
            for index, seed in enumerate(resolved.seeds):
                steps = Steps(on_step, call, index=index, pictures=len(resolved.seeds))
                images.append(_draw_one(pipe, call, seed, steps, resolved.expert))
        params = call.used(width=images[0].width, height=images[0].height) if images else {}
        if loaded.model.adapter:
            params["adapter_scale"] = scale
        return Drawing(images=tuple(images), params=params, dropped=call.dropped)


def _build(expert: Expert, folder: Path, files: Sequence[str], device: str, have: Mapping[str, Any]) -> Any:
    # the imports are in here too: they are what complains about torchvision
    with quiet_construction():
        import torch
        from diffusers import DiffusionPipeline

        kind = _check_class(folder)
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]  # upstream has no types here
            folder,
            dtype=getattr(torch, _dtype_name(expert, device, kind)),
            variant=weight_variant(files, expert.settings.variant),
            # other formats come this far only where the settings allow them too
            use_safetensors=None if expert.settings.unsafe_weights else True,
            local_files_only=True,
            **have,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _has_weights(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Module) and any(True for _ in (*part.parameters(), *part.buffers()))


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
    if device == "cpu":
        return "float32"
    import torch

    known = of_pipeline(pipeline, expert.architecture)
    wanted = expert.settings.dtype or (known.dtype if known else None)
    if device.startswith("cuda"):
        # Emulated bfloat16 is slow and float16 overflows in models made for bfloat16, so only then float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bfloat16" and not native:
            return "float32"
        return wanted or ("bfloat16" if native else "float16")
    return wanted or "float16"


def _draw_one(pipe: Any, call: Call, seed: int, steps: Steps, expert: Expert) -> Image:
    def draw() -> Any:
        import torch

        arguments = dict(call.arguments)
        if call.takes_callback:
            arguments["callback_on_step_end"] = steps
        with quiet_call(), torch.inference_mode():
            return fresh(pipe)(generator=torch.Generator("cpu").manual_seed(seed), **arguments)

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
