"""Draws with any text-to-image pipeline that diffusers loads from a folder of safetensors files."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, cast

from diffusiongpt.backends.base import Component, Loaded, OnStep, Part
from diffusiongpt.backends.diffusers.arguments import plan_call
from diffusiongpt.backends.diffusers.build import build, components_in
from diffusiongpt.backends.diffusers.control import Control, check_control, load_control
from diffusiongpt.backends.diffusers.elsewhere import check_component, component_files
from diffusiongpt.backends.diffusers.embedding_file import Embedding, embedding_in, worded
from diffusiongpt.backends.diffusers.encoded import Encoded
from diffusiongpt.backends.diffusers.few_bits import FEW_BITS, check_can_quantise
from diffusiongpt.backends.diffusers.finite import Finite
from diffusiongpt.backends.diffusers.lora import activated, attach, detach
from diffusiongpt.backends.diffusers.preflight import check_pipeline
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.run import Steps, draw_one, fresh, scheduled
from diffusiongpt.backends.diffusers.selection import choose_files
from diffusiongpt.backends.diffusers.short_memory import decoders, offloaded, tiled, undone, writes
from diffusiongpt.backends.diffusers.single_file import recognise
from diffusiongpt.backends.diffusers.tasks import blend_for, known_tasks, pipeline_for
from diffusiongpt.backends.guarded import guarded
from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.flow import Call, Drawing
from diffusiongpt.weights import HOST, Weights, finish, slot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from diffusiongpt.backends.composing import Listing, Place
    from diffusiongpt.backends.single_file import Shapes, SingleFile
    from diffusiongpt.flow import Task
    from diffusiongpt.zoo import Component as Taken
    from diffusiongpt.zoo import Expert


_NUMBERS = count(1)
"""Numbers for the names of adapters: no name is used twice, so an adapter that leaves is never mistaken for another."""

SMALL_BYTES = 512 << 20
"""Parts up to this size stay on the device while a model draws offloaded: all autoencoders, and CLIP's encoders."""

_OTHER_BASE = "Check 'base' and 'weight_name' in the zoo file: the adapter was made for another checkpoint."


