"""Draws with one expert: resolve, lease, draw, and write down what happened."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from diffusiongpt.backends import Backend, Drawing, Dropped, Resolved, get_backend, is_hosted, known_backends
from diffusiongpt.backends.base import for_adapters
from diffusiongpt.cache import Agree, ModelCache, fingerprint
from diffusiongpt.decision import Readiness, Route
from diffusiongpt.devices import best_device, device_memory
from diffusiongpt.errors import (
    DiffusionGPTError,
    DrawError,
    HubUnreachableError,
    LoadError,
    NeedsKeyError,
    OutOfMemoryError,
    RequestError,
    UnknownExpertError,
)
from diffusiongpt.expert import CallSettings, Expert
from diffusiongpt.generation import Generation
from diffusiongpt.picture import Fallback, PictureRecord, ShownIn
from diffusiongpt.request import Request
from diffusiongpt.resolve import resolve
from diffusiongpt.version import GENERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Zoo

OnProgress = Callable[[str, int, int | None], None]
"""Called with the phase (`"download"`, `"load"` or `"draw"`), how much is done, and of how much."""

WEIGHTS_SHARE = 0.9
"""Share of a device's memory that an expert's weights may take; the rest is for the picture itself."""

CPU_GROWTH = 2.0
"""A CPU computes in float32: weights listed at 16 bits take twice the bytes."""

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A picture may name a commit, which the hub never changes, and no branch or path."""

_NOT_RECORDED = frozenset({"callback_on_step_end"})
_CHECKED = frozenset({"negative_prompt", "width", "height", "num_inference_steps", "guidance_scale"})


class Artist:
    """Turns a route into pictures.

    Args:
        cache: Where experts come from.
        settings: What hosted experts need to know.
        device: Device to draw on; `None` for the best one present.
        agree: Asked about a pull above `max_download_gb`.
        on_progress: Told how far a download, a load or a drawing is.
    """

    def __init__(
        self,
        cache: ModelCache,
        settings: Settings,
        device: str | None = None,
        *,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.cache = cache
        self._settings = settings
        self._device = device
        self._agree = agree
        self._on_progress = on_progress

    @cached_property
    def device(self) -> str:
        """Device that is drawn on."""
        return best_device(self._device)

    @cached_property
    def _room(self) -> int | None:
        memory = device_memory(self.device)
        return None if memory is None else round(memory * WEIGHTS_SHARE)

    def readiness(self, expert: Expert) -> Readiness:
        """What it would take to draw with an expert here; no network. A hosted one is as good as loaded."""
        if is_hosted(expert.backend):
            return self._hosted_readiness(expert)
        if self._is_too_big(expert):
            return "too_big"
        if self.cache.puller.on_disk(expert) is None:
            return "download"
        return "loaded" if self.cache.is_loaded(expert, device=self.device) else "on_disk"

    def check_can_draw(self, expert: Expert, *, hub_is_down: bool = False) -> None:
        """Refuse an expert that cannot draw here and now, before anything is tried.

        Raises:
            OutOfMemoryError: If its weights are larger than the device.
            HubUnreachableError: If it would have to be pulled and the hub was found to be down.
            LoadError: If nothing here can draw with it.
            NeedsKeyError, ServiceError, NeedsExtraError: If it is hosted, and key, network or client are missing.
        """
        if expert.backend not in known_backends():
            raise LoadError(
                f"{expert.id} needs the backend {expert.backend!r}, which is not installed",
                hint=f"Known backends: {', '.join(known_backends())}.",
            )
        backend = get_backend(expert.backend)
        if backend.hosted:
            backend.check(self._settings)
            return
        if expert.kind == "adapter":
            for_adapters(backend, expert)
        if self._is_too_big(expert):
            raise OutOfMemoryError(
                f"{expert.id} needs {self._needed(expert) / 1e9:.1f} GB on {self.device}, "
                f"which has {(self._room or 0) / 1e9:.1f} GB for it",
                hint="Draw on a larger device, or choose a smaller expert.",
            )
        if hub_is_down and not self.cache.puller.find_offline(expert, backend):
            raise HubUnreachableError(
                f"{expert.id} is not on disk and the hub cannot be reached", hint="Try again when there is a network."
            )

    def can_draw(self, expert: Expert) -> bool:
        """Whether nothing known beforehand keeps an expert from drawing here."""
        try:
            self.check_can_draw(expert)
        except DiffusionGPTError:
            return False
        return True

    def draw(
        self,
        request: Request,
        route: Route,
        expert: Expert,
        *,
        zoo: tuple[str, ...],
        fallbacks: tuple[Fallback, ...] = (),
        shown_in: ShownIn | None = None,
    ) -> Generation:
        """Draw a routed request with one expert.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be loaded.
            DrawError: If it failed while drawing.
        """
        self.check_can_draw(expert)
        resolved = resolve(request, route.understanding, expert)
        drawing, weights, timings = self._draw(resolved)
        base = expert.base_expert
        record = PictureRecord(
            generator=GENERATOR,
            zoo=zoo,
            drawn_by=expert.id,
            repo=expert.repo,
            revision=self.cache.puller.commit(expert),
            base=base.repo if base else None,
            base_revision=self.cache.puller.commit(base) if base else None,
            weights=weights,
            repeatable=drawing.repeatable,
            seed=resolved.seeds[0],
            params=_params(resolved, drawing),
            dropped=tuple(_recordable(dropped) for dropped in (*resolved.dropped, *drawing.dropped)),
            fallbacks=fallbacks,
            route=route,
            shown_in=shown_in,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        records = tuple(record.model_copy(update={"seed": seed}) for seed in resolved.seeds)
        seconds = {"route": round(route.timings_ms.get("total", 0.0) / 1000, 4), **timings}
        return Generation(images=drawing.images, records=records, timings=seconds)

    def redraw(self, generation: Generation, zoo: Zoo) -> Generation:
        """Draw a result again from its records.

        Raises:
            DrawError: If the expert takes no seed, so that nobody can.
            UnknownExpertError: If the zoo does not have the expert.
            LoadError: If the expert is another one by now.
            RequestError: If the record asks for what no request of ours could.
        """
        record = generation.records[0]
        if not record.repeatable:
            raise DrawError(
                f"{record.drawn_by} takes no seed, so this picture cannot be drawn again bit for bit",
                hint=f"Keep the file; for another picture, draw the prompt anew with expert={record.drawn_by!r}.",
            )
        expert = _as_strong(self._same_expert(record, zoo), record)
        resolved = Resolved(
            expert=expert,
            prompt=record.params["prompt"],
            negative_prompt=record.params.get("negative_prompt", ""),
            seeds=generation.seeds,
            arguments=_recorded_arguments(record, expert),
        )
        drawing, _, timings = self._draw(resolved, expected_weights=record.weights)
        return replace(generation, images=drawing.images, timings=timings)

    def _same_expert(self, record: PictureRecord, zoo: Zoo) -> Expert:
        expert = _expert_of(record, zoo)
        base = expert.base_expert
        revision = self._commit_to_draw(expert, record.repo, record.revision, record)
        if base is None:
            return expert.at(revision)
        return expert.at(revision, self._commit_to_draw(base, record.base, record.base_revision, record))

    def _commit_to_draw(self, part: Expert, repo: str | None, commit: str | None, record: PictureRecord) -> str | None:
        """The commit of a record where it is another one than is drawn with now; `None` if nothing changes.

        Raises:
            LoadError: If the record speaks of another repository, or of something that may change.
        """
        if part.is_local or commit in (None, self.cache.puller.commit(part)):
            return None
        if repo != part.repo or not COMMIT.fullmatch(commit or ""):
            raise LoadError(
                f"{record.drawn_by} is {part.repo} in this zoo, and was {repo} when the picture was drawn",
                hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}.",
            )
        return commit

    def _draw(
        self, resolved: Resolved, *, expected_weights: str | None = None
    ) -> tuple[Drawing, str | None, Mapping[str, float]]:
        backend = get_backend(resolved.expert.backend)
        start = perf_counter()
        if backend.hosted:
            drawing = backend.draw(resolved, self._settings, on_step=self._on_step)
            return drawing, None, {"load": 0.0, "draw": round(perf_counter() - start, 4)}
        lease = self.cache.lease(
            resolved.expert, backend, device=self.device, agree=self._agree, on_progress=self._on_progress
        )
        with lease as loaded:
            ready = perf_counter()
            weights = self._weights(resolved.expert, backend)
            if expected_weights not in (None, weights):
                raise LoadError(
                    f"{resolved.expert.id} is another checkpoint now than when the picture was drawn",
                    hint="Bring the old files back, or draw the prompt anew.",
                )
            drawing = backend.draw(loaded, resolved, on_step=self._on_step)
        done = perf_counter()
        return drawing, weights, {"load": round(ready - start, 4), "draw": round(done - ready, 4)}

    def _weights(self, expert: Expert, backend: Backend) -> str:
        """Fingerprint of a checkpoint; of an adapter that of its base and its own, joined."""
        if expert.base_expert is not None:
            file = _still_there(self.cache.puller.adapter_on_disk(expert), expert)
            return f"{self._weights(expert.base_expert, backend)}+{fingerprint(file.parent, [file.name])}"
        folder = _still_there(self.cache.puller.on_disk(expert), expert)
        names = tuple(path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file())
        files = backend.files(names, lambda name: (folder / name).read_bytes(), variant=expert.settings.variant)
        return fingerprint(folder, files)

    def _hosted_readiness(self, expert: Expert) -> Readiness:
        try:
            self.check_can_draw(expert)
        except NeedsKeyError:
            return "needs_key"
        except DiffusionGPTError:
            return "download"
        return "loaded"

    def _on_step(self, done: int, total: int) -> None:
        if self._on_progress:
            self._on_progress("draw", done, total)

    def _needed(self, expert: Expert) -> float:
        return (expert.size_bytes or 0) * (CPU_GROWTH if self.device == "cpu" else 1.0)

    def _is_too_big(self, expert: Expert) -> bool:
        return self._room is not None and self._needed(expert) > self._room


def _still_there(place: Path | None, expert: Expert) -> Path:
    if place is None:
        raise LoadError(f"the files of {expert.id} went away while it was loaded", hint="Draw again.")
    return place


def _as_strong(expert: Expert, record: PictureRecord) -> Expert:
    """An adapter with the strength of a record, which is checked like a zoo file's: anybody may have written it."""
    if expert.kind != "adapter" or "adapter_scale" not in record.params:
        return expert
    try:
        scale = CallSettings(adapter_scale=record.params["adapter_scale"]).adapter_scale
    except ValidationError:
        raise RequestError(
            f"adapter_scale={record.params['adapter_scale']!r} makes no sense", hint="It is above 0, and 4 at most."
        ) from None
    settings = expert.settings.model_copy(update={"adapter_scale": scale})
    return expert.model_copy(update={"settings": settings})


def _expert_of(record: PictureRecord, zoo: Zoo) -> Expert:
    try:
        return zoo[record.drawn_by]
    except UnknownExpertError as error:
        raise UnknownExpertError(
            str(error), hint=f"Load the zoo the picture was drawn with: {' + '.join(record.zoo)}."
        ) from None


def _recorded_arguments(record: PictureRecord, expert: Expert) -> dict[str, Any]:
    """The call arguments of a record. Anybody may have written it, so it passes the checks of a request."""
    asked = {name: value for name, value in record.params.items() if name in _CHECKED}
    Request(prompt=record.params["prompt"], seed=record.seed, **asked).checked()
    extra = {name: record.params[name] for name in expert.settings.extra if name in record.params}
    arguments = {name: value for name, value in asked.items() if name != "negative_prompt"}
    return {**extra, **arguments}


def _recordable(dropped: Dropped) -> Dropped:
    """A callback or a tensor cannot be written into a picture; its name can."""
    is_plain = dropped.value is None or isinstance(dropped.value, str | int | float | bool)
    return dropped if is_plain else replace(dropped, value=repr(dropped.value))


def _params(resolved: Resolved, drawing: Drawing) -> dict[str, Any]:
    return {
        name: value
        for name, value in {"prompt": resolved.prompt, **drawing.params}.items()
        if name not in _NOT_RECORDED and value not in (None, "")
    }