_Guest = str | Embedding | Control
"""What draws on a base: an adapter by its name, what a text encoder learns for one drawing, or a ControlNet."""


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A pipeline on the host with its weights, and the adapters on it that draw, with those of other requests asleep.

    An adapter shares pipeline and weights with its base and with the other adapters on it. It is known by its name, or
    is what a text encoder learns for one drawing. `dtype` is the type in which the pipeline computes.
    """

    pipe: Any
    weights: Mapping[str, Weights]
    dtype: str | None = None
    guests: tuple[_Guest, ...] = ()

    @property
    def control(self) -> Control | None:
        """The ControlNet among its guests."""
        return next((guest for guest in self.guests if isinstance(guest, Control)), None)

    def view(self, device: str) -> Any:
        """A shallow copy of the pipeline with the modules of a device."""
        view = copy.copy(self.pipe)
        for name, weights in self.weights.items():
            # the pipeline's own way to set an attribute would rewrite its configuration
            view.__dict__[name] = weights.outline(device)
        return view


@dataclass(frozen=True, kw_only=True)
class _Adapter:
    """An adapter as a part: it is present while it is attached, and leaves by being detached."""

    model: _Model
    nbytes: int

    def bring(self, device: str) -> None:
        """Do nothing: it is on the device of its base."""

    def leave(self, device: str) -> None:
        """See `Part.leave`."""
        with slot(device):
            for guest in self.model.guests:
                if isinstance(guest, str):
                    detach(self.model.view(device), guest)
                elif isinstance(guest, Control):
                    guest.leave(device)


def modules_of(have: Mapping[str, Part]) -> dict[str, Any]:
    """Component -> its module on the host, empty or not, for those that are in memory."""
    return {name: part.outline(HOST) for name, part in cast("Mapping[str, Weights]", have).items()}


def held(pipe: Any, device: str, have: Mapping[str, Part]) -> Loaded:
    """A pipeline on the host as the backend draws with it.

    Args:
        pipe: The pipeline.
        device: Where it will draw.
        have: Those of its components that were in memory before; the others are packed now.
    """
    known = cast("Mapping[str, Weights]", have)
    modules = {name: part for name, part in pipe.components.items() if _has_weights(part)}
    weights = {name: known.get(name) or Weights.pack(part) for name, part in modules.items()}
    model = _Model(pipe=pipe, weights=weights, dtype=_dtype_of(weights.values()))
    return Loaded(model=model, device=device, parts=weights)


class DiffusersBackend:
    """Text-to-image through `diffusers.DiffusionPipeline`: cpu, cuda and mps; safetensors only, no remote code.

    Args:
        small_bytes: See `SMALL_BYTES`.
    """

    hosted: Literal[False] = False

    def __init__(self, *, small_bytes: int = SMALL_BYTES) -> None:
        self.small_bytes = small_bytes

    def files(
        self,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
        without: Collection[str] = (),
    ) -> tuple[str, ...]:
        """See `ComposingBackend.files`."""
        return choose_files(names, read, variant=variant, allow_unsafe=allow_unsafe, without=without)

    def component_files(
        self,
        taken: Taken,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
    ) -> tuple[str, ...]:
        """See `ComposingBackend.component_files`."""
        return component_files(taken, names, read, variant=variant, allow_unsafe=allow_unsafe)

    def check_component(
        self, taken: Taken, whole: Listing, own: Listing, shapes: Shapes | None, types: Collection[str] = ()
    ) -> None:
        """See `ComposingBackend.check_component`."""
        check_component(taken, whole, own, shapes, types)

    def recognise(self, name: str, shapes: Shapes) -> SingleFile:
        """See `SingleFileBackend.recognise`."""
        found = recognise(name, shapes)
        check_pipeline(found.pipeline)
        return found

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        return known_tasks(expert)

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        with quiet_construction():
            import diffusers  # noqa: F401  # importing them is the preparation
            import transformers  # noqa: F401  # as above

    def components(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        elsewhere: Mapping[str, Place] | None = None,
    ) -> tuple[Component, ...]:
        """See `ComposingBackend.components`."""
        return components_in(expert, folder, files, device=device, small_bytes=self.small_bytes, elsewhere=elsewhere)

    def load(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        have: Mapping[str, Part],
        elsewhere: Mapping[str, Place] | None = None,
    ) -> Loaded:
        """See `ComposingBackend.load`."""

        def load() -> Loaded:
            there = modules_of(have)
            pipe = build(expert, folder, files, device, there, small_bytes=self.small_bytes, elsewhere=elsewhere)
            return held(pipe, device, have)

        dtype = expert.settings.dtype
        if dtype is not None and dtype in FEW_BITS:
            check_can_quantise(dtype)
        return guarded(load, expert, LoadError, f"could not be built from {folder}")

    def attach(self, base: Loaded, expert: Expert, file: Path) -> Loaded:
        """See `AdapterBackend.attach`."""
        name = f"adapter{next(_NUMBERS)}"

        def put() -> tuple[_Guest, int]:
            pipe = base.model.view(base.device)
            if expert.kind == "control":
                with quiet_construction():
                    control = load_control(pipe, file, base.device, base.model.dtype or "float32")
                return control, control.nbytes
            learnt = embedding_in(file, pipe)
            return (name, attach(pipe, file, name)) if learnt is None else (learnt, learnt.nbytes)

        what = f"could not be attached to {expert.base}"
        with slot(base.device):
            guest, nbytes = guarded(put, expert, LoadError, what, hint=_OTHER_BASE)
        model = replace(base.model, guests=(guest,))
        return Loaded(model=model, device=base.device, parts={name: _Adapter(model=model, nbytes=nbytes)})

    def check_control(self, config: bytes) -> str:
        """See `AdapterBackend.check_control`."""
        with quiet_construction():
            return check_control(config)

    def together(self, guests: Sequence[Loaded]) -> Loaded:
        """See `AdapterBackend.together`."""
        model = replace(guests[0].model, guests=tuple(guest for one in guests for guest in one.model.guests))
        parts = {name: part for one in guests for name, part in one.parts.items()}
        return Loaded(model=model, device=guests[0].device, parts=parts)

    @contextmanager
    def opened(self, loaded: Loaded, *, expert: Expert | None = None) -> Iterator[Any]:
        """See `Backend.opened`; the pipeline has a scheduler of its own."""
        model: _Model = loaded.model
        with self._reserved(loaded, expert) as pipe:
            modules = [weights.outline(loaded.device) for weights in model.weights.values()]
            before = writes(modules)
            try:
                with undone(modules):
                    yield fresh(pipe)
            finally:
                # the caller may have used streams of its own
                finish(loaded.device, everywhere=True)
                if writes(modules) != before:
                    _copy_again(model.weights.values(), loaded.device)

    @contextmanager
    def _reserved(
        self, loaded: Loaded, expert: Expert | None, *, offload: bool = False, stream: bool = False
    ) -> Iterator[Any]:
        """The device for one request, and the pipeline with the expert's scheduler and its adapter active.

        Weights that the pipeline replaced meanwhile are the shared ones again afterwards: some autoencoders turn
        themselves into float32 to decode.
        """
        model: _Model = loaded.model
        # on the host there is nothing to offload to: what left it would be lost
        offload = offload and loaded.device != HOST
        with slot(loaded.device):
            pipe = model.view(loaded.device)
            pipe = pipe if expert is None else scheduled(pipe, expert)
            bring = partial(offloaded, model.weights, loaded.device, self.small_bytes, stream=stream)
            visits = bring() if offload else nullcontext()
            try:
                with visits, _working(pipe, model.guests, expert):
                    yield pipe
            finally:
                finish(loaded.device)
                for weights in () if offload else model.weights.values():
                    weights.restore(loaded.device)

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
        """See `Backend.draw`.

        Each picture is a call of its own with its own seed, not a row of a batch, so that any single one can be made
        again bit for bit, whatever was drawn with it.
        """
        images: list[Image] = []
        if tile and not offload and not decoders(loaded.model.pipe):
            raise OutOfMemoryError(f"{resolved.expert.id} cannot decode by tiles", hint="Draw a smaller picture.")
        with (
            self._reserved(loaded, resolved.expert, offload=offload, stream=stream) as pipe,
            tiled(pipe) if tile else nullcontext(),
        ):
            control = loaded.model.control
            doer = pipeline_for(pipe, resolved.task, control and control.weights.outline(loaded.device))
            # inside, since it counts tokens, and a tokenizer serves one thread at a time
            call, finite = plan_call(doer, resolved, base=pipe), Finite(resolved.expert)
            # elsewhere the encoders are at hand
            encoded = Encoded(loaded.device) if offload and len(resolved.seeds) > 1 else None
            for index, seed in enumerate(resolved.seeds):
                blend = blend_for(doer, resolved, seed)
                steps = Steps(on_step, call, index=index, pictures=len(resolved.seeds), blend=blend)
                images.append(draw_one(doer, call, seed, steps, finite, device=loaded.device, encoded=encoded))
        params = call.used(width=images[0].width, height=images[0].height) if images else {}
        if any(isinstance(guest, str) for guest in loaded.model.guests):
            params["adapter_scale"] = _scale_of(resolved.expert)
        if resolved.expert.settings.scheduler:
            params["scheduler"] = resolved.expert.settings.scheduler.model_dump()
        return Drawing(
            images=tuple(images),
            params=params,
            dropped=call.dropped,
            recovered=tuple(finite.recovered[:1]),
            dtype=loaded.model.dtype,
        )


@contextmanager
def _working(pipe: Any, guests: Sequence[_Guest], expert: Expert | None) -> Iterator[None]:
    """The adapters of a drawing at work: in the order of the expert's parts, of which each has its strength."""
    parts = expert.guests if expert else ()
    scales = [_scale_of(part) for part in parts] if len(parts) == len(guests) else [1.0] * len(guests)
    named = {guest: scale for guest, scale in zip(guests, scales, strict=True) if isinstance(guest, str)}
    learnt = [guest for guest in guests if isinstance(guest, Embedding)]
    with ExitStack() as work:
        if named:
            work.enter_context(activated(pipe, named))
        if learnt:
            work.enter_context(worded(pipe, learnt))
        yield


def _scale_of(expert: Expert | None) -> float:
    return (expert.settings.adapter_scale if expert else None) or 1.0


def _dtype_of(weights: Iterable[Weights]) -> str | None:
    """Type of most parameters of the component that has the most of them, which is that in which it computes."""
    parts = [part.outline(HOST) for part in weights]
    counts = [Counter(str(one.dtype) for one in part.parameters() if one.is_floating_point()) for part in parts]
    largest = max(counts, key=Counter.total, default=Counter())
    return largest.most_common(1)[0][0].removeprefix("torch.") if largest else None


def _copy_again(parts: Iterable[Weights], device: str) -> None:
    """Replace weights on a device that somebody wrote into, as `fuse_lora` does, by those on the host."""
    for weights in parts:
        if device != HOST and HOST in weights.places:
            weights.leave(device)
            weights.bring(device)


def _has_weights(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Module) and any(True for _ in (*part.parameters(), *part.buffers()))
